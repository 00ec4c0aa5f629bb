/*
 * The process of a virtual switch.
 *
 * Whoever has locked NAME.lock may listen at NAME.sock. The process that starts a switch takes the
 * lock and makes the socket; the switch inherits both, and removes the socket before it lets the
 * lock go. So there is one switch at most, a killed one leaves nothing that is in the way, and a
 * client that meets one at its end tries again.
 */
#include "cli/switch_process.h"

#include "base/time.h"
#include "base/unix_socket.h"
#include "base/util.h"
#include "cli/cli.h"
#include "ctl/home.h"
#include "net/switch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* For a switch to be there, or to answer; and for its first machine to come. */
#define CONNECT_NS (20 * NS_PER_S)
#define FIRST_NS   (10 * NS_PER_S)
#define AGAIN_NS   (10 * NS_PER_MS)
#define BACKLOG    64

struct place {
    const char *name;
    struct sockaddr_un socket;
    char lock[PATH_MAX];
};

static int find_place(const char *name, struct place *place, struct error *err)
{
    char folder[PATH_MAX];
    int ret;

    if (!home_valid_name(name))
        return error_set(err, EINVAL,
                         "'%.100s' is not a name of a switch (lower-case letters, digits and '-', "
                         "at most %d)",
                         name, HOME_NAME_MOST);
    ret = home_folder(HOME_RUNTIME, ".switch", folder, sizeof(folder), err);
    if (ret < 0)
        return ret;
    *place = (struct place){.name = name, .socket = {.sun_family = AF_UNIX}};
    if ((size_t)snprintf(place->socket.sun_path, sizeof(place->socket.sun_path), "%s/%s.sock",
                         folder, name) >= sizeof(place->socket.sun_path) ||
        (size_t)snprintf(place->lock, sizeof(place->lock), "%s/%s.lock", folder, name) >=
            sizeof(place->lock))
        return error_set(err, ENAMETOOLONG, "switch '%s': the path %s/%s.sock is too long", name,
                         folder, name);
    return 0;
}

/* ---- The switch's own process ---- */

static void remove_socket(void *opaque)
{
    const struct place *place = opaque;

    unlink(place->socket.sun_path);
}

/* Leaves this process with LISTENER and LOCK, which are the highest it has, and nothing of who has
 * started it. */
static void become_switch(int listener, int lock)
{
    static const int given[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
    int null = open("/dev/null", O_RDWR);

    prctl(PR_SET_NAME, "doppel-switch");
    for (unsigned i = 0; i < ARRAY_SIZE(given); i++)
        signal(given[i], SIG_DFL);
    for (int fd = 0; null >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    for (unsigned fd = STDERR_FILENO + 1; fd <= (unsigned)MAX(listener, lock); fd++)
        if (fd != (unsigned)listener && fd != (unsigned)lock)
            close((int)fd);
    close_range((unsigned)MAX(listener, lock) + 1, UINT_MAX, 0);
    if (chdir("/") < 0)
        _exit(STATUS_ERROR);
}

/* Starts a process that belongs to no terminal and to no other process. */
static int start(struct place *place, int listener, int lock, struct error *err)
{
    pid_t pid = fork();

    if (pid < 0)
        return error_set(err, errno, "switch '%s': cannot start a process: %s", place->name,
                         strerror(errno));
    if (pid == 0) {
        setsid();
        pid = fork();
        if (pid != 0)
            _exit(pid < 0 ? STATUS_ERROR : 0);
        become_switch(listener, lock);
        switch_serve(place->name, listener, FIRST_NS, remove_socket, place, NULL, NULL);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    return 0;
}

static int make_listener(const struct place *place, struct error *err)
{
    unlink(place->socket.sun_path);
    return unix_socket_listen(place->socket.sun_path, BACKLOG, err);
}

/* Starts the switch, unless somebody is at it. */
static int start_if_free(struct place *place, struct error *err)
{
    int lock = open(place->lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), listener;
    int ret = 0;

    if (lock < 0)
        return error_set(err, errno, "switch '%s': cannot open %s: %s", place->name, place->lock,
                         strerror(errno));
    if (flock(lock, LOCK_EX | LOCK_NB) == 0) {
        listener = make_listener(place, err);
        ret = listener < 0 ? -EIO : start(place, listener, lock, err);
        if (listener >= 0)
            close(listener);
    }
    close(lock);
    return ret;
}

/* ---- Its clients ---- */

/* A connection to the switch, if it is there; -EAGAIN: it is not, or is about to end. */
static int try_connect(const struct place *place, const char *machine, struct error *err)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), ret = -EAGAIN;

    if (fd < 0)
        return error_set(err, errno, "switch '%s': cannot make a socket: %s", place->name,
                         strerror(errno));
    if (connect(fd, (const struct sockaddr *)&place->socket, sizeof(place->socket)) == 0)
        ret = switch_greet(fd, machine, CONNECT_NS, err);
    if (ret == 0)
        return fd;
    close(fd);
    return ret;
}

int switch_process_connect(const char *name, const char *machine, struct error *err)
{
    uint64_t end = time_now_ns() + CONNECT_NS;
    struct place place;
    int ret = find_place(name, &place, err);

    while (ret == 0) {
        int fd = try_connect(&place, machine, err);

        if (fd != -EAGAIN)
            return fd;
        ret = start_if_free(&place, err);
        if (ret == 0 && time_now_ns() > end)
            ret = error_set(err, ETIMEDOUT, "switch '%s': it cannot be reached", name);
        time_sleep_ns(AGAIN_NS);
    }
    return ret;
}
