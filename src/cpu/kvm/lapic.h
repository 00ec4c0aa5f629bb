/*
 * Local APICs in KVM (KVM_CAP_SPLIT_IRQCHIP; Documentation/virt/kvm/api.rst): the I/O APIC and the
 * 8259s stay the board's. Where the host lacks this, or a test wants it so, the board's local APICs
 * are used and there is no struct kvm_lapics.
 *
 *      board                                 KVM
 *      I/O APIC, devices -- messages ------> KVM_SIGNAL_MSI ------> local APICs: timers, messages
 *      8259s ---- LINT0 --> KVM_INTERRUPT -----------------------> among them, HLT, INIT, start-up
 *      I/O APIC <-- end of an interrupt ---- KVM_EXIT_IOAPIC_EOI
 *
 * KVM has their state from state_in on until state_out, while the vCPU's state comes and goes
 * (state.c). Only IA32_TSC_DEADLINE, and a timer for which guest time has stood still, are given to
 * it by the vCPU's thread when that runs next.
 *
 * Guest time stands still while the machine is paused, and KVM's timers do not. So before a vCPU
 * leaves run(), it notes when the period of its timer began, by guest time (kvm_lapic_settle).
 */
#ifndef DOPPEL_CPU_KVM_LAPIC_H
#define DOPPEL_CPU_KVM_LAPIC_H

#include "cpu/kvm/vcpu.h"

/* When the timer of a local APIC began to count, in one-shot and periodic mode. */
struct kvm_timer_note {
    bool noted;
    bool counts;
    uint32_t initial;
    uint64_t start;  /* guest ns */
    uint64_t behind; /* how far guest time was behind the host's when this was noted */
};

struct kvm_lapic {
    struct kvm_lapics *all;
    struct kvm_cpu *cpu; /* NULL: not created yet */
    struct cpu_port *port;
    unsigned id;
    struct error failure; /* of a call by another thread; or code 0 */

    uint64_t base;               /* IA32_APIC_BASE, as KVM has it */
    unsigned cr8;                /* as KVM has it, or is to have it when the vCPU runs */
    bool cr8_waits;              /* the latter */
    struct kvm_lapic_state last; /* as it was given, or when the vCPU left run() */
    bool refused;                /* KVM has not taken what it was given */
    struct kvm_timer_note timer;
    uint64_t deadline; /* of IA32_TSC_DEADLINE, by clock_tsc: not given to KVM yet; or 0 */

    _Atomic bool rose; /* LINT0 has, since the vCPU has looked */
    bool lint1, extint_message;
    uint8_t errors;
    unsigned steps; /* since the last look for an interrupt; see kvm_lapic_take_interrupt */
};

struct kvm_lapics {
    struct kvm_machine *machine;
    struct lapic_board board;
    struct clock *clock;
    unsigned physical_bits;
    /* Held for reading while a message is sent, and for writing while a vCPU changes its local
     * APIC, with the other vCPUs stopped. A leaf. */
    pthread_rwlock_t sending;
    _Atomic bool lint; /* LINT0's level */
    _Atomic bool failed;
    pthread_mutex_t failing; /* guards FAILURE; a leaf */
    struct error failure;    /* what the guest cannot do without: a message or a route was lost */
    struct {                 /* as struct kvm_irq_routing, with its entries */
        uint32_t nr, flags;
        struct kvm_irq_routing_entry entry[LAPIC_BOARD_PINS];
    } routes; /* with the board lock */
    unsigned count;
    struct kvm_lapic apic[];
};

_Static_assert(offsetof(struct kvm_lapics, routes.entry) - offsetof(struct kvm_lapics, routes) ==
                   offsetof(struct kvm_irq_routing, entries),
               "as the kernel has it");

/* --- lapic_create.c --------------------------------------------------------------------------- */

/* accelerator.local_apics and .plug. */
int kvm_lapics_create(struct core *e, const struct lapic_board *board, struct local_apics *apics,
                      struct error *err);
void kvm_lapic_plug(struct core *e, struct cpu_port *port);
void kvm_lapics_destroy(struct kvm_lapics *all);
/* Has K have its local APIC, and takes that away again. */
void kvm_lapic_attach(struct kvm_cpu *k);
void kvm_lapic_detach(struct kvm_cpu *k);

/* --- lapic.c ---------------------------------------------------------------------------------- */

struct local_apics kvm_lapics_for_board(struct kvm_lapics *all);
/* Tells KVM all routes. */
int kvm_lapics_give_routes(const struct kvm_lapics *all);
/* Notes that something has failed that the guest cannot do without. Any thread. */
void kvm_lapics_fail(struct kvm_lapics *all, int ret, const char *what);
/* Sends a message. Any thread. */
void kvm_lapics_send(struct kvm_lapics *all, uint64_t address, uint32_t data);
/* How far guest time is behind the host's. */
uint64_t kvm_lapics_behind(const struct kvm_lapics *all);
/* The registers, with what waits. */
int kvm_lapic_get(const struct kvm_lapic *lapic, struct kvm_lapic_state *page);

/* --- lapic_push.c, on the vCPU's thread; these may raise ---------------------------------------
 */

/* Of kvm_push: gives KVM what waits. A negative errno. */
int kvm_lapic_push(struct kvm_cpu *k);
/* Between the two nothing else changes the local APIC. Afterwards pages may have moved. */
void kvm_lapic_begin_change(struct kvm_cpu *k);
void kvm_lapic_end_change(struct kvm_cpu *k);
/* kvm_lapic_get. */
void kvm_lapic_read(struct kvm_cpu *k, struct kvm_lapic_state *page);
/* Serves KVM_EXIT_IOAPIC_EOI. */
void kvm_lapic_end_of_interrupt(struct kvm_cpu *k, unsigned vector);

/* --- lapic_run.c, on the vCPU's thread; these may raise ----------------------------------------
 */

/* Before each KVM_RUN: gives the vCPU an interrupt of the 8259s, or has KVM tell when it takes one.
 */
void kvm_lapic_offer(struct kvm_cpu *k);
/* accelerator.take_interrupt and .settle. */
void kvm_lapic_take_interrupt(struct vcpu *c);
void kvm_lapic_settle(struct vcpu *c);
/* Waits a moment for what wakes a vCPU that has halted, and does not let it run. */
void kvm_lapic_wait(struct vcpu *c);

/* lapic_ops.c: what the interpreter asks; cpu_port.apic is the struct kvm_lapic. */
extern const struct apic_ops kvm_apic_ops;

#endif
