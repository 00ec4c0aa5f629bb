/*
 * What a virtual switch itself says on its network: it gives addresses out (DHCP, RFC 2131), knows
 * names (DNS, RFC 1035), and answers ARP and ICMP echo for its own address.
 *
 *      10.99.X.0/24          the network; X comes from the switch's name
 *      10.99.X.1             the switch
 *      10.99.X.16 to .254    the machines: by their name, so that each has the same again, as long
 * as no other one has it NAME.doppel.internal  a machine's address, and the name of an address
 *
 * A machine's name comes from its VM process's side, not from the guest, and a name or an address
 * that one machine has is no other one's. Frames come from guests, and may be anything.
 */
#ifndef DOPPEL_NET_SWITCH_HOSTS_H
#define DOPPEL_NET_SWITCH_HOSTS_H

#include "net/options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SWITCH_PORTS_MOST  64u
#define SWITCH_LEASES_MOST 16u   /* of one machine: its guest may have machines of its own */
#define SWITCH_REPLY_MOST  1514u /* bytes of a frame */
#define SWITCH_DOMAIN      "doppel.internal"

struct switch_lease {
    bool used;
    bool bound; /* to a card; else it waits for the first one of the machine's */
    uint8_t mac[6];
    unsigned port;
};

struct switch_hosts {
    uint32_t network;
    uint8_t mac[6];
    struct switch_lease lease[256]; /* by the last byte of the address */
    char name[SWITCH_PORTS_MOST][NET_NAME_MOST + 1];
};

/* Begins the network of the switch NAME. */
void switch_hosts_begin(struct switch_hosts *hosts, const char *name);
/* A machine called NAME, which may be empty, is at PORT. False: another machine has that name. It
 * is there all the same, without one. */
bool switch_hosts_enter(struct switch_hosts *hosts, unsigned port, const char *name);
/* It is gone, and so are its addresses. */
void switch_hosts_leave(struct switch_hosts *hosts, unsigned port);

/* Writes what the switch answers to the frame of SIZE bytes from PORT to REPLY, of
 * SWITCH_REPLY_MOST bytes. Returns its size; 0: nothing. */
size_t switch_hosts_answer(struct switch_hosts *hosts, unsigned port, const uint8_t *frame,
                           size_t size, uint8_t *reply);

#endif
