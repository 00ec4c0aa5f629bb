/*
 * System control port A (port 92h): fast A20 gate and fast reset.
 */
#ifndef DOPPEL_DEV_PC_PORT92_H
#define DOPPEL_DEV_PC_PORT92_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/dev.h"
#include "bus/irq.h"

/* RESET is the machine's reset line. */
struct dev *port92_create(struct bus *bus, struct irq_line reset, struct error *err);

#endif
