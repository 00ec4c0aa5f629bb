/*
 * A virtio console (virtio 1.2, 5.3) with several ports: consoles (/dev/hvc0 in a Linux guest), and
 * ports that are known by a name (/dev/virtio-ports/NAME), each with a host end (con/end.h).
 */
#ifndef DOPPEL_DEV_VIRTIO_CONSOLE_H
#define DOPPEL_DEV_VIRTIO_CONSOLE_H

#include "con/end.h"
#include "dev/virtio/pci.h"

#define VIRTIO_CONSOLE_PORTS_MAX ((VIRTIO_QUEUES_MAX - 2) / 2)
#define VIRTIO_CONSOLE_NAME_MAX  63

struct virtio_console_port {
    char name[VIRTIO_CONSOLE_NAME_MAX + 1]; /* empty: it is a console */
    struct con_end *end;                    /* not yet begun */
};

/* Makes a console with COUNT ports, at least one. The ends belong to it from then on, also if this
 * fails. */
struct dev *virtio_console_create(const struct virtio_slot *slot,
                                  const struct virtio_console_port *ports, unsigned count,
                                  struct error *err);

/* The size of the terminal behind the consoles; 0: unknown. Any thread, with any lock held: the
 * guest is told of it later, by the loop. DEV was made by virtio_console_create. */
void virtio_console_resize(struct dev *dev, unsigned rows, unsigned columns);

#endif
