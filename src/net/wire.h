/*
 * Frames in a stream socket: each follows a head that says how long it is.
 *
 *      QEMU's framing     length (4 bytes, big endian)                      frame
 *      with offloads      length (4 bytes, big endian), struct net_offload, frame
 *
 * The second is spoken only between processes of doppel's own on one host, so the struct is as it
 * is in memory. What comes from the other side may be anything.
 */
#ifndef DOPPEL_NET_WIRE_H
#define DOPPEL_NET_WIRE_H

#include "base/error.h"
#include "net/driver.h"

#include <stdbool.h>
#include <sys/uio.h>

/* What has come and was not used yet. */
struct wire_in {
    uint8_t *buffer;
    size_t start, end; /* what is in it */
    bool offloads;
};

/* What waits to be written, since the socket had no room for it, or since more may follow. */
struct wire_out {
    uint8_t *buffer;
    size_t start, end;
    bool offloads;
};

enum wire_result { WIRE_FRAME, WIRE_NOTHING, WIRE_BROKEN };

int wire_in_create(struct wire_in *in, bool offloads, struct error *err);
int wire_out_create(struct wire_out *out, bool offloads, struct error *err);
/* Forgets what is in it: there is a new connection. */
void wire_in_reset(struct wire_in *in);
void wire_out_reset(struct wire_out *out);
void wire_in_destroy(struct wire_in *in);
void wire_out_destroy(struct wire_out *out);

/* Sets *FRAME to the first frame that has come from FD, which stays until wire_drop. Reads more if
 * there is none. NOTHING: none has come as a whole. BROKEN: the other side is gone, or what it says
 * is no framing. Does not wait. */
enum wire_result wire_peek(struct wire_in *in, int fd, struct net_frame *frame);
void wire_drop(struct wire_in *in);
/* The same for what is in the buffer: reads nothing. */
enum wire_result wire_parse(const struct wire_in *in, struct net_frame *frame);

/* Writes a frame of SIZE bytes, at most NET_FRAME_MOST, to FD, or keeps it to be written together
 * with the next ones by wire_flush. 1: done; 0: there is no room, and nothing was done; -errno: the
 * other side is gone. Does not wait. */
int wire_send(struct wire_out *out, int fd, const struct iovec *iov, unsigned iovs, size_t size,
              const struct net_offload *offload);
/* Writes what was kept. 1: all; 0: there is no room for the rest; -errno. */
int wire_flush(struct wire_out *out, int fd);

/* How much waits to be written, in bytes. */
static inline size_t wire_waiting(const struct wire_out *out)
{
    return out->end - out->start;
}

#endif
