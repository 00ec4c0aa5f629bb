/*
 * What makes an engine of the core and its executors: creation, state in and out, statistics.
 */
#include "cpu/core/core.h"

#include "cpu/core/code.h"
#include "cpu/core/executor.h"
#include "cpu/core/mode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The contract's opaque types are ours here. */
static struct core *core_of(struct engine *engine)
{
    return (struct core *)engine;
}

static void on_written(void *opaque, uint64_t gpa, uint64_t size)
{
    code_written(opaque, NULL, gpa, size);
}

void core_destroy(struct engine *engine)
{
    struct core *e = core_of(engine);

    if (!e)
        return;
    mem_set_listener(e->machine.mem, NULL);
    if (e->accelerator_shared)
        e->accelerator->stop(e);
    if (e->interpreter_shared)
        e->interpreter->stop(e);
    if (e->code)
        munmap(e->code, e->code_pages * sizeof(*e->code));
    safepoint_destroy(&e->safepoint);
    free(e);
}

/* Reads both of the guest's clocks at one moment: the tightest of several tries. */
static void read_epoch(struct core *e)
{
    uint64_t narrowest = UINT64_MAX;

    for (unsigned i = 0; i < 16; i++) {
        uint64_t before = clock_tsc(e->machine.clock);
        uint64_t ns = clock_now(e->machine.clock);
        uint64_t width = clock_tsc(e->machine.clock) - before;

        if (width < narrowest) {
            narrowest = width;
            e->epoch_tsc = before + width / 2;
            e->epoch_ns = ns;
        }
    }
}

/* Makes what E and its executors need. Returns false if that fails; core_destroy frees what there
 * is then. */
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

struct engine *core_create(const struct machine *machine, const struct interpreter *interpreter,
                           const struct accelerator *accelerator, const void *options,
                           struct error *err)
{
    struct mem_listener listener = {.written = on_written};
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
    e->machine = *machine;
    e->interpreter = interpreter;
    e->accelerator = accelerator;
    e->accelerator_options = options;
    x86_msrs_init(&e->msrs, &machine->model);
    read_epoch(e);
    safepoint_init(&e->safepoint);
    e->code_pages = mem_gpn_limit(machine->mem);
    if (!start(e, err)) {
        core_destroy((struct engine *)e);
        return NULL;
    }
    listener.opaque = e;
    mem_set_listener(machine->mem, &listener);
    return (struct engine *)e;
}

/* Everything that follows from the architectural state, after it was replaced. */
static void state_changed(struct vcpu *c)
{
    c->x.reg[X86_NONE] = 0;
    c->x.physical_bits = c->core->machine.model.physical_bits;
    c->delivering = -1;
    c->bounce_size = 0;
    c->block = NULL;
    c->check_interrupt = true;
    c->in_software = c->trap_pending = c->repeating = c->ss_shadow = false;
    c->pending_dr6 = 0;
    c->external = 0;
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
    e->interpreter->destroy(c);
    free(c->meter);
    munmap(c, vcpu_size(e));
}

void core_vcpu_destroy(struct vcpu *c)
{
    if (!c)
        return;
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

struct vcpu *core_vcpu_create(struct engine *engine, struct cpu_port *port, struct error *err)
{
    struct core *e = core_of(engine);
    struct vcpu *c =
        mmap(NULL, vcpu_size(e), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (c == MAP_FAILED) {
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
    mmu_init(&c->mmu);
    x86_cpu_reset(&c->x);
    state_changed(c);
    if (e->accelerator)
        e->accelerator->create(c);
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
    c->x = *cpu;
    state_changed(c);
}

void core_gpn_changed(struct engine *engine, uint64_t gpn)
{
    struct core *e = core_of(engine);

    safepoint_stop(&e->safepoint, false);
    code_written(e, NULL, gpn << MEM_PAGE_SHIFT, MEM_PAGE_SIZE);
    for (unsigned i = 0; i < e->machine.cpus; i++)
        if (e->vcpu[i])
            flush_translations(e->vcpu[i]);
    safepoint_resume(&e->safepoint, false);
}

static void meter_stats(const struct vcpu *c, struct engine_stats *stats)
{
    const struct meter *m = c->meter;
    double ns = m->tick_ns;

    for (unsigned i = 0; i < CAUSE_COUNT; i++)
        stats->exit_ns[i] = (uint64_t)((double)m->ticks[i] * ns);
    stats->guest_ns = (uint64_t)((double)m->ticks[METER_GUEST] * ns);
    for (unsigned i = 0; i < ENGINE_MNEMONICS; i++)
        stats->interpreted[i] = (struct engine_count){
            m->mnemonic[i].count, (uint64_t)((double)m->mnemonic[i].ticks * ns)};
}

void core_stats(const struct vcpu *c, struct engine_stats *stats)
{
    *stats = (struct engine_stats){
        .instructions = c->instructions,
        .run_ns = c->run_ns,
    };
    memcpy(stats->exits, c->exits, sizeof(stats->exits));
    memcpy(stats->forgets, c->forgets, sizeof(stats->forgets));
    if (c->meter)
        meter_stats(c, stats);
    c->core->interpreter->stats(c, stats);
    if (c->core->accelerator)
        c->core->accelerator->stats(c, stats);
}

/* From any thread, while the vCPU runs: so it is as it was last written down. */
uint64_t core_rip(const struct vcpu *c)
{
    return *(const volatile uint64_t *)&c->x.reg[X86_RIP];
}
