/*
 * The 8254 interval timer (ports 40h-43h) and the part of port 61h that belongs to it.
 */
#ifndef DOPPEL_DEV_PC_PIT_H
#define DOPPEL_DEV_PC_PIT_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/dev.h"
#include "bus/irq.h"

#define PIT_HZ 1193182u

/* IRQ is driven by the output of counter 0. */
struct dev *pit_create(struct bus *bus, struct clock *clock, struct irq_line irq,
                       struct error *err);

#endif
