/*
 * Bytes on their way to a file descriptor of this process's that takes them when it can, at full
 * speed: what cannot be written at once is kept. Whoever shares the descriptor notices nothing: its
 * flags stay.
 */
#ifndef DOPPEL_CLI_OUTFLOW_H
#define DOPPEL_CLI_OUTFLOW_H

#include <stddef.h>
#include <stdint.h>

/* How it is written to without waiting. */
enum outflow_kind {
    OUTFLOW_FILE,    /* it never waits for long: regular files, disks */
    OUTFLOW_SOCKET,  /* by MSG_DONTWAIT */
    OUTFLOW_OWN,     /* opened anew for this process, with O_NONBLOCK: pipes, terminals */
    OUTFLOW_CAREFUL, /* PIPE_BUF bytes whenever poll(2) says that there is room */
};

struct outflow {
    int fd;
    enum outflow_kind kind;
    int error; /* errno of the write that failed; from then on bytes are dropped */
    uint8_t *data;
    size_t at, size, capacity; /* what is kept: SIZE bytes from AT on */
};

/* FD stays the caller's, and open. */
void outflow_begin(struct outflow *flow, int fd);
void outflow_end(struct outflow *flow);

/* Writes or keeps SIZE bytes. */
void outflow_put(struct outflow *flow, const void *data, size_t size);
/* Writes of what is kept as much as is taken. */
void outflow_go_on(struct outflow *flow);

#endif
