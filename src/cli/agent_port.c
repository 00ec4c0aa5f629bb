/*
 * Finding the agent of a machine that runs, or what there is in its place.
 */
#include "cli/agent_port.h"

#include "../../guests/agent_protocol.h"
#include "base/time.h"
#include "cli/guest_port.h"
#include "cli/progress.h"
#include "cli/ssh_setup.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define AGAIN_MS 200
/* By how much the ssh server may answer earlier than the agent: in a guest that boots, and in one
 * whose agent is just started anew. */
#define AGENT_BOOTS_NS (10 * NS_PER_S)
#define AGENT_ANEW_NS  (1 * NS_PER_S)

/* Whether an ssh server answers. */
static bool ssh_answers(const char *name)
{
    struct guest_port port;
    int fd = guest_port_choose(name, SSH_PORT_WORD, &port, NULL);

    if (fd == 0)
        fd = guest_port_connect(&port, 0, NULL);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int look_for(const char *name, unsigned patience, struct progress *progress, bool *ssh,
                    struct error *err)
{
    const struct guest_port port = {.name = name, .vsock = AGENT_PORT};
    uint64_t deadline = time_now_ns() + patience * NS_PER_S;
    uint64_t answered = 0, grace = AGENT_ANEW_NS;

    for (;;) {
        int fd = guest_port_connect(&port, 0, err);
        uint64_t now;

        if (fd >= 0 || fd == -ENOENT || fd == -EINVAL)
            return fd;
        *ssh = ssh_answers(name);
        now = time_now_ns();
        if (*ssh && !answered)
            answered = now;
        else if (!answered)
            grace = AGENT_BOOTS_NS;
        if (*ssh && (now - answered > grace || now >= deadline))
            return fd;
        if (now >= deadline)
            return error_set(err, ETIMEDOUT,
                             "'%s' does not answer%s: neither doppel's agent nor an ssh server",
                             name, patience ? "" : " yet (--wait SECONDS waits longer)");
        progress_tick(progress, NULL, -1);
        poll(NULL, 0, AGAIN_MS);
    }
}

int agent_port_connect(const char *name, unsigned patience, bool *ssh, struct error *err)
{
    struct progress progress;
    char what[160];
    int fd;

    *ssh = false;
    snprintf(what, sizeof(what), "waiting for %s", name);
    progress_begin(&progress, what);
    fd = look_for(name, patience, &progress, ssh, err);
    progress_end(&progress);
    return fd;
}
