/*
 * Local APICs as the board sees them, and the board as they see it. The board makes them (dev/pc),
 * unless the engine brings its own (a hypervisor's kernel has them).
 */
#ifndef DOPPEL_BUS_LOCAL_APIC_H
#define DOPPEL_BUS_LOCAL_APIC_H

#include "base/state.h"
#include "bus/irq.h"

#include <stdbool.h>
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

/* One bit per vector. */
struct lapic_vectors {
    uint64_t word[4];
};

#define LAPIC_LVTS 6 /* timer, thermal sensor, performance counters, LINT0, LINT1, error */

/* The state of one local APIC in the form that all local APICs give out and take in, and that a
 * saved machine has. Registers are as the guest sees them in xAPIC mode, but for what is said
 * here. */
struct lapic_state {
    uint64_t base;          /* IA32_APIC_BASE */
    uint8_t tpr;            /* task priority */
    uint32_t ldr, dfr, svr; /* logical destination, its format; spurious vector */
    uint64_t icr;           /* both halves, as in x2APIC mode if the APIC is in that */
    uint32_t lvt[LAPIC_LVTS];
    uint8_t esr, errors; /* what reads show; what has been logged since the last write */
    struct lapic_vectors irr, isr, tmr;
    bool lint[2];        /* the levels of the pins */
    bool extint_message; /* an ExtINT message waits */
    uint32_t timer_initial;
    uint8_t timer_divide; /* the register's bits 0, 1 and 3 */
    bool timer_running;   /* one-shot and periodic mode */
    uint64_t timer_start; /* guest time (clock_now) at which the running period began */
    uint64_t timer_tsc;   /* IA32_TSC_DEADLINE, in terms of clock_tsc; 0: not armed */
    uint32_t turn;        /* of processor 0: breaks ties for lowest-priority delivery to any */
};

/* The local APICs of all processors. */
struct local_apics {
    struct msi_sink msi;  /* takes interrupt messages (SDM volume 3, 11.11); any thread */
    struct irq_line lint; /* LINT0 of all: the 8259s drive it */
    /* Leaves them as firmware does: the bootstrap processor's enabled in virtual-wire mode,
     * LINT0 = ExtINT and LINT1 = NMI. While no vCPU runs, after each reset of the devices. */
    void (*firmware_setup)(void *opaque);
    /* The state of the one of processor CPU; while no vCPU runs. What is taken in may be of any
     * other local APICs, or out of a file: what a guest cannot bring about, it must not bring about
     * either. From state_in on, the vCPU is told of what is pending (CPU_REQ_INTR), and the timer
     * goes on. */
    void (*state_out)(void *opaque, unsigned cpu, struct lapic_state *state);
    void (*state_in)(void *opaque, unsigned cpu, const struct lapic_state *state);
    /* Told, with the board lock, that input PIN of the board's I/O APIC sends this message, so that
     * lapic_board.eoi comes for it; for each input from the moment on at which the board leads to
     * these local APICs. NULL: it comes for every vector. */
    void (*expect)(void *opaque, unsigned pin, uint64_t address, uint32_t data);
    /* INIT, start-up messages and interrupts reach vCPUs inside of the engine's run(), which does
     * not return EXIT_HALT then. */
    bool wakes_inside;
    void *opaque;
};

#define LAPIC_BOARD_PINS 24 /* inputs of the board's I/O APIC */

/* Saves or restores those of CPUS processors. */
void local_apics_state(const struct local_apics *apics, unsigned cpus, struct state *s);

#endif
