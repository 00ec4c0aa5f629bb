/*
 * The socket between a disk's process and the process that uses the disk.
 */
#include "blk/isolated/link.h"

#include "base/util.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room beside a hello for the kernel's word on its sender. */
union sender {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(struct ucred))];
};

int isolated_send_hello(int link, const struct isolated_hello *hello)
{
    const struct ucred self = {.pid = getpid(), .uid = getuid(), .gid = getgid()};
    struct iovec iov = {(void *)(uintptr_t)hello, sizeof(*hello)};
    union sender sender = {.space = {0}};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &sender, .msg_controllen = sizeof(sender)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    ssize_t n;

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_CREDENTIALS;
    c->cmsg_len = CMSG_LEN(sizeof(self));
    memcpy(CMSG_DATA(c), &self, sizeof(self));
    do {
        n = sendmsg(link, &msg, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

static bool is_good(const struct isolated_hello *h)
{
    return (h->block == 512 || h->block == 4096) && h->size % h->block == 0 &&
           h->size <= INT64_MAX && h->optimal && !(h->optimal & (h->optimal - 1)) &&
           h->format <= BLK_QCOW2;
}

int isolated_hear_senders(int link)
{
    const int on = 1;

    return setsockopt(link, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ? -errno : 0;
}

/* The process that has sent MSG, by the kernel's word; 0: it is not known. */
static pid_t sender_of(struct msghdr *msg)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    struct ucred sender;

    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS ||
        c->cmsg_len != CMSG_LEN(sizeof(sender)))
        return 0;
    memcpy(&sender, CMSG_DATA(c), sizeof(sender));
    return sender.pid;
}

int isolated_receive_hello(int link, struct isolated_hello *hello, pid_t *sender)
{
    struct iovec iov = {hello, sizeof(*hello)};
    union sender control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n;

    do {
        n = recvmsg(link, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        return -EPIPE;
    if (n < 0)
        return 0;
    *sender = sender_of(&msg);
    hello->text[sizeof(hello->text) - 1] = 0;
    if (n != sizeof(*hello) || hello->version != ISOLATED_VERSION ||
        (!hello->error && !is_good(hello)))
        return -EPROTO;
    return 1;
}

/* Room beside a message for the descriptors. */
union control {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int) * ISOLATED_FILES)];
};

int isolated_send_start(int link, uint64_t number, const int files[ISOLATED_FILES])
{
    struct isolated_start start = {.version = ISOLATED_VERSION, .number = number};
    union control control = {.space = {0}};
    struct iovec iov = {&start, sizeof(start)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    ssize_t n;

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * ISOLATED_FILES);
    memcpy(CMSG_DATA(c), files, sizeof(int) * ISOLATED_FILES);
    do {
        n = sendmsg(link, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* Takes the descriptors of MSG. Returns how many there were. Closes those that FILES has no room
 * for: alignment can leave room for one more in the control buffer. */
static unsigned take_files(struct msghdr *msg, int files[ISOLATED_FILES])
{
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    unsigned count;

    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
        return 0;
    count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (unsigned i = 0; i < count; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
        if (i < ISOLATED_FILES)
            files[i] = fd;
        else
            close(fd);
    }
    return count;
}

/* Waits for a start. 1: it is the one with NUMBER; 0: it is for another, and was dropped. */
static int receive_one(int link, uint64_t number, int files[ISOLATED_FILES])
{
    struct isolated_start start = {.version = 0};
    union control control;
    struct iovec iov = {&start, sizeof(start)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(link, &msg, MSG_CMSG_CLOEXEC);
    unsigned count;

    if (n < 0 && errno == EINTR)
        return 0;
    if (n <= 0)
        return -EPIPE;
    count = take_files(&msg, files);
    if (n == sizeof(start) && count == ISOLATED_FILES && start.version == ISOLATED_VERSION &&
        start.number == number)
        return 1;
    for (unsigned i = 0; i < MIN(count, ISOLATED_FILES); i++)
        close(files[i]);
    return n == sizeof(start) ? 0 : -EPROTO;
}

int isolated_receive_start(int link, uint64_t number, int files[ISOLATED_FILES])
{
    int ret;

    do {
        ret = receive_one(link, number, files);
    } while (ret == 0);
    return ret < 0 ? ret : 0;
}
