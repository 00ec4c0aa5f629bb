/*
 * Fuzz target: messages of vhost-user, as a hostile other end sends them: in pieces, with any
 * descriptors. No descriptor may stay open, and what passes the checks is sent on and arrives as it
 * was.
 */
#include "input.h"

#include "base/util.h"
#include "dev/vhost/message.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The lowest number that is free: the same before and after, if nothing was left open. */
static int free_number(void)
{
    int fd = dup(0);

    check(fd >= 0);
    close(fd);
    return fd;
}

static void send_piece(int socket, const uint8_t *data, size_t size, unsigned fds)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * 15)];
    } control = {.space = {0}};
    struct iovec iov = {(void *)(uintptr_t)data, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *c;

    if (fds) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * fds);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fds);
        for (unsigned i = 0; i < fds; i++)
            memcpy(CMSG_DATA(c) + i * sizeof(int), &socket, sizeof(int));
    }
    check(sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size);
}

/* Sends what was received, and receives that. */
static void pass_on(const struct vhost_message *m)
{
    struct vhost_reader reader = {.have = 0};
    int pair[2];

    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    check(vhost_send(pair[0], m, 0, -1) == 0);
    check(vhost_receive(&reader, pair[1]) == 1);
    check(reader.message.size == m->size && reader.message.fd_count == m->fd_count);
    check(memcmp(&reader.message.u64, &m->u64, m->size) == 0);
    check(vhost_check(&reader.message));
    vhost_reader_drop(&reader);
    close(pair[0]);
    close(pair[1]);
}

static void look_at(const struct vhost_message *m)
{
    check(m->fd_count <= VHOST_FDS_MAX);
    if (vhost_check(m)) {
        check(m->request < VHOST_REQUESTS && !(m->flags & VHOST_REPLY));
        pass_on(m);
    }
    for (unsigned request = 1; request < VHOST_REQUESTS; request++)
        if (vhost_check_reply(m, (enum vhost_request)request, m->size & 1))
            check(m->request == request && (m->flags & VHOST_REPLY));
    if (vhost_check_backend(m))
        check(m->size == 0 && m->fd_count == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vhost_reader reader = {.have = 0};
    int pair[2], before = free_number(), ret = 0;

    if (size > 4096)
        return 0;
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    while (size >= 2 && ret >= 0) {
        size_t piece = MIN((size_t)data[0] + 1, size - 1);

        /* The first byte is the piece's length; the next, which belongs to it, how many files. */
        send_piece(pair[0], data + 1, piece, data[1] >> 4 & (data[0] & 1 ? 15 : 0));
        data += piece + 1;
        size -= piece + 1;
        while ((ret = vhost_receive(&reader, pair[1])) > 0)
            look_at(&reader.message);
    }
    vhost_reader_drop(&reader);
    close(pair[0]);
    close(pair[1]);
    check(free_number() == before);
    return 0;
}
