/*
 * The real-time clock with its CMOS RAM, ports 70h and 71h.
 */
#ifndef DOPPEL_DEV_RTC_H
#define DOPPEL_DEV_RTC_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/dev.h"
#include "bus/irq.h"

#include <stdint.h>

/* LOW_RAM and HIGH_RAM are the bytes of RAM below and above 4 GiB, for the CMOS fields in which
 * firmware leaves them. */
struct dev *rtc_create(struct bus *bus, struct clock *clock, struct irq_line irq, uint64_t low_ram,
                       uint64_t high_ram, struct error *err);

#endif
