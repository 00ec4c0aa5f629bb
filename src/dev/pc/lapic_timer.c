/*
 * The local APIC's timer (SDM volume 3, 11.5.4): one-shot, periodic, and TSC-deadline.
 *
 * Nothing counts: the current count and what is due follow from guest time. A tick of the input
 * clock is a guest nanosecond.
 */
#include "dev/pc/lapic_private.h"

#include "base/util.h"
#include "x86/cpuid.h"

_Static_assert(X86_APIC_TIMER_HZ == 1000000000, "a tick is a guest nanosecond");

static bool deadline_mode(const struct lapic *apic)
{
    return (apic->regs.lvt[LVT_TIMER] & LVT_TIMER_MODE) == LVT_TIMER_DEADLINE;
}

static bool periodic(const struct lapic *apic)
{
    return (apic->regs.lvt[LVT_TIMER] & LVT_TIMER_MODE) == LVT_TIMER_PERIODIC;
}

/* Divide configuration: bits 0, 1 and 3 count up from divide-by-2, and all ones divide by 1. */
static unsigned divisor(const struct lapic *apic)
{
    unsigned code = (apic->regs.timer_divide & 3) | (apic->regs.timer_divide >> 1 & 4);
    return 1u << ((code + 1) & 7);
}

static uint64_t period_ns(const struct lapic *apic)
{
    return (uint64_t)apic->regs.timer_initial * divisor(apic);
}

/* Whether the timer's interrupt waits in the IRR, where the next one would make no difference. */
static bool interrupt_waits(const struct lapic *apic)
{
    return lapic_requested(apic, apic->regs.lvt[LVT_TIMER] & LVT_VECTOR);
}

/* Arms the host timer for what comes next. A masked timer needs none: what its counter shows does
 * not depend on it. Nor does a periodic one whose interrupt waits: lapic_timer_accepted goes on. */
void lapic_timer_arm(struct lapic *apic)
{
    uint64_t when = UINT64_MAX;
    if (deadline_mode(apic)) {
        if (apic->regs.timer_tsc)
            when = clock_tsc_to_ns(apic->set->clock, apic->regs.timer_tsc);
    } else if (apic->regs.timer_running && !(apic->regs.lvt[LVT_TIMER] & LVT_MASKED)) {
        uint64_t step = period_ns(apic);
        if (periodic(apic) && step < CLOCK_SHORTEST_PERIOD_NS)
            step *= (CLOCK_SHORTEST_PERIOD_NS + step - 1) / step;
        if (!periodic(apic) || !interrupt_waits(apic))
            when = apic->regs.timer_start + step;
    }
    timer_arm(apic->timer, when);
}

/* Moves the start of the running period to the last one that has ended. Returns false if none
 * has. */
static bool end_periods(struct lapic *apic)
{
    uint64_t period = period_ns(apic);
    uint64_t passed = clock_now(apic->set->clock) - apic->regs.timer_start;
    if (passed < period)
        return false;
    apic->regs.timer_start += passed / period * period;
    return true;
}

/* What is due by now happens. */
static void catch_up(struct lapic *apic)
{
    if (deadline_mode(apic)) {
        if (apic->regs.timer_tsc && clock_tsc(apic->set->clock) >= apic->regs.timer_tsc) {
            apic->regs.timer_tsc = 0;
            lapic_raise_lvt(apic, LVT_TIMER);
        }
    } else if (apic->regs.timer_running && end_periods(apic)) {
        apic->regs.timer_running = periodic(apic);
        lapic_raise_lvt(apic, LVT_TIMER);
    }
}

/* The vCPU has taken interrupt VECTOR. Those of a periodic timer that were due while one waited are
 * lost, as they are where an IRR bit is set twice. */
void lapic_timer_accepted(struct lapic *apic, uint8_t vector)
{
    if (vector != (apic->regs.lvt[LVT_TIMER] & LVT_VECTOR) || !apic->regs.timer_running ||
        !periodic(apic))
        return;
    end_periods(apic);
    lapic_timer_arm(apic);
}

void lapic_timer_expired(void *opaque)
{
    struct lapic *apic = opaque;
    lapic_enter(apic);
    catch_up(apic);
    lapic_timer_arm(apic);
    lapic_leave(apic);
}

void lapic_timer_set_initial(struct lapic *apic, uint32_t value)
{
    if (deadline_mode(apic))
        return;
    apic->regs.timer_initial = value;
    apic->regs.timer_running = value != 0;
    apic->regs.timer_start = clock_now(apic->set->clock);
    lapic_timer_arm(apic);
}

uint32_t lapic_timer_count(const struct lapic *apic)
{
    if (!apic->regs.timer_running || deadline_mode(apic))
        return 0;
    uint64_t period = period_ns(apic);
    uint64_t passed = clock_now(apic->set->clock) - apic->regs.timer_start;
    if (passed >= period) {
        if (!periodic(apic))
            return 0;
        passed %= period;
    }
    return (uint32_t)(apic->regs.timer_initial - passed / divisor(apic));
}

void lapic_timer_set_divide(struct lapic *apic, uint8_t value)
{
    catch_up(apic);
    uint64_t counted = apic->regs.timer_initial - lapic_timer_count(apic);
    apic->regs.timer_divide = value;
    if (apic->regs.timer_running)
        apic->regs.timer_start = clock_now(apic->set->clock) - counted * divisor(apic);
    lapic_timer_arm(apic);
}

void lapic_timer_set_lvt(struct lapic *apic, uint32_t value)
{
    catch_up(apic);
    bool was_deadline = deadline_mode(apic);
    apic->regs.lvt[LVT_TIMER] = value;
    if (was_deadline != deadline_mode(apic)) {
        apic->regs.timer_running = false;
        apic->regs.timer_initial = 0;
        apic->regs.timer_tsc = 0;
    }
    lapic_timer_arm(apic);
}

void lapic_timer_set_tsc(struct lapic *apic, uint64_t value)
{
    if (!deadline_mode(apic))
        return;
    apic->regs.timer_tsc = value;
    catch_up(apic);
    lapic_timer_arm(apic);
}

uint64_t lapic_timer_tsc(struct lapic *apic)
{
    catch_up(apic);
    return apic->regs.timer_tsc;
}
