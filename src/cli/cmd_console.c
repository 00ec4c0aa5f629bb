/*
 * `doppel console`: the console of a machine in the background, on this terminal.
 */
#include "cli/arguments.h"
#include "cli/cli.h"

#include "base/unix_socket.h"
#include "base/util.h"
#include "base/write_all.h"
#include "con/keys.h"
#include "con/tty.h"
#include "ctl/doppel.h"
#include "ctl/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const struct arguments arguments = {
    .name = "console",
    .usage =
        "Usage: doppel console NAME\n"
        "Shows the console of a machine in the background, beginning with the last 64 KiB that "
        "it has\n"
        "printed, and types to it. Ctrl-A D leaves it, Ctrl-A H lists the keys. Without a "
        "terminal,\n"
        "standard input is typed.\n",
    .specs = specs};

struct view {
    const char *name;
    int fd, signal_fd;
    struct tty *tty; /* NULL: standard input is no terminal */
    struct keys keys;
    struct doppel_control *control; /* to tell the size of the terminal; or NULL */
    bool input_ended;
};

/* How a turn has ended. */
enum turn { TURN_GO_ON, TURN_LEAVE, TURN_ENDED, TURN_FAILED, TURN_SIGNAL };

static void tell_size(const struct view *v)
{
    unsigned rows, columns;
    char arguments_text[64];

    if (!v->control || !isatty(STDOUT_FILENO))
        return;
    tty_size(STDOUT_FILENO, &rows, &columns);
    snprintf(arguments_text, sizeof(arguments_text), "{\"rows\": %u, \"columns\": %u}", rows,
             columns);
    doppel_control_send(v->control, "console-size", arguments_text, NULL);
}

/* Sends what was typed. A machine that takes nothing does not keep the user: what it has no room
 * for is lost, as on a real keyboard, while a file is sent at the pace of the guest. */
static enum turn type(struct view *v)
{
    uint8_t bytes[1024];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));
    size_t size = n > 0 ? (size_t)n : 0;
    enum keys_action action = v->tty ? keys_filter(&v->keys, bytes, &size) : KEYS_NONE;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return TURN_GO_ON;
    if (n <= 0 && v->tty) /* in raw mode, 0 is no end */
        return n == 0 ? TURN_GO_ON : TURN_LEAVE;
    v->input_ended = n <= 0;
    for (size_t done = 0; done < size;) {
        struct pollfd pfd = {v->fd, POLLOUT, 0};
        ssize_t sent = send(v->fd, bytes + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return TURN_ENDED;
        done += sent > 0 ? (size_t)sent : 0;
        if (done < size && poll(&pfd, 1, v->tty ? 100 : -1) == 0)
            break;
    }
    if (action == KEYS_HELP)
        write_all(STDOUT_FILENO, keys_help_apart, strlen(keys_help_apart));
    return action == KEYS_DETACH || action == KEYS_QUIT ? TURN_LEAVE : TURN_GO_ON;
}

static enum turn show(const struct view *v)
{
    char bytes[16384];
    ssize_t n = recv(v->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return TURN_GO_ON;
    if (n <= 0)
        return TURN_ENDED;
    return write_all(STDOUT_FILENO, bytes, (size_t)n) < 0 ? TURN_FAILED : TURN_GO_ON;
}

static enum turn heed_signals(const struct view *v)
{
    struct signalfd_siginfo info;
    enum turn turn = TURN_GO_ON;

    while (read(v->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGWINCH)
            tell_size(v);
        else
            turn = TURN_SIGNAL;
    }
    return turn;
}

static enum turn relay(struct view *v)
{
    enum turn turn = TURN_GO_ON;

    while (turn == TURN_GO_ON) {
        struct pollfd pfd[] = {{v->fd, POLLIN, 0},
                               {v->signal_fd, POLLIN, 0},
                               {v->input_ended ? -1 : STDIN_FILENO, POLLIN, 0}};

        if (poll(pfd, ARRAY_SIZE(pfd), -1) < 0)
            continue;
        if (pfd[1].revents)
            turn = heed_signals(v);
        if (turn == TURN_GO_ON && pfd[0].revents)
            turn = show(v);
        if (turn == TURN_GO_ON && pfd[2].revents)
            turn = type(v);
    }
    return turn;
}

static int take_signals(void)
{
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH};
    sigset_t set;

    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_SIZE(taken); i++)
        sigaddset(&set, taken[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Connects to the console. */
static int open_view(struct view *v, struct error *err)
{
    char path[PATH_MAX];
    struct lock_holder holder;
    int ret = run_folder_find(v->name, RUN_CONSOLE, path, &holder, err);

    if (ret)
        return ret;
    if (!holder.held)
        return run_folder_not_running(v->name, err);
    if (access(path, F_OK) != 0)
        return error_set(err, ENOENT,
                         "'%s' was not started in the background: its console is where "
                         "process %ld runs",
                         v->name, (long)holder.pid);
    v->fd = unix_socket_connect(path, err);
    if (v->fd < 0)
        return v->fd;
    v->signal_fd = take_signals();
    if (v->signal_fd < 0)
        return error_set(err, errno, "cannot make an event file: %s", strerror(errno));
    v->control = doppel_control_open(v->name, NULL);
    if (isatty(STDIN_FILENO) && !(v->tty = tty_open(STDIN_FILENO, err)))
        return -err->code;
    return 0;
}

static int end(struct view *v, enum turn turn)
{
    const char *line = v->tty ? "\n" : "";

    switch (turn) {
    case TURN_LEAVE: fprintf(stderr, "%s", line); return 0;
    case TURN_SIGNAL: return STATUS_SIGNAL + SIGTERM;
    case TURN_FAILED:
        complain("cannot write standard output: %s", strerror(errno));
        return STATUS_ERROR;
    default:
        if (v->tty)
            fprintf(stderr, "\n'%s' has ended\n", v->name);
        return 0;
    }
}

int cmd_console(char **argv)
{
    struct argument_words words = {.names = "NAME", .least = 1, .most = 1};
    const struct argument_setting settings[] = {[OPT_HELP] = {0}};
    int status = arguments_read(&arguments, settings, argv, &words);
    struct view v = {.fd = -1, .signal_fd = -1};
    struct error err = {0};

    if (status != ARGUMENTS_GO_ON)
        return status;
    v.name = words.word[0];
    if (open_view(&v, &err) < 0) {
        complain("%s", err.text);
        status = STATUS_ERROR;
    } else {
        enum turn turn;

        tell_size(&v);
        if (v.tty)
            tty_raw(v.tty);
        turn = relay(&v);
        if (v.tty)
            tty_cooked(v.tty);
        status = end(&v, turn);
    }
    tty_close(v.tty);
    doppel_control_close(v.control);
    if (v.fd >= 0)
        close(v.fd);
    if (v.signal_fd >= 0)
        close(v.signal_fd);
    return status;
}
