/*
 * Local APICs in KVM, on their vCPUs' threads: what is given to KVM before the guest runs.
 */
#include "cpu/core/present.h"
#include "cpu/kvm/lapic.h"
#include "cpu/kvm/lapic_page.h"

/* --- Changing it while others send messages --------------------------------------------------- */

/* KVM takes all of a local APIC at once, so a message that came since it was read would be lost.
 * Messages come from threads of the monitor, and from the other vCPUs. */
void kvm_lapic_begin_change(struct kvm_cpu *k)
{
    if (!k->c.holds_stop)
        present_stop_others(&k->c);
    pthread_rwlock_wrlock(&k->lapic->all->sending);
}

void kvm_lapic_end_change(struct kvm_cpu *k)
{
    pthread_rwlock_unlock(&k->lapic->all->sending);
    if (!k->c.holds_stop)
        present_resume_others(&k->c);
}

/* --- The timer -------------------------------------------------------------------------------- */

/* Guest time that is behind by so much more than it was has stood still. */
#define STOOD_STILL_NS 1000

/* Has the timer count on by guest time. What KVM's own has done meanwhile counts for nothing. */
static int restore_timer(struct kvm_cpu *k)
{
    struct kvm_lapic *lapic = k->lapic;
    struct kvm_lapic_state page;
    int ret;

    kvm_lapic_begin_change(k);
    ret = kvm_lapic_get(lapic, &page);
    if (ret == 0) {
        apic_page_set_timer_start(&page, lapic->timer.start, clock_now(lapic->all->clock));
        ret = kvm_cpu_call(k, KVM_SET_LAPIC, &page);
    }
    kvm_lapic_end_change(k);
    return ret;
}

static int set_deadline(struct kvm_cpu *k)
{
    const struct {
        uint32_t nmsrs, padding;
        struct kvm_msr_entry entry;
    } msrs = {
        .nmsrs = 1,
        .entry = {.index = X86_MSR_TSC_DEADLINE, .data = k->lapic->deadline + k->c.x.tsc_adjust}};
    int ret = kvm_cpu_call(k, KVM_SET_MSRS, &msrs);

    k->lapic->deadline = 0;
    return ret < 0 ? ret : 0;
}

int kvm_lapic_push(struct kvm_cpu *k)
{
    struct kvm_lapic *lapic = k->lapic;
    int ret = 0;

    if (!lapic)
        return 0;
    lapic->cr8_waits = false; /* it has gone with the system registers */
    if (lapic->timer.noted && lapic->timer.counts &&
        kvm_lapics_behind(lapic->all) > lapic->timer.behind + STOOD_STILL_NS)
        ret = restore_timer(k);
    lapic->timer.noted = false;
    if (ret == 0 && lapic->deadline)
        ret = set_deadline(k);
    return ret;
}

/* --- The end of an interrupt ------------------------------------------------------------------ */

void kvm_lapic_read(struct kvm_cpu *k, struct kvm_lapic_state *page)
{
    int ret = kvm_lapic_get(k->lapic, page);

    if (ret < 0)
        kvm_fail(k, ret, "cannot get the state of the local APIC");
}

/* The end of a level-triggered interrupt, unless the guest tells the I/O APIC of it by itself. */
void kvm_lapic_end_of_interrupt(struct kvm_cpu *k, unsigned vector)
{
    const struct lapic_board *board = &k->lapic->all->board;
    struct kvm_lapic_state page;

    kvm_lapic_read(k, &page);
    if (!(apic_page_read(&page, APIC_SVR) & APIC_SVR_NO_BROADCAST))
        board->eoi(board->opaque, vector);
}
