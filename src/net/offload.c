/*
 * Checksums and segmentation: RFC 1071 (the sum), RFC 9293 (TCP), RFC 791 and 8200 (IP), virtio
 * 1.2, 5.1.6 (what a frame leaves undone).
 */
#include "net/offload.h"

#include "base/util.h"
#include "net/bytes.h"

#include <string.h>

#define ETHERNET   14u
#define TAG        4u /* of a VLAN (802.1Q) */
#define TYPE_IP4   0x0800
#define TYPE_IP6   0x86dd
#define TYPE_TAG   0x8100
#define TYPE_TAG_S 0x88a8
#define TCP        6
#define UDP        17
#define TCP_FIN    0x01
#define TCP_PSH    0x08
#define TCP_CWR    0x80
/* IPv6's extension headers that may stand before TCP, at most: a card's driver sends none. */
#define EXTENSIONS 4u
/* Linux's least (TCP_MIN_GSO_SIZE). Smaller ones would make very many frames of one. */
#define SEGMENT_LEAST 8u

/* ---- Sums ---- */

/* Adds words of the host's byte order, in which the sum is the same but for its bytes' order (RFC
 * 1071, 2 (B)). */
static uint64_t sum_words(const uint8_t *at, size_t size)
{
    uint64_t sum = 0, low = 0, high = 0;

    for (; size >= 32; at += 32, size -= 32) {
        uint64_t word[4];

        memcpy(word, at, sizeof(word));
        for (unsigned i = 0; i < 4; i++) {
            low += (uint32_t)word[i];
            high += word[i] >> 32;
        }
    }
    for (; size >= 4; at += 4, size -= 4) {
        uint32_t word;

        memcpy(&word, at, sizeof(word));
        sum += word;
    }
    if (size) {
        uint32_t word = 0;

        memcpy(&word, at, size);
        sum += word;
    }
    return sum + low + high;
}

uint32_t offload_sum(const void *data, size_t size, uint32_t sum)
{
    uint64_t total = sum_words(data, size);

    total = (total & 0xffffffff) + (total >> 32);
    total = (total & 0xffff) + (total >> 16 & 0xffff) + (total >> 32);
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    return sum + __builtin_bswap16((uint16_t)total);
}

uint16_t offload_fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* ---- What is to be done to a frame ---- */

static unsigned gso_kind(const struct net_offload *offload)
{
    return offload->gso & ~(unsigned)NET_GSO_ECN;
}

bool offload_check(const uint8_t *data, size_t head, size_t size, const struct net_offload *offload)
{
    struct offload_split split;

    if (offload->flags & NET_NEEDS_CHECKSUM &&
        (size_t)offload->checksum_start + offload->checksum_offset + 2 > size)
        return false;
    if (offload->gso == NET_GSO_NONE)
        return true;
    if (!(offload->flags & NET_NEEDS_CHECKSUM) || offload->segment_size < SEGMENT_LEAST)
        return false;
    return offload_split_begin(&split, data, head, offload) && split.payload < size;
}

unsigned offload_needs(const struct net_offload *offload)
{
    unsigned needs = offload->flags & NET_NEEDS_CHECKSUM ? NET_CHECKSUM : 0;

    switch (gso_kind(offload)) {
    case NET_GSO_TCP4: return needs | NET_TSO4;
    case NET_GSO_TCP6: return needs | NET_TSO6;
    default: return needs;
    }
}

void offload_checksum(uint8_t *data, size_t size, struct net_offload *offload)
{
    if (offload->flags & NET_NEEDS_CHECKSUM) {
        size_t start = offload->checksum_start, at = start + offload->checksum_offset;
        uint16_t sum = offload_fold(offload_sum(data + start, size - start, 0));

        /* Of UDP, 0 says that there is no checksum (RFC 768); in TCP both mean the same. */
        put16(data + at, sum ? sum : 0xffff);
    }
    *offload = (struct net_offload){0};
}

/* ---- Headers ---- */

struct headers {
    size_t network, transport;
    unsigned protocol;
    bool ip6, fragment;
    size_t end; /* of the IP packet */
};

static bool find_ip4(const uint8_t *data, size_t size, struct headers *h)
{
    size_t at = h->network, length;

    if (size < at + 20 || data[at] >> 4 != 4)
        return false;
    length = (size_t)(data[at] & 15) * 4;
    h->transport = at + length;
    h->protocol = data[at + 9];
    h->fragment = (get16(data + at + 6) & 0x3fff) != 0;
    h->end = at + get16(data + at + 2);
    return length >= 20 && h->transport <= size;
}

static bool find_ip6(const uint8_t *data, size_t size, struct headers *h)
{
    size_t at = h->network;

    if (size < at + 40 || data[at] >> 4 != 6)
        return false;
    h->ip6 = true;
    h->protocol = data[at + 6];
    h->end = at + 40 + get16(data + at + 4);
    h->transport = at + 40;
    for (unsigned n = 0; n <= EXTENSIONS; n++) {
        at = h->transport;
        switch (h->protocol) {
        case 0:  /* hop by hop */
        case 43: /* routing */
        case 60: /* destination */
            if (size < at + 8)
                return false;
            h->protocol = data[at];
            h->transport = at + 8 + (size_t)data[at + 1] * 8;
            break;
        case 44: h->fragment = true; return true;
        default: return h->transport <= size;
        }
    }
    return false;
}

/* Finds where IP's and the next protocol's header begin in the frame of which SIZE bytes are at
 * DATA. */
static bool find_headers(const uint8_t *data, size_t size, struct headers *h)
{
    unsigned type;

    *h = (struct headers){.network = ETHERNET};
    if (size < ETHERNET)
        return false;
    type = get16(data + 12);
    for (unsigned n = 0; n < 2 && (type == TYPE_TAG || type == TYPE_TAG_S); n++) {
        if (size < h->network + TAG)
            return false;
        type = get16(data + h->network + 2);
        h->network += TAG;
    }
    switch (type) {
    case TYPE_IP4: return find_ip4(data, size, h);
    case TYPE_IP6: return find_ip6(data, size, h);
    default: return false;
    }
}

/* The sum of the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1) for LENGTH bytes of the transport. */
static uint32_t sum_pseudo(const uint8_t *data, const struct headers *h, size_t length)
{
    size_t addresses = h->network + (h->ip6 ? 8 : 12);

    return offload_sum(data + addresses, h->ip6 ? 32 : 8,
                       h->protocol + (uint32_t)(length >> 16) + (uint32_t)(length & 0xffff));
}

bool offload_verify(const uint8_t *data, size_t size)
{
    struct headers h;
    size_t length, least, at;

    if (!find_headers(data, size, &h) || h.fragment || h.end > size || h.end < h.transport ||
        (h.protocol != TCP && h.protocol != UDP))
        return false;
    length = h.end - h.transport;
    least = h.protocol == TCP ? 20 : 8;
    at = h.transport + (h.protocol == TCP ? 16 : 6);
    if (length < least || get16(data + at) == 0)
        return false;
    return offload_fold(offload_sum(data + h.transport, length, sum_pseudo(data, &h, length))) == 0;
}

/* ---- Segments ---- */

bool offload_split_begin(struct offload_split *split, const uint8_t *data, size_t size,
                         const struct net_offload *offload)
{
    struct headers h;
    size_t tcp;

    if (offload->segment_size == 0 || !find_headers(data, size, &h) || h.fragment ||
        h.protocol != TCP || h.ip6 != (gso_kind(offload) == NET_GSO_TCP6) ||
        (!h.ip6 && gso_kind(offload) != NET_GSO_TCP4) || size < h.transport + 20)
        return false;
    tcp = (size_t)(data[h.transport + 12] >> 4) * 4;
    if (tcp < 20 || size < h.transport + tcp)
        return false;
    *split = (struct offload_split){
        .data = data,
        .size = size,
        .offload = *offload,
        .network = h.network,
        .transport = h.transport,
        .payload = h.transport + tcp,
        .ip6 = h.ip6,
    };
    return true;
}

/* Sets what differs from the headers of the whole in those of the segment of SIZE bytes at PIECE,
 * the Nth, behind BEFORE bytes of data. */
static void finish_segment(const struct offload_split *split, uint8_t *piece, size_t size,
                           size_t before, bool last)
{
    uint8_t *ip = piece + split->network, *tcp = piece + split->transport;
    struct headers h = {.network = split->network, .protocol = TCP, .ip6 = split->ip6};
    size_t length = size - split->transport;

    if (split->ip6) {
        put16(ip + 4, (unsigned)(size - split->network - 40));
    } else {
        put16(ip + 2, (unsigned)(size - split->network));
        put16(ip + 4, get16(ip + 4) + (unsigned)(before / split->offload.segment_size));
        put16(ip + 10, 0);
        put16(ip + 10, offload_fold(offload_sum(ip, split->transport - split->network, 0)));
    }
    put32(tcp + 4, get32(tcp + 4) + (uint32_t)before);
    if (!last)
        tcp[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
    if (before > 0)
        tcp[13] &= (uint8_t)~TCP_CWR;
    put16(tcp + 16, 0);
    put16(tcp + 16, offload_fold(offload_sum(tcp, length, sum_pseudo(piece, &h, length))));
}

size_t offload_split_next(struct offload_split *split, uint8_t *piece)
{
    size_t data = split->size - split->payload, before = split->done;
    size_t part = MIN(data - before, (size_t)split->offload.segment_size);

    if (part == 0)
        return 0;
    memcpy(piece, split->data, split->payload);
    memcpy(piece + split->payload, split->data + split->payload + before, part);
    split->done += part;
    finish_segment(split, piece, split->payload + part, before, split->done == data);
    return split->payload + part;
}

void offload_join(uint8_t *data, size_t size, struct net_offload *offload)
{
    struct offload_split split;

    if (offload_split_begin(&split, data, size, offload))
        finish_segment(&split, data, size, 0, true);
    *offload = (struct net_offload){0};
}
