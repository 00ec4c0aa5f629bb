/*
 * The local APICs of one VM (SDM volume 3, chapter 11): each vCPU has one, in xAPIC or x2APIC mode.
 *
 * Together they form the set to which all interrupt messages go. A local APIC's timer counts at
 * X86_APIC_TIMER_HZ before its divider.
 *
 * None of these functions needs the board lock unless it says so.
 */
#ifndef DOPPEL_DEV_PC_LAPIC_H
#define DOPPEL_DEV_PC_LAPIC_H

#include "base/error.h"
#include "bus/clock.h"
#include "bus/cpu_port.h"
#include "bus/dev.h"
#include "bus/irq.h"
#include "bus/local_apic.h"

#define LAPIC_VERSION 0x14u /* of an APIC that is part of the processor */

struct lapic_set;

/* Makes COUNT local APICs and plugs each into its port (apic_ops, apic). PHYSICAL_BITS
 * (MAXPHYADDR) bounds IA32_APIC_BASE. INIT messages reset the APIC they reach; what they and
 * start-up messages mean for the processor is for whoever sees CPU_REQ_INIT and _SIPI. */
struct lapic_set *lapic_set_create(struct clock *clock, struct cpu_port *const ports[],
                                   unsigned count, unsigned physical_bits,
                                   const struct lapic_board *board, struct error *err);
struct dev *lapic_set_dev(struct lapic_set *set);

/* Takes them out of their ports, or puts them back, while no vCPU runs. Out of them, they keep what
 * they have, and a reset leaves none of it. */
void lapic_set_plug(struct lapic_set *set, bool in);

/* All that the board wants of them. */
struct local_apics lapic_set_apics(struct lapic_set *set);

/* What firmware leaves behind, for after each reset: the bootstrap processor's APIC enabled in
 * virtual-wire mode, LINT0 = ExtINT and LINT1 = NMI. */
void lapic_firmware_setup(struct lapic_set *set);

/* Takes interrupt messages, in the format of SDM volume 3, 11.11. */
struct msi_sink lapic_set_msi(struct lapic_set *set);

/* The pins LINT0 (N = 0; the 8259s) or LINT1 (N = 1; NMI) of all local APICs. */
struct irq_line lapic_set_lint(struct lapic_set *set, unsigned n);

#endif
