/*
 * Where an engine's vCPU and its local APIC meet: each knows this struct and not the other.
 *
 * The local APIC is called by its own vCPU's thread and by whatever thread sends it an interrupt,
 * at high rates, without the board lock; it has a lock of its own, taken after the board lock. It
 * must not call out (to the I/O APIC, to another local APIC) with that lock held.
 */
#ifndef DOPPEL_BUS_CPU_PORT_H
#define DOPPEL_BUS_CPU_PORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Requests that make a vCPU leave guest code at the next instruction boundary. */
enum cpu_request {
    CPU_REQ_INTR = 1u << 0,   /* ask apic_ops.pending; made again when its answer changes */
    CPU_REQ_NMI = 1u << 1,    /* deliver one NMI */
    CPU_REQ_INIT = 1u << 2,   /* INIT signal (handled outside the engine) */
    CPU_REQ_SIPI = 1u << 3,   /* start-up IPI, vector in sipi_vector (outside the engine) */
    CPU_REQ_KICK = 1u << 4,   /* just return from run() */
    CPU_REQ_ENGINE = 1u << 5, /* the engine's own business (safe points) */
    /* A second NMI came before the vCPU has taken the first. A third is lost: a processor keeps one
     * in service and one pending (SDM volume 3, 6.7.1). Set by cpu_port_request only. */
    CPU_REQ_NMI_AGAIN = 1u << 6,
};

/* What an engine asks of the local APIC; APIC is cpu_port.apic. Only on the vCPU's thread. */
struct apic_ops {
    /* The vector that could be delivered now by priority (IRR against PPR, or ExtINT, for which
     * the return value is 256), or -1. No side effect. */
    int (*pending)(void *apic);
    /* Acknowledges what pending() reported and returns the vector (0..255), or -1 if it is gone. */
    int (*ack)(void *apic);
    /* IA32_APIC_BASE (1Bh), IA32_TSC_DEADLINE (6E0h; in terms of clock_tsc, so the engine takes
     * TSC_ADJUST off a value other than 0) and the x2APIC range (800h-8FFh).
     * 0, or -1 where hardware raises #GP(0). */
    int (*msr_read)(void *apic, uint32_t msr, uint64_t *value);
    int (*msr_write)(void *apic, uint32_t msr, uint64_t value);
    /* The xAPIC page, at the page that base() names; SIZE 1..8, OFFSET within the page. */
    uint64_t (*mmio_read)(void *apic, uint32_t offset, unsigned size);
    void (*mmio_write)(void *apic, uint32_t offset, unsigned size, uint64_t value);
    /* The guest physical address of the xAPIC page, or UINT64_MAX when it is not mapped (disabled
     * or in x2APIC mode). */
    uint64_t (*base)(void *apic);
    /* CR8: task priority class 0..15. */
    unsigned (*get_cr8)(void *apic);
    void (*set_cr8)(void *apic, unsigned value);
};

struct cpu_port {
    unsigned id; /* vCPU number, 0 is the bootstrap processor; also the initial APIC ID */
    const struct apic_ops *apic_ops;
    void *apic;

    _Atomic uint32_t requests; /* bits of enum cpu_request */
    bool held;                 /* see cpu_port_hold; the vCPU's own thread only */
    _Atomic uint8_t sipi_vector;

    /* Makes the vCPU see its requests: wakes its thread when it sleeps in HLT. Any thread. */
    void (*wake)(void *opaque);
    void *wake_opaque;

    /* Makes the vCPU leave guest code that does not look at REQUESTS by itself, as it is when the
     * host's processor runs all of it. The engine's, or NULL. Any thread. */
    void (*leave)(void *opaque);
    void *leave_opaque;
};

static inline void cpu_port_request(struct cpu_port *port, uint32_t bits)
{
    uint32_t before = atomic_fetch_or(&port->requests, bits);

    if (before & bits & CPU_REQ_NMI)
        atomic_fetch_or(&port->requests, CPU_REQ_NMI_AGAIN);
    if (port->wake)
        port->wake(port->wake_opaque);
    if (port->leave)
        port->leave(port->leave_opaque);
}

/* On the vCPU's thread, after a write for which bus_write returned true: the vCPU leaves run() and
 * its thread waits, with no lock held and outside of the engine, for room in the backend. */
static inline void cpu_port_hold(struct cpu_port *port)
{
    port->held = true;
    atomic_fetch_or(&port->requests, CPU_REQ_KICK);
}

#endif
