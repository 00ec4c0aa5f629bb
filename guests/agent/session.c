/*
 * One connection of the agent's.
 */
#include "session.h"
#include "command.h"
#include "../agent_protocol.h"
#include "request.h"
#include "system.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define QUIET_MS 200 /* after which a terminal whose session has ended has nothing more to say */

struct session {
    int link, signals;
    struct agent_reader reader;
    char *open; /* the request as it comes, and what struct agent_request points into */
    size_t open_size, open_room;
    bool opened;

    struct agent_command command;
    bool ended; /* it has been waited for */
    uint8_t status;
    size_t last[3];     /* of a stream's pipe when it ended: what is still to be passed on */
    uint32_t credit[3]; /* bytes of OUT and ERR that the host takes */
    uint8_t *input;     /* a ring of AGENT_IN_WINDOW bytes that the command has not taken */
    size_t input_at, input_size;
    bool input_end;
    bool silent; /* the terminal has nobody who could write to it */

    uint8_t frame[AGENT_HEADER + AGENT_PAYLOAD]; /* that is sent */
};

/* The host has gone, or does not keep to the protocol. */
__attribute__((noreturn)) static void hang_up(struct session *s)
{
    if (s->command.pid > 0 && !s->ended)
        agent_command_hang_up(&s->command);
    _exit(0);
}

/* ---- To the host ---- */

/* Sends the frame whose payload of SIZE bytes is in s->frame already. */
static void send_frame(struct session *s, enum agent_type type, size_t size)
{
    size_t done = 0;

    agent_put_header(s->frame, type, size);
    while (done < AGENT_HEADER + size) {
        ssize_t n = send(s->link, s->frame + done, AGENT_HEADER + size - done, MSG_NOSIGNAL);

        if (n > 0)
            done += (size_t)n;
        else if (n < 0 && errno != EINTR)
            hang_up(s);
    }
}

/* Has said its last word: waits until the host has heard it. */
__attribute__((noreturn)) static void finish(struct session *s)
{
    ssize_t n;

    shutdown(s->link, SHUT_WR);
    do
        n = recv(s->link, s->frame, sizeof(s->frame), 0);
    while (n > 0 || (n < 0 && errno == EINTR));
    _exit(0);
}

__attribute__((noreturn)) static void fail(struct session *s, unsigned status, const char *text)
{
    size_t size = strnlen(text, AGENT_SMALL - 1);

    s->frame[AGENT_HEADER] = (uint8_t)status;
    memcpy(s->frame + AGENT_HEADER + 1, text, size);
    send_frame(s, AGENT_FAIL_FRAME, 1 + size);
    finish(s);
}

__attribute__((noreturn)) static void finish_with(struct session *s, uint8_t status)
{
    s->frame[AGENT_HEADER] = status;
    send_frame(s, AGENT_EXIT_FRAME, 1);
    finish(s);
}

/* Passes on what FD, the command's STREAM, has, as far as the credit goes. False: nothing came. */
static bool pass_output(struct session *s, int *fd, enum agent_stream stream)
{
    size_t most = s->credit[stream] < AGENT_PAYLOAD ? s->credit[stream] : AGENT_PAYLOAD;
    ssize_t n;

    if (s->ended && !s->command.terminal && s->last[stream] < most)
        most = s->last[stream];
    if (*fd < 0 || most == 0)
        return false;
    n = read(*fd, s->frame + AGENT_HEADER, most);
    if (n > 0) {
        s->credit[stream] -= (uint32_t)n;
        if (s->ended && !s->command.terminal)
            s->last[stream] -= (size_t)n;
        send_frame(s, stream == AGENT_STREAM_OUT ? AGENT_OUT_FRAME : AGENT_ERR_FRAME, (size_t)n);
        return true;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (s->command.terminal)
        s->silent = true;
    else
        agent_command_close(fd);
    return false;
}

/* ---- To the command ---- */

static void give_credit(struct session *s, size_t size)
{
    s->frame[AGENT_HEADER] = AGENT_STREAM_IN;
    agent_put32(s->frame + AGENT_HEADER + 1, (uint32_t)size);
    send_frame(s, AGENT_CREDIT_FRAME, 5);
}

/* The end of input: on a terminal it is typed. */
static void end_input(struct session *s)
{
    if (s->command.terminal) {
        if (write(s->command.in, "\4", 1) < 0 && errno == EAGAIN)
            return;
    } else {
        agent_command_close(&s->command.in);
    }
    s->input_end = false;
}

static void feed_command(struct session *s)
{
    size_t most = AGENT_IN_WINDOW - s->input_at;
    ssize_t n;

    if (s->input_size > 0) {
        most = most < s->input_size ? most : s->input_size;
        n = s->command.in >= 0 ? write(s->command.in, s->input + s->input_at, most) : (ssize_t)most;
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            /* Nobody will read it. */
            if (!s->command.terminal)
                agent_command_close(&s->command.in);
            n = (ssize_t)most;
        }
        if (n > 0) {
            s->input_at = (s->input_at + (size_t)n) % AGENT_IN_WINDOW;
            s->input_size -= (size_t)n;
            give_credit(s, (size_t)n);
        }
    }
    if (s->input_size == 0 && s->input_end && s->command.in >= 0)
        end_input(s);
}

/* ---- From the host ---- */

/* Bytes of OPEN. */
static void add_request(struct session *s, const struct agent_piece *piece)
{
    if (s->open_size + piece->size > s->open_room) {
        size_t room = 2 * (s->open_size + piece->size);
        char *bigger = realloc(s->open, room);

        if (!bigger)
            fail(s, 126, "out of memory");
        s->open = bigger;
        s->open_room = room;
    }
    memcpy(s->open + s->open_size, piece->data, piece->size);
    s->open_size += piece->size;
}

/* Answers a question with TEXT, which is to fit into the window. */
__attribute__((noreturn)) static void answer(struct session *s, const char *text)
{
    size_t size = strnlen(text, AGENT_PAYLOAD);

    memcpy(s->frame + AGENT_HEADER, text, size);
    send_frame(s, AGENT_OUT_FRAME, size);
    finish_with(s, 0);
}

static void start_command(struct session *s, const struct agent_request *request)
{
    struct agent_failure failure;

    s->input = malloc(AGENT_IN_WINDOW);
    if (!s->input)
        fail(s, 126, "out of memory");
    if (!agent_command_start(request, &s->command, &failure))
        fail(s, failure.status, failure.text);
}

/* OPEN is complete. */
static void open_session(struct session *s)
{
    struct agent_request request;
    int result;

    if (s->open_size == 0)
        hang_up(s);
    result = agent_request_parse(s->open, s->open_size, &request);
    if (result == -EPROTO)
        fail(s, 125, "the agent in the guest is of another version");
    if (result)
        fail(s, 125, "the agent in the guest does not understand the request");
    s->opened = true;
    if (request.wish == AGENT_ADDRESSES)
        answer(s, agent_system_addresses());
    if (request.wish == AGENT_SHUTDOWN) {
        if (!agent_system_shut_down())
            fail(s, 126, "the guest's init cannot be told to power off");
        finish_with(s, 0);
    }
    start_command(s, &request);
    agent_request_free(&request);
    free(s->open);
    s->open = NULL;
}

static void take_input(struct session *s, const struct agent_piece *piece)
{
    size_t at = (s->input_at + s->input_size) % AGENT_IN_WINDOW, first = AGENT_IN_WINDOW - at;

    if (piece->size > AGENT_IN_WINDOW - s->input_size || s->input_end)
        hang_up(s);
    first = first < piece->size ? first : piece->size;
    memcpy(s->input + at, piece->data, first);
    memcpy(s->input, piece->data + first, piece->size - first);
    s->input_size += piece->size;
}

static void take_credit(struct session *s, const struct agent_piece *piece)
{
    unsigned stream = piece->data[0];
    uint32_t count = piece->size == 5 ? agent_get32(piece->data + 1) : 0;

    if (count == 0 || (stream != AGENT_STREAM_OUT && stream != AGENT_STREAM_ERR) ||
        count > AGENT_OUT_WINDOW - s->credit[stream])
        hang_up(s);
    s->credit[stream] += count;
}

static void handle(struct session *s, const struct agent_piece *piece)
{
    if (!s->opened) {
        if (piece->type != AGENT_OPEN_FRAME)
            hang_up(s);
        add_request(s, piece);
        if (piece->last)
            open_session(s);
        return;
    }
    if (piece->type == AGENT_IN_FRAME)
        take_input(s, piece);
    else if (!piece->last)
        return;
    else if (piece->type == AGENT_IN_END_FRAME && piece->size == 0)
        s->input_end = true;
    else if (piece->type == AGENT_CREDIT_FRAME)
        take_credit(s, piece);
    else if (piece->type == AGENT_SIZE_FRAME && piece->size == 4)
        agent_command_resize(&s->command, agent_get16(piece->data), agent_get16(piece->data + 2));
    else if (piece->type == AGENT_SIGNAL_FRAME && piece->size == 1 && piece->data[0] < NSIG) {
        if (!s->ended)
            agent_command_signal(&s->command, piece->data[0]);
    } else
        hang_up(s);
}

static void read_link(struct session *s)
{
    uint8_t bytes[16384];
    struct agent_piece piece;
    ssize_t n = recv(s->link, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        hang_up(s);
    for (ssize_t done = 0; done < n;) {
        done += (ssize_t)agent_read(&s->reader, bytes + done, (size_t)(n - done), &piece);
        if (s->reader.bad)
            hang_up(s);
        if (piece.size || piece.last)
            handle(s, &piece);
    }
}

/* ---- The end ---- */

static size_t readable(int fd)
{
    int size = 0;

    return fd >= 0 && ioctl(fd, FIONREAD, &size) == 0 && size > 0 ? (size_t)size : 0;
}

/* Looks whether the command has ended. What its session still writes to a pipe then, in the
 * background, is not waited for. */
static void reap(struct session *s)
{
    struct signalfd_siginfo info;
    int how;

    while (read(s->signals, &info, sizeof(info)) > 0)
        ;
    if (s->command.pid <= 0 || s->ended || waitpid(s->command.pid, &how, WNOHANG) != s->command.pid)
        return;
    s->ended = true;
    s->status = (uint8_t)(WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how));
    s->last[AGENT_STREAM_OUT] = readable(s->command.out);
    s->last[AGENT_STREAM_ERR] = readable(s->command.err);
}

/* Whether all that the command wrote has been passed on. */
static bool all_passed(const struct session *s, bool quiet)
{
    if (!s->ended)
        return false;
    if (s->command.terminal)
        return s->silent || (quiet && s->credit[AGENT_STREAM_OUT] > 0);
    return (s->command.out < 0 || s->last[AGENT_STREAM_OUT] == 0) &&
           (s->command.err < 0 || s->last[AGENT_STREAM_ERR] == 0);
}

/* Waits. True: nothing has come for a while, from a terminal whose session has ended. */
static bool wait_for_work(struct session *s)
{
    const struct agent_command *c = &s->command;
    bool listen = c->pid > 0 && !s->silent;
    bool feed = c->pid > 0 && c->in >= 0 && s->input_size > 0;
    struct pollfd pfd[5] = {
        {s->link, POLLIN, 0},
        {s->signals, POLLIN, 0},
        {listen && s->credit[AGENT_STREAM_OUT] ? c->out : -1, POLLIN, 0},
        {listen && s->credit[AGENT_STREAM_ERR] ? c->err : -1, POLLIN, 0},
        {feed && !s->silent ? c->in : -1, POLLOUT, 0},
    };
    int n = poll(pfd, 5, s->ended && c->terminal ? QUIET_MS : -1);

    if (n > 0 && pfd[0].revents)
        read_link(s);
    if (n > 0 && pfd[1].revents)
        reap(s);
    return n == 0;
}

void agent_session_serve(int link)
{
    struct session *s = calloc(1, sizeof(*s));
    sigset_t child;
    bool quiet = false;

    if (!s)
        _exit(1);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    signal(SIGCHLD, SIG_DFL);
    s->link = link;
    s->signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signals < 0)
        fail(s, 126, "signalfd fails in the guest");
    s->credit[AGENT_STREAM_OUT] = s->credit[AGENT_STREAM_ERR] = AGENT_OUT_WINDOW;
    s->command = (struct agent_command){.in = -1, .out = -1, .err = -1};
    agent_put32(s->frame + AGENT_HEADER, AGENT_VERSION);
    send_frame(s, AGENT_HELLO_FRAME, 4);
    while (!all_passed(s, quiet)) {
        bool nothing = wait_for_work(s), passed;

        if (s->command.pid <= 0)
            continue;
        feed_command(s);
        passed = pass_output(s, &s->command.out, AGENT_STREAM_OUT);
        passed |= pass_output(s, &s->command.err, AGENT_STREAM_ERR);
        quiet = nothing && !passed;
    }
    finish_with(s, s->status);
}
