/*
 * Fuzz target: frames that a guest sends into a user network, which is shut in, so that nothing of
 * them leaves this process. The input is a list of records: flags, a length, and bytes.
 */
#include "input.h"

#include "base/util.h"
#include "net/net.h"
#include "net/options.h"

#include <string.h>

static void on_ready(void *opaque)
{
}

static void send_frame(struct net *net, struct input *in)
{
    static uint8_t frame[2048];
    struct net_offload offload = {0};
    unsigned flags = (unsigned)take(in, 1);
    size_t length = MIN(take(in, 2) % sizeof(frame), in->left);
    struct iovec iov = {frame, length};

    memcpy(frame, in->data, length);
    in->data += length;
    in->left -= length;
    if (flags & 1)
        offload = (struct net_offload){.flags = NET_NEEDS_CHECKSUM,
                                       .gso = flags & 2   ? NET_GSO_TCP4
                                              : flags & 4 ? NET_GSO_TCP6
                                                          : 0,
                                       .segment_size = (uint16_t)(flags << 2),
                                       .checksum_start = 34,
                                       .checksum_offset = 16};
    check(net_send(net, &iov, 1, &offload));
    if (flags & 8)
        net_flush(net);
}

static void receive_all(struct net *net)
{
    static uint8_t frame[NET_FRAME_MOST];
    struct iovec iov = {frame, sizeof(frame)};
    struct net_offload offload;
    size_t size;

    while ((size = net_next(net)) > 0) {
        check(size >= NET_FRAME_LEAST && size <= NET_FRAME_MOST);
        check(net_receive(net, &iov, 1, &offload) == size && offload.gso == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct net_host host = {.loop = NULL};
    const struct net_events events = {.ready = on_ready};
    struct input in = {data, size};
    struct net_options options;
    struct net *net;

    check(net_options_parse("user,restrict=on", &options, NULL) == 0);
    net = net_open(&options, &host, NULL);
    net_options_free(&options);
    check(net);
    net_begin(net, &events, 0);
    while (in.left > 3) {
        send_frame(net, &in);
        receive_all(net);
    }
    net_flush(net);
    receive_all(net);
    net_close(net);
    return 0;
}
