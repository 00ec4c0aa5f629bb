/*
 * Packets of a virtio socket device (virtio 1.2, 5.10.6): what those from the guest do to a
 * connection, and what the guest is told of one.
 */
#include "dev/virtio/vsock_private.h"

#include <unistd.h>

/* ---- From the guest ---- */

static void take_bytes(struct vsock *v, struct vsock_connection *c, const struct vsock_header *h,
                       const void *payload)
{
    /* More than there is room for, or bytes behind the last one. */
    if (h->len > c->window - vsock_kept(c) || (c->guest_over & VSOCK_NO_SEND) ||
        (c->over & VSOCK_NO_RECEIVE))
        vsock_reset(v, c);
    else
        vsock_host_write(v, c, payload, h->len);
}

/* A connection that both ends have. */
static void take_for_open(struct vsock *v, struct vsock_connection *c, const struct vsock_header *h,
                          const void *payload)
{
    switch (h->op) {
    case VSOCK_OP_RW: take_bytes(v, c, h, payload); break;
    case VSOCK_OP_SHUTDOWN:
        c->guest_over |= h->flags & VSOCK_NEITHER;
        vsock_host_settle(v, c);
        break;
    case VSOCK_OP_CREDIT_UPDATE: break;
    case VSOCK_OP_CREDIT_REQUEST: c->tell |= VSOCK_TELL_CREDIT; break;
    default: vsock_reset(v, c);
    }
}

static void take_for(struct vsock *v, struct vsock_connection *c, const struct vsock_header *h,
                     const void *payload)
{
    c->guest_window = h->buf_alloc;
    c->guest_forwarded = h->fwd_cnt;
    if (vsock_credit(c))
        c->asked = false;
    if (h->op == VSOCK_OP_RST)
        vsock_drain(v, c);
    else if (c->stage == VSOCK_ASKING && h->op == VSOCK_OP_RESPONSE &&
             !(c->tell & VSOCK_TELL_REQUEST))
        vsock_host_accepted(v, c);
    else if (c->stage == VSOCK_OPEN)
        take_for_open(v, c, h, payload);
    else
        vsock_reset(v, c);
    vsock_look(v, c);
}

/* Whether the packet is one that a connection could have. */
static bool is_proper(const struct vsock_header *h)
{
    return h->dst_cid == VSOCK_HOST_CID && h->type == VSOCK_TYPE_STREAM;
}

/* The guest connects: FD is the host's socket, or negative if there is none. */
static bool begin(struct vsock *v, const struct vsock_header *h, int fd)
{
    struct vsock_connection *c = vsock_find(v, h->src_port, h->dst_port);

    if (!c && fd >= 0)
        c = vsock_add(v, fd, VSOCK_OPEN);
    else
        c = NULL;
    if (!c) {
        if (fd >= 0)
            close(fd);
        return vsock_refuse(v, h);
    }
    vsock_name(v, c, h->src_port, h->dst_port);
    c->guest_window = h->buf_alloc;
    c->guest_forwarded = h->fwd_cnt;
    c->tell = VSOCK_TELL_RESPONSE;
    c->readable = true;
    vsock_look(v, c);
    return true;
}

bool vsock_take(struct vsock *v, const struct vsock_header *h, const void *payload)
{
    struct vsock_connection *c = NULL;
    bool done = true, connects = false;

    if (h->src_cid != v->cid)
        return true; /* of a CID that the guest no longer has */
    pthread_mutex_lock(&v->lock);
    if (is_proper(h))
        c = vsock_find(v, h->src_port, h->dst_port);
    if (c)
        take_for(v, c, h, payload);
    else if (is_proper(h) && h->op == VSOCK_OP_REQUEST && v->refusals < VSOCK_REFUSALS)
        connects = true;
    else if (h->op != VSOCK_OP_RST)
        done = vsock_refuse(v, h);
    pthread_mutex_unlock(&v->lock);
    if (connects) {
        int fd = vsock_host_connect(v, h->dst_port); /* which may wait for a file system */

        pthread_mutex_lock(&v->lock);
        done = begin(v, h, fd);
        pthread_mutex_unlock(&v->lock);
    }
    return done;
}

/* ---- To the guest ---- */

static bool take_refusal(struct vsock *v, struct vsock_header *h)
{
    const struct vsock_refusal *r = &v->refusal[v->first_refusal];

    if (!v->refusals)
        return false;
    *h = (struct vsock_header){.src_cid = r->cid,
                               .dst_cid = v->cid,
                               .src_port = r->host_port,
                               .dst_port = r->guest_port,
                               .type = r->type,
                               .op = VSOCK_OP_RST};
    if (v->refusals == VSOCK_REFUSALS) /* the guest's packets may wait for that */
        virtio_wake(&v->device, VSOCK_SEND);
    v->first_refusal = (v->first_refusal + 1) % VSOCK_REFUSALS;
    v->refusals--;
    return true;
}

static bool told(struct vsock_connection *c, uint8_t what)
{
    bool set = c->tell & what;

    c->tell &= (uint8_t)~what;
    return set;
}

/* The bytes of the connection that go into the packet. */
static uint32_t take_payload(struct vsock *v, struct vsock_connection *c, void *payload,
                             uint32_t room)
{
    uint32_t credit = vsock_credit(c), n;

    if (!c->readable || !room)
        return 0;
    if (!credit) {
        c->tell |= c->asked ? 0 : VSOCK_TELL_ASK_CREDIT;
        c->asked = true;
        return 0;
    }
    n = vsock_host_read(v, c, payload, MIN(room, credit));
    c->sent += n;
    return n;
}

/* What the guest is told next of the connection; 0: nothing. */
static uint16_t next_op(struct vsock *v, struct vsock_connection *c, struct vsock_header *h,
                        void *payload, uint32_t room)
{
    if (told(c, VSOCK_TELL_REQUEST))
        return VSOCK_OP_REQUEST;
    if (told(c, VSOCK_TELL_RESPONSE))
        return VSOCK_OP_RESPONSE;
    h->len = take_payload(v, c, payload, room);
    if (h->len)
        return VSOCK_OP_RW;
    if (c->stage == VSOCK_RESETTING)
        return VSOCK_OP_RST;
    if (told(c, VSOCK_TELL_SHUTDOWN)) {
        h->flags = c->over;
        return VSOCK_OP_SHUTDOWN;
    }
    if (told(c, VSOCK_TELL_CREDIT))
        return VSOCK_OP_CREDIT_UPDATE;
    return told(c, VSOCK_TELL_ASK_CREDIT) ? VSOCK_OP_CREDIT_REQUEST : 0;
}

static bool next_packet(struct vsock *v, struct vsock_connection *c, struct vsock_header *h,
                        void *payload, uint32_t room)
{
    *h = (struct vsock_header){.src_cid = VSOCK_HOST_CID,
                               .dst_cid = v->cid,
                               .src_port = c->host_port,
                               .dst_port = c->guest_port,
                               .type = VSOCK_TYPE_STREAM};
    h->op = next_op(v, c, h, payload, room);
    if (h->op == VSOCK_OP_RST) {
        vsock_remove(v, c);
    } else if (h->op) {
        h->buf_alloc = c->window;
        h->fwd_cnt = c->told = c->forwarded;
        c->tell &= (uint8_t)~VSOCK_TELL_CREDIT;
    }
    return h->op;
}

bool vsock_next(struct vsock *v, struct vsock_header *h, void *payload, uint32_t room)
{
    bool any = false;

    pthread_mutex_lock(&v->lock);
    if (!v->transport_reset) {
        any = take_refusal(v, h);
        for (unsigned n = v->ready.length; n > 0 && !any; n--) {
            struct vsock_connection *c = vsock_next_ready(v);

            any = next_packet(v, c, h, payload, room);
            vsock_look(v, c);
        }
    }
    pthread_mutex_unlock(&v->lock);
    return any;
}
