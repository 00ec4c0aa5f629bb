/*
 * Where a vCPU's time goes, for --stats, and what it does, for --trace. At any moment its time goes
 * to one activity, so that the sums of all of them are the time inside run(). A vCPU whose machine
 * is neither measured nor traced has no meter.
 */
#ifndef DOPPEL_CPU_METER_H
#define DOPPEL_CPU_METER_H

#include "base/counter.h"
#include "base/util.h"
#include "cpu/trace.h"

#include <x86intrin.h>

/* Beside the causes of exits there is the guest's own code. */
enum { METER_GUEST = CAUSE_COUNT, METER_ACTIVITIES };

#define METER_MNEMONICS 2048u /* more than Zydis has */

struct meter {
    unsigned now;
    unsigned base; /* what the run loop goes back to after a fault */
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
    uint64_t told;    /* how many events the tracer has been told */
    uint64_t telling; /* ticks that took, which belong to no cause */
};

/* From now on time goes to ACTIVITY. Returns where it went before. METER may be NULL. */
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

static inline void meter_start(struct meter *meter)
{
    if (!meter)
        return;
    meter->now = meter->base;
    meter->since = __rdtsc();
}

/* Also after a fault, which leaves activities without saying so. */
static inline void meter_restore(struct meter *meter)
{
    if (meter)
        meter_switch(meter, meter->base);
}

unsigned meter_enter_traced(struct meter *meter, enum exit_cause cause, uint64_t rip, uint64_t a,
                            uint64_t b);
void meter_leave_traced(struct meter *meter, unsigned before);
void meter_transfer_traced(struct meter *meter, enum trace_kind kind, uint64_t rip, uint64_t a);

/* The guest's code at RIP makes the monitor deal with CAUSE; A and B are as in struct trace_event.
 * Returns what meter_leave wants. */
static inline unsigned meter_enter(struct meter *meter, enum exit_cause cause, uint64_t rip,
                                   uint64_t a, uint64_t b)
{
    if (likely(!meter))
        return 0;
    if (trace_on(meter->tracer))
        return meter_enter_traced(meter, cause, rip, a, b);
    return meter_switch(meter, cause);
}

/* The monitor has done so. */
static inline void meter_leave(struct meter *meter, unsigned before)
{
    if (likely(!meter))
        return;
    if (trace_on(meter->tracer))
        meter_leave_traced(meter, before);
    else
        meter_switch(meter, before);
}

/* Control passes between the guest's kernel and what it interrupted: TRACE_ENTRY and so on. */
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

/* What was learned about the cause under way. */
static inline void meter_detail(struct meter *meter, enum exit_cause cause, uint64_t a, uint64_t b)
{
    if (likely(!meter))
        return;
    meter->entered[cause].a = a;
    meter->entered[cause].b = b;
}

#endif
