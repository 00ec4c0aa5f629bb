/*
 * The socket between a process that is kept running and the process that uses it.
 */
#include "base/kept_link.h"

#include "base/log.h"
#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room beside a hello for the kernel's word on its sender. */
union sender {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(struct ucred))];
};

struct kept_hello kept_link_hello(void)
{
    return (struct kept_hello){.version = KEPT_LINK_VERSION,
                               .number = time_now_ns() ^ (uint64_t)getpid() << 40};
}

struct kept_hello kept_link_apology(const struct error *why)
{
    struct kept_hello hello = {.version = KEPT_LINK_VERSION, .error = why->code};

    memcpy(hello.text, why->text, MIN(sizeof(hello.text), sizeof(why->text)));
    hello.text[sizeof(hello.text) - 1] = 0;
    return hello;
}

int kept_link_send_hello(int link, const struct kept_hello *hello)
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

int kept_link_hear_senders(int link)
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

int kept_link_receive_hello(int link, struct kept_hello *hello, pid_t *sender)
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
    return n == sizeof(*hello) && hello->version == KEPT_LINK_VERSION ? 1 : -EPROTO;
}

int kept_link_await_hello(int link, uint64_t ns, struct kept_hello *hello, pid_t *sender,
                          struct error *err)
{
    uint64_t end = time_now_ns() + ns, now;
    int ret = kept_link_hear_senders(link);

    if (ret < 0)
        return error_set(err, -ret, "cannot set up its socket: %s", strerror(-ret));
    while ((ret = kept_link_receive_hello(link, hello, sender)) == 0 &&
           (now = time_now_ns()) < end) {
        struct pollfd pfd = {link, POLLIN, 0};

        poll(&pfd, 1, (int)((end - now) / NS_PER_MS) + 1);
    }
    if (ret == 0)
        return error_set(err, ETIMEDOUT, "its process does not open it");
    if (ret < 0)
        return error_set(err, -ret, "its process %s",
                         ret == -EPIPE ? "has ended" : "breaks the rules");
    log_clean(hello->text);
    return hello->error ? error_set(err, hello->error, "%s", hello->text) : 0;
}

/* ---- Files ---- */

/* Room beside a message for the descriptors. */
union control {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int) * KEPT_LINK_FILES_MOST)];
};

int kept_link_send_files(int link, uint64_t number, const int *files, unsigned count)
{
    struct kept_start start = {.version = KEPT_LINK_VERSION, .number = number};
    union control control = {.space = {0}};
    struct iovec iov = {&start, sizeof(start)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    ssize_t n;

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(c), files, sizeof(int) * count);
    do {
        n = sendmsg(link, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* Takes the descriptors of MSG: up to COUNT into FILES. Returns how many there were. Closes those
 * that FILES has no room for: alignment can leave room for one more in the control buffer. */
static unsigned take_files(struct msghdr *msg, int *files, unsigned count)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    unsigned found;

    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
        return 0;
    found = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (unsigned i = 0; i < found; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
        if (i < count)
            files[i] = fd;
        else
            close(fd);
    }
    return found;
}

/* Waits for files. 1: they are those with NUMBER; 0: they are others, and were dropped. */
static int receive_one(int link, uint64_t number, int *files, unsigned count)
{
    struct kept_start start = {.version = 0};
    union control control;
    struct iovec iov = {&start, sizeof(start)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(link, &msg, MSG_CMSG_CLOEXEC);
    unsigned found;

    if (n < 0 && errno == EINTR)
        return 0;
    if (n <= 0)
        return -EPIPE;
    found = take_files(&msg, files, count);
    if (n == sizeof(start) && found == count && start.version == KEPT_LINK_VERSION &&
        start.number == number)
        return 1;
    for (unsigned i = 0; i < MIN(found, count); i++)
        close(files[i]);
    return n == sizeof(start) ? 0 : -EPROTO;
}

int kept_link_receive_files(int link, uint64_t number, int *files, unsigned count)
{
    int ret;

    do {
        ret = receive_one(link, number, files, count);
    } while (ret == 0);
    return ret < 0 ? ret : 0;
}
