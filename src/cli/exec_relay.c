/*
 * A command in a guest with the standard streams of this process.
 */
#include "cli/exec_relay.h"

#include "cli/cli.h"
#include "cli/outflow.h"
#include "cli/terminal_guard.h"

#include "base/util.h"
#include "con/tty.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 65536

/* What the command gets, too, and what only this process does something with. */
static const int forwarded[] = {SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2};
static const int own[] = {SIGHUP, SIGWINCH, SIGCONT};

struct relay {
    const struct exec_relay_options *options;
    const struct agent_client_request *request;
    struct agent_client *client;
    struct outflow link, out, err;
    size_t out_told,
        err_told; /* bytes that were given to OUT and ERR, and not yet told of as written */
    int signals;
    sigset_t before;
    uint64_t seen;   /* signals of those forwarded, by number */
    struct tty *tty; /* NULL: no terminal is in raw mode */
    struct terminal_guard guard;
    bool input_open, input_terminal;
    bool lost;  /* the connection has ended too early */
    int status; /* -1: not over */
    uint8_t bytes[CHUNK];
};

/* ---- What the client calls ---- */

static void on_send(void *opaque, const void *data, size_t size)
{
    struct relay *r = opaque;

    outflow_put(&r->link, data, size);
}

static void on_output(void *opaque, int fd, const uint8_t *data, size_t size)
{
    struct relay *r = opaque;

    outflow_put(fd == 1 ? &r->out : &r->err, data, size);
    *(fd == 1 ? &r->out_told : &r->err_told) += size;
}

static const struct agent_client_ops ops = {.send = on_send, .output = on_output};

/* Tells the guest how much has been written. Not from on_output: what is kept would not count yet.
 */
static void tell_written(struct relay *r)
{
    size_t out = r->out_told - r->out.size, err = r->err_told - r->err.size;

    r->out_told -= out;
    r->err_told -= err;
    if (out)
        agent_client_written(r->client, 1, out);
    if (err)
        agent_client_written(r->client, 2, err);
}

/* ---- The terminal ---- */

static void take_terminal(struct relay *r)
{
    if (!r->tty)
        return;
    terminal_guard_begin(&r->guard, r->tty);
    tty_raw(r->tty);
}

static void give_terminal(struct relay *r)
{
    if (!r->tty)
        return;
    tty_cooked(r->tty);
    terminal_guard_end(&r->guard);
}

static void take_size(struct relay *r)
{
    unsigned rows, columns;

    tty_size(STDIN_FILENO, &rows, &columns);
    if (rows && columns)
        agent_client_resize(r->client, rows, columns);
}

/* The user's settings again, until this process goes on. */
static void suspend(struct relay *r)
{
    tty_cooked(r->tty);
    raise(SIGSTOP);
    tty_raw(r->tty);
    take_size(r);
}

/* ---- Signals ---- */

static int open_signals(struct relay *r)
{
    sigset_t set;

    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_SIZE(forwarded); i++)
        sigaddset(&set, forwarded[i]);
    for (unsigned i = 0; i < ARRAY_SIZE(own); i++)
        sigaddset(&set, own[i]);
    if (r->tty)
        sigaddset(&set, SIGTSTP); /* without a raw terminal this process simply stops */
    sigprocmask(SIG_BLOCK, &set, &r->before);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void take_signal(struct relay *r, int number)
{
    bool again = r->seen & 1ull << number;

    if (number == SIGWINCH) {
        take_size(r);
    } else if (number == SIGTSTP) {
        suspend(r);
    } else if (number == SIGHUP) {
        r->status = STATUS_SIGNAL + number;
    } else if (number != SIGCONT) {
        r->seen |= 1ull << number;
        if (again && number != SIGUSR1 && number != SIGUSR2)
            r->status = STATUS_SIGNAL + number;
        agent_client_signal(r->client, number);
    }
}

static void take_signals(struct relay *r)
{
    struct signalfd_siginfo info;

    while (r->status < 0 && read(r->signals, &info, sizeof(info)) == sizeof(info))
        take_signal(r, (int)info.ssi_signo);
}

/* ---- Streams ---- */

static void end_input(struct relay *r)
{
    r->input_open = false;
    agent_client_input_end(r->client);
}

static void read_input(struct relay *r, bool gone)
{
    size_t room = MIN(agent_client_room(r->client), sizeof(r->bytes));
    ssize_t n = room ? read(STDIN_FILENO, r->bytes, room) : -1;

    if (!room)
        return;
    if (n > 0)
        agent_client_input(r->client, r->bytes, (size_t)n);
    else if (n == 0 ? !r->tty || gone : errno != EAGAIN && errno != EINTR)
        end_input(r);
}

/* Whether input is looked at. In the background, a terminal's would stop this process although the
 * command may want none. */
static bool wants_input(const struct relay *r)
{
    return r->input_open && agent_client_room(r->client) > 0 && r->link.size == 0 &&
           (!r->input_terminal || tcgetpgrp(STDIN_FILENO) == getpgrp());
}

static void read_link(struct relay *r)
{
    ssize_t n = recv(r->link.fd, r->bytes, sizeof(r->bytes), MSG_DONTWAIT);

    if (n > 0) {
        agent_client_receive(r->client, r->bytes, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        r->lost = true;
        r->status = STATUS_ERROR;
    }
}

/* Standard output takes no more: a command of this host's would end by SIGPIPE. */
static void check_output(struct relay *r)
{
    if (!r->out.error || r->status >= 0)
        return;
    r->status = r->out.error == EPIPE ? STATUS_SIGNAL + SIGPIPE : STATUS_ERROR;
}

static void check_end(struct relay *r)
{
    bool written = r->out.size == 0 && r->err.size == 0;

    if (agent_client_over(r->client) && written && r->status < 0)
        r->status = agent_client_state(r->client) == AGENT_CLIENT_BROKEN
                        ? STATUS_ERROR
                        : (int)agent_client_status(r->client);
}

static void wait_for_work(struct relay *r)
{
    bool over = agent_client_over(r->client);
    struct pollfd pfd[] = {
        {over ? -1 : r->link.fd, (short)(POLLIN | (r->link.size ? POLLOUT : 0)), 0},
        {r->signals, POLLIN, 0},
        {wants_input(r) ? STDIN_FILENO : -1, POLLIN, 0},
        {r->out.size ? r->out.fd : -1, POLLOUT, 0},
        {r->err.size ? r->err.fd : -1, POLLOUT, 0},
    };

    if (poll(pfd, ARRAY_SIZE(pfd), -1) <= 0)
        return;
    if (pfd[1].revents)
        take_signals(r);
    if (pfd[2].revents && r->status < 0)
        read_input(r, pfd[2].revents & (POLLHUP | POLLERR));
    outflow_go_on(&r->link);
    outflow_go_on(&r->out);
    outflow_go_on(&r->err);
    if (pfd[0].revents & (POLLIN | POLLHUP | POLLERR) && r->status < 0)
        read_link(r);
}

/* ---- The whole ---- */

/* Says what went wrong, on a terminal that is the user's again. */
static void explain(const struct relay *r)
{
    enum agent_client_state state = agent_client_state(r->client);

    if (r->lost)
        complain("the connection with '%s' has ended before the command", r->options->name);
    else if (r->out.error && r->out.error != EPIPE)
        complain("cannot write standard output: %s", strerror(r->out.error));
    else if (state == AGENT_CLIENT_FAILED || state == AGENT_CLIENT_BROKEN)
        complain("cannot run it in '%s': %s", r->options->name, agent_client_failure(r->client));
}

static void run(struct relay *r)
{
    r->input_terminal = isatty(STDIN_FILENO);
    r->input_open = r->options->input;
    if (!r->input_open)
        agent_client_input_end(r->client);
    while (check_end(r), r->status < 0) {
        wait_for_work(r);
        tell_written(r);
        check_output(r);
    }
}

int exec_relay(int link, const struct agent_client_request *request,
               const struct exec_relay_options *options)
{
    struct relay *r = calloc(1, sizeof(*r));
    struct error err = {0};
    int status;

    if (!r) {
        complain("out of memory");
        return STATUS_ERROR;
    }
    r->options = options;
    r->request = request;
    r->status = -1;
    outflow_begin(&r->link, link);
    outflow_begin(&r->out, STDOUT_FILENO);
    outflow_begin(&r->err, STDERR_FILENO);
    r->client = agent_client_create(&ops, r, request, &err);
    if (r->client && request->terminal && options->input && isatty(STDIN_FILENO))
        r->tty = tty_open(STDIN_FILENO, &err);
    r->signals = open_signals(r);
    if (!r->client || r->signals < 0) {
        complain("%s", r->client ? strerror(errno) : err.text);
        r->status = STATUS_ERROR;
    } else {
        take_terminal(r);
        run(r);
        give_terminal(r);
        explain(r);
    }
    close(r->signals);
    sigprocmask(SIG_SETMASK, &r->before, NULL);
    tty_close(r->tty);
    agent_client_destroy(r->client);
    outflow_end(&r->link);
    outflow_end(&r->out);
    outflow_end(&r->err);
    status = r->status;
    free(r);
    return status;
}
