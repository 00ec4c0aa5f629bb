/*
 * Telling the tracer what a vCPU does; and where its time went.
 */
#include "cpu/meter.h"

#include <Zydis/Zydis.h>

_Static_assert(ZYDIS_MNEMONIC_MAX_VALUE < METER_MNEMONICS, "each has a counter");

static void tell_tracer(struct meter *m, struct trace_event *event)
{
    uint64_t start = __rdtsc();

    event->cpu = m->cpu;
    event->x = m->x;
    event->level = x86_cpl(m->x);
    if (event->kind == TRACE_RETURN || event->cause == CAUSE_INSTRUCTION)
        event->name = ZydisMnemonicGetString((ZydisMnemonic)event->a);
    m->told++;
    m->tracer->event(m->tracer->opaque, event);
    m->telling += __rdtsc() - start;
}

/* Whether CAUSE is one that the guest does not notice. */
static bool is_hidden(unsigned cause)
{
    return cause == CAUSE_TLB_MISS || cause == CAUSE_LOOKUP || cause == CAUSE_INSTRUCTION ||
           cause == CAUSE_BLOCK || cause == CAUSE_TRANSLATION;
}

unsigned meter_enter_traced(struct meter *m, enum exit_cause cause, uint64_t rip, uint64_t a,
                            uint64_t b)
{
    unsigned before = meter_switch(m, cause);

    if (!is_hidden(cause))
        tell_tracer(m, &(struct trace_event){
                           .kind = TRACE_GUEST, .cause = cause, .rip = rip, .a = a, .b = b});
    m->entered[cause].start = __rdtsc();
    m->entered[cause].a = a;
    m->entered[cause].b = b;
    m->entered[cause].told = m->told;
    m->entered[cause].telling = m->telling;
    return before;
}

void meter_leave_traced(struct meter *m, unsigned before)
{
    unsigned cause = meter_switch(m, before);
    uint64_t ticks;

    if (cause >= CAUSE_COUNT ||
        !m->entered[cause].start) /* no cause, or one that began before the trace */
        return;
    ticks = __rdtsc() - m->entered[cause].start - (m->telling - m->entered[cause].telling);
    m->entered[cause].start = 0;
    /* An instruction whose work has a cause of its own is not told twice. */
    if (cause == CAUSE_INSTRUCTION && m->entered[cause].told != m->told)
        return;
    tell_tracer(m, &(struct trace_event){.kind = TRACE_MONITOR,
                                         .cause = cause,
                                         .rip = m->x->reg[X86_RIP],
                                         .a = m->entered[cause].a,
                                         .b = m->entered[cause].b,
                                         .ns = (uint64_t)((double)ticks * m->tick_ns)});
}

void meter_transfer_traced(struct meter *m, enum trace_kind kind, uint64_t rip, uint64_t a)
{
    tell_tracer(m, &(struct trace_event){.kind = kind, .rip = rip, .a = a});
}

static uint64_t to_ns(const struct meter *m, const struct counter *ticks)
{
    return (uint64_t)((double)counter_read(ticks) * m->tick_ns);
}

uint64_t meter_exit_ns(const struct meter *m, enum exit_cause cause)
{
    return m ? to_ns(m, &m->ticks[cause]) : 0;
}

uint64_t meter_guest_ns(const struct meter *m)
{
    return m ? to_ns(m, &m->ticks[METER_GUEST]) : 0;
}

void meter_counters(const struct meter *m, engine_counter_fn *each, void *opaque)
{
    for (unsigned i = 0; m && i <= ZYDIS_MNEMONIC_MAX_VALUE; i++) {
        struct engine_counter counter = {.group = "interpreted",
                                         .name = ZydisMnemonicGetString((ZydisMnemonic)i),
                                         .count = counter_read(&m->mnemonic[i].count),
                                         .ns = to_ns(m, &m->mnemonic[i].ticks)};

        if (counter.count)
            each(opaque, &counter);
    }
}
