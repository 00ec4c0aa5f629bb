/*
 * Bytes on their way to a file descriptor that takes them when it can.
 */
#include "cli/outflow.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Another open file of the same pipe or terminal, which has flags of its own; -1: not to be had. */
static int open_anew(int fd)
{
    char path[40];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

void outflow_begin(struct outflow *flow, int fd)
{
    struct stat status;
    int own;

    *flow = (struct outflow){.fd = fd, .kind = OUTFLOW_CAREFUL};
    if (fstat(fd, &status))
        return;
    if (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)) {
        flow->kind = OUTFLOW_FILE;
    } else if (S_ISSOCK(status.st_mode)) {
        flow->kind = OUTFLOW_SOCKET;
    } else if (S_ISFIFO(status.st_mode) || isatty(fd)) {
        own = open_anew(fd);
        if (own >= 0) {
            flow->kind = OUTFLOW_OWN;
            flow->fd = own;
        }
    }
}

void outflow_end(struct outflow *flow)
{
    if (flow->kind == OUTFLOW_OWN)
        close(flow->fd);
    free(flow->data);
    flow->data = NULL;
}

static void fail(struct outflow *flow, int error)
{
    flow->error = error;
    flow->size = 0;
}

/* One write. Returns how many bytes were taken; 0: no more now. */
static size_t write_once(struct outflow *flow, const uint8_t *data, size_t size)
{
    struct pollfd pfd = {flow->fd, POLLOUT, 0};
    ssize_t n;

    do {
        if (flow->kind == OUTFLOW_SOCKET)
            n = send(flow->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        else if (flow->kind != OUTFLOW_CAREFUL)
            n = write(flow->fd, data, size);
        else if (poll(&pfd, 1, 0) > 0)
            n = write(flow->fd, data, MIN(size, PIPE_BUF));
        else
            return 0;
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN)
        fail(flow, errno);
    return n > 0 ? (size_t)n : 0;
}

static size_t write_most(struct outflow *flow, const uint8_t *data, size_t size)
{
    size_t done = 0, n;

    while (done < size && (n = write_once(flow, data + done, size - done)) > 0)
        done += n;
    return done;
}

/* Keeps SIZE bytes behind the others. */
static void keep(struct outflow *flow, const uint8_t *data, size_t size)
{
    if (flow->at + flow->size + size > flow->capacity && flow->at > 0) {
        memmove(flow->data, flow->data + flow->at, flow->size);
        flow->at = 0;
    }
    if (flow->size + size > flow->capacity) {
        size_t capacity = 2 * (flow->size + size);
        uint8_t *bigger = realloc(flow->data, capacity);

        if (!bigger) {
            fail(flow, ENOMEM);
            return;
        }
        flow->data = bigger;
        flow->capacity = capacity;
    }
    memcpy(flow->data + flow->at + flow->size, data, size);
    flow->size += size;
}

void outflow_put(struct outflow *flow, const void *data, size_t size)
{
    size_t done = flow->size || flow->error ? 0 : write_most(flow, data, size);

    if (!flow->error && done < size)
        keep(flow, (const uint8_t *)data + done, size - done);
}

void outflow_go_on(struct outflow *flow)
{
    size_t done = flow->size ? write_most(flow, flow->data + flow->at, flow->size) : 0;

    if (flow->error)
        return;
    flow->size -= done;
    flow->at = flow->size ? flow->at + done : 0;
}
