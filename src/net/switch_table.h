/*
 * Which address of a card is behind which port of a switch.
 *
 * A port has an address from the first frame that comes from it until the machine leaves: no other
 * machine can take it meanwhile. Each port has room for so many; the oldest makes room for a new
 * one.
 */
#ifndef DOPPEL_NET_SWITCH_TABLE_H
#define DOPPEL_NET_SWITCH_TABLE_H

#include "net/switch_hosts.h"

#define SWITCH_NOWHERE     UINT32_MAX
#define SWITCH_TABLE_OWN   64u   /* addresses of one port */
#define SWITCH_TABLE_SLOTS 8192u /* twice as many as all ports can have */

struct switch_entry {
    uint64_t mac; /* 0: the slot is free */
    uint32_t port;
};

/* Zero at first. */
struct switch_table {
    struct switch_entry slot[SWITCH_TABLE_SLOTS];
    /* By port: its addresses. When it has as many as it may, the oldest is where the next one goes.
     */
    uint64_t own[SWITCH_PORTS_MOST][SWITCH_TABLE_OWN];
    uint32_t count[SWITCH_PORTS_MOST]; /* that it has now */
    uint32_t next[SWITCH_PORTS_MOST];  /* where in OWN */
};

/* A frame comes from MAC at PORT. False: another port has that address, or it is none of a card. */
bool switch_table_learn(struct switch_table *table, unsigned port, const uint8_t *mac);
/* The port that has MAC, or SWITCH_NOWHERE. */
unsigned switch_table_find(const struct switch_table *table, const uint8_t *mac);
/* The machine at PORT has left. */
void switch_table_forget(struct switch_table *table, unsigned port);

#endif
