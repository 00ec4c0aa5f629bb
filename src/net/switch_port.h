/*
 * One machine's port of a switch: frames in, and frames out. Private to switch*.c.
 *
 * What is sent to a machine that reads slowly waits in the backlog, up to a limit; then it is lost.
 */
#ifndef DOPPEL_NET_SWITCH_PORT_H
#define DOPPEL_NET_SWITCH_PORT_H

#include "net/switch.h"
#include "net/wire.h"

/* More than a window of TCP as Linux has it, so that one connection never loses a frame here. */
#define PORT_BACKLOG (4 * MiB)

struct port_parcel;

struct port {
    int fd; /* -1: nobody is there */
    bool greeted;
    uint64_t number; /* of the client: later ones have higher ones */
    struct switch_hello hello;
    size_t hello_size; /* bytes of it that have come */
    struct wire_in in;
    struct wire_out out;
    struct port_parcel *first, *last; /* the backlog */
    size_t backlog;                   /* bytes of memory that it has */
    bool unflushed;                   /* something is in `out` that more may follow */
    bool waits;                       /* for room: the loop watches for it */
    bool broken;
};

/* Begins with the connection FD. */
int port_open(struct port *port, int fd, struct error *err);
void port_close(struct port *port);

/* Sends a frame, now or later, or loses it. */
void port_send(struct port *port, const uint8_t *data, size_t size,
               const struct net_offload *offload);
/* Writes what was kept, and as much of the backlog as there is room for. Sets `waits` if that is
 * not all, and `broken`. */
void port_flush(struct port *port);

#endif
