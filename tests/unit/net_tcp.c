/*
 * TCP of a guest that is played by a test: one segment at a time, and nothing is lost on its way.
 */
#include "net_guest.h"
#include "test.h"

#include "base/util.h"
#include "net/bytes.h"
#include "net/offload.h"

#include <string.h>

#define WINDOW 65535u

static void send_segment(struct net_tcp *tcp, unsigned flags, const void *data, size_t size)
{
    uint8_t segment[32768 + 24] = {0}, pseudo[12] = {0};
    size_t head = flags & TCP_SYN ? 24 : 20;

    assert_true(head + size <= sizeof(segment));
    put16(segment, tcp->port);
    put16(segment + 2, tcp->peer_port);
    put32(segment + 4, tcp->sequence);
    put32(segment + 8, tcp->ack);
    segment[12] = (uint8_t)(head / 4 << 4);
    segment[13] = (uint8_t)flags;
    put16(segment + 14, WINDOW);
    if (flags & TCP_SYN) { /* the largest segment */
        memcpy(segment + 20, (uint8_t[]){2, 4}, 2);
        put16(segment + 22, 32768);
    }
    if (size)
        memcpy(segment + head, data, size);
    put32(pseudo, tcp->guest->address);
    put32(pseudo + 4, tcp->peer);
    pseudo[9] = IP_TCP;
    put16(pseudo + 10, (unsigned)(head + size));
    put16(segment + 16,
          offload_fold(offload_sum(segment, head + size, offload_sum(pseudo, sizeof(pseudo), 0))));
    net_guest_ip(tcp->guest, tcp->peer, IP_TCP, segment, head + size);
}

/* Receives the next segment of the connection. */
static void expect(struct net_tcp *tcp, struct net_packet *p)
{
    do {
        net_guest_expect(tcp->guest, p, IP_TCP, tcp->port);
    } while (p->from != tcp->peer || p->from_port != tcp->peer_port);
    tcp->reset |= (p->flags & TCP_RST) != 0;
    if (p->flags & TCP_ACK && (int32_t)(p->ack + p->window - tcp->allowed) > 0)
        tcp->allowed = p->ack + p->window;
}

/* Keeps what is in P and comes next, and acknowledges it. */
static void take(struct net_tcp *tcp, const struct net_packet *p)
{
    bool fin = p->flags & TCP_FIN;

    if (p->sequence == tcp->ack && !tcp->ended) {
        assert_true(tcp->kept + p->size <= sizeof(tcp->data));
        memcpy(tcp->data + tcp->kept, p->data, p->size);
        tcp->kept += p->size;
        tcp->ack += (uint32_t)p->size + fin;
        tcp->ended = fin;
    }
    if (p->size || fin)
        send_segment(tcp, TCP_ACK, NULL, 0);
}

void net_tcp_ask(struct net_tcp *tcp, struct net_guest *guest, unsigned port, uint32_t peer,
                 unsigned peer_port)
{
    *tcp = (struct net_tcp){.guest = guest,
                            .peer = peer,
                            .port = (uint16_t)port,
                            .peer_port = (uint16_t)peer_port,
                            .sequence = port * 7919u,
                            .allowed = port * 7919u};
    send_segment(tcp, TCP_SYN, NULL, 0);
    tcp->sequence++;
}

bool net_tcp_connect(struct net_tcp *tcp, struct net_guest *guest, unsigned port, uint32_t peer,
                     unsigned peer_port)
{
    struct net_packet p;

    net_tcp_ask(tcp, guest, port, peer, peer_port);
    do {
        expect(tcp, &p);
        if (tcp->reset)
            return false;
    } while (!(p.flags & TCP_SYN));
    tcp->ack = p.sequence + 1;
    send_segment(tcp, TCP_ACK, NULL, 0);
    return true;
}

void net_tcp_accept(struct net_tcp *tcp, struct net_guest *guest, unsigned port)
{
    struct net_packet p;

    do {
        net_guest_expect(guest, &p, IP_TCP, port);
    } while (!(p.flags & TCP_SYN));
    *tcp = (struct net_tcp){.guest = guest,
                            .peer = p.from,
                            .port = (uint16_t)port,
                            .peer_port = p.from_port,
                            .sequence = 1000,
                            .allowed = 1000,
                            .ack = p.sequence + 1};
    send_segment(tcp, TCP_SYN | TCP_ACK, NULL, 0);
    tcp->sequence++;
    do {
        expect(tcp, &p);
        assert_false(tcp->reset);
    } while (p.ack != tcp->sequence);
}

void net_tcp_await_window(struct net_tcp *tcp, size_t size)
{
    while ((int32_t)(tcp->sequence + (uint32_t)size - tcp->allowed) > 0) {
        struct net_packet p;

        expect(tcp, &p);
        assert_false(tcp->reset);
        take(tcp, &p);
    }
}

void net_tcp_send(struct net_tcp *tcp, const void *data, size_t size)
{
    net_tcp_await_window(tcp, size);
    send_segment(tcp, TCP_ACK | TCP_PSH, data, size);
    tcp->sequence += (uint32_t)size;
}

void net_tcp_await(struct net_tcp *tcp)
{
    struct net_packet p;

    do {
        expect(tcp, &p);
        assert_false(tcp->reset);
        take(tcp, &p);
    } while (!(p.flags & TCP_ACK) || p.ack != tcp->sequence);
}

size_t net_tcp_receive(struct net_tcp *tcp, void *data, size_t size)
{
    size_t done = 0;

    while (done < size && (tcp->kept || !tcp->ended)) {
        size_t part = MIN(size - done, tcp->kept);
        struct net_packet p;

        memcpy((uint8_t *)data + done, tcp->data, part);
        memmove(tcp->data, tcp->data + part, tcp->kept - part);
        tcp->kept -= part;
        done += part;
        if (done == size || tcp->ended)
            continue;
        expect(tcp, &p);
        assert_false(tcp->reset);
        take(tcp, &p);
    }
    return done;
}

void net_tcp_end(struct net_tcp *tcp)
{
    send_segment(tcp, TCP_FIN | TCP_ACK, NULL, 0);
    tcp->sequence++;
}

void net_tcp_finish(struct net_tcp *tcp)
{
    while (!tcp->ended) {
        struct net_packet p;

        expect(tcp, &p);
        assert_false(tcp->reset);
        take(tcp, &p);
        tcp->kept = 0;
    }
}
