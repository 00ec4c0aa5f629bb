/*
 * How much libslirp has to keep of TCP's segments that come out of order: RFC 9293 (TCP), RFC 791
 * and 8200 (IP).
 *
 * Connections are in a table of rows; in a row the one that was used last stays.
 */
#include "net/user_order.h"

#include "base/util.h"
#include "net/bytes.h"
#include "net/offload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROWS   1024u
#define PLACES 8u
#define WINDOW 65536u  /* more than libslirp's window */
#define LONG   100000u /* so many bytes ago is before any window */

#define TYPE_IP4 0x0800u
#define TYPE_IP6 0x86DDu
#define TCP      6u
#define ETHERNET 14u
#define HEADER   20u /* of TCP, without options */

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10 };

struct ends {
    uint8_t guest[16], peer[16]; /* addresses; of IPv4 the first four bytes */
    uint16_t guest_port, peer_port;
    uint16_t ip6, there; /* THERE: 0: this place is free */
};

struct connection {
    struct ends ends;
    uint32_t used;  /* when; the table's clock */
    bool known;     /* what libslirp expects: ACKED */
    bool forgotten; /* it was, and libslirp may keep anything until ACKED reaches CLEAN */
    uint32_t acked, clean;
    unsigned count;
    uint32_t end[USER_ORDER_MOST]; /* of the segments that libslirp may keep */
};

struct user_order {
    uint32_t clock;
    struct connection place[ROWS][PLACES];
};

struct segment {
    struct ends ends;
    unsigned flags;
    uint32_t sequence, ack;
    size_t size; /* bytes of data, and one for FIN */
    size_t tcp;  /* where its header begins in the frame */
};

enum kind { OTHER, SEGMENT, MALFORMED };

/* A number of TCP, which wraps, is behind another one. */
static bool is_behind(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) > 0;
}

/* ---- Frames ---- */

/* Reads the segment of SIZE bytes at TCP. FROM_GUEST: else it is for the guest. */
static enum kind read_segment(const uint8_t *tcp, size_t size, bool from_guest, struct segment *s)
{
    size_t head;

    if (size < HEADER)
        return MALFORMED;
    head = (size_t)(tcp[12] >> 4) * 4;
    if (head < HEADER || head > size)
        return MALFORMED;
    s->ends.guest_port = (uint16_t)get16(tcp + (from_guest ? 0 : 2));
    s->ends.peer_port = (uint16_t)get16(tcp + (from_guest ? 2 : 0));
    s->ends.there = 1;
    s->sequence = get32(tcp + 4);
    s->ack = get32(tcp + 8);
    s->flags = tcp[13];
    s->size = size - head + (s->flags & FIN);
    return SEGMENT;
}

static void read_addresses(const uint8_t *from, size_t size, bool from_guest, struct segment *s)
{
    memcpy(from_guest ? s->ends.guest : s->ends.peer, from, size);
    memcpy(from_guest ? s->ends.peer : s->ends.guest, from + size, size);
}

static enum kind read_ip4(const uint8_t *ip, size_t size, bool from_guest, struct segment *s)
{
    size_t head, whole;

    if (size < 20 || ip[9] != TCP)
        return OTHER;
    head = (size_t)(ip[0] & 15) * 4;
    whole = get16(ip + 2);
    /* A fragment's segment would be whole where it is not seen any more. TCP needs none. */
    if (get16(ip + 6) & 0xBFFF || head < 20 || whole > size || whole < head)
        return MALFORMED;
    s->tcp = ETHERNET + head;
    read_addresses(ip + 12, 4, from_guest, s);
    return read_segment(ip + head, whole - head, from_guest, s);
}

static enum kind read_ip6(const uint8_t *ip, size_t size, bool from_guest, struct segment *s)
{
    size_t length;

    if (size < 40 || ip[6] != TCP)
        return OTHER;
    length = get16(ip + 4);
    if (length > size - 40)
        return MALFORMED;
    s->tcp = ETHERNET + 40;
    s->ends.ip6 = 1;
    read_addresses(ip + 8, 16, from_guest, s);
    return read_segment(ip + 40, length, from_guest, s);
}

static enum kind read_frame(const uint8_t *frame, size_t size, bool from_guest, struct segment *s)
{
    *s = (struct segment){.flags = 0};
    switch (get16(frame + 12)) {
    case TYPE_IP4: return read_ip4(frame + ETHERNET, size - ETHERNET, from_guest, s);
    case TYPE_IP6: return read_ip6(frame + ETHERNET, size - ETHERNET, from_guest, s);
    default: return OTHER;
    }
}

/* Makes of the frame with S a probe. */
static void make_probe(uint8_t *frame, size_t *size, const struct segment *s)
{
    uint8_t *ip = frame + ETHERNET, *tcp = frame + s->tcp;
    size_t head = s->tcp - ETHERNET;

    *size = s->tcp + HEADER;
    if (s->ends.ip6) {
        put16(ip + 4, HEADER);
    } else {
        put16(ip + 2, (unsigned)(head + HEADER));
        put16(ip + 10, 0);
        put16(ip + 10, offload_fold(offload_sum(ip, head, 0)));
    }
    put32(tcp + 4, s->sequence - LONG);
    tcp[12] = HEADER / 4 << 4;
    tcp[13] = ACK;
    put32(tcp + 16, 0); /* the checksum, and no urgent data */
    put16(tcp + 16, offload_fold(offload_sum(tcp, HEADER,
                                             offload_sum(ip + (s->ends.ip6 ? 8 : 12),
                                                         s->ends.ip6 ? 32 : 8, TCP + HEADER))));
}

/* ---- The table ---- */

_Static_assert(sizeof(struct ends) == 40, "all of it is compared");

static struct connection *row_of(struct user_order *order, const struct ends *ends)
{
    uint64_t words[5], mixed = 0;

    memcpy(words, ends, sizeof(words));
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        mixed = (mixed ^ words[i]) * 0x9E3779B97F4A7C15;
    return order->place[mixed >> 54];
}

_Static_assert(ROWS == 1u << 10, "what row_of gives");

static struct connection *find(struct user_order *order, const struct ends *ends)
{
    struct connection *row = row_of(order, ends);

    for (unsigned i = 0; i < PLACES; i++) {
        if (memcmp(&row[i].ends, ends, sizeof(*ends)) != 0)
            continue;
        row[i].used = ++order->clock;
        return &row[i];
    }
    return NULL;
}

/* A place for a connection that has none: a free one, or the one that was not used for longest. */
static struct connection *make(struct user_order *order, const struct ends *ends)
{
    struct connection *row = row_of(order, ends), *found = row;

    for (unsigned i = 0; i < PLACES && found->ends.there; i++)
        if (!row[i].ends.there || is_behind(found->used, row[i].used))
            found = &row[i];
    *found = (struct connection){.ends = *ends, .used = ++order->clock};
    return found;
}

/* ---- What enters, and what is answered ---- */

bool user_order_enter(struct user_order *order, uint8_t *frame, size_t *size)
{
    struct connection *c;
    struct segment s;
    enum kind kind = read_frame(frame, *size, true, &s);

    if (kind != SEGMENT || s.size == 0 || s.flags & (SYN | RST))
        return kind != MALFORMED;
    c = find(order, &s.ends);
    if (!c) {
        c = make(order, &s.ends);
        c->forgotten = true;
    }
    if (!c->known) {
        make_probe(frame, size, &s);
        return true;
    }
    if (!is_behind(s.sequence, c->acked)) /* the next one, or one that comes again */
        return true;
    if (c->forgotten || c->count == USER_ORDER_MOST)
        return false;
    c->end[c->count++] = s.sequence + (uint32_t)s.size;
    return true;
}

/* What was acknowledged is not kept any more. */
static void acknowledge(struct connection *c, uint32_t ack)
{
    unsigned left = 0;

    if (!c->known)
        c->clean = ack + WINDOW;
    c->acked = ack;
    c->known = true;
    for (unsigned i = 0; i < c->count; i++)
        if (is_behind(c->end[i], ack))
            c->end[left++] = c->end[i];
    c->count = left;
    if (!is_behind(c->clean, ack))
        c->forgotten = false;
}

void user_order_answer(struct user_order *order, const uint8_t *frame, size_t size)
{
    struct connection *c;
    struct segment s;

    if (size < ETHERNET || read_frame(frame, size, false, &s) != SEGMENT)
        return;
    c = find(order, &s.ends);
    if (s.flags & SYN) {
        if (!c)
            c = make(order, &s.ends);
        *c = (struct connection){.ends = s.ends, .used = order->clock};
    }
    if (c && s.flags & RST)
        *c = (struct connection){.used = 0};
    else if (c && s.flags & ACK)
        acknowledge(c, s.ack);
}

struct user_order *user_order_create(struct error *err)
{
    struct user_order *order = calloc(1, sizeof(*order));

    if (!order)
        error_set(err, ENOMEM, "network: out of memory");
    return order;
}

void user_order_free(struct user_order *order)
{
    free(order);
}
