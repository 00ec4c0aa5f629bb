/*
 * The keyboard controller, ports 60h and 64h, with a keyboard on it that nobody types on.
 */
#ifndef DOPPEL_DEV_PC_I8042_H
#define DOPPEL_DEV_PC_I8042_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/dev.h"
#include "bus/irq.h"

/* KEYBOARD and AUX are IRQ 1 and IRQ 12; RESET is the machine's reset line. */
struct dev *i8042_create(struct bus *bus, struct irq_line keyboard, struct irq_line aux,
                         struct irq_line reset, struct error *err);

#endif
