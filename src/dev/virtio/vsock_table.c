/*
 * The connections of a virtio socket device.
 */
#include "dev/virtio/vsock_private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

static struct vsock_connection **bucket_of(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
    return &v->bucket[(guest_port ^ (host_port * 0x9E3779B1u) >> 24) % VSOCK_BUCKETS];
}

void vsock_table_init(struct vsock *v)
{
    v->next_port = VSOCK_CLIENT_PORTS;
}

static uint64_t number_of(const struct vsock *v, const struct vsock_connection *c)
{
    return (uint64_t)(c - v->connection) | (uint64_t)c->generation << 32;
}

struct vsock_connection *vsock_of_event(struct vsock *v, uint64_t number)
{
    uint32_t index = (uint32_t)number;
    struct vsock_connection *c = index < v->slots ? &v->connection[index] : NULL;

    return c && c->stage != VSOCK_FREE && c->generation == number >> 32 ? c : NULL;
}

bool vsock_is_full(const struct vsock *v)
{
    return !v->unused && v->slots == VSOCK_CONNECTIONS;
}

struct vsock_connection *vsock_add(struct vsock *v, int fd, enum vsock_stage stage)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    struct vsock_connection *c;

    if (vsock_is_full(v))
        return NULL;
    c = v->unused ? v->unused : &v->connection[v->slots];
    event.data.u64 = number_of(v, c);
    if (epoll_ctl(v->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return NULL;
    if (v->unused)
        v->unused = c->next;
    else
        v->slots++;
    *c = (struct vsock_connection){.generation = c->generation, .fd = fd, .stage = stage};
    return c;
}

static bool has_name(const struct vsock_connection *c)
{
    return c->window != 0;
}

void vsock_name(struct vsock *v, struct vsock_connection *c, uint32_t guest_port,
                uint32_t host_port)
{
    struct vsock_connection **bucket = bucket_of(v, guest_port, host_port);

    c->guest_port = guest_port;
    c->host_port = host_port;
    c->window = v->wide < VSOCK_WIDE ? VSOCK_WIDE_WINDOW : VSOCK_WINDOW;
    v->wide += c->window == VSOCK_WIDE_WINDOW;
    c->next = *bucket;
    *bucket = c;
}

struct vsock_connection *vsock_find(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
    struct vsock_connection *c = *bucket_of(v, guest_port, host_port);

    while (c && (c->guest_port != guest_port || c->host_port != host_port))
        c = c->next;
    return c;
}

uint32_t vsock_client_port(struct vsock *v, uint32_t guest_port)
{
    uint32_t port;

    do {
        port = v->next_port++;
        if (v->next_port == 2 * VSOCK_CLIENT_PORTS)
            v->next_port = VSOCK_CLIENT_PORTS;
    } while (vsock_find(v, guest_port, port));
    return port;
}

/* Takes it out of its bucket, but for its window: it is no longer found. */
static void forget_name(struct vsock *v, struct vsock_connection *c)
{
    struct vsock_connection **at = bucket_of(v, c->guest_port, c->host_port);

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
}

void vsock_drop_kept(struct vsock_connection *c)
{
    free(c->out);
    c->out = NULL;
    c->forwarded = c->received;
}

static void close_socket(struct vsock_connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->readable = false;
    vsock_drop_kept(c);
}

void vsock_remove(struct vsock *v, struct vsock_connection *c)
{
    close_socket(c);
    fifo_remove(c->stage == VSOCK_GREETING ? &v->greetings : &v->ready, &c->link);
    if (has_name(c) && c->stage != VSOCK_DRAINING)
        forget_name(v, c);
    v->wide -= c->window == VSOCK_WIDE_WINDOW;
    *c = (struct vsock_connection){.generation = c->generation + 1, .fd = -1, .next = v->unused};
    v->unused = c;
}

void vsock_drain(struct vsock *v, struct vsock_connection *c)
{
    if (c->stage != VSOCK_OPEN || c->hung || !(c->guest_over & VSOCK_NO_SEND) || !vsock_kept(c)) {
        vsock_remove(v, c);
        return;
    }
    fifo_remove(&v->ready, &c->link);
    forget_name(v, c);
    c->stage = VSOCK_DRAINING;
    c->tell = 0;
    c->readable = false;
}

bool vsock_is_known(const struct vsock_connection *c)
{
    return c->stage == VSOCK_RESETTING || c->stage == VSOCK_OPEN ||
           (c->stage == VSOCK_ASKING && !(c->tell & VSOCK_TELL_REQUEST));
}

void vsock_reset(struct vsock *v, struct vsock_connection *c)
{
    if (!vsock_is_known(c)) {
        vsock_remove(v, c);
        return;
    }
    close_socket(c);
    c->tell = 0;
    c->stage = VSOCK_RESETTING;
    vsock_look(v, c);
}

/* ---- What the guest is to be told ---- */

uint32_t vsock_credit(const struct vsock_connection *c)
{
    uint32_t on_the_way = c->sent - c->guest_forwarded;

    return on_the_way < c->guest_window ? c->guest_window - on_the_way : 0;
}

void vsock_look(struct vsock *v, struct vsock_connection *c)
{
    bool work =
        c->stage == VSOCK_RESETTING || c->tell || (c->readable && (vsock_credit(c) || !c->asked));

    if (!work || c->link.queued)
        return;
    fifo_put(&v->ready, &c->link);
    virtio_wake(&v->device, VSOCK_RECEIVE);
}

struct vsock_connection *vsock_next_ready(struct vsock *v)
{
    struct fifo_link *first = v->ready.first;

    if (!first)
        return NULL;
    fifo_remove(&v->ready, first);
    return container_of(first, struct vsock_connection, link);
}

bool vsock_refuse(struct vsock *v, const struct vsock_header *header)
{
    if (v->refusals == VSOCK_REFUSALS)
        return false;
    v->refusal[(v->first_refusal + v->refusals++) % VSOCK_REFUSALS] =
        (struct vsock_refusal){.cid = header->dst_cid,
                               .guest_port = header->src_port,
                               .host_port = header->dst_port,
                               .type = header->type};
    virtio_wake(&v->device, VSOCK_RECEIVE);
    return true;
}
