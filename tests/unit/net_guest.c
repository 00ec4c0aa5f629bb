/*
 * A guest that is played by a test.
 */
#include "net_guest.h"
#include "test.h"

#include "base/time.h"
#include "base/util.h"
#include "net/bytes.h"
#include "net/offload.h"
#include "net/options.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LONG_MS  60000
#define TYPE_IP  0x0800
#define TYPE_ARP 0x0806

static const uint8_t everyone[6] = {255, 255, 255, 255, 255, 255};

/* ---- Frames ---- */

static void on_ready(void *opaque)
{
    struct net_guest *guest = opaque;

    eventfd_write(guest->event, 1);
}

void net_guest_open_on(struct net_guest *guest, const struct net_host *host, const char *text,
                       unsigned n, unsigned accepts)
{
    struct net_events events = {.ready = on_ready, .opaque = guest};
    struct net_options options;
    struct error err = {0};

    memset(guest, 0, sizeof(*guest));
    guest->host = *host;
    guest->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    memcpy(guest->mac, (uint8_t[]){0x52, 0x54, 0, 0, 0, (uint8_t)n}, 6);
    memcpy(guest->gateway, everyone, 6);
    if (net_options_parse(text, &options, &err) == 0) {
        guest->net = net_open(&options, &guest->host, &err);
        net_options_free(&options);
    }
    if (!guest->net)
        print_error("'%s': %s\n", text, err.text);
    assert_non_null(guest->net);
    net_begin(guest->net, &events, accepts);
}

void net_guest_open(struct net_guest *guest, struct loop *loop, const char *text, unsigned n,
                    unsigned accepts)
{
    struct net_host host = {.loop = loop};

    net_guest_open_on(guest, &host, text, n, accepts);
}

void net_guest_close(struct net_guest *guest)
{
    net_close(guest->net);
    close(guest->event);
}

/* Waits for `ready`. */
static bool wait_ready(struct net_guest *guest, int ms)
{
    struct pollfd pfd = {guest->event, POLLIN, 0};
    eventfd_t count;

    if (poll(&pfd, 1, ms) <= 0)
        return false;
    eventfd_read(guest->event, &count);
    return true;
}

void net_guest_send_frame(struct net_guest *guest, const void *frame, size_t size,
                          const struct net_offload *offload)
{
    /* In two pieces, as a driver sends it. */
    size_t first = MIN(size, (size_t)14);
    struct iovec iov[2] = {{(void *)frame, first}, {(uint8_t *)frame + first, size - first}};

    while (!net_send(guest->net, iov, 2, offload))
        assert_true(wait_ready(guest, LONG_MS));
    net_flush(guest->net);
}

void net_guest_send(struct net_guest *guest, const uint8_t *to, unsigned type, const void *payload,
                    size_t size)
{
    uint8_t frame[NET_FRAME_MOST];

    assert_true(size + 14 <= sizeof(frame));
    memcpy(frame, to, 6);
    memcpy(frame + 6, guest->mac, 6);
    put16(frame + 12, type);
    memcpy(frame + 14, payload, size);
    net_guest_send_frame(guest, frame, size + 14, NULL);
}

bool net_guest_receive(struct net_guest *guest, int ms)
{
    uint64_t end = time_now_ns() + (uint64_t)ms * NS_PER_MS;
    struct iovec iov = {guest->frame, sizeof(guest->frame)};

    while (net_next(guest->net) == 0) {
        uint64_t now = time_now_ns();

        if (!wait_ready(guest, now < end ? (int)((end - now) / NS_PER_MS) + 1 : 0) && now >= end)
            return false;
    }
    guest->size = net_receive(guest->net, &iov, 1, &guest->offload);
    return true;
}

/* ---- ARP ---- */

static void send_arp(struct net_guest *guest, unsigned operation, const uint8_t *to,
                     uint32_t address)
{
    uint8_t arp[28] = {0, 1, 8, 0, 6, 4};

    put16(arp + 6, operation);
    memcpy(arp + 8, guest->mac, 6);
    put32(arp + 14, guest->address);
    if (to != everyone)
        memcpy(arp + 18, to, 6);
    put32(arp + 24, address);
    net_guest_send(guest, to, TYPE_ARP, arp, sizeof(arp));
}

/* Answers a request for the guest's own address. */
static void answer_arp(struct net_guest *guest)
{
    const uint8_t *arp = guest->frame + 14;

    if (get16(guest->frame + 12) == TYPE_ARP && guest->size >= 42 && get16(arp + 6) == 1 &&
        guest->address && get32(arp + 24) == guest->address)
        send_arp(guest, 2, arp + 8, get32(arp + 14));
}

bool net_guest_arp(struct net_guest *guest, uint32_t address, int ms)
{
    send_arp(guest, 1, everyone, address);
    while (net_guest_receive(guest, ms)) {
        const uint8_t *arp = guest->frame + 14;

        answer_arp(guest);
        if (get16(guest->frame + 12) == TYPE_ARP && guest->size >= 42 && get16(arp + 6) == 2 &&
            get32(arp + 14) == address) {
            memcpy(guest->gateway, arp + 8, 6);
            return true;
        }
    }
    return false;
}

/* ---- IP ---- */

void net_guest_ip(struct net_guest *guest, uint32_t to, unsigned protocol, const void *data,
                  size_t size)
{
    uint8_t packet[65535] = {0x45};

    assert_true(size + 20 <= sizeof(packet));
    put16(packet + 2, (unsigned)size + 20);
    packet[8] = 64;
    packet[9] = (uint8_t)protocol;
    put32(packet + 12, guest->address);
    put32(packet + 16, to);
    put16(packet + 10, offload_fold(offload_sum(packet, 20, 0)));
    memcpy(packet + 20, data, size);
    net_guest_send(guest, to == UINT32_MAX ? everyone : guest->gateway, TYPE_IP, packet, size + 20);
}

/* The checksum of a packet of TCP or UDP, whose field for it is 0 (or right: then this is 0). */
static uint16_t checksum(uint32_t from, uint32_t to, unsigned protocol, const uint8_t *data,
                         size_t size)
{
    uint8_t pseudo[12] = {0};

    put32(pseudo, from);
    put32(pseudo + 4, to);
    pseudo[9] = (uint8_t)protocol;
    put16(pseudo + 10, (unsigned)size);
    return offload_fold(offload_sum(data, size, offload_sum(pseudo, sizeof(pseudo), 0)));
}

void net_guest_udp(struct net_guest *guest, uint32_t to, unsigned from_port, unsigned to_port,
                   const void *data, size_t size)
{
    uint8_t packet[65515];

    assert_true(size + 8 <= sizeof(packet));
    memset(packet, 0, 8);
    put16(packet, from_port);
    put16(packet + 2, to_port);
    put16(packet + 4, (unsigned)size + 8);
    memcpy(packet + 8, data, size);
    put16(packet + 6, checksum(guest->address, to, IP_UDP, packet, size + 8));
    net_guest_ip(guest, to, IP_UDP, packet, size + 8);
}

static bool parse(const struct net_guest *guest, struct net_packet *p)
{
    const uint8_t *ip = guest->frame + 14, *at = ip + 20;

    if (guest->size < 34 || get16(guest->frame + 12) != TYPE_IP)
        return false;
    *p = (struct net_packet){.from = get32(ip + 12),
                             .to = get32(ip + 16),
                             .protocol = ip[9],
                             .data = at,
                             .size = get16(ip + 2) - 20u};
    assert_int_equal(ip[0], 0x45);
    assert_int_equal(offload_fold(offload_sum(ip, 20, 0)), 0);
    assert_true(get16(ip + 2) + 14u <= guest->size);
    if (p->protocol != IP_TCP && p->protocol != IP_UDP)
        return true;
    if (!(guest->offload.flags & NET_NEEDS_CHECKSUM) &&
        (p->protocol == IP_TCP || get16(at + 6) != 0))
        assert_int_equal(checksum(p->from, p->to, p->protocol, at, p->size), 0);
    p->from_port = (uint16_t)get16(at);
    p->to_port = (uint16_t)get16(at + 2);
    if (p->protocol == IP_UDP) {
        p->data += 8;
        p->size = get16(at + 4) - 8u;
        return true;
    }
    p->sequence = get32(at + 4);
    p->ack = get32(at + 8);
    p->flags = at[13];
    p->window = get16(at + 14);
    p->data += (at[12] >> 4) * 4;
    p->size -= (at[12] >> 4) * 4u;
    return true;
}

bool net_guest_packet(struct net_guest *guest, struct net_packet *packet, int ms)
{
    while (net_guest_receive(guest, ms)) {
        answer_arp(guest);
        if (parse(guest, packet) &&
            (!guest->address || packet->to == guest->address || packet->to == UINT32_MAX))
            return true;
    }
    return false;
}

void net_guest_expect(struct net_guest *guest, struct net_packet *packet, unsigned protocol,
                      unsigned port)
{
    do {
        assert_true(net_guest_packet(guest, packet, LONG_MS));
    } while (packet->protocol != protocol || (port && packet->to_port != port));
}

/* ---- DHCP (RFC 2131, RFC 2132) ---- */

enum { DISCOVER = 1, OFFER = 2, REQUEST = 3, ACKNOWLEDGE = 5 };

static void send_dhcp(struct net_guest *guest, unsigned kind, uint32_t wanted)
{
    uint8_t m[300] = {1, 1, 6, 0, 0xd0, 0x99, 0xe1, guest->mac[5]}, *option = m + 240;

    memcpy(m + 28, guest->mac, 6);
    memcpy(m + 236, (uint8_t[]){99, 130, 83, 99}, 4);
    memcpy(option, (uint8_t[]){53, 1, (uint8_t)kind}, 3);
    option += 3;
    if (wanted) {
        memcpy(option, (uint8_t[]){50, 4}, 2);
        put32(option + 2, wanted);
        option += 6;
    }
    *option = 255;
    net_guest_udp(guest, UINT32_MAX, 68, 67, m, sizeof(m));
}

static void take_option(struct net_guest *guest, unsigned code, const uint8_t *value,
                        unsigned length)
{
    switch (code) {
    case 3: guest->router = get32(value); break;
    case 6: guest->dns = get32(value); break;
    case 12: snprintf(guest->name, sizeof(guest->name), "%.*s", (int)length, value); break;
    case 26: guest->mtu = (uint16_t)get16(value); break;
    default: break;
    }
}

/* Receives an answer of KIND, and returns the address in it. */
static uint32_t expect_dhcp(struct net_guest *guest, unsigned kind)
{
    struct net_packet p;
    unsigned got = 0;
    uint32_t address;

    do {
        net_guest_expect(guest, &p, IP_UDP, 68);
        assert_true(p.size >= 240 && p.data[0] == 2);
    } while (get32(p.data + 4) != (0xd099e100u | guest->mac[5]));
    address = get32(p.data + 16);
    for (size_t at = 240; at + 1 < p.size && p.data[at] != 255;) {
        unsigned code = p.data[at], length = code ? p.data[at + 1] : 0;

        assert_true(at + 2 + length <= p.size);
        if (code == 53)
            got = p.data[at + 2];
        take_option(guest, code, p.data + at + 2, length);
        at += code ? 2 + length : 1;
    }
    assert_int_equal(got, kind);
    return address;
}

void net_guest_dhcp(struct net_guest *guest)
{
    uint32_t offered;

    guest->address = 0;
    send_dhcp(guest, DISCOVER, 0);
    offered = expect_dhcp(guest, OFFER);
    assert_int_not_equal(offered, 0);
    send_dhcp(guest, REQUEST, offered);
    assert_int_equal(expect_dhcp(guest, ACKNOWLEDGE), offered);
    guest->address = offered;
    if (guest->router)
        assert_true(net_guest_arp(guest, guest->router, LONG_MS));
}
