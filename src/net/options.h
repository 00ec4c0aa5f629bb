/*
 * What a user says of a network, as text: KIND[,KEY=VALUE]...
 *
 *      none                  no cable
 *      user                  a network of its own with a gateway to the host's networks
 *      tap=IF                a TAP interface of the host
 *      switch=NAME           a virtual switch, which VMs of the same user share
 *      stream=SOCKET         a Unix socket that speaks QEMU's framing: passt, gvproxy, ...
 *      vhost-user=SOCKET     a vhost-user back end (dev/vhost), not opened here
 *
 * For each kind:
 *
 *      mac=M                 the card's address, six pairs of hexadecimal digits with colons
 *      mtu=N                 the guest is told this MTU; 68 to 65535
 *      queues=N              pairs of queues of the card, 1 to 15
 *      hostname=NAME         what DHCP calls the guest, and by what a switch knows it
 *
 * For each kind but vhost-user, the first four for what the guest sends:
 *
 *      delay=T, jitter=T     it is T late, give or take: a number and us, ms or s (alone: ms)
 *      loss=P                P percent of the frames are lost, as 1.5 or 1.5%
 *      rate=N                at most N bits a second, in each direction: a number and K, M or G
 *      capture=F             frames of both directions are written to a pcap file
 *      isolate[=on|off]      in a process of its own (user)
 *
 * For user:
 *
 *      forward=[tcp:|udp:][ADDRESS:]PORT:GUESTPORT
 *                            what comes to the host's port goes to the guest's; may be given
 *                            up to 64 times. ADDRESS is an IPv4 address, 127.0.0.1 if none is
 *                            given, or, for TCP, an IPv6 address in brackets. PORT 0: any
 *                            that is free
 *      net=A/N               the network, 10.0.2.0/24 if none is given
 *      host=A, dns=A         the gateway's and the name server's address in it: .2 and .3
 *      dhcp=A                the guest's: .15
 *      ipv6[=on|off]         fec0::/64 as well, which is the rule
 *      tftp=DIR, bootfile=F  what a guest that boots from the network is offered
 *      restrict[=on|off]     the guest reaches nobody; forwards work
 *
 * In names a comma is written as two.
 */
#ifndef DOPPEL_NET_OPTIONS_H
#define DOPPEL_NET_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define NET_QUEUES_MOST   15
#define NET_FORWARDS_MOST 64
#define NET_NAME_MOST     63 /* bytes of a hostname, as in DNS */

enum net_kind { NET_NONE, NET_USER, NET_TAP, NET_SWITCH, NET_STREAM, NET_VHOST_USER, NET_KINDS };

struct net_forward {
    bool udp, ipv6;
    uint32_t address; /* IPv4 addresses are in the host's byte order */
    uint16_t port, guest_port;
    uint8_t address6[16]; /* instead of ADDRESS, if IPV6 */
};

/* All zero: none. */
struct net_shape {
    uint64_t delay, jitter; /* nanoseconds */
    uint32_t loss;          /* of a million frames */
    uint64_t rate;          /* bits a second; 0: no limit */
};

struct net_options {
    enum net_kind kind;
    char *target; /* the interface, the switch or the socket; else NULL */
    bool has_mac;
    uint8_t mac[6];
    unsigned mtu, queues; /* 0: not said; the MTU of a user network is always there */
    char *hostname;       /* NULL: not said, as for the other strings */
    struct net_shape shape;
    char *capture;
    bool isolate;

    /* user. Addresses are 0 if they were not said, and then filled in by net_options_parse. */
    struct net_forward *forward;
    unsigned forwards;
    uint32_t network, mask, host, dns, dhcp;
    bool no_ipv6, restricted;
    char *tftp, *bootfile;
};

/* Reads TEXT. On failure *OPTIONS needs no freeing. */
int net_options_parse(const char *text, struct net_options *options, struct error *err);
/* Frees what *OPTIONS holds, and clears it. */
void net_options_free(struct net_options *options);

/* What net_change takes: SHAPE holds what is now and is changed; *CAPTURE becomes a name to be
 * freed, an empty one to end the capture, or stays NULL. Nothing changes if it fails. */
int net_options_change(const char *text, struct net_shape *shape, char **capture,
                       struct error *err);

/* Whether NAME can be a host's in DNS: letters, digits and '-'. */
bool net_valid_hostname(const char *name);

/* The word of KIND: "user", ... */
const char *net_kind_name(enum net_kind kind);

#endif
