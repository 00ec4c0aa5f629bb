/*
 * Consoles as they are described: console[,slot=N][,NAME=WHERE...], a port for each NAME. Those
 * called hvc0, hvc1 and so on are consoles; the guest knows the others by their name. WHERE is what
 * con/end.h says. Without any, there is hvc0=tty.
 */
#ifndef DOPPEL_VM_CONSOLE_PORTS_H
#define DOPPEL_VM_CONSOLE_PORTS_H

#include "dev/virtio/console.h"

/* Opens what TEXT describes and plugs it in. *TTY becomes the end that is `tty`, which belongs to
 * the device; if it is one already, TEXT may not have another. NULL on failure. */
struct dev *console_ports_create(const struct virtio_slot *slot, const char *text,
                                 const struct con_given *given, struct con_end **tty,
                                 struct error *err);

#endif
