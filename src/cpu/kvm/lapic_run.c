/*
 * Local APICs in KVM, on their vCPUs' threads: interrupts of the 8259s, and leaving the guest with
 * nothing half done.
 */
#include "cpu/core/mode.h"
#include "cpu/kvm/lapic.h"
#include "cpu/kvm/lapic_page.h"

#include "base/time.h"
#include "base/util.h"

/* --- The timer -------------------------------------------------------------------------------- */

static void note_timer(struct kvm_lapic *lapic, const struct kvm_lapic_state *page)
{
    const uint64_t now = clock_now(lapic->all->clock);

    lapic->timer = (struct kvm_timer_note){.noted = true,
                                           .counts = apic_page_counts(page),
                                           .initial = apic_page_read(page, APIC_INITIAL),
                                           .start = apic_page_timer_start(page, now),
                                           .behind = kvm_lapics_behind(lapic->all)};
}

/* Whether a period of the timer may have ended between BEFORE and AFTER. */
static bool period_ended(const struct kvm_lapic_state *before, const struct kvm_lapic_state *after)
{
    if (!apic_page_counts(before))
        return false;
    return !apic_page_counts(after) ||
           apic_page_read(after, APIC_CURRENT) > apic_page_read(before, APIC_CURRENT);
}

/* --- Leaving the guest ------------------------------------------------------------------------ */

#define TRIES 8 /* a period is at least as long as KVM makes it, 200 us */

/* Has KVM do what it does only in KVM_RUN: tell of the end of an interrupt, and make an interrupt
 * request of each period of the timer that has ended. PAGE shows when the present one began. The
 * state in KVM takes no interrupts. */
static void flush(struct kvm_cpu *k, struct kvm_lapic_state *page)
{
    struct kvm_lapic_state before;
    unsigned tries = 0;

    do {
        before = *page;
        kvm_run_briefly(k);
        kvm_lapic_read(k, page);
    } while (period_ended(&before, page) && ++tries < TRIES);
}

/* Whether KVM has changed the vCPU that was given to it, because an INIT came. */
static bool was_reset(struct kvm_cpu *k, const struct x86_cpu *given)
{
    struct kvm_mp_state activity;
    struct kvm_regs regs;
    int ret = kvm_cpu_call(k, KVM_GET_MP_STATE, &activity);

    if (ret == 0)
        ret = kvm_cpu_call(k, KVM_GET_REGS, &regs);
    if (ret < 0)
        kvm_fail(k, ret, "cannot get the guest's state");
    return activity.mp_state == KVM_MP_STATE_INIT_RECEIVED
               ? given->activity != X86_WAIT_SIPI
               : regs.rip != given->reg[X86_RIP] || regs.rsp != given->reg[X86_RSP];
}

void kvm_lapic_settle(struct vcpu *c)
{
    struct kvm_cpu *k = kvm_cpu_of(c);
    const struct x86_cpu given = c->x;
    struct kvm_lapic_state page;
    bool reset = false;

    if (k->lapic->timer.noted) /* and has not run since */
        return;
    kvm_lapic_read(k, &page);
    c->x.rflags &= ~(uint64_t)X86_FLAG_IF;
    c->x.nmi_blocked = true;
    k->is_known = false;
    if (kvm_push(k)) { /* else KVM refuses the state, and something may be lost */
        flush(k, &page);
        reset = was_reset(k, &given);
    }
    c->x = given;
    k->is_known = false;
    k->lapic->last = page;
    note_timer(k->lapic, &page);
    if (reset)
        kvm_pull(k);
}

/* --- Interrupts ------------------------------------------------------------------------------- */

/* LINT0 has risen: an edge for the modes that are not ExtINT. */
static void raise_lint(struct kvm_cpu *k)
{
    struct kvm_lapic_state page;
    uint32_t lvt;
    int ret = 0;

    kvm_lapic_read(k, &page);
    lvt = apic_page_read(&page, APIC_LVT_LINT0);
    if (!(k->lapic->base & APIC_BASE_ENABLE) || (lvt & APIC_LVT_MASKED))
        return;
    if ((lvt & APIC_LVT_MODE) == APIC_NMI << 8)
        ret = kvm_cpu_call(k, KVM_NMI, NULL);
    else if ((lvt & APIC_LVT_MODE) == APIC_FIXED << 8)
        kvm_lapics_send(k->lapic->all, APIC_BASE_USUAL | k->lapic->id << 12, lvt & APIC_LVT_VECTOR);
    if (ret < 0)
        kvm_fail(k, ret, "cannot send an NMI");
}

/* Acknowledges the interrupt of the 8259s and has KVM deliver it. */
static void inject_external(struct kvm_cpu *k)
{
    const struct lapic_board *board = &k->lapic->all->board;
    const struct kvm_interrupt interrupt = {.irq = board->acknowledge(board->opaque) & 0xFF};
    int ret;

    counter_add(&k->c.exits[CAUSE_INTERRUPT], 1);
    k->run->ready_for_interrupt_injection = 0;
    ret = kvm_cpu_call(k, KVM_INTERRUPT, &interrupt);
    if (ret < 0)
        kvm_fail(k, ret, "cannot inject an interrupt");
}

/* A vCPU that has halted does not come to where KVM looks whether it is ready for an interrupt. */
void kvm_lapic_offer(struct kvm_cpu *k)
{
    struct kvm_lapic *lapic = k->lapic;

    atomic_fetch_and(&k->c.port->requests, ~(uint32_t)CPU_REQ_INTR);
    if (atomic_exchange(&lapic->rose, false))
        raise_lint(k);
    if (atomic_load(&lapic->all->lint) && !k->run->ready_for_interrupt_injection &&
        k->c.x.activity == X86_HALTED)
        kvm_run_briefly(k);
    if (atomic_load(&lapic->all->lint) && k->run->ready_for_interrupt_injection)
        inject_external(k);
    k->run->request_interrupt_window = atomic_load(&lapic->all->lint);
}

#define LOOK_EVERY 16 /* steps: going into KVM takes as long as many of them */

/* An interrupt comes from KVM only when that has the state, as if to run the guest. */
static void look_for_interrupt(struct kvm_cpu *k)
{
    if (!kvm_push(k))
        return;
    k->run->ready_for_interrupt_injection = 0;
    kvm_run_briefly(k);
    if (atomic_load(&k->lapic->all->lint) && k->run->ready_for_interrupt_injection) {
        inject_external(k);
        kvm_run_briefly(k);
    }
    kvm_pull(k); /* which delivers it */
}

void kvm_lapic_take_interrupt(struct vcpu *c)
{
    struct kvm_cpu *k = kvm_cpu_of(c);
    const uint64_t rip = c->x.reg[X86_RIP];
    const bool passed = c->debug_passed;

    if (!(c->x.rflags & X86_FLAG_IF) || c->x.interrupt_shadow || c->x.ss_shadow ||
        c->x.trap_pending || c->debug_hit || c->repeating || ++k->lapic->steps % LOOK_EVERY)
        return;
    look_for_interrupt(k);
    if (c->x.reg[X86_RIP] == rip)
        c->debug_passed = passed;
}

#define WAIT_NS NS_PER_MS

/* KVM would let the guest run on. */
void kvm_lapic_wait(struct vcpu *c)
{
    look_for_interrupt(kvm_cpu_of(c));
    if (c->x.activity != X86_RUNNING && !atomic_load(&c->port->requests))
        time_sleep_ns(WAIT_NS);
}
