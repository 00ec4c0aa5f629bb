/*
 * The protocols by which a switch answers. Private to switch_*.c.
 */
#ifndef DOPPEL_NET_SWITCH_ANSWER_H
#define DOPPEL_NET_SWITCH_ANSWER_H

#include "net/switch_hosts.h"

/* A packet of IPv4, or a datagram in one: DATA is what is in it. */
struct switch_packet {
    uint32_t from, to;
    unsigned protocol;
    const uint8_t *data;
    size_t size;
};

struct switch_destination {
    const uint8_t *mac;
    uint32_t address;
};

/* The switch's own address. */
uint32_t switch_own(const struct switch_hosts *hosts);
/* The address of the card MAC at PORT, which it gets now if it has none. 0: there is none left. */
uint32_t switch_lease(struct switch_hosts *hosts, unsigned port, const uint8_t *mac);
/* The address of the machine NAME; 0: there is none. */
uint32_t switch_find_name(const struct switch_hosts *hosts, const char *name);
/* The name of the machine that has ADDRESS, or NULL. */
const char *switch_find_address(const struct switch_hosts *hosts, uint32_t address);

/* Both write an answer of at most MOST bytes, of which there are 1,400 at least, to REPLY. Return
 * its size; 0: there is none. */
size_t switch_dhcp_answer(struct switch_hosts *hosts, unsigned port, const struct switch_packet *p,
                          struct switch_destination *to, uint8_t *reply, size_t most);
size_t switch_dns_answer(const struct switch_hosts *hosts, const struct switch_packet *p,
                         uint8_t *reply, size_t most);

#endif
