/*
 * The run loop: guest code, faults, interrupts, single steps.
 */
#include "cpu/core/run.h"

#include "base/time.h"
#include "cpu/core/access.h"
#include "cpu/core/debug.h"
#include "cpu/core/deliver.h"
#include "cpu/core/executor.h"
#include "cpu/core/mode.h"
#include "cpu/core/present.h"

/* --- Events ----------------------------------------------------------------------------------- */

/* Cleans up after an instruction that is given up: lets go of what it has stopped, and drops what
 * it has noted in the vCPU. */
static void abandon_instruction(struct vcpu *c)
{
    meter_restore(c->meter);
    if (c->holds_stop)
        vcpu_resume_others(c);
    c->bounced_spans = 0;
    c->single = false;
    c->block = NULL;
    c->x.pending_dr6 = 0;
    c->x.trap_pending = c->debug_hit = false;
    if (c->in_software) {
        c->in_software = false;
        c->x.reg[X86_RIP] = c->software_start;
    }
}

/* Waits for the page that the instruction under way needs, and has the instruction executed again.
 * If it was executed as a step, puts back what begin_step had taken. */
static void wait_and_retry(struct vcpu *c)
{
    if (c->step.under_way) {
        c->x.ss_shadow = c->step.ss_shadow;
        c->x.interrupt_shadow = c->step.interrupt_shadow;
        c->x.trap_pending = c->step.trap_pending;
        c->x.pending_dr6 = c->step.pending_dr6;
    }
    present_wait(c);
    c->retry = true;
}

/* Makes the fault EVENT the pending exception. If another event was under delivery, combines the
 * two as the processor does. Returns EXIT_SHUTDOWN on a triple fault, or -1. */
static int take_exception(struct vcpu *c, struct event event)
{
    if (c->delivering >= 0) {
        int combined = x86_vector_combine(c->delivering, event.vector);

        c->delivering = -1;
        if (combined < 0) {
            c->x.activity = X86_SHUTDOWN;
            return EXIT_SHUTDOWN;
        }
        if (combined != event.vector)
            event = (struct event){.vector = combined, .has_error = true};
    }
    if (event.vector != X86_PF)
        counter_add(&c->exits[CAUSE_EXCEPTION], 1);
    c->x.exception = (struct x86_exception){
        .pending = true,
        .vector = (uint16_t)event.vector,
        .has_error = event.has_error && !in_real(c),
        .error = event.error,
    };
    return -1;
}

/* Handles what raise_* has left in vcpu.fault. Returns an exit, or -1 to go on. */
static int take_fault(struct vcpu *c)
{
    const struct event event = c->fault;

    abandon_instruction(c);
    switch (event.vector) {
    case FAULT_ABSENT: wait_and_retry(c); return -1;
    case FAULT_MEMORY: return EXIT_MEMORY;
    case FAULT_ENGINE: return EXIT_FAILED;
    case FAULT_RESTART:
        c->stepping = true; /* for one step; then update_stepping decides anew */
        return -1;
    default: c->step.under_way = false; return take_exception(c, event);
    }
}

/* Serves what other threads of the monitor request of the vCPU: to stand still for a moment, or to
 * leave. May be called between any two events of the guest. Returns EXIT_KICK, or -1 to go on. */
static int attend_monitor(struct vcpu *c)
{
    uint32_t seen = atomic_load(&c->port->requests);

    if (seen & CPU_REQ_ENGINE) {
        atomic_fetch_and(&c->port->requests, ~(uint32_t)CPU_REQ_ENGINE);
        present_release(c);
        safepoint_poll(&c->core->safepoint, c->port->id);
        present_forget(c);
    }
    if (!(seen & (CPU_REQ_KICK | CPU_REQ_INIT | CPU_REQ_SIPI)))
        return -1;
    if (c->core->wakes_inside)
        c->core->accelerator->settle(c);
    return EXIT_KICK;
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

    counter_add(&c->exits[CAUSE_INTERRUPT], 1);
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
    /* When the guest sets IF, flags_set and STI set check_interrupt. */
    if ((c->x.rflags & X86_FLAG_IF) && apic->pending(c->port->apic) >= 0)
        vector = apic->ack(c->port->apic);
    c->interrupt_masked = !(c->x.rflags & X86_FLAG_IF);
    if (vector < 0)
        c->check_interrupt = false;
    else
        deliver_interrupt(c, vector);
}

/* Serves requests and takes interrupts. Returns an exit, or -1 to go on with guest code. */
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
        return c->core->wakes_inside ? -1 : EXIT_HALT;
    attend_interrupts(c);
    return c->x.activity == X86_HALTED && !c->core->wakes_inside ? EXIT_HALT : -1;
}

/* Whether attend() may have something to do. */
static bool needs_attention(const struct vcpu *c)
{
    uint32_t seen = atomic_load_explicit(&c->port->requests, memory_order_relaxed);

    return seen | c->check_interrupt | (c->x.activity != X86_RUNNING);
}

/* --- Running ---------------------------------------------------------------------------------- */

/* Delivers the debug trap of the instruction just executed, if it has one: of a single step or of
 * data breakpoints. STEP: RFLAGS.TF was set when the instruction began. */
static void after_instruction(struct vcpu *c, bool step)
{
    struct event event = {.vector = X86_DB};

    if (step)
        debug_note_step(c);
    if (!c->x.trap_pending) {
        c->x.pending_dr6 = 0; /* what is left is of breakpoints that are not enabled */
        return;
    }
    c->x.activity = X86_RUNNING; /* it may have been HLT */
    deliver(c, &event);
}

/* Whether a debugger outside of the guest steps and must be told of an event that has been
 * delivered. */
static bool steps_past_event(struct vcpu *c)
{
    bool delivered = c->delivered;

    c->delivered = false;
    return delivered && c->debug.step;
}

/* Ends a step: delivers the debug trap of its instruction. Returns an exit for a debugger outside
 * of the guest, or -1. */
static int end_step(struct vcpu *c, bool tf)
{
    update_stepping(c);
    if (!c->x.ss_shadow)
        after_instruction(c, tf);
    c->delivered = false;
    if (c->debug_hit) {
        c->debug_hit = false;
        update_stepping(c);
        return EXIT_BREAKPOINT;
    }
    return c->debug.step ? EXIT_STEP : -1;
}

/* Whether the guest sees RF set between the elements of a repeated string instruction that is
 * executed element by element, so that an instruction breakpoint on it does not fire again. Not if
 * it is executed so only for a debugger outside of the guest. */
static bool shows_rf(const struct vcpu *c)
{
    return (c->x.rflags & (X86_FLAG_TF | X86_FLAG_RF)) || (c->x.dr7 & 0xFF) ||
           !(c->debug.step || c->debug.count);
}

/* Begins a step: takes the shadows and the trap that belong to its beginning, and notes them for
 * wait_and_retry. */
static void begin_step(struct vcpu *c)
{
    c->step.under_way = true;
    c->step.ss_shadow = c->x.ss_shadow;
    c->step.interrupt_shadow = c->x.interrupt_shadow;
    c->step.trap_pending = c->x.trap_pending;
    c->step.pending_dr6 = c->x.pending_dr6;
    c->x.interrupt_shadow = c->x.ss_shadow = false;
    c->keep_rf = c->repeating = c->no_step = false;
}

/* Executes one instruction and delivers its debug trap. Nothing is due before it. Returns an exit
 * for a debugger outside of the guest, or -1. */
static int step_instruction(struct vcpu *c)
{
    bool tf = c->x.rflags & X86_FLAG_TF, shadow = c->x.interrupt_shadow;

    begin_step(c);
    c->core->interpreter->step(c);
    c->block = NULL;
    c->step.under_way = false;
    if (shadow)
        c->check_interrupt = true;
    if (!c->keep_rf) {
        if (!c->repeating)
            c->x.rflags &= ~(uint64_t)X86_FLAG_RF;
        else if (shows_rf(c))
            c->x.rflags |= X86_FLAG_RF;
    }
    return end_step(c, tf && !c->no_step);
}

/* Executes one instruction, with breakpoints before it and its debug trap after it. Returns an exit
 * for a debugger outside of the guest, or -1. */
static int step_with_traps(struct vcpu *c)
{
    if (c->debug_hit ||
        (c->x.trap_pending &&
         !c->x.ss_shadow)) /* left by an instruction that was not executed as a step */
        return end_step(c, false);
    if (debug_stops(c))
        return EXIT_BREAKPOINT;
    if (!c->x.ss_shadow && c->watches_code)
        debug_check_fetch(c, code_address(c));
    return step_instruction(c);
}

/* Has the accelerator execute guest code. Nothing else is due. */
static void run_accelerated(struct vcpu *c)
{
    vcpu_check_spaces(c);
    c->core->accelerator->run(c);
}

typedef void run_fn(struct vcpu *c);

/* Returns what executes guest code until something is due. */
static run_fn *usual_run(const struct vcpu *c)
{
    return c->core->accelerator ? run_accelerated : c->core->interpreter->run;
}

/* Returns what executes at most one block; of an accelerator, as little as it can. */
static run_fn *short_run(const struct vcpu *c)
{
    return c->core->accelerator ? run_accelerated : c->core->interpreter->run_block;
}

/* Executes the instruction that has waited for a page, before that page can be taken away again.
 * Returns an exit for a debugger outside of the guest, or -1. */
static int retry_instruction(struct vcpu *c)
{
    c->retry = false;
    if (c->stepping)
        return step_instruction(c);
    c->step.under_way = false; /* a step has waited, but is no longer asked for */
    c->single = true;
    c->block = NULL;
    c->core->interpreter->step(c);
    c->single = false;
    c->block = NULL;
    if (c->core->accelerator)
        vcpu_check_spaces(c);
    return -1;
}

/* Executes a single step. Returns an exit for a debugger outside of the guest, or -1. */
static int run_step(struct vcpu *c)
{
    if (c->core->wakes_inside)
        c->core->accelerator->take_interrupt(c);
    return steps_past_event(c) ? EXIT_STEP : step_with_traps(c);
}

/* Does what is due; then has RUN execute guest code, or executes a single step. Returns an exit, or
 * -1 to go on. */
static int run_turn(struct vcpu *c, run_fn *run)
{
    int exit;

    if (unlikely(c->retry))
        return retry_instruction(c);
    exit = needs_attention(c) ? attend(c) : -1;
    if (exit >= 0)
        return exit;
    if (unlikely(c->stepping) && c->x.activity == X86_RUNNING)
        return run_step(c);
    run(c);
    return -1;
}

/* Goes on after raise_* has left an instruction by longjmp. Returns an exit, or -1 to go on. */
static int go_on_after_fault(struct vcpu *c)
{
    int exit = take_fault(c);

    return exit < 0 ? deliver_pending(c) : exit;
}

static enum engine_exit run_inside(struct vcpu *c)
{
    run_fn *const run = usual_run(c);
    int exit;

    if (setjmp(c->fault_exit) == 0)
        exit = deliver_pending(c);
    else
        exit = go_on_after_fault(c);
    while (exit < 0)
        exit = run_turn(c, run);
    return (enum engine_exit)exit;
}

/* enter_guest() and leave_guest() stand around everything that executes guest code, on the vCPU's
 * thread: in between, the safe point counts the vCPU as running. */
static void enter_guest(struct vcpu *c)
{
    if (c->core->accelerator)
        c->core->accelerator->prepare(c);
    safepoint_enter(&c->core->safepoint, c->port->id);
    present_forget(c);
}

static void leave_guest(struct vcpu *c)
{
    if (c->core->accelerator)
        c->core->accelerator->finish(c);
    present_release(c);
    safepoint_leave(&c->core->safepoint, c->port->id);
}

int core_turn(struct vcpu *c)
{
    int exit;

    enter_guest(c);
    if (setjmp(c->fault_exit) == 0)
        exit = c->x.exception.pending ? deliver_pending(c) : run_turn(c, short_run(c));
    else
        exit = take_fault(c);
    leave_guest(c);
    return exit;
}

/* Runs until there is an exit, or the limit of core_run_for is reached. Returns the exit, or -1. */
static int run_limited(struct vcpu *c)
{
    const uint64_t end = 1ULL << 32;
    int exit;

    if (setjmp(c->fault_exit) == 0)
        exit = deliver_pending(c);
    else
        exit = go_on_after_fault(c);
    if (exit >= 0)
        return exit;
    do {
        if (!c->core->accelerator && end - counter_read(&c->instructions) < BLOCK_MAX) {
            c->single = true;
            c->block = NULL;
        }
        exit = run_turn(c, short_run(c));
    } while (exit < 0 && counter_read(&c->instructions) < end);
    return exit;
}

int core_run_for(struct vcpu *c, uint64_t limit, uint64_t *count)
{
    uint64_t before = counter_read(&c->instructions);
    int exit;

    c->block = NULL;
    c->limited = true;
    counter_set(&c->instructions, (1ULL << 32) - limit);
    enter_guest(c);
    exit = run_limited(c);
    leave_guest(c);
    c->single = c->limited = false;
    *count = counter_read(&c->instructions) - ((1ULL << 32) - limit);
    counter_set(&c->instructions, before + *count);
    return exit;
}

enum engine_exit core_run(struct vcpu *c)
{
    uint64_t start = time_now_ns(), apic_page = c->port->apic_ops->base(c->port->apic);
    enum engine_exit exit;

    if (apic_page != c->apic_page) { /* moved by an INIT or a reset while the vCPU did not run */
        c->apic_page = apic_page;
        flush_translations(c);
    }
    c->block = NULL;
    meter_start(c->meter);
    enter_guest(c);
    exit = run_inside(c);
    leave_guest(c);
    meter_restore(c->meter);
    counter_add(&c->run_ns, time_now_ns() - start);
    return exit;
}
