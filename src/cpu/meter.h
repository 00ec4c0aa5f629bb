/*
 * Where a vCPU's time goes, for --stats, and what it does, for --trace. At any moment its time goes
 * to one activity, so the times of all activities add up to the time inside run(). A vCPU whose
 * machine is neither measured nor traced has no meter.
 */
#ifndef DOPPEL_CPU_METER_H
#define DOPPEL_CPU_METER_H

#include "base/counter.h"
#include "base/util.h"
#include "cpu/trace.h"

#include <x86intrin.h>

/* The activities: one for each cause of an exit, and the guest's own code. */
enum { METER_GUEST = CAUSE_COUNT, METER_ACTIVITIES };

#define METER_MNEMONICS 2048u /* more than Zydis has */

struct meter {
    unsigned now;
    unsigned base; /* the activity of the run loop */
    uint64_t since;
    struct counter ticks[METER_ACTIVITIES];
    /* Instructions that were left to the interpreter one by one, by ZydisMnemonic. */
    struct meter_count {
        struct counter count, ticks;
    } mnemonic[METER_MNEMONICS];

    const struct tracer *tracer; /* or NULL */
    const struct x86_cpu *x;
    unsigned cpu;
    double tick_ns;
    struct {
        uint64_t start, a, b, told, telling;
    } entered[CAUSE_COUNT];
    uint64_t told;    /* events that the tracer has been told */
    uint64_t telling; /* ticks that telling them took, which belong to no cause */
};

/* Has time go to ACTIVITY from now on. Returns the activity before. METER may be NULL. */
static inline unsigned meter_switch(struct meter *meter, unsigned activity)
{
    unsigned before;
    uint64_t now;

    if (likely(!meter))
        return 0;
    now = __rdtsc();
    before = meter->now;
    counter_add(&meter->ticks[before], now - meter->since);
    meter->since = now;
    meter->now = activity;
    return before;
}

/* Called when the run loop begins. */
static inline void meter_start(struct meter *meter)
{
    if (!meter)
        return;
    meter->now = meter->base;
    meter->since = __rdtsc();
}

/* Has time go to the run loop again. For after a fault, which does not end activities one by one.
 * */
static inline void meter_restore(struct meter *meter)
{
    if (meter)
        meter_switch(meter, meter->base);
}

unsigned meter_enter_traced(struct meter *meter, enum exit_cause cause, uint64_t rip, uint64_t a,
                            uint64_t b);
void meter_leave_traced(struct meter *meter, unsigned before);
void meter_transfer_traced(struct meter *meter, enum trace_kind kind, uint64_t rip, uint64_t a);

/* Tells that the guest's code at RIP has the monitor deal with CAUSE; A and B are as in struct
 * trace_event. Returns what meter_leave wants. */
static inline unsigned meter_enter(struct meter *meter, enum exit_cause cause, uint64_t rip,
                                   uint64_t a, uint64_t b)
{
    if (likely(!meter))
        return 0;
    if (trace_on(meter->tracer))
        return meter_enter_traced(meter, cause, rip, a, b);
    return meter_switch(meter, cause);
}

/* Tells that the monitor has dealt with it. */
static inline void meter_leave(struct meter *meter, unsigned before)
{
    if (likely(!meter))
        return;
    if (trace_on(meter->tracer))
        meter_leave_traced(meter, before);
    else
        meter_switch(meter, before);
}

/* Tells that control passes between the guest's kernel and what it has interrupted: TRACE_ENTRY and
 * so on. */
static inline void meter_transfer(struct meter *meter, enum trace_kind kind, uint64_t rip,
                                  uint64_t a)
{
    if (unlikely(meter && trace_on(meter->tracer)))
        meter_transfer_traced(meter, kind, rip, a);
}

/* The counters of where time went, by exit_cause_name and by instructions' names. */
uint64_t meter_exit_ns(const struct meter *meter, enum exit_cause cause);
uint64_t meter_guest_ns(const struct meter *meter);
void meter_counters(const struct meter *meter, engine_counter_fn *each, void *opaque);

/* Sets A and B of the cause under way, which were not known when it began. */
static inline void meter_detail(struct meter *meter, enum exit_cause cause, uint64_t a, uint64_t b)
{
    if (likely(!meter))
        return;
    meter->entered[cause].a = a;
    meter->entered[cause].b = b;
}

#endif
