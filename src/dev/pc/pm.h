/*
 * ACPI power management: the fixed registers (events, control, timer) and general-purpose events.
 */
#ifndef DOPPEL_DEV_PC_PM_H
#define DOPPEL_DEV_PC_PM_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/dev.h"
#include "bus/irq.h"

/* Where the blocks are and how long; the FADT tells the guest. */
#define PM1_EVENT_PORT   0x600
#define PM1_EVENT_SIZE   4
#define PM1_CONTROL_PORT 0x604
#define PM1_CONTROL_SIZE 2
#define PM_TIMER_PORT    0x608
#define PM_TIMER_SIZE    4
#define PM_GPE0_PORT     0x620
#define PM_GPE0_SIZE     4
#define PM_SCI           9
#define PM_SLEEP_TYPE_S5 5 /* what \_S5 holds */

struct pm;

/* SCI is level-triggered; POWEROFF is raised when the guest enters S5. */
struct pm *pm_create(struct bus *bus, struct clock *clock, struct irq_line sci,
                     struct irq_line poweroff, struct error *err);
struct dev *pm_dev(struct pm *pm);

/* Board lock held. */
void pm_power_button(struct pm *pm);
void pm_rtc_alarm(struct pm *pm);
void pm_gpe(struct pm *pm, unsigned n); /* general-purpose event N (0..15) happens */

#endif
