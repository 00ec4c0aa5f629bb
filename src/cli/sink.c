/*
 * Bytes waiting to be written to a file descriptor that may not take them at once.
 */
#include "cli/sink.h"

#include "base/util.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void fail(struct sink *sink, int error)
{
    sink->error = error;
    sink->dropped += sink->size;
    sink->size = 0;
}

void sink_put(struct sink *sink, const void *data, size_t size)
{
    if (sink->error) {
        sink->dropped += size;
        return;
    }
    if (sink->size + size > sink->capacity) {
        size_t capacity = 2 * (sink->size + size);
        uint8_t *bigger = realloc(sink->data, capacity);

        if (!bigger) {
            fail(sink, ENOMEM);
            sink->dropped += size;
            return;
        }
        sink->data = bigger;
        sink->capacity = capacity;
    }
    memcpy(sink->data + sink->size, data, size);
    sink->size += size;
}

size_t sink_pending(const struct sink *sink)
{
    return sink->size;
}

static void write_some(struct sink *sink, size_t *done)
{
    ssize_t n;

    /* A pipe that poll(2) reports has room for PIPE_BUF bytes. */
    n = write(sink->fd, sink->data, MIN(sink->size, PIPE_BUF));
    sink->ready = false;
    if (n >= 0) {
        sink->size -= (size_t)n;
        memmove(sink->data, sink->data + n, sink->size);
        *done += (size_t)n;
    } else if (errno != EAGAIN && errno != EINTR) {
        fail(sink, errno);
    }
}

int sink_write(struct sink *sink, size_t *done)
{
    if (sink->size && sink->ready)
        write_some(sink, done);
    *done += sink->dropped;
    sink->dropped = 0;
    return sink->error;
}

void sink_free(struct sink *sink)
{
    free(sink->data);
}
