/*
 * What the VM process and its supervisor say to each other.
 */
#include "cli/channel.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

int channel_open(struct channel *supervisor, struct channel *vm, struct error *err)
{
    int notes[2] = {-1, -1}, requests[2] = {-1, -1}, work[2] = {-1, -1};
    int ret = 0;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, notes) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, requests) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, work) < 0)
        ret = error_set(err, errno, "cannot make a pair of sockets: %s", strerror(errno));
    *supervisor = (struct channel){notes[0], requests[0], work[0], getpid()};
    *vm = (struct channel){notes[1], requests[1], work[1], getpid()};
    if (ret < 0) {
        channel_close(supervisor);
        channel_close(vm);
    }
    return ret;
}

void channel_close(struct channel *channel)
{
    if (channel->notes >= 0)
        close(channel->notes);
    if (channel->requests >= 0)
        close(channel->requests);
    if (channel->work >= 0)
        close(channel->work);
    channel->notes = channel->requests = channel->work = -1;
}

bool channel_send_data(int fd, bool wait, enum channel_kind kind, int value, const void *data,
                       size_t size)
{
    struct message message = {.kind = kind, .value = value};
    ssize_t n;

    if (size)
        memcpy(message.text, data, size);
    do {
        n = send(fd, &message, offsetof(struct message, text) + size,
                 MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
    } while (n < 0 && errno == EINTR);
    return n >= 0;
}

bool channel_send(int fd, bool wait, enum channel_kind kind, int value, const char *text)
{
    return channel_send_data(fd, wait, kind, value, text,
                             text ? strnlen(text, CHANNEL_TEXT - 1) : 0);
}

bool channel_receive(int fd, struct message *message, bool *gone)
{
    ssize_t n;

    memset(message, 0, sizeof(*message));
    do {
        n = recv(fd, message, sizeof(*message), MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    *gone = n == 0 || (n < 0 && errno != EAGAIN);
    if (n < (ssize_t)offsetof(struct message, text))
        return false;
    if (message->kind != NOTE_CRASH)
        message->text[CHANNEL_TEXT - 1] = 0;
    if (message->kind == NOTE_STARTED)
        message->facts.engine[sizeof(message->facts.engine) - 1] = 0;
    if (message->kind == WORK || message->kind == DONE)
        message->work.text[sizeof(message->work.text) - 1] = 0;
    return true;
}

void channel_tie(const struct channel *channel)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != channel->supervisor) /* it ended before that */
        _exit(128 + SIGKILL);
}

int channel_ask(const struct channel *channel, enum channel_kind kind)
{
    struct pollfd pfd = {channel->requests, POLLIN, 0};
    struct message answer;
    bool gone = false;

    if (kind == REQUEST_LEND)
        prctl(PR_SET_PDEATHSIG, 0);
    if (!channel_send(channel->requests, true, kind, 0, NULL))
        return -EPIPE;
    while (!channel_receive(channel->requests, &answer, &gone) && !gone)
        poll(&pfd, 1, -1);
    if (gone)
        return -EPIPE;
    if (kind == REQUEST_RETURN)
        channel_tie(channel);
    return answer.value;
}

static void send_line(void *opaque, enum log_level level, const char *text)
{
    const struct channel *channel = opaque;

    channel_send(channel->notes, false, NOTE_LOG, (int)level, text);
}

struct log channel_log(const struct channel *channel)
{
    return (struct log){
        .most = LOG_LEVEL_INFO, .line = send_line, .opaque = (void *)(uintptr_t)channel};
}
