/*
 * Local APICs in KVM, as the board sees them (bus/local_apic.h).
 */
#include "cpu/kvm/lapic.h"

#include "base/time.h"
#include "base/util.h"
#include "cpu/kvm/lapic_page.h"

#include <errno.h>
#include <string.h>

static int vm_call(const struct kvm_lapics *all, unsigned long request, const void *argument)
{
    const struct kvm_machine *m = all->machine;

    return kvm_call(m->calls, m->vm, request, (uintptr_t)argument);
}

/* --- Failures --------------------------------------------------------------------------------- */

static bool has_failed(struct kvm_lapics *all)
{
    return atomic_load(&all->failed);
}

void kvm_lapics_fail(struct kvm_lapics *all, int ret, const char *what)
{
    pthread_mutex_lock(&all->failing);
    if (!has_failed(all))
        error_set(&all->failure, -ret, "KVM: %s: %s", what, strerror(-ret));
    atomic_store(&all->failed, true);
    pthread_mutex_unlock(&all->failing);
    for (unsigned i = 0; i < all->count; i++)
        if (all->apic[i].port) /* so that it looks */
            cpu_port_request(all->apic[i].port, CPU_REQ_KICK);
}

/* --- Messages and LINT0 ----------------------------------------------------------------------- */

/* EPERM: no local APIC takes the message, as when it is of a processor that is not there. */
void kvm_lapics_send(struct kvm_lapics *all, uint64_t address, uint32_t data)
{
    const struct kvm_msi msi = {
        .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
    int ret;

    pthread_rwlock_rdlock(&all->sending);
    ret = vm_call(all, KVM_SIGNAL_MSI, &msi);
    pthread_rwlock_unlock(&all->sending);
    if (ret < 0 && ret != -EPERM)
        kvm_lapics_fail(all, ret, "cannot send an interrupt message");
}

static void send(void *opaque, uint64_t address, uint32_t data)
{
    struct kvm_lapics *all = opaque;
    const bool level = data >> 15 & 1, assert = data >> 14 & 1;
    const unsigned mode = data >> 8 & 7;

    if (address >> 20 != APIC_BASE_USUAL >> 20 || (level && !assert) || mode == APIC_START_UP)
        return;
    kvm_lapics_send(all, address, data);
}

/* The vCPUs look at it in kvm_lapic_offer. */
static void set_lint(void *opaque, unsigned n, bool level)
{
    struct kvm_lapics *all = opaque;
    const bool rises = level && !atomic_exchange(&all->lint, level);

    if (!level)
        atomic_store(&all->lint, false);
    for (unsigned i = 0; rises && i < all->count; i++) {
        atomic_store(&all->apic[i].rose, true);
        cpu_port_request(all->apic[i].port, CPU_REQ_INTR);
    }
}

/* --- Routes ----------------------------------------------------------------------------------- */

int kvm_lapics_give_routes(const struct kvm_lapics *all)
{
    return vm_call(all, KVM_SET_GSI_ROUTING, &all->routes);
}

static void expect(void *opaque, unsigned pin, uint64_t address, uint32_t data)
{
    struct kvm_lapics *all = opaque;
    struct kvm_irq_routing_entry *entry = &all->routes.entry[pin];
    int ret;

    if (entry->u.msi.address_lo == (uint32_t)address && entry->u.msi.data == data)
        return;
    entry->u.msi.address_lo = (uint32_t)address;
    entry->u.msi.data = data;
    ret = kvm_lapics_give_routes(all);
    if (ret < 0)
        kvm_lapics_fail(all, ret, "cannot say which interrupts are level-triggered");
}

/* --- State ------------------------------------------------------------------------------------ */

static int set_base(const struct kvm_lapic *lapic)
{
    struct {
        uint32_t nmsrs, padding;
        struct kvm_msr_entry entry;
    } msrs = {.nmsrs = 1, .entry = {.index = X86_MSR_APIC_BASE, .data = lapic->base}};
    int ret = kvm_cpu_call(lapic->cpu, KVM_SET_MSRS, &msrs);

    return ret == 1 ? 0 : ret < 0 ? ret : -EINVAL;
}

/* KVM forgets the initial count when the timer goes from deadline mode to another, so it is told
 * again. */
static int set_page(const struct kvm_lapic *lapic, const struct kvm_lapic_state *page)
{
    int ret = kvm_cpu_call(lapic->cpu, KVM_SET_LAPIC, page);

    return ret < 0 ? ret : kvm_cpu_call(lapic->cpu, KVM_SET_LAPIC, page);
}

uint64_t kvm_lapics_behind(const struct kvm_lapics *all)
{
    uint64_t guest = clock_now(all->clock);

    return time_now_ns() - guest;
}

static void note_given_timer(struct kvm_lapic *lapic, const struct lapic_state *state)
{
    lapic->timer = (struct kvm_timer_note){.noted = true,
                                           .counts = state->timer_running && state->timer_initial,
                                           .initial = state->timer_initial,
                                           .start = state->timer_start,
                                           .behind = kvm_lapics_behind(lapic->all)};
    lapic->deadline = 0;
    if ((state->lvt[0] & APIC_LVT_TIMER_MODE) == APIC_LVT_TIMER_DEADLINE)
        lapic->deadline = state->timer_tsc;
}

/* What the guest cannot bring about, a damaged file must not either. */
static uint64_t possible_base(const struct kvm_lapics *all, uint64_t base)
{
    base &= ((1ULL << all->physical_bits) - 1) & ~0x2FFULL;
    return base & APIC_BASE_ENABLE ? base : base & ~(uint64_t)APIC_BASE_X2APIC;
}

static void state_in(void *opaque, unsigned cpu, const struct lapic_state *state)
{
    struct kvm_lapics *all = opaque;
    struct kvm_lapic *lapic = &all->apic[cpu];
    struct lapic_state given = *state;
    int ret;

    given.base = lapic->base = possible_base(all, state->base);
    apic_page_of(&lapic->last, &given, cpu);
    ret = set_base(lapic);
    if (ret == 0)
        ret = set_page(lapic, &lapic->last);
    lapic->refused = ret < 0;
    if (ret < 0)
        kvm_lapics_fail(all, ret, "cannot set the state of a local APIC");
    note_given_timer(lapic, &given);
    lapic->cr8 = state->tpr >> 4;
    lapic->cr8_waits = false;
    lapic->lint1 = state->lint[1];
    lapic->extint_message = state->extint_message;
    lapic->errors = state->errors;
    atomic_store(&all->lint, state->lint[0]);
    atomic_store(&lapic->rose, false);
    cpu_port_request(lapic->port, CPU_REQ_INTR);
}

int kvm_lapic_get(const struct kvm_lapic *lapic, struct kvm_lapic_state *page)
{
    int ret = kvm_cpu_call(lapic->cpu, KVM_GET_LAPIC, page);

    if (ret == 0 && lapic->cr8_waits)
        apic_page_write(page, APIC_TPR, lapic->cr8 << 4);
    return ret;
}

/* Stores in STATE when the timer began or ends. */
static void timer_out(const struct kvm_lapic *lapic, const struct kvm_lapic_state *page,
                      struct lapic_state *state)
{
    struct {
        uint32_t nmsrs, padding;
        struct kvm_msr_entry entry;
    } msrs = {.nmsrs = 1, .entry.index = X86_MSR_TSC_DEADLINE};

    state->timer_tsc = lapic->deadline;
    if (kvm_cpu_call(lapic->cpu, KVM_GET_MSRS, &msrs) == 1 && msrs.entry.data)
        state->timer_tsc = msrs.entry.data - lapic->cpu->c.x.tsc_adjust;
    state->timer_running = lapic->timer.noted ? lapic->timer.counts : apic_page_counts(page);
    state->timer_start = lapic->timer.noted
                             ? lapic->timer.start
                             : apic_page_timer_start(page, clock_now(lapic->all->clock));
    if (lapic->timer.noted)
        state->timer_initial = lapic->timer.initial;
}

/* If KVM refuses, which it does for want of memory at most, what is known from before must do. */
static void state_out(void *opaque, unsigned cpu, struct lapic_state *state)
{
    struct kvm_lapics *all = opaque;
    const struct kvm_lapic *lapic = &all->apic[cpu];
    struct kvm_lapic_state page;

    if (lapic->refused || kvm_lapic_get(lapic, &page) < 0)
        page = lapic->last;
    *state = (struct lapic_state){.base = lapic->base};
    apic_page_out(&page, state);
    timer_out(lapic, &page, state);
    state->lint[0] = atomic_load(&all->lint);
    state->lint[1] = lapic->lint1;
    state->extint_message = lapic->extint_message;
    state->errors = lapic->errors;
}

/* Has KVM forget INITs, start-ups and NMIs that were on their way to a vCPU before a reset. KVM
 * carries out the former when it is asked for the vCPU's activity; all of its state is given to it
 * anew. */
static void drop_signals(const struct kvm_lapic *lapic)
{
    struct kvm_mp_state activity;
    int ret = kvm_cpu_call(lapic->cpu, KVM_GET_MP_STATE, &activity);

    if (ret < 0)
        kvm_lapics_fail(lapic->all, ret, "cannot get a vCPU's activity");
    lapic->cpu->is_known = false;
    lapic->cpu->nmis = 1;
}

static void firmware_setup(void *opaque)
{
    struct kvm_lapics *all = opaque;
    struct lapic_state state;

    for (unsigned i = 0; i < all->count; i++) {
        drop_signals(&all->apic[i]);
        apic_after_firmware(&state, i);
        state.lint[0] = atomic_load(&all->lint);
        state_in(all, i, &state);
    }
}

struct local_apics kvm_lapics_for_board(struct kvm_lapics *all)
{
    return (struct local_apics){
        .msi = {.send = send, .opaque = all},
        .lint = {.set = set_lint, .opaque = all},
        .firmware_setup = firmware_setup,
        .state_out = state_out,
        .state_in = state_in,
        .expect = expect,
        .wakes_inside = true,
        .opaque = all,
    };
}
