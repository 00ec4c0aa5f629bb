/*
 * An I/O APIC: 24 inputs, each with a redirection entry that says what message it sends.
 *
 * Inputs are active or not; which voltage that is, and so the polarity bit, does not matter here.
 */
#ifndef DOPPEL_DEV_PC_IOAPIC_H
#define DOPPEL_DEV_PC_IOAPIC_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/dev.h"
#include "bus/irq.h"

#define IOAPIC_PINS    24
#define IOAPIC_VERSION 0x20u
#define IOAPIC_BASE    0xFEC00000u /* where the first one is */

struct ioapic;

/* ID is the initial APIC ID (4 bits). SINK takes the messages. */
struct ioapic *ioapic_create(struct bus *bus, uint64_t base, unsigned id, struct msi_sink sink,
                             struct error *err);
struct dev *ioapic_dev(struct ioapic *ioapic);

struct irq_line ioapic_pin(struct ioapic *ioapic, unsigned n);

/* Has EXPECT called, with the board lock, whenever an input's level-triggered message becomes
 * another; and for every input, at once. An input that has no such message sends one with DATA 0.
 */
void ioapic_watch(struct ioapic *ioapic,
                  void (*expect)(void *opaque, unsigned n, uint64_t address, uint32_t data),
                  void *opaque);

/* A local APIC broadcasts the end of a level-triggered interrupt. Board lock held. */
void ioapic_eoi(struct ioapic *ioapic, unsigned vector);

#endif
