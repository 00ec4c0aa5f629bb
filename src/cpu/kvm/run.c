/*
 * Running guest code: in and out of KVM_RUN.
 */
#include "cpu/core/fault.h"
#include "cpu/core/mode.h"
#include "cpu/kvm/lapic.h"
#include "cpu/kvm/probe.h"

#include <errno.h>
#include <string.h>

static bool interrupt_waits(const struct kvm_cpu *k)
{
    const struct cpu_port *port = k->c.port;

    return port->apic_ops->pending(port->apic) >= 0;
}

/* Gives KVM an interrupt if the local APIC has one and the guest takes it now, or has KVM exit when
 * it does. */
static void offer_interrupt(struct kvm_cpu *k)
{
    const struct cpu_port *port = k->c.port;
    struct kvm_interrupt interrupt;
    int vector, ret;

    atomic_fetch_and(&k->c.port->requests, ~(uint32_t)CPU_REQ_INTR);
    if (interrupt_waits(k) && k->run->ready_for_interrupt_injection &&
        (vector = port->apic_ops->ack(port->apic)) >= 0) {
        interrupt.irq = (uint32_t)vector;
        counter_add(&k->c.exits[CAUSE_INTERRUPT], 1);
        k->run->ready_for_interrupt_injection = 0;
        ret = kvm_cpu_call(k, KVM_INTERRUPT, &interrupt);
        if (ret < 0)
            kvm_fail(k, ret, "cannot inject an interrupt");
    }
    k->run->request_interrupt_window = interrupt_waits(k);
}

/* Whether an interrupt or NMI waits for the guest to take it, and KVM would be late. The guest
 * could go on for ever then, because it takes interrupts for moments only. */
static bool waits_in_vain(const struct kvm_cpu *k)
{
    return !k->lapic && (interrupt_waits(k) || k->c.x.nmis_pending) &&
           !(kvm_abilities(kvm_machine_of(&k->c)) & KVM_OPENS_WINDOWS);
}

/* Runs the guest once. */
static enum kvm_next run_once(struct kvm_cpu *k)
{
    enum kvm_next next;
    int ret;

    /* What is completed may be a fault, which comes before an interrupt. */
    if (!k->lapic && interrupt_waits(k) && (next = kvm_complete(k)) != KVM_GO_ON)
        return next;

    if (k->refresh) {
        k->refresh = false;
        kvm_slots_refresh(&kvm_machine_of(&k->c)->slots);
    }
    if (k->lapic)
        kvm_lapic_offer(k);
    else
        offer_interrupt(k);
    if (k->run->request_interrupt_window && waits_in_vain(k))
        return KVM_LEAVE;
    ret = kvm_enter(k);
    switch (ret) {
    case 0: return kvm_serve_exit(k);
    case -EINTR:
    case -EAGAIN: return KVM_GO_ON;
    case -EFAULT: k->refresh = true; return KVM_INTERPRET; /* a page is not in the mirror */
    default: kvm_fail(k, ret, "the guest cannot run");
    }
}

/* Whether control must go to the run loop. An interrupt is offered to the guest here. */
static bool is_due(const struct vcpu *c)
{
    return (atomic_load_explicit(&c->port->requests, memory_order_relaxed) &
            ~(uint32_t)CPU_REQ_INTR) |
           c->check_interrupt;
}

/* Raises EXIT_FAILED if something has failed that the guest cannot do without. */
static void check_failures(struct kvm_cpu *k)
{
    const struct kvm_machine *machine = kvm_machine_of(&k->c);
    const struct kvm_slots *slots = &machine->slots;
    const struct kvm_lapics *lapics = machine->lapics;

    if (atomic_load(&slots->failed) && !k->failure.code)
        k->failure = slots->failure;
    if (lapics && atomic_load(&lapics->failed) && !k->failure.code)
        k->failure = lapics->failure;
    if (atomic_load(&machine->doorbells.failed) && !k->failure.code)
        error_set(&k->failure, atomic_load(&machine->doorbells.failed),
                  "KVM: cannot give a doorbell back: %s",
                  strerror(atomic_load(&machine->doorbells.failed)));
    if (k->failure.code)
        raise_failure(&k->c);
}

/* Runs the guest until something is to be done outside of KVM, and takes the state. */
static enum kvm_next run_in_kvm(struct kvm_cpu *k)
{
    struct vcpu *c = &k->c;
    enum kvm_next next, completed;

    c->history[c->history_at++ % HISTORY] = c->x.reg[X86_RIP];
    k->run->ready_for_interrupt_injection = 0;
    do
        next = run_once(k);
    while (next == KVM_GO_ON && !is_due(c));
    completed = kvm_complete(k);
    if (completed != KVM_GO_ON)
        next = completed;
    /* RIP is that of a handler if an event has been delivered, behind HLT, too, whose debug trap
     * wakes the guest. */
    if (kvm_pull(k) && (next == KVM_INTERPRET || next == KVM_HALT))
        next = KVM_LEAVE;
    return next;
}

static void halt(struct vcpu *c)
{
    c->x.activity = X86_HALTED;
    c->x.interrupt_shadow = c->x.ss_shadow = false;
    update_stepping(c);
}

/* Runs the guest in KVM, or finds that it cannot. */
static enum kvm_next run_or_refuse(struct kvm_cpu *k)
{
    struct vcpu *c = &k->c;
    const bool interprets = !kvm_push_debugger(k);

    if (k->lapic && c->x.activity != X86_RUNNING && (interprets || c->stepping)) {
        kvm_lapic_wait(c);
        return KVM_LEAVE;
    }
    if (k->lapic && interprets)
        kvm_lapic_take_interrupt(c);
    return interprets || !kvm_push(k) ? KVM_INTERPRET : run_in_kvm(k);
}

void kvm_run_guest(struct vcpu *c)
{
    const struct interpreter *interpreter = c->core->interpreter;
    struct kvm_cpu *k = kvm_cpu_of(c);
    enum kvm_next next;

    check_failures(k);
    if (waits_in_vain(k)) {
        interpreter->execute(c, interpreter->next(c));
        return;
    }
    next = run_or_refuse(k);
    switch (next) {
    case KVM_GO_ON:
    case KVM_LEAVE: break;
    case KVM_INTERPRET:
        if (!c->stepping) /* else the run loop has it executed as a step */
            interpreter->execute_one(c);
        break;
    case KVM_HALT: halt(c); break;
    case KVM_SHUTDOWN: c->x.activity = X86_SHUTDOWN; break;
    case KVM_DEBUG: kvm_note_breakpoint(k); break;
    }
}
