/*
 * What makes an engine of the core and its executors: creation, state in and out, statistics.
 */
#include "cpu/core/core.h"

#include "base/large_pages.h"
#include "cpu/core/code.h"
#include "cpu/core/debug.h"
#include "cpu/core/executor.h"
#include "cpu/core/mode.h"
#include "cpu/core/present.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static struct core *core_of(struct engine *engine)
{
    return (struct core *)engine; /* its first member */
}

static void on_written(void *opaque, uint64_t gpa, uint64_t size)
{
    code_written(opaque, NULL, gpa, size);
}

static const struct mem_listener_ops listener_ops = {
    .invalidated = present_invalidated, .settle = present_settle, .written = on_written};

/* Asserts that a thread which is about to wait for vCPUs does not hold the board lock: a vCPU that
 * waits for that lock reaches no safe point. */
static void check_locks(void *opaque)
{
    assert(!bus_is_locked_here(opaque));
}

void core_destroy(struct engine *engine)
{
    struct core *e = core_of(engine);

    if (!e)
        return;
    mem_unlisten(e->machine.mem, &e->listener);
    if (e->accelerator_shared)
        e->accelerator->stop(e);
    if (e->interpreter_shared)
        e->interpreter->stop(e);
    if (e->code)
        munmap(e->code, e->code_pages * sizeof(*e->code));
    safepoint_destroy(&e->safepoint);
    free(e);
}

/* Creates the page table of E and what its executors share. Returns false on failure; core_destroy
 * then frees what there is. */
static bool start(struct core *e, struct error *err)
{
    void *code = mmap(NULL, e->code_pages * sizeof(*e->code), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (code == MAP_FAILED) {
        error_set(err, errno, "out of memory for the engine's page table: %s", strerror(errno));
        return false;
    }
    e->code = code;
    return e->interpreter->start(e, err) == 0 &&
           (!e->accelerator || e->accelerator->start(e, err) == 0);
}

struct engine *core_create(const struct engine_ops *ops, const struct machine *machine,
                           const struct interpreter *interpreter,
                           const struct accelerator *accelerator, const void *options,
                           struct error *err)
{
    struct core *e = calloc(1, sizeof(*e));

    if (!e) {
        error_set(err, ENOMEM, "out of memory for the engine");
        return NULL;
    }
    if (machine->cpus > SAFEPOINT_MAX_CPUS) {
        error_set(err, EINVAL, "the engine runs at most %u vCPUs", SAFEPOINT_MAX_CPUS);
        free(e);
        return NULL;
    }
    e->engine.ops = ops;
    e->machine = *machine;
    e->interpreter = interpreter;
    e->accelerator = accelerator;
    e->accelerator_options = options;
    x86_msrs_init(&e->msrs, &machine->model);
    safepoint_init(&e->safepoint);
    e->safepoint.check = check_locks;
    e->safepoint.check_opaque = machine->bus;
    e->code_pages = mem_gpn_limit(machine->mem);
    if (!start(e, err)) {
        core_destroy(&e->engine);
        return NULL;
    }
    e->listener = (struct mem_listener){.ops = &listener_ops, .opaque = e};
    mem_listen(machine->mem, &e->listener);
    return &e->engine;
}

void core_state_changed(struct vcpu *c)
{
    c->x.reg[X86_NONE] = 0;
    c->x.physical_bits = c->core->machine.model.physical_bits;
    c->delivering = -1;
    c->bounced_spans = 0;
    c->block = NULL;
    c->check_interrupt = true;
    c->in_software = c->repeating = c->debug_hit = c->debug_passed = false;
    c->external = 0;
    c->retry = c->step.under_way = false;
    c->apic_page = c->port->apic_ops->base(c->port->apic);
    flush_translations(c);
    flags_set_status(c, c->x.rflags);
    update_mode(c);
    update_context(c);
    update_fp_trap(c);
    update_stepping(c);
}

static size_t vcpu_size(const struct core *e)
{
    return e->accelerator ? e->accelerator->vcpu_size : sizeof(struct vcpu);
}

static void vcpu_free(const struct core *e, struct vcpu *c)
{
    if (e->accelerator && e->accelerator->destroy)
        e->accelerator->destroy(c);
    e->interpreter->destroy(c);
    free(c->meter);
    munmap(c, vcpu_size(e));
}

void core_vcpu_destroy(struct vcpu *c)
{
    if (!c)
        return;
    mem_unlisten(c->mem, &c->core->listener); /* what is told goes to the vCPUs */
    c->core->vcpu[c->port->id] = NULL;
    c->core->safepoint.port[c->port->id] = NULL;
    vcpu_free(c->core, c);
}

static bool create_meter(struct vcpu *c)
{
    const struct machine *m = &c->core->machine;

    if (!m->measure && !m->tracer)
        return true;
    c->meter = calloc(1, sizeof(*c->meter));
    if (!c->meter)
        return false;
    c->meter->base = c->core->accelerator ? (unsigned)CAUSE_LOOKUP : (unsigned)METER_GUEST;
    c->meter->tracer = m->tracer;
    c->meter->x = &c->x;
    c->meter->cpu = c->port->id;
    c->meter->tick_ns = 1e9 / (double)clock_tsc_hz(m->clock);
    return true;
}

int core_local_apics(struct engine *engine, const struct lapic_board *board,
                     struct local_apics *apics, struct error *err)
{
    struct core *e = core_of(engine);

    return e->accelerator->local_apics(e, board, apics, err);
}

struct vcpu *core_vcpu_create(struct engine *engine, struct cpu_port *port, struct error *err)
{
    struct core *e = core_of(engine);
    struct vcpu *c = large_pages_map(vcpu_size(e));

    if (!c) {
        error_set(err, ENOMEM, "out of memory for vCPU %u", port->id);
        return NULL;
    }
    c->core = e;
    c->port = port;
    c->mem = e->machine.mem;
    c->bus = e->machine.bus;
    if (e->interpreter->create(c, err) != 0 || !create_meter(c)) {
        error_set(err, ENOMEM, "out of memory for vCPU %u", port->id);
        vcpu_free(e, c);
        return NULL;
    }
    if (e->wakes_inside)
        e->accelerator->plug(e, port);
    mmu_init(&c->mmu);
    x86_cpu_reset(&c->x);
    core_state_changed(c);
    if (e->accelerator && e->accelerator->create(c, err) < 0) {
        vcpu_free(e, c);
        return NULL;
    }
    e->vcpu[port->id] = c;
    e->safepoint.port[port->id] = port;
    return c;
}

void core_state_out(struct vcpu *c, struct x86_cpu *cpu)
{
    *cpu = c->x;
    cpu->rflags = flags_get(c);
}

void core_state_in(struct vcpu *c, const struct x86_cpu *cpu)
{
    /* A vCPU takes INIT while others run, and one that has stopped them looks at its software TLB.
     */
    safepoint_enter(&c->core->safepoint, c->port->id);
    c->x = *cpu;
    core_state_changed(c);
    safepoint_leave(&c->core->safepoint, c->port->id);
}

void core_counters(const struct vcpu *c, engine_counter_fn *each, void *opaque)
{
    const struct core *e = c->core;
    bool counts = !e->accelerator || e->machine.measure;
    const struct engine_counter run[] = {
        {"run", "instructions", counts ? counter_read(&c->instructions) : 0, 0},
        {"run", "run", 0, counter_read(&c->run_ns)},
        {"run", "guest", 0, meter_guest_ns(c->meter)},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(run); i++)
        each(opaque, &run[i]);
    for (unsigned i = 0; i < CAUSE_COUNT; i++)
        each(opaque,
             &(struct engine_counter){"exits", exit_cause_name[i], counter_read(&c->exits[i]),
                                      meter_exit_ns(c->meter, (enum exit_cause)i)});
    for (unsigned i = 0; i < FORGET_COUNT; i++)
        each(opaque, &(struct engine_counter){"forgotten", forget_cause_name[i],
                                              counter_read(&c->forgets[i]), 0});
    e->interpreter->counters(c, each, opaque);
    if (e->accelerator)
        e->accelerator->counters(c, each, opaque);
    meter_counters(c->meter, each, opaque);
}

int core_debug(struct vcpu *c, const struct engine_debug *debug)
{
    if (debug->count > ENGINE_BREAKPOINTS)
        return -EINVAL;
    for (unsigned i = 0; i < debug->count; i++)
        if (debug->breakpoint[i].kind != BREAK_EXECUTE && !debug->breakpoint[i].size)
            return -EINVAL;
    debug_attach(c, debug);
    return 0;
}

unsigned core_debug_met(const struct vcpu *c)
{
    return c->debug_met;
}

void core_kick(struct vcpu *c)
{
    cpu_port_request(c->port, CPU_REQ_KICK);
}

/* On any thread, while the vCPU runs: returns RIP as the vCPU stored it last. */
uint64_t core_rip(const struct vcpu *c)
{
    return *(const volatile uint64_t *)&c->x.reg[X86_RIP];
}
