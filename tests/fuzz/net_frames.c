/*
 * Fuzz target: what comes over a stream socket, in both framings, and all that is done to a frame
 * that leaves something undone. The first byte chooses the framing; the rest is what the other side
 * sends.
 */
#include "input.h"

#include "base/util.h"
#include "net/offload.h"
#include "net/wire.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint8_t copy[NET_FRAME_MOST], piece[NET_FRAME_MOST];

static void divide(const struct net_frame *frame)
{
    struct offload_split split;
    size_t size, data = 0, count = 0;

    check(offload_split_begin(&split, frame->data, frame->size, &frame->offload));
    while ((size = offload_split_next(&split, piece)) > 0 && count++ < 10000) {
        check(size > split.payload && size <= split.payload + frame->offload.segment_size);
        check(memcmp(piece + split.payload, frame->data + split.payload + data,
                     size - split.payload) == 0);
        data += size - split.payload;
    }
    check(count >= 10000 || split.payload + data == frame->size);
}

static void finish(const struct net_frame *frame)
{
    struct net_offload offload = frame->offload;
    unsigned needs = offload_needs(&offload);

    check(frame->size >= NET_FRAME_LEAST && frame->size <= NET_FRAME_MOST);
    offload_verify(frame->data, frame->size);
    if (!offload_check(frame->data, frame->size, frame->size, &offload))
        return;
    memcpy(copy, frame->data, frame->size);
    if (needs & (NET_TSO4 | NET_TSO6)) {
        divide(frame);
        offload_join(copy, frame->size, &offload);
    } else {
        offload_checksum(copy, frame->size, &offload);
    }
    check(offload_needs(&offload) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct net_frame frame;
    struct wire_in in;
    int ends[2];
    bool more = true;

    if (size < 1 || size > 65536)
        return 0;
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    check(wire_in_create(&in, data[0] & 1, NULL) == 0);
    for (size_t at = 1, part; more && at < size; at += part) {
        part = data[0] & 2 ? MIN(size - at, (size_t)7) : size - at;
        check(send(ends[1], data + at, part, MSG_DONTWAIT) == (ssize_t)part);
        for (;;) {
            enum wire_result result = wire_peek(&in, ends[0], &frame);

            more = result != WIRE_BROKEN;
            if (result != WIRE_FRAME)
                break;
            finish(&frame);
            wire_drop(&in);
        }
    }
    wire_in_destroy(&in);
    close(ends[0]);
    close(ends[1]);
    return 0;
}
