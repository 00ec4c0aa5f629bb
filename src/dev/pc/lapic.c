/*
 * The local APIC proper (SDM volume 3, 11.4-11.9): accepting interrupts, priorities, delivery to
 * the processor, end of interrupt, the local vector table and its pins.
 */
#include "dev/pc/lapic_private.h"

#include "base/util.h"

static void set_bit(struct lapic_vectors *set, unsigned vector)
{
    set->word[vector / 64] |= 1ULL << vector % 64;
}

static void clear_bit(struct lapic_vectors *set, unsigned vector)
{
    set->word[vector / 64] &= ~(1ULL << vector % 64);
}

static bool test_bit(const struct lapic_vectors *set, unsigned vector)
{
    return set->word[vector / 64] >> vector % 64 & 1;
}

/* The highest vector in SET, or -1. */
static int highest(const struct lapic_vectors *set)
{
    for (int i = ARRAY_SIZE(set->word) - 1; i >= 0; i--)
        if (set->word[i])
            return 64 * i + 63 - __builtin_clzll(set->word[i]);
    return -1;
}

/* The processor priority register (11.8.3.1). */
unsigned lapic_priority(const struct lapic *apic)
{
    int in_service = highest(&apic->regs.isr);
    unsigned service_class = in_service < 0 ? 0 : (unsigned)in_service & 0xF0;
    return (apic->regs.tpr & 0xF0u) >= service_class ? apic->regs.tpr : service_class;
}

static bool lint_is(const struct lapic *apic, unsigned n, enum delivery delivery)
{
    uint32_t lvt = apic->regs.lvt[LVT_LINT0 + n];
    return !(lvt & LVT_MASKED) && (lvt & LVT_MODE) >> 8 == delivery;
}

/* What could be delivered to the processor now. ExtINT knows no priority, and comes first. */
static int find_pending(const struct lapic *apic)
{
    if (!(apic->regs.base & BASE_ENABLE)) /* LINT0 is the processor's INTR pin */
        return apic->regs.lint[0] ? PENDING_EXTINT : PENDING_NONE;
    if (apic->regs.extint_message || (apic->regs.lint[0] && lint_is(apic, 0, DELIVER_EXTINT)) ||
        (apic->regs.lint[1] && lint_is(apic, 1, DELIVER_EXTINT)))
        return PENDING_EXTINT;
    int vector = highest(&apic->regs.irr);
    if (vector < 0 || (unsigned)vector >> 4 <= lapic_priority(apic) >> 4)
        return PENDING_NONE;
    return vector;
}

void lapic_enter(struct lapic *apic)
{
    pthread_mutex_lock(&apic->lock);
}

void lapic_leave(struct lapic *apic)
{
    bool mapped = (apic->regs.base & BASE_ENABLE) && !lapic_is_x2apic(apic);
    atomic_store(&apic->page, mapped ? ALIGN_DOWN(apic->regs.base, 4096) : UINT64_MAX);
    atomic_store(&apic->task, apic->regs.tpr);
    int pending = find_pending(apic);
    if (pending != PENDING_NONE && pending != atomic_load(&apic->pending))
        apic->outbox.requests |= CPU_REQ_INTR;
    atomic_store(&apic->pending, pending);
    struct outbox out = apic->outbox;
    apic->outbox = (struct outbox){.eoi = -1};
    pthread_mutex_unlock(&apic->lock);

    if (out.requests)
        cpu_port_request(apic->port, out.requests);
    if (out.eoi >= 0)
        apic->set->board.eoi(apic->set->board.opaque, (unsigned)out.eoi);
    if (out.has_message)
        lapic_send(apic->set, apic, &out.message);
}

void lapic_log_error(struct lapic *apic, uint8_t bit)
{
    bool first = !apic->regs.errors;
    apic->regs.errors |= bit;
    if (first) /* a write to the ESR arms this again */
        lapic_raise_lvt(apic, LVT_ERROR);
}

static void accept_vector(struct lapic *apic, uint8_t vector, bool level)
{
    if (vector < 16) {
        lapic_log_error(apic, ESR_RECEIVE_ILLEGAL_VECTOR);
        return;
    }
    set_bit(&apic->regs.irr, vector);
    if (level)
        set_bit(&apic->regs.tmr, vector);
    else
        clear_bit(&apic->regs.tmr, vector);
}

bool lapic_requested(const struct lapic *apic, uint8_t vector)
{
    return test_bit(&apic->regs.irr, vector);
}

/* INIT: all but the APIC's ID, its mode and the levels of its pins (11.4.7.3). */
void lapic_clear(struct lapic *apic)
{
    apic->regs.tpr = 0;
    apic->regs.ldr = 0;
    apic->regs.dfr = UINT32_MAX;
    apic->regs.svr = 0xFF;
    apic->regs.icr = 0;
    apic->regs.esr = apic->regs.errors = 0;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        apic->regs.lvt[i] = LVT_MASKED;
    apic->regs.irr = apic->regs.isr = apic->regs.tmr = (struct lapic_vectors){0};
    apic->regs.extint_message = false;
    apic->regs.timer_initial = 0;
    apic->regs.timer_divide = 0;
    apic->regs.timer_running = false;
    apic->regs.timer_tsc = 0;
    timer_disarm(apic->timer);
}

/* A message has arrived. While software has the APIC disabled, it takes only what is not an
 * interrupt (11.4.7.2). */
void lapic_accept(struct lapic *apic, const struct apic_message *message)
{
    if (!(apic->regs.base & BASE_ENABLE))
        return;
    switch (message->delivery) {
    case DELIVER_FIXED:
    case DELIVER_LOWEST:
        if (apic->regs.svr & SVR_ENABLE)
            accept_vector(apic, message->vector, message->level);
        break;
    case DELIVER_EXTINT:
        if (apic->regs.svr & SVR_ENABLE)
            apic->regs.extint_message = true;
        break;
    case DELIVER_NMI: apic->outbox.requests |= CPU_REQ_NMI; break;
    case DELIVER_INIT:
        lapic_clear(apic);
        apic->outbox.requests |= CPU_REQ_INIT;
        break;
    case DELIVER_SIPI:
        atomic_store(&apic->port->sipi_vector, message->vector);
        apic->outbox.requests |= CPU_REQ_SIPI;
        break;
    case DELIVER_SMI: /* there is no system management mode */
    case DELIVER_RESERVED: break;
    }
}

/* A local interrupt source fires. */
void lapic_raise_lvt(struct lapic *apic, enum lvt entry)
{
    uint32_t lvt = apic->regs.lvt[entry];
    if (lvt & LVT_MASKED)
        return;
    switch ((enum delivery)((lvt & LVT_MODE) >> 8)) {
    case DELIVER_FIXED: accept_vector(apic, lvt & LVT_VECTOR, false); break;
    case DELIVER_NMI: apic->outbox.requests |= CPU_REQ_NMI; break;
    case DELIVER_INIT:
        lapic_clear(apic);
        apic->outbox.requests |= CPU_REQ_INIT;
        break;
    default: break; /* ExtINT follows its pin; the others do not exist */
    }
}

/* A level-triggered fixed interrupt is sent once, and again after its EOI for as long as the pin
 * is high. */
void lapic_level_lint(struct lapic *apic, unsigned n)
{
    uint32_t *lvt = &apic->regs.lvt[LVT_LINT0 + n];
    if (!apic->regs.lint[n] || !lint_is(apic, n, DELIVER_FIXED) || !(*lvt & LVT_LEVEL) ||
        (*lvt & LVT_REMOTE_IRR))
        return;
    *lvt |= LVT_REMOTE_IRR;
    accept_vector(apic, *lvt & LVT_VECTOR, true);
}

/* Pin N of every APIC changes. Without its APIC (disabled in IA32_APIC_BASE), the processor has
 * INTR and NMI pins instead. */
static void set_lint(void *opaque, unsigned n, bool level)
{
    struct lapic_set *set = opaque;
    for (unsigned i = 0; i < set->count; i++) {
        struct lapic *apic = &set->apic[i];
        lapic_enter(apic);
        bool rising = level && !apic->regs.lint[n];
        apic->regs.lint[n] = level;
        if (!(apic->regs.base & BASE_ENABLE)) {
            if (rising && n == 1)
                apic->outbox.requests |= CPU_REQ_NMI;
        } else if (lint_is(apic, n, DELIVER_FIXED) && (apic->regs.lvt[LVT_LINT0 + n] & LVT_LEVEL)) {
            lapic_level_lint(apic, n);
        } else if (rising) {
            lapic_raise_lvt(apic, LVT_LINT0 + n);
        }
        lapic_leave(apic);
    }
}

struct irq_line lapic_set_lint(struct lapic_set *set, unsigned n)
{
    return (struct irq_line){.set = set_lint, .opaque = set, .n = n};
}

/* End of interrupt (11.8.5). */
void lapic_eoi(struct lapic *apic)
{
    int vector = highest(&apic->regs.isr);
    if (vector < 0)
        return;
    clear_bit(&apic->regs.isr, (unsigned)vector);
    if (!test_bit(&apic->regs.tmr, (unsigned)vector))
        return;
    if (!(apic->regs.svr & SVR_NO_BROADCAST))
        apic->outbox.eoi = vector;
    for (unsigned n = 0; n < 2; n++) {
        uint32_t *lvt = &apic->regs.lvt[LVT_LINT0 + n];
        if ((*lvt & LVT_REMOTE_IRR) && (*lvt & LVT_VECTOR) == (unsigned)vector) {
            *lvt &= ~LVT_REMOTE_IRR;
            lapic_level_lint(apic, n);
        }
    }
}

int lapic_pending(void *opaque)
{
    struct lapic *apic = opaque;
    return atomic_load(&apic->pending);
}

int lapic_acknowledge(void *opaque)
{
    struct lapic *apic = opaque;
    lapic_enter(apic);
    int vector = find_pending(apic);
    if (vector == PENDING_EXTINT)
        apic->regs.extint_message = false;
    else if (vector != PENDING_NONE) {
        clear_bit(&apic->regs.irr, (unsigned)vector);
        set_bit(&apic->regs.isr, (unsigned)vector);
        lapic_timer_accepted(apic, (uint8_t)vector);
    }
    lapic_leave(apic);
    if (vector != PENDING_EXTINT)
        return vector;
    vector = (int)(apic->set->board.acknowledge(apic->set->board.opaque) & 0xFF);
    /* The 8259s may have another one without letting go of the pin in between. */
    lapic_enter(apic);
    if (find_pending(apic) == PENDING_EXTINT)
        apic->outbox.requests |= CPU_REQ_INTR;
    lapic_leave(apic);
    return vector;
}

uint32_t lapic_logical_id(const struct lapic *apic)
{
    uint32_t id = apic->port->id;
    return lapic_is_x2apic(apic) ? (id >> 4) << 16 | 1u << (id & 15) : apic->regs.ldr;
}
