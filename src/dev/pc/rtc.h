/*
 * The real-time clock with its CMOS RAM, ports 70h and 71h.
 */
#ifndef DOPPEL_DEV_PC_RTC_H
#define DOPPEL_DEV_PC_RTC_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/dev.h"
#include "bus/irq.h"

#include <stdint.h>

#define RTC_CENTURY_REGISTER 0x32 /* in CMOS RAM; the FADT tells the guest */

/* IRQ is the interrupt; ALARM is high while the alarm is a cause of it, and wakes a machine that
 * sleeps. LOW_RAM and HIGH_RAM are the bytes of RAM below and above 4 GiB, for the CMOS fields in
 * which firmware leaves them. */
struct dev *rtc_create(struct bus *bus, struct clock *clock, struct irq_line irq,
                       struct irq_line alarm, uint64_t low_ram, uint64_t high_ram,
                       struct error *err);

#endif
