/*
 * The interpreter's run loop: blocks, faults, interrupts, single steps. And the state that is
 * derived from control registers, segments and flags.
 */
#include "cpu/core/run.h"

#include "cpu/core/executor.h"
#include "cpu/core/access.h"
#include "cpu/core/debug.h"
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

/* Stands in for a vector in restart_as_step. */
#define RESTART (-1)

void restart_as_step(struct vcpu *c, const struct uop *op)
{
    leave(c, op, RESTART, false, 0);
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
    c->tlb = c->check_alignment ? &c->mmu.empty : c->mmu.table[c->context];
}

void flush_translations(struct vcpu *c)
{
    mmu_flush_all(&c->mmu, &c->x);
    update_context(c);
}

void update_stepping(struct vcpu *c)
{
    c->watches_data = debug_armed(c, 0xA); /* writes and accesses */
    c->watches_code = debug_armed(c, 1);
    c->stepping =
        (c->x.rflags & (X86_FLAG_TF | X86_FLAG_RF)) || c->x.interrupt_shadow || c->trap_pending;
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

/* What raise_* left behind: combines it with what was under delivery into the exception that is
 * pending from now on. Returns false on a triple fault. */
static bool take_fault(struct vcpu *c)
{
    struct event event = c->fault;

    meter_restore(c->meter);
    if (c->holds_stop)
        vcpu_resume_others(c);
    c->bounce_size = 0;
    c->single = false;
    c->block = NULL;
    c->pending_dr6 = 0;
    c->trap_pending = false;
    if (c->in_software) {
        c->in_software = false;
        c->x.reg[X86_RIP] = c->software_start;
    }
    if (event.vector == RESTART) {
        c->stepping = true; /* until the next look at what asks for it, which is after the step */
        return true;
    }
    if (c->delivering >= 0) {
        int combined = x86_vector_combine(c->delivering, event.vector);

        c->delivering = -1;
        if (combined < 0) {
            c->x.activity = X86_SHUTDOWN;
            return false;
        }
        if (combined != event.vector)
            event = (struct event){.vector = combined, .has_error = true};
    }
    if (event.vector != X86_PF)
        c->exits[CAUSE_EXCEPTION]++;
    c->x.exception = (struct x86_exception){
        .pending = true,
        .vector = (uint16_t)event.vector,
        .has_error = event.has_error && !in_real(c),
        .error = event.error,
    };
    return true;
}

/* Looks at what other threads request of the vCPU's own; may be called between any two events of
 * the guest's. Returns EXIT_KICK, or -1 to go on. */
static int attend_monitor(struct vcpu *c)
{
    uint32_t seen = atomic_load(&c->port->requests);

    if (seen & CPU_REQ_ENGINE) {
        atomic_fetch_and(&c->port->requests, ~(uint32_t)CPU_REQ_ENGINE);
        safepoint_poll(&c->core->safepoint);
    }
    return seen & (CPU_REQ_KICK | CPU_REQ_INIT | CPU_REQ_SIPI) ? EXIT_KICK : -1;
}

/* Delivers the exception that is pending, if there is one. The delivery may raise the next one (as
 * that of #AC on a misaligned user stack does, for ever), so the vCPU looks at requests before
 * each. Returns an exit, or -1 to go on. */
static int deliver_pending(struct vcpu *c)
{
    const struct x86_exception pending = c->x.exception;
    const struct event event = {
        .vector = pending.vector, .error = pending.error, .has_error = pending.has_error};
    int exit;

    if (!pending.pending)
        return -1;
    exit = attend_monitor(c);
    if (exit >= 0)
        return exit;
    c->x.exception = (struct x86_exception){0};
    deliver(c, &event);
    return -1;
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

/* Takes the NMIs that have been requested. One can be in service, and one pending (SDM volume 3,
 * 6.7.1). */
static void take_nmis(struct vcpu *c)
{
    const uint32_t bits = CPU_REQ_NMI | CPU_REQ_NMI_AGAIN;
    uint32_t taken = atomic_fetch_and(&c->port->requests, ~bits) & bits;
    unsigned count = c->x.nmis_pending + (unsigned)__builtin_popcount(taken);

    c->x.nmis_pending = (uint8_t)MIN(count, c->x.nmi_blocked ? 1u : 2u);
}

/* Delivers an NMI or an interrupt if one is pending and not masked. */
static void attend_interrupts(struct vcpu *c)
{
    const struct apic_ops *apic = c->port->apic_ops;
    int vector = -1;

    if (c->x.interrupt_shadow)
        return;
    if (c->x.nmis_pending && !c->x.nmi_blocked) {
        c->x.nmis_pending--;
        c->x.nmi_blocked = true; /* even if the delivery faults */
        deliver_interrupt(c, X86_NMI);
    }
    if (!c->check_interrupt)
        return;
    /* When IF is set, flags_set and STI ask again. */
    if ((c->x.rflags & X86_FLAG_IF) && apic->pending(c->port->apic) >= 0)
        vector = apic->ack(c->port->apic);
    c->interrupt_masked = !(c->x.rflags & X86_FLAG_IF);
    if (vector < 0)
        c->check_interrupt = false;
    else
        deliver_interrupt(c, vector);
}

/* Looks at requests and interrupts. Returns an exit, or -1 to go on with guest code. */
static int attend(struct vcpu *c)
{
    uint32_t seen = atomic_load(&c->port->requests);
    int exit = attend_monitor(c);

    if (exit >= 0)
        return exit;
    if (c->x.activity == X86_SHUTDOWN)
        return EXIT_SHUTDOWN;
    if (seen & (CPU_REQ_NMI | CPU_REQ_NMI_AGAIN))
        take_nmis(c);
    if (seen & CPU_REQ_INTR) {
        atomic_fetch_and(&c->port->requests, ~(uint32_t)CPU_REQ_INTR);
        c->check_interrupt = true;
    }
    if (c->x.activity == X86_WAIT_SIPI)
        return EXIT_HALT;
    attend_interrupts(c);
    return c->x.activity == X86_HALTED ? EXIT_HALT : -1;
}

static bool needs_attention(const struct vcpu *c)
{
    uint32_t seen = atomic_load_explicit(&c->port->requests, memory_order_relaxed);

    return seen | c->check_interrupt | (c->x.activity != X86_RUNNING);
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
    c->core->accelerator->unmapped(c, 0, true);
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
    if (!c->ss_shadow && c->watches_code)
        debug_check_fetch(c, code_address(c));
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
    } else if (c->core->accelerator) {
        check_spaces(c);
        c->core->accelerator->run(c);
    } else {
        execute(c, block_next(c));
    }
    return -1;
}

static enum engine_exit run_inside(struct vcpu *c)
{
    int exit;

    if (setjmp(c->fault_exit) && !take_fault(c))
        return EXIT_SHUTDOWN;
    exit = deliver_pending(c);
    while (exit < 0)
        exit = turn(c);
    return (enum engine_exit)exit;
}

int interp_turn(struct vcpu *c)
{
    const struct accelerator *accelerator = c->core->accelerator;
    int exit;

    if (accelerator)
        accelerator->prepare(c);
    safepoint_enter(&c->core->safepoint);
    if (setjmp(c->fault_exit) == 0)
        exit = c->x.exception.pending ? deliver_pending(c) : turn(c);
    else
        exit = take_fault(c) ? -1 : EXIT_SHUTDOWN;
    if (accelerator)
        accelerator->finish(c);
    safepoint_leave(&c->core->safepoint);
    return exit;
}

/* Turns until an exit or the limit. */
static int run_limited(struct vcpu *c)
{
    const uint64_t end = 1ULL << 32;
    int exit;

    if (setjmp(c->fault_exit) && !take_fault(c))
        return EXIT_SHUTDOWN;
    exit = deliver_pending(c);
    if (exit >= 0)
        return exit;
    do {
        if (!c->core->accelerator && end - c->instructions < BLOCK_MAX) {
            c->single = true;
            c->block = NULL;
        }
        exit = turn(c);
    } while (exit < 0 && c->instructions < end);
    return exit;
}

int interp_run_for(struct vcpu *c, uint64_t limit, uint64_t *count)
{
    const struct accelerator *accelerator = c->core->accelerator;
    uint64_t before = c->instructions;
    int exit;

    c->block = NULL;
    c->limited = true;
    c->instructions = (1ULL << 32) - limit;
    if (accelerator)
        accelerator->prepare(c);
    safepoint_enter(&c->core->safepoint);
    exit = run_limited(c);
    if (accelerator)
        accelerator->finish(c);
    safepoint_leave(&c->core->safepoint);
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
    if (c->core->accelerator)
        c->core->accelerator->prepare(c);
    safepoint_enter(&c->core->safepoint);
    exit = run_inside(c);
    if (c->core->accelerator)
        c->core->accelerator->finish(c);
    safepoint_leave(&c->core->safepoint);
    meter_restore(c->meter);
    c->run_ns += now_ns() - start;
    return exit;
}
