/*
 * The interpreter's run loop: blocks, faults, interrupts, single steps. And the state that is
 * derived from control registers, segments and flags.
 */
#include "cpu/interp/run.h"

#include "cpu/interp/accelerate.h"
#include "cpu/interp/access.h"
#include "cpu/interp/debug.h"
#include "cpu/interp/handlers.h"

#include <time.h>

/* --- Raising ---------------------------------------------------------------------------------- */

_Noreturn static void leave(struct vcpu *c, const struct uop *op, int vector, bool has_error,
                            uint32_t error)
{
    if (op && c->block) {
        uint64_t rip = c->x.reg[X86_RIP] + op->off;

        c->x.reg[X86_RIP] = in_64(c) ? rip : (uint32_t)rip;
        c->instructions -= (uint64_t)(c->block->count - op->number);
    }
    c->fault = (struct event){.vector = vector, .error = error, .has_error = has_error};
    longjmp(c->fault_exit, 1);
}

void raise_fault(struct vcpu *c, const struct uop *op, int vector)
{
    leave(c, op, vector, false, 0);
}

void raise_error(struct vcpu *c, const struct uop *op, int vector, uint32_t error)
{
    leave(c, op, vector, true, error);
}

void raise_page_fault(struct vcpu *c, const struct uop *op, uint64_t va, uint32_t error)
{
    c->x.cr2 = va;
    c->exits[CAUSE_PAGE_FAULT]++;
    leave(c, op, X86_PF, true, error);
}

/* --- Derived state ---------------------------------------------------------------------------- */

static bool is_narrow(const struct x86_seg *s)
{
    return s->limit != 0xFFFFFFFF || !(s->attr & X86_ATTR_WRITE) ||
           (s->attr & (X86_ATTR_CODE | X86_ATTR_DOWN | X86_ATTR_UNUSABLE));
}

static bool is_flat(const struct vcpu *c, enum x86_segment seg)
{
    return c->x.seg[seg].base == 0 && !c->narrow[seg];
}

void update_mode(struct vcpu *c)
{
    const struct x86_seg *cs = &c->x.seg[X86_CS];
    bool long64 = in_long_mode(c) && (cs->attr & X86_ATTR_L);
    unsigned mode = long64 ? MODE_64 : cs->attr & X86_ATTR_DB ? MODE_32 : MODE_16;

    for (unsigned i = 0; i < X86_SEGMENTS; i++) {
        c->base[i] = long64 && i < X86_FS ? 0 : c->x.seg[i].base;
        c->narrow[i] = is_narrow(&c->x.seg[i]);
    }
    if (in_real(c) || in_v86(c))
        mode |= MODE_REAL;
    else if (!long64 && cs->base == 0 && cs->limit == 0xFFFFFFFF && is_flat(c, X86_DS) &&
             is_flat(c, X86_ES) && is_flat(c, X86_SS) && (c->x.seg[X86_SS].attr & X86_ATTR_DB))
        mode |= MODE_FLAT;
    c->mode = (uint8_t)mode;
}

void update_context(struct vcpu *c)
{
    c->context = mmu_context(&c->x);
    c->check_alignment = (c->x.cr0 & X86_CR0_AM) && (c->x.rflags & X86_FLAG_AC) && cpl(c) == 3;
    /* The empty table sends every access down the slow path, where it is looked at. */
    c->tlb = c->watching || c->check_alignment ? &c->mmu.empty : c->mmu.table[c->context];
}

void flush_translations(struct vcpu *c)
{
    mmu_flush_all(&c->mmu, &c->x);
    update_context(c);
}

void update_stepping(struct vcpu *c)
{
    bool watching = debug_armed(c, 0xA); /* writes and accesses */

    c->stepping = (c->x.rflags & (X86_FLAG_TF | X86_FLAG_RF)) || c->x.interrupt_shadow ||
                  c->trap_pending || debug_armed(c, 0xF);
    if (watching != c->watching) {
        c->watching = watching;
        update_context(c);
    }
}

void flags_set(struct vcpu *c, uint64_t rflags)
{
    uint64_t changed = c->x.rflags ^ rflags;

    flags_set_status(c, rflags);
    c->x.rflags = (rflags & ~(uint64_t)X86_FLAGS_STATUS) | X86_FLAG_ONE;
    if (changed & rflags & X86_FLAG_IF)
        c->check_interrupt = true;
    if (changed & X86_FLAG_VM)
        update_mode(c);
    if (changed & (X86_FLAG_AC | X86_FLAG_VM))
        update_context(c);
    if (changed & (X86_FLAG_TF | X86_FLAG_RF))
        update_stepping(c);
}

/* --- Events ----------------------------------------------------------------------------------- */

/* What raise_* left behind: combines it with what was under delivery, and delivers. Returns false
 * on a triple fault. */
static bool deliver_fault(struct vcpu *c)
{
    struct event event = c->fault;

    meter_restore(c->meter);
    if (c->holds_stop) {
        c->holds_stop = false;
        safepoint_resume(&c->engine->safepoint, true);
    }
    c->bounce_size = 0;
    c->single = false;
    c->block = NULL;
    c->pending_dr6 = 0;
    c->trap_pending = false;
    if (c->in_software) {
        c->in_software = false;
        c->x.reg[X86_RIP] = c->software_start;
    }
    if (c->delivering >= 0) {
        int combined = x86_vector_combine(c->delivering, event.vector);

        if (combined < 0) {
            c->x.activity = X86_SHUTDOWN;
            c->delivering = -1;
            return false;
        }
        if (combined != event.vector)
            event = (struct event){.vector = combined, .has_error = true};
    }
    if (event.vector != X86_PF)
        c->exits[CAUSE_EXCEPTION]++;
    if (in_real(c))
        event.has_error = false;
    deliver(c, &event);
    return true;
}

static void deliver_interrupt(struct vcpu *c, int vector)
{
    struct event event = {.vector = vector, .external = true};

    c->exits[CAUSE_INTERRUPT]++;
    c->block = NULL;
    c->x.activity = X86_RUNNING;
    c->pauses = 0;
    deliver(c, &event);
}

/* Looks at requests and interrupts. Returns an exit, or -1 to go on with guest code. */
static int attend(struct vcpu *c)
{
    _Atomic uint32_t *requests = &c->port->requests;
    uint32_t seen = atomic_load(requests);

    if (seen & CPU_REQ_ENGINE) {
        atomic_fetch_and(requests, ~(uint32_t)CPU_REQ_ENGINE);
        safepoint_poll(&c->engine->safepoint);
    }
    if (seen & (CPU_REQ_KICK | CPU_REQ_INIT | CPU_REQ_SIPI))
        return EXIT_KICK;
    if (c->x.activity == X86_SHUTDOWN)
        return EXIT_SHUTDOWN;
    if (c->x.activity == X86_WAIT_SIPI)
        return EXIT_HALT;
    if ((seen & CPU_REQ_NMI) && !c->x.nmi_blocked && !c->x.interrupt_shadow) {
        atomic_fetch_and(requests, ~(uint32_t)CPU_REQ_NMI);
        c->x.nmi_blocked = true; /* even if the delivery faults */
        deliver_interrupt(c, X86_NMI);
    }
    if (seen & CPU_REQ_INTR) {
        atomic_fetch_and(requests, ~(uint32_t)CPU_REQ_INTR);
        c->check_interrupt = true;
    }
    if (c->check_interrupt && !c->x.interrupt_shadow) {
        const struct apic_ops *apic = c->port->apic_ops;
        int vector = -1;

        /* When IF is set, flags_set and STI ask again. */
        if ((c->x.rflags & X86_FLAG_IF) && apic->pending(c->port->apic) >= 0)
            vector = apic->ack(c->port->apic);
        c->interrupt_masked = !(c->x.rflags & X86_FLAG_IF);
        if (vector < 0)
            c->check_interrupt = false;
        else
            deliver_interrupt(c, vector);
    }
    return c->x.activity == X86_HALTED ? EXIT_HALT : -1;
}

static bool needs_attention(const struct vcpu *c)
{
    /* A masked NMI stays in requests; it is no reason to look every time. */
    uint32_t seen = atomic_load_explicit(&c->port->requests, memory_order_relaxed);

    return unlikely(seen | c->check_interrupt | (c->x.activity != X86_RUNNING)) &&
           (c->check_interrupt || c->x.activity != X86_RUNNING || (seen & ~(uint32_t)CPU_REQ_NMI) ||
            !c->x.nmi_blocked);
}

/* --- Running ---------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void execute(struct vcpu *c, struct block *b)
{
    const struct uop *op = b->op;

    c->block = b;
    c->instructions += b->count;
    c->history[c->history_at++ % HISTORY] = c->x.reg[X86_RIP];
    do
        op = op->fn(c, op);
    while (op);
}

/* Whether identifiers of address spaces began anew: what the accelerator knows by them is out of
 * date. */
static void check_spaces(struct vcpu *c)
{
    if (likely(c->clears == c->mmu.clears))
        return;
    c->clears = c->mmu.clears;
    c->engine->accelerator->unmapped(c, 0, true);
}

void interp_execute(struct vcpu *c, struct block *b)
{
    c->exits[CAUSE_BLOCK]++;
    meter_switch(c->meter, CAUSE_BLOCK);
    execute(c, b);
    meter_restore(c->meter);
    check_spaces(c);
}

/* Executes B, which is one instruction, and notes how long it took. */
static void execute_metered(struct vcpu *c, struct block *b)
{
    struct meter_count *count = &c->meter->mnemonic[b->op[0].mnemonic];
    uint64_t start = __rdtsc();

    count->count++; /* even if it raises */
    meter_detail(c->meter, CAUSE_INSTRUCTION, b->op[0].mnemonic, 0);
    execute(c, b);
    count->ticks += __rdtsc() - start;
}

void interp_execute_one(struct vcpu *c)
{
    struct block *b;
    unsigned before;

    c->exits[CAUSE_INSTRUCTION]++;
    before = meter_enter(c->meter, CAUSE_INSTRUCTION, c->x.reg[X86_RIP], 0, 0);
    c->single = true;
    c->block = NULL;
    b = block_find(c);
    if (unlikely(c->meter))
        execute_metered(c, b);
    else
        execute(c, b);
    check_spaces(c);
    c->single = false;
    c->block = NULL;
    meter_leave(c->meter, before);
}

/* One instruction, with everything that may happen around it. */
static void step(struct vcpu *c)
{
    bool tf = c->x.rflags & X86_FLAG_TF, shadow = c->x.interrupt_shadow;

    if (c->trap_pending && !c->ss_shadow) { /* left by a task switch outside of a step */
        debug_after_instruction(c, false);
        return;
    }
    if (!c->ss_shadow && debug_armed(c, 1))
        debug_check_fetch(c, in_64(c) ? c->x.reg[X86_RIP]
                                      : (uint32_t)(c->x.seg[X86_CS].base + c->x.reg[X86_RIP]));
    c->x.interrupt_shadow = c->ss_shadow = false;
    c->keep_rf = c->repeating = c->no_step = false;
    execute(c, block_find(c));
    c->block = NULL;
    if (shadow)
        c->check_interrupt = true;
    if (!c->keep_rf) {
        if (c->repeating)
            c->x.rflags |= X86_FLAG_RF;
        else
            c->x.rflags &= ~(uint64_t)X86_FLAG_RF;
    }
    update_stepping(c);
    if (!c->ss_shadow)
        debug_after_instruction(c, tf && !c->no_step);
}

/* What needs attention, then a block or an instruction. Returns an exit, or -1 to go on. */
static inline int turn(struct vcpu *c)
{
    if (unlikely(needs_attention(c))) {
        int exit = attend(c);

        if (exit >= 0)
            return exit;
    }
    if (unlikely(c->stepping)) {
        step(c);
    } else if (c->engine->accelerator) {
        check_spaces(c);
        c->engine->accelerator->run(c);
    } else {
        execute(c, block_next(c));
    }
    return -1;
}

static enum engine_exit run_inside(struct vcpu *c)
{
    int exit;

    if (setjmp(c->fault_exit) && !deliver_fault(c))
        return EXIT_SHUTDOWN;
    do
        exit = turn(c);
    while (exit < 0);
    return (enum engine_exit)exit;
}

int interp_turn(struct vcpu *c)
{
    const struct accelerator *accelerator = c->engine->accelerator;
    int exit;

    if (accelerator)
        accelerator->prepare(c);
    safepoint_enter(&c->engine->safepoint);
    if (setjmp(c->fault_exit) == 0)
        exit = turn(c);
    else
        exit = deliver_fault(c) ? -1 : EXIT_SHUTDOWN;
    if (accelerator)
        accelerator->finish(c);
    safepoint_leave(&c->engine->safepoint);
    return exit;
}

/* Turns until an exit or the limit. */
static int run_limited(struct vcpu *c)
{
    const uint64_t end = 1ULL << 32;
    int exit = -1;

    if (setjmp(c->fault_exit) && !deliver_fault(c))
        return EXIT_SHUTDOWN;
    do {
        if (!c->engine->accelerator && end - c->instructions < BLOCK_MAX) {
            c->single = true;
            c->block = NULL;
        }
        exit = turn(c);
    } while (exit < 0 && c->instructions < end);
    return exit;
}

int interp_run_for(struct vcpu *c, uint64_t limit, uint64_t *count)
{
    const struct accelerator *accelerator = c->engine->accelerator;
    uint64_t before = c->instructions;
    int exit;

    c->block = NULL;
    c->limited = true;
    c->instructions = (1ULL << 32) - limit;
    if (accelerator)
        accelerator->prepare(c);
    safepoint_enter(&c->engine->safepoint);
    exit = run_limited(c);
    if (accelerator)
        accelerator->finish(c);
    safepoint_leave(&c->engine->safepoint);
    c->single = c->limited = false;
    *count = c->instructions - ((1ULL << 32) - limit);
    c->instructions = before + *count;
    return exit;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

enum engine_exit interp_run(struct vcpu *c)
{
    uint64_t start = now_ns(), apic_page = c->port->apic_ops->base(c->port->apic);
    enum engine_exit exit;

    if (apic_page != c->apic_page) { /* an INIT or a reset from outside */
        c->apic_page = apic_page;
        flush_translations(c);
    }
    c->block = NULL;
    meter_start(c->meter);
    if (c->engine->accelerator)
        c->engine->accelerator->prepare(c);
    safepoint_enter(&c->engine->safepoint);
    exit = run_inside(c);
    if (c->engine->accelerator)
        c->engine->accelerator->finish(c);
    safepoint_leave(&c->engine->safepoint);
    meter_restore(c->meter);
    c->run_ns += now_ns() - start;
    return exit;
}
