/*
 * Bytes waiting to be written to a file descriptor that may not take them at once.
 */
#ifndef DOPPEL_CLI_SINK_H
#define DOPPEL_CLI_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sink {
    int fd;
    bool ready;    /* poll(2) says that a write will not block */
    bool reported; /* for the owner: the user knows of the error */
    int error;     /* errno of the write that failed; from then on bytes are dropped */
    uint8_t *data;
    size_t size, capacity;
    size_t dropped; /* bytes that sink_write has not told of yet */
};

void sink_put(struct sink *sink, const void *data, size_t size);
size_t sink_pending(const struct sink *sink);
/* Writes what can be written without blocking. Adds to *DONE how many bytes are done with: written,
 * or dropped because of an error. Returns the error. */
int sink_write(struct sink *sink, size_t *done);
void sink_free(struct sink *sink);

#endif
