/*
 * Connections to the guests of machines that run.
 */
#include "cli/guest_port.h"

#include "base/time.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/ssh_setup.h"
#include "ctl/definition.h"
#include "ctl/registry.h"
#include "ctl/run_folder.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SSH_PORT 22
#define AGAIN_MS 200 /* between two attempts */
#define ATTEMPT_NS                                                                                 \
    (30 * NS_PER_S)    /* for one: a guest that took the connection and does not go on */
#define ANSWER_MOST 32 /* bytes of "OK PORT\n" */

static bool later(uint64_t deadline)
{
    return time_now_ns() >= deadline;
}

/* Waits until FD can be read, or written to. Returns 0 or a negative errno. */
static int await(int fd, short events, uint64_t deadline)
{
    struct pollfd pfd = {fd, events, 0};
    int n;

    do {
        uint64_t now = time_now_ns();

        n = poll(&pfd, 1, now < deadline ? (int)((deadline - now) / NS_PER_MS) + 1 : 0);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n == 0 ? -ETIMEDOUT : 0;
}

int guest_port_choose(const char *name, const char *word, struct guest_port *port,
                      struct error *err)
{
    char folder[PATH_MAX], file[PATH_MAX];
    struct definition definition;
    bool ssh = !strcmp(word, SSH_PORT_WORD);
    int ret = registry_definition(name, folder, file, err);

    if (!ret)
        ret = definition_load(file, &definition, err);
    if (ret)
        return ret;
    *port = (struct guest_port){.name = name, .speaks_first = ssh};
    if (ssh && definition.ssh_port)
        port->tcp = definition.ssh_port;
    else if (!definition_has_vsock(&definition))
        ret = error_set(err, ENXIO, "'%s' has no vsock device (vsock: none in %s)", name, file);
    else if (ssh)
        port->vsock = SSH_PORT;
    else if (!parse_unsigned(word, 1, UINT_MAX - 1, &port->vsock))
        ret = error_set(err, EINVAL, "'%s' is no port (a number, or %s)", word, SSH_PORT_WORD);
    definition_free(&definition);
    return ret;
}

/* ---- One attempt ---- */

static int connect_to(int family, const void *address, socklen_t size, uint64_t deadline)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0, ret = 0;
    socklen_t length = sizeof(error);

    if (fd < 0)
        return -errno;
    if (connect(fd, address, size) < 0)
        ret = -errno;
    if (ret == -EINPROGRESS) {
        ret = await(fd, POLLOUT, deadline);
        if (!ret && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0)
            ret = -error;
    }
    if (!ret)
        return fd;
    close(fd);
    return ret;
}

/* Reads the answer "OK NUMBER\n", and nothing behind it. */
static int read_answer(int fd, uint64_t deadline)
{
    char answer[ANSWER_MOST + 1];

    for (unsigned i = 0; i < ANSWER_MOST; i++) {
        int ret = await(fd, POLLIN, deadline);
        ssize_t n = ret ? 0 : recv(fd, answer + i, 1, 0);

        if (ret)
            return ret;
        if (n <= 0)
            return n < 0 ? -errno : -ECONNREFUSED;
        if (answer[i] == '\n') {
            answer[i] = '\0';
            return !strncmp(answer, "OK ", 3) && strspn(answer + 3, "0123456789") + 3 == i
                       ? 0
                       : -EPROTO;
        }
    }
    return -EPROTO;
}

static int connect_vsock(const char *path, unsigned port, uint64_t deadline)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char request[32];
    int fd, length, ret;

    if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) >=
        sizeof(address.sun_path))
        return -ENAMETOOLONG;
    fd = connect_to(AF_UNIX, &address, sizeof(address), deadline);
    if (fd < 0)
        return fd;
    length = snprintf(request, sizeof(request), "CONNECT %u\n", port);
    ret = send(fd, request, (size_t)length, MSG_NOSIGNAL) == length ? 0 : -EPIPE;
    if (!ret)
        ret = read_answer(fd, deadline);
    if (!ret)
        return fd;
    close(fd);
    return ret;
}

static int connect_tcp(unsigned port, uint64_t deadline)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    return connect_to(AF_INET, &address, sizeof(address), deadline);
}

/* Whether the other side says something, which is left to be read. */
static int await_speech(int fd, uint64_t deadline)
{
    char byte;
    int ret = await(fd, POLLIN, deadline);
    ssize_t n = ret ? 0 : recv(fd, &byte, 1, MSG_PEEK);

    return ret ? ret : n < 0 ? -errno : n == 0 ? -ECONNREFUSED : 0;
}

static int attempt(const struct guest_port *port, const char *path, uint64_t deadline)
{
    int fd =
        port->vsock ? connect_vsock(path, port->vsock, deadline) : connect_tcp(port->tcp, deadline);
    int ret = fd >= 0 && port->speaks_first ? await_speech(fd, deadline) : 0;

    if (ret) {
        close(fd);
        return ret;
    }
    if (fd >= 0) /* for whoever reads and writes from now on */
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    return fd;
}

/* ---- All of them ---- */

/* Fails for good: after the last attempt, which ended with RET. */
static int fail(const struct guest_port *port, unsigned patience, int ret, struct error *err)
{
    char where[40];

    if (port->vsock)
        snprintf(where, sizeof(where), "vsock port %u", port->vsock);
    else
        snprintf(where, sizeof(where), "port %u of 127.0.0.1", port->tcp);
    if (ret == -ENOENT)
        return error_set(err, ENXIO, "'%s' has no vsock device (its definition says so)",
                         port->name);
    if (ret == -ECONNREFUSED || ret == -ETIMEDOUT || ret == -ECONNRESET || ret == -EPIPE)
        return error_set(err, -ret, "'%s' does not answer on %s%s", port->name, where,
                         patience ? " yet (--wait SECONDS waits longer)" : "");
    return error_set(err, -ret, "cannot reach %s of '%s': %s", where, port->name, strerror(-ret));
}

/* Whether another attempt may end differently. */
static bool may_change(int ret)
{
    return ret == -ECONNREFUSED || ret == -ECONNRESET || ret == -EPIPE || ret == -ETIMEDOUT ||
           ret == -EAGAIN || ret == -ENOENT;
}

static int connect_patiently(const struct guest_port *port, unsigned patience,
                             struct progress *progress, struct error *err)
{
    uint64_t start = time_now_ns(), deadline = start + patience * NS_PER_S;
    struct lock_holder holder;
    char path[PATH_MAX];

    for (;;) {
        int ret = run_folder_find(port->name, RUN_VSOCK, path, &holder, err);
        uint64_t until = MAX(MIN(time_now_ns() + ATTEMPT_NS, deadline), start + NS_PER_S);

        if (ret)
            return ret;
        if (!holder.held)
            return error_set(err, ENOENT, "'%s' does not run (doppel run %s)", port->name,
                             port->name);
        ret = attempt(port, path, until);
        if (ret >= 0)
            return ret;
        if (later(deadline) || !may_change(ret))
            return fail(port, patience, ret, err);
        progress_tick(progress, NULL, -1);
        poll(NULL, 0, AGAIN_MS);
    }
}

int guest_port_connect(const struct guest_port *port, unsigned patience, struct error *err)
{
    struct progress progress;
    char what[160];
    int fd;

    snprintf(what, sizeof(what), "waiting for %s", port->name);
    progress_begin(&progress, what);
    fd = connect_patiently(port, patience, &progress, err);
    progress_end(&progress);
    return fd;
}
