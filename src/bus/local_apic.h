/*
 * Local APICs as the board sees them, and the board as they see it. The board makes them (dev/pc),
 * unless the engine brings its own (a hypervisor's kernel has them).
 */
#ifndef DOPPEL_BUS_LOCAL_APIC_H
#define DOPPEL_BUS_LOCAL_APIC_H

#include "bus/irq.h"

#include <stdint.h>

/* What the local APICs ask of the board, on a vCPU's thread and without any lock held: the
 * functions take the board lock themselves. */
struct lapic_board {
    /* A level-triggered interrupt with VECTOR has been handled: tells the I/O APICs. */
    void (*eoi)(void *opaque, unsigned vector);
    /* An interrupt acknowledge cycle: returns the vector from the 8259s. */
    unsigned (*acknowledge)(void *opaque);
    void *opaque;
};

/* The local APICs of all processors. */
struct local_apics {
    struct msi_sink msi;  /* takes interrupt messages (SDM volume 3, 11.11); any thread */
    struct irq_line lint; /* LINT0 of all: the 8259s drive it */
    /* Leaves them as firmware does: the bootstrap processor's enabled in virtual-wire mode,
     * LINT0 = ExtINT and LINT1 = NMI. While no vCPU runs, after each reset of the devices. */
    void (*firmware_setup)(void *opaque);
    void *opaque;
};

#endif
