/*
 * A guest that is played by a test: what it sends and answers on a network (net/net.h), with as
 * much of IP, UDP and TCP as that needs. Whatever does not come within a minute fails the test.
 */
#ifndef DOPPEL_TESTS_UNIT_NET_GUEST_H
#define DOPPEL_TESTS_UNIT_NET_GUEST_H

#include "base/loop.h"
#include "net/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Addresses are in the host's byte order. */
#define IP4(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))

enum { IP_ICMP = 1, IP_TCP = 6, IP_UDP = 17 };
enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16 };

struct net_guest {
    struct net *net;
    struct net_host host;
    int event; /* readable once `ready` has been called */
    uint8_t mac[6], gateway[6];
    uint32_t address, router, dns; /* by DHCP; 0: none */
    char name[64];                 /* what DHCP calls it */
    uint16_t mtu;                  /* as DHCP says; 0: it does not */
    uint8_t frame[NET_FRAME_MOST]; /* the last one that was received */
    size_t size;
    struct net_offload offload; /* and what it leaves undone */
};

/* A packet of IPv4 that was received, within the guest's frame. */
struct net_packet {
    uint32_t from, to;
    unsigned protocol;
    uint16_t from_port, to_port; /* TCP and UDP */
    uint32_t sequence, ack;      /* TCP */
    unsigned flags, window;
    const uint8_t *data;
    size_t size;
};

/* Opens TEXT on LOOP, with a card whose address ends in N, and begins. The test fails if it
 * cannot. */
void net_guest_open(struct net_guest *guest, struct loop *loop, const char *text, unsigned n,
                    unsigned accepts);
/* The same for a host that has more. */
void net_guest_open_on(struct net_guest *guest, const struct net_host *host, const char *text,
                       unsigned n, unsigned accepts);
void net_guest_close(struct net_guest *guest);

/* Sends a frame with this TYPE and payload to TO. */
void net_guest_send(struct net_guest *guest, const uint8_t *to, unsigned type, const void *payload,
                    size_t size);
/* Sends a frame as it is. */
void net_guest_send_frame(struct net_guest *guest, const void *frame, size_t size,
                          const struct net_offload *offload);

/* Receives the next frame. False: none comes within MS milliseconds. */
bool net_guest_receive(struct net_guest *guest, int ms);
/* Receives the next packet of IPv4 that is for the guest; answers requests of ARP meanwhile. */
bool net_guest_packet(struct net_guest *guest, struct net_packet *packet, int ms);
/* The next one of PROTOCOL for PORT (0: any). */
void net_guest_expect(struct net_guest *guest, struct net_packet *packet, unsigned protocol,
                      unsigned port);

/* Finds out the address of the card that has ADDRESS, by ARP, and stores it as the gateway's. */
bool net_guest_arp(struct net_guest *guest, uint32_t address, int ms);
/* Has itself configured by DHCP: discover, offer, request, acknowledgment. */
void net_guest_dhcp(struct net_guest *guest);

/* Sends a packet to TO by way of the gateway. */
void net_guest_ip(struct net_guest *guest, uint32_t to, unsigned protocol, const void *data,
                  size_t size);
void net_guest_udp(struct net_guest *guest, uint32_t to, unsigned from_port, unsigned to_port,
                   const void *data, size_t size);

/* A connection of TCP. */
struct net_tcp {
    struct net_guest *guest;
    uint32_t peer;
    uint16_t port, peer_port;
    uint32_t sequence; /* the next byte that it sends */
    uint32_t ack;      /* the next byte that it expects */
    uint32_t allowed;  /* the first byte that it may not send yet: the peer's window */
    bool ended;        /* the peer has sent its last byte */
    bool reset;
    uint8_t data[2 * 65536]; /* what has come and was not received yet */
    size_t kept;
};

/* Asks for a connection from PORT, and does not wait for an answer. */
void net_tcp_ask(struct net_tcp *tcp, struct net_guest *guest, unsigned port, uint32_t peer,
                 unsigned peer_port);
/* Opens a connection from PORT. False: it is refused. */
bool net_tcp_connect(struct net_tcp *tcp, struct net_guest *guest, unsigned port, uint32_t peer,
                     unsigned peer_port);
/* Waits for one to PORT. */
void net_tcp_accept(struct net_tcp *tcp, struct net_guest *guest, unsigned port);
/* Sends SIZE bytes, at most 32,000, once the peer's window lets it. */
void net_tcp_send(struct net_tcp *tcp, const void *data, size_t size);
/* Waits until the peer's window lets it send SIZE bytes more. */
void net_tcp_await_window(struct net_tcp *tcp, size_t size);
/* Waits until all that was sent is acknowledged. */
void net_tcp_await(struct net_tcp *tcp);
/* Receives what comes, up to SIZE bytes or until the peer has ended. Returns how many. */
size_t net_tcp_receive(struct net_tcp *tcp, void *data, size_t size);
/* Says that nothing more will be sent. */
void net_tcp_end(struct net_tcp *tcp);
/* Waits until the peer has ended, too, dropping what it still sends. */
void net_tcp_finish(struct net_tcp *tcp);

#endif
