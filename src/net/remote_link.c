/*
 * The socket over which a network gets connections.
 */
#include "net/remote_link.h"

#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PLEASE 'P'

struct answer {
    int32_t code; /* 0: a socket comes along; else a positive errno */
    char text[480];
};

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int remote_link_ask(int link)
{
    static const char please = PLEASE;

    return send(link, &please, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

bool remote_link_await(int link)
{
    char got;
    ssize_t n;

    while ((n = recv(link, &got, 1, MSG_PEEK)) != 0 && (n > 0 ? got != PLEASE : errno == EINTR))
        if (n > 0)
            remote_link_done(link); /* it is no question */
    return n > 0;
}

void remote_link_done(int link)
{
    char got;

    recv(link, &got, 1, MSG_DONTWAIT);
}

bool remote_link_closed(int link)
{
    struct pollfd pfd = {link, 0, 0};

    return poll(&pfd, 1, 0) > 0 && pfd.revents & POLLHUP;
}

int remote_link_answer(int link, int fd, const struct error *err)
{
    struct answer answer = {.code = 0};
    struct iovec iov = {&answer, sizeof(answer)};
    union control control = {.bytes = {0}};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        struct cmsghdr *c;

        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(fd));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    } else {
        answer.code = err->code ? err->code : EIO;
        memcpy(answer.text, err->text, sizeof(answer.text));
    }
    return sendmsg(link, &msg, MSG_NOSIGNAL) == sizeof(answer) ? 0 : -errno;
}

static int take_file(struct msghdr *msg)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    int fd = -1;

    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(fd)))
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    return fd;
}

int remote_link_take(int link, int *fd, struct error *err)
{
    struct answer answer;
    struct iovec iov = {&answer, sizeof(answer)};
    union control control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(link, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return error_set(err, EPIPE, "network: nobody makes connections any more");
    *fd = take_file(&msg);
    if (n == sizeof(answer) && answer.code == 0 && *fd >= 0)
        return 1;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    answer.text[sizeof(answer.text) - 1] = '\0';
    log_clean(answer.text);
    if (n != sizeof(answer) || answer.code <= 0)
        return error_set(err, EPROTO, "network: an answer is none");
    return error_set(err, answer.code, "%s", answer.text);
}
