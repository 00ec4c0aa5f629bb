/*
 * One machine's port of a switch.
 */
#include "base/util.h"
#include "net/switch_port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct port_parcel {
    struct port_parcel *next;
    size_t size;
    struct net_offload offload;
    uint8_t data[];
};

/* The memory of a parcel for SIZE bytes. */
static size_t memory_of(size_t size)
{
    return sizeof(struct port_parcel) + size;
}

int port_open(struct port *port, int fd, struct error *err)
{
    *port = (struct port){.fd = -1};
    if (wire_in_create(&port->in, true, err) < 0)
        return -ENOMEM;
    if (wire_out_create(&port->out, true, err) < 0) {
        wire_in_destroy(&port->in);
        return -ENOMEM;
    }
    port->fd = fd;
    return 0;
}

static void drop_first(struct port *port)
{
    struct port_parcel *parcel = port->first;

    port->first = parcel->next;
    if (!port->first)
        port->last = NULL;
    port->backlog -= memory_of(parcel->size);
    free(parcel);
}

void port_close(struct port *port)
{
    while (port->first)
        drop_first(port);
    wire_in_destroy(&port->in);
    wire_out_destroy(&port->out);
    close(port->fd);
    port->fd = -1;
}

static void append(struct port *port, const uint8_t *data, size_t size,
                   const struct net_offload *offload)
{
    struct port_parcel *parcel;

    if (port->backlog + memory_of(size) > PORT_BACKLOG)
        return;
    parcel = malloc(memory_of(size));
    if (!parcel)
        return;
    *parcel = (struct port_parcel){.size = size, .offload = *offload};
    memcpy(parcel->data, data, size);
    if (port->last)
        port->last->next = parcel;
    else
        port->first = parcel;
    port->last = parcel;
    port->backlog += memory_of(size);
}

static int send_now(struct port *port, const uint8_t *data, size_t size,
                    const struct net_offload *offload)
{
    struct iovec iov = {(void *)data, size};
    int sent = wire_send(&port->out, port->fd, &iov, 1, size, offload);

    port->broken |= sent < 0;
    return sent;
}

void port_send(struct port *port, const uint8_t *data, size_t size,
               const struct net_offload *offload)
{
    if (port->broken || !port->greeted)
        return;
    if (port->first || send_now(port, data, size, offload) == 0)
        append(port, data, size, offload);
    port->unflushed = true;
}

void port_flush(struct port *port)
{
    int sent = 1;

    port->unflushed = false;
    while (port->first && sent > 0) {
        sent = send_now(port, port->first->data, port->first->size, &port->first->offload);
        if (sent > 0)
            drop_first(port);
    }
    if (sent > 0)
        sent = wire_flush(&port->out, port->fd);
    port->broken |= sent < 0;
    port->waits = sent == 0;
}
