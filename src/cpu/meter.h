/*
 * Where a vCPU's time goes, for --stats: at any moment it goes to one activity, so that the sums of
 * all of them are the time inside run(). A vCPU whose machine is not to be measured has no meter.
 */
#ifndef DOPPEL_CPU_METER_H
#define DOPPEL_CPU_METER_H

#include "base/util.h"
#include "cpu/engine.h"

#include <x86intrin.h>

/* Beside the causes of exits there is the guest's own code. */
enum { METER_GUEST = CAUSE_COUNT, METER_ACTIVITIES };

struct meter {
    unsigned now;
    unsigned base; /* what the run loop goes back to after a fault */
    uint64_t since;
    uint64_t ticks[METER_ACTIVITIES];
    /* Instructions that were left to the interpreter one by one, by ZydisMnemonic. */
    struct meter_count {
        uint64_t count, ticks;
    } mnemonic[ENGINE_MNEMONICS];
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
    meter->ticks[before] += now - meter->since;
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

#endif
