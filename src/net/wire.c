/*
 * Frames in a stream socket.
 */
#include "net/wire.h"

#include "base/buffers.h"
#include "base/util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* What is read at once. */
#define IN_SIZE (256 * KiB)
/* What waits to be written: no new frame is taken while more than the first does. */
#define OUT_MOST (64 * KiB)
#define OUT_SIZE (OUT_MOST + HEAD_MOST + NET_FRAME_MOST)
/* Smaller frames are kept, to be written together. */
#define TOGETHER 8192u
/* Pieces that are written from where they are. */
#define PIECES_MOST 62u

#define LENGTH    sizeof(uint32_t)
#define HEAD_MOST (LENGTH + sizeof(struct net_offload))

static size_t head_size(bool offloads)
{
    return offloads ? HEAD_MOST : LENGTH;
}

static int create(uint8_t **buffer, size_t size, struct error *err)
{
    *buffer = malloc(size);
    return *buffer ? 0 : error_set(err, ENOMEM, "network: out of memory");
}

/* ---- In ---- */

int wire_in_create(struct wire_in *in, bool offloads, struct error *err)
{
    *in = (struct wire_in){.offloads = offloads};
    return create(&in->buffer, IN_SIZE, err);
}

void wire_in_reset(struct wire_in *in)
{
    in->start = in->end = 0;
}

void wire_in_destroy(struct wire_in *in)
{
    free(in->buffer);
    in->buffer = NULL;
}

static size_t length_at(const uint8_t *at)
{
    uint32_t length;

    memcpy(&length, at, sizeof(length));
    return ntohl(length);
}

enum wire_result wire_parse(const struct wire_in *in, struct net_frame *frame)
{
    size_t have = in->end - in->start, head = head_size(in->offloads), length;
    uint8_t *at = in->buffer + in->start;

    if (have < LENGTH)
        return WIRE_NOTHING;
    length = length_at(at);
    if (length < NET_FRAME_LEAST || length > NET_FRAME_MOST)
        return WIRE_BROKEN;
    if (have < head + length)
        return WIRE_NOTHING;
    *frame = (struct net_frame){.data = at + head, .size = length};
    if (in->offloads)
        memcpy(&frame->offload, at + LENGTH, sizeof(frame->offload));
    return WIRE_FRAME;
}

/* Reads what there is room for. False: nothing more has come. */
static enum wire_result fill(struct wire_in *in, int fd)
{
    ssize_t n;

    if (in->start == in->end) {
        in->start = in->end = 0;
    } else if (IN_SIZE - in->start < HEAD_MOST + NET_FRAME_MOST) { /* the frame might not fit */
        memmove(in->buffer, in->buffer + in->start, in->end - in->start);
        in->end -= in->start;
        in->start = 0;
    }
    do {
        n = recv(fd, in->buffer + in->end, IN_SIZE - in->end, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n > 0)
        in->end += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        return WIRE_BROKEN;
    return n > 0 ? WIRE_FRAME : WIRE_NOTHING;
}

enum wire_result wire_peek(struct wire_in *in, int fd, struct net_frame *frame)
{
    enum wire_result result = wire_parse(in, frame);

    while (result == WIRE_NOTHING) {
        result = fill(in, fd);
        if (result != WIRE_FRAME)
            return result;
        result = wire_parse(in, frame);
    }
    return result;
}

void wire_drop(struct wire_in *in)
{
    in->start += head_size(in->offloads) + length_at(in->buffer + in->start);
}

/* ---- Out ---- */

int wire_out_create(struct wire_out *out, bool offloads, struct error *err)
{
    *out = (struct wire_out){.offloads = offloads};
    return create(&out->buffer, OUT_SIZE, err);
}

void wire_out_reset(struct wire_out *out)
{
    out->start = out->end = 0;
}

void wire_out_destroy(struct wire_out *out)
{
    free(out->buffer);
    out->buffer = NULL;
}

/* Keeps the pieces, but for the first SKIP bytes. There is room. */
static void keep(struct wire_out *out, const struct iovec *iov, unsigned iovs, size_t skip)
{
    size_t rest;

    if (out->start > 0) {
        memmove(out->buffer, out->buffer + out->start, wire_waiting(out));
        out->end -= out->start;
        out->start = 0;
    }
    rest = buffers_length(iov, iovs) - skip;
    buffers_gather(iov, skip, out->buffer + out->end, rest);
    out->end += rest;
}

/* Writes the pieces. Returns how many bytes were written, or -errno. */
static ssize_t write_pieces(int fd, struct iovec *iov, unsigned iovs)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = iovs};
    ssize_t n;

    do {
        n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
}

int wire_flush(struct wire_out *out, int fd)
{
    while (wire_waiting(out) > 0) {
        struct iovec iov = {out->buffer + out->start, wire_waiting(out)};
        ssize_t n = write_pieces(fd, &iov, 1);

        if (n <= 0)
            return (int)n;
        out->start += (size_t)n;
    }
    wire_out_reset(out);
    return 1;
}

/* Writes HEAD and the pieces, and keeps what the socket has no room for. */
static int send_now(struct wire_out *out, int fd, struct iovec *all, unsigned count)
{
    ssize_t n = write_pieces(fd, all, count);

    if (n < 0)
        return (int)n;
    keep(out, all, count, (size_t)n);
    return 1;
}

int wire_send(struct wire_out *out, int fd, const struct iovec *iov, unsigned iovs, size_t size,
              const struct net_offload *offload)
{
    uint8_t head[HEAD_MOST];
    uint32_t length = htonl((uint32_t)size);
    struct iovec all[PIECES_MOST + 1] = {{head, head_size(out->offloads)}};
    bool large = size >= TOGETHER && iovs <= PIECES_MOST;

    if (wire_waiting(out) > OUT_MOST || (large && wire_waiting(out) > 0)) {
        int ret = wire_flush(out, fd);

        if (ret < 0)
            return ret;
        if (wire_waiting(out) > OUT_MOST)
            return 0;
    }
    memcpy(head, &length, sizeof(length));
    memcpy(head + LENGTH, offload, sizeof(*offload));
    if (large && wire_waiting(out) == 0) {
        memcpy(&all[1], iov, iovs * sizeof(iov[0]));
        return send_now(out, fd, all, iovs + 1);
    }
    keep(out, all, 1, 0);
    keep(out, iov, iovs, 0);
    return 1;
}
