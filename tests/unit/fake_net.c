/*
 * A network that is the test's own.
 */
#include "fake_net.h"

#include "base/util.h"

#include <stdlib.h>
#include <string.h>

struct net fake_net;

void fake_net_make(void)
{
    fake_net_free();
    fake_net = (struct net){.info = {.kind = "fake", .mtu = 9000}, .up = true, .room = UINT32_MAX};
}

void fake_net_free(void)
{
    fake_net_forget();
    for (unsigned i = 0; i < fake_net.next_count; i++)
        free(fake_net.next[i].data);
    fake_net.next_count = 0;
}

void fake_net_put(const void *data, size_t size, const struct net_offload *offload)
{
    struct fake_frame *frame = &fake_net.next[fake_net.next_count];

    if (fake_net.next_count == FAKE_NET_FRAMES)
        return;
    fake_net.next_count++;
    *frame = (struct fake_frame){.data = malloc(size), .size = size};
    memcpy(frame->data, data, size);
    if (offload)
        frame->offload = *offload;
}

void fake_net_ready(void)
{
    if (fake_net.events.ready)
        fake_net.events.ready(fake_net.events.opaque);
}

void fake_net_forget(void)
{
    for (unsigned i = 0; i < fake_net.sent_count; i++)
        free(fake_net.sent[i].data);
    fake_net.sent_count = 0;
}

/* ---- In place of src/net ---- */

struct net *net_open(const struct net_options *options, const struct net_host *host,
                     struct error *err)
{
    return &fake_net;
}

void net_close(struct net *net)
{
    net->closed++;
    net->events = (struct net_events){0};
}

struct net_info net_info(const struct net *net)
{
    return net->info;
}

bool net_up(const struct net *net)
{
    return net->up;
}

unsigned net_forward_port(const struct net *net, unsigned n)
{
    return 0;
}

void net_begin(struct net *net, const struct net_events *events, unsigned accepts)
{
    net->events = *events;
    net->accepts = accepts;
    net->begun++;
}

bool net_send(struct net *net, const struct iovec *iov, unsigned iovs,
              const struct net_offload *offload)
{
    struct fake_frame *frame = &net->sent[net->sent_count];
    size_t size = 0;

    net->asked++;
    if (!net->room)
        return false;
    net->room--;
    if (net->sent_count == FAKE_NET_FRAMES)
        return true;
    for (unsigned i = 0; i < iovs; i++)
        size += iov[i].iov_len;
    *frame = (struct fake_frame){.data = malloc(size), .offload = *offload};
    for (unsigned i = 0; i < iovs; i++) {
        memcpy(frame->data + frame->size, iov[i].iov_base, iov[i].iov_len);
        frame->size += iov[i].iov_len;
    }
    net->sent_count++;
    return true;
}

void net_flush(struct net *net)
{
    net->flushes++;
}

size_t net_next(struct net *net)
{
    return net->next_count ? net->next[0].size : 0;
}

size_t net_peek(struct net *net, void *head, size_t size)
{
    if (net->next_count)
        memcpy(head, net->next[0].data, MIN(size, net->next[0].size));
    return net_next(net);
}

size_t net_receive(struct net *net, const struct iovec *iov, unsigned iovs,
                   struct net_offload *offload)
{
    struct fake_frame *frame = &net->next[0];
    size_t done = 0;

    *offload = frame->offload;
    for (unsigned i = 0; i < iovs && done < frame->size; i++) {
        size_t part = MIN(iov[i].iov_len, frame->size - done);

        memcpy(iov[i].iov_base, frame->data + done, part);
        done += part;
    }
    net->dropped += !iovs;
    free(frame->data);
    memmove(&net->next[0], &net->next[1], --net->next_count * sizeof(net->next[0]));
    return done;
}

void net_pause(struct net *net)
{
}

void net_resume(struct net *net)
{
}

int net_change(struct net *net, const char *text, struct error *err)
{
    return 0;
}

struct where *net_where(struct net *net, unsigned n)
{
    return NULL;
}
