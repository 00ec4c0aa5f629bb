/*
 * The interpreter as an engine: creation, state in and out, statistics.
 */
#include "cpu/core/vcpu.h"

#include "cpu/core/executor.h"
#include "cpu/core/run.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Bytes for the decoded blocks of a vCPU. Where hot ones are translated, the others have room in
 * less: a boot and a compiler run as fast with 8 MiB as with 32; with 4 MiB a compiler takes half
 * as long again. */
#define ARENA_SIZE             (32 * MiB)
#define ARENA_SIZE_ACCELERATED (8 * MiB)

/* The contract's opaque types are ours here. */
static struct core *interp_of(struct engine *engine)
{
    return (struct core *)engine;
}

static void on_written(void *opaque, uint64_t gpa, uint64_t size)
{
    code_written(opaque, NULL, gpa, size);
}

static void interp_destroy(struct engine *engine)
{
    struct core *e = interp_of(engine);

    if (!e)
        return;
    mem_set_listener(e->machine.mem, NULL);
    if (e->accelerator)
        e->accelerator->stop(e);
    thunk_cache_destroy(e->thunks);
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

static struct engine *interp_create(const struct machine *machine, struct error *err)
{
    struct mem_listener listener = {.written = on_written};
    struct core *e = calloc(1, sizeof(*e));
    void *code;

    if (!e) {
        error_set(err, ENOMEM, "out of memory for the interpreter");
        return NULL;
    }
    if (machine->cpus > SAFEPOINT_MAX_CPUS) {
        error_set(err, EINVAL, "the interpreter runs at most %u vCPUs", SAFEPOINT_MAX_CPUS);
        free(e);
        return NULL;
    }
    e->machine = *machine;
    x86_msrs_init(&e->msrs, &machine->model);
    e->arena_size = ARENA_SIZE;
    read_epoch(e);
    safepoint_init(&e->safepoint);
    e->code_pages = mem_gpn_limit(machine->mem);
    code = mmap(NULL, e->code_pages * sizeof(*e->code), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (code == MAP_FAILED) {
        error_set(err, errno, "out of memory for the interpreter's page table: %s",
                  strerror(errno));
        interp_destroy((struct engine *)e);
        return NULL;
    }
    e->code = code;
    e->thunks = thunk_cache_create(err);
    if (!e->thunks) {
        interp_destroy((struct engine *)e);
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
    block_cache_destroy(c->blocks);
    free(c->meter);
    munmap(c, vcpu_size(e));
}

static void interp_vcpu_destroy(struct vcpu *c)
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

static struct vcpu *interp_vcpu_create(struct engine *engine, struct cpu_port *port,
                                       struct error *err)
{
    struct core *e = interp_of(engine);
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
    c->blocks = block_cache_create(e->arena_size, err);
    if (!c->blocks || !create_meter(c)) {
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

static void interp_state_out(struct vcpu *c, struct x86_cpu *cpu)
{
    *cpu = c->x;
    cpu->rflags = flags_get(c);
}

static void interp_state_in(struct vcpu *c, const struct x86_cpu *cpu)
{
    c->x = *cpu;
    state_changed(c);
}

static void interp_gpn_changed(struct engine *engine, uint64_t gpn)
{
    struct core *e = interp_of(engine);

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

static void interp_stats(const struct vcpu *c, struct engine_stats *stats)
{
    *stats = (struct engine_stats){
        .instructions = c->instructions,
        .blocks_decoded = block_decoded(c->blocks),
        .blocks_invalidated = block_invalidated(c->blocks),
        .run_ns = c->run_ns,
    };
    memcpy(stats->exits, c->exits, sizeof(stats->exits));
    memcpy(stats->forgets, c->forgets, sizeof(stats->forgets));
    if (c->meter)
        meter_stats(c, stats);
    if (c->core->accelerator)
        c->core->accelerator->stats(c, stats);
}

/* One line: the instruction at RIP as memory has it now. Returns the length of the instruction. */
static unsigned describe(struct vcpu *c, uint64_t rip, char *line, unsigned size)
{
    static const enum x86_code_size code_size[] = {X86_CODE16, X86_CODE32, X86_CODE64};
    uint64_t linear = in_64(c) ? rip : (uint32_t)(rip + c->x.seg[X86_CS].base), gpa;
    uint8_t bytes[15];
    struct x86_insn insn;
    unsigned available = 0, at;
    ZydisFormatter formatter;
    int length;

    while (available < sizeof(bytes) && mmu_peek(c->mem, &c->x, linear + available, &gpa) == 0 &&
           mem_read(c->mem, gpa, bytes + available, 1) == 0)
        available++;
    length = x86_decode_for(c->core->machine.model.feature, code_size[c->mode & MODE_SIZE],
                            c->mode & MODE_REAL, bytes, available, &insn);
    at = (unsigned)snprintf(line, size, "%016llx ", (unsigned long long)rip);
    if (length <= 0) {
        snprintf(line + at, size - at, available ? " (not an instruction)" : " (not mapped)");
        return 0;
    }
    for (int i = 0; i < length; i++)
        at += (unsigned)snprintf(line + at, size - at, " %02x", bytes[i]);
    at += (unsigned)snprintf(line + at, size - at, "%*s", 3 * (12 - MIN(length, 11)), "");
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, &insn.z, insn.op, insn.z.operand_count_visible,
                                    line + at, size - at, rip, NULL);
    return (unsigned)length;
}

/* From any thread, while the vCPU runs: so it is as it was last written down. */
static uint64_t interp_rip(const struct vcpu *c)
{
    return *(const volatile uint64_t *)&c->x.reg[X86_RIP];
}

/* The first instruction of each of the last blocks, then the whole of the last one up to RIP. */
static void interp_history(struct vcpu *c, char *buf, unsigned size)
{
    unsigned blocks = MIN(c->history_at, 12u), at = 0;
    uint64_t rip = 0;
    char line[200];

    buf[0] = 0;
    for (unsigned i = blocks; i > 0; i--) {
        rip = c->history[(c->history_at - i) % HISTORY];
        describe(c, rip, line, sizeof(line));
        at += (unsigned)snprintf(buf + at, size - at, "%s\n", line);
        if (at >= size)
            return;
    }
    for (unsigned i = 0; i < BLOCK_MAX && rip < c->x.reg[X86_RIP]; i++) {
        unsigned length = describe(c, rip, line, sizeof(line));

        if (i > 0)
            at += (unsigned)snprintf(buf + at, size - at, "%s\n", line);
        if (at >= size || !length)
            return;
        rip += length;
    }
}

struct engine *interp_create_accelerated(const struct machine *machine,
                                         const struct accelerator *accelerator, const void *options,
                                         struct error *err)
{
    struct engine *engine = interp_create(machine, err);
    struct core *e = interp_of(engine);

    if (!engine)
        return NULL;
    e->arena_size = ARENA_SIZE_ACCELERATED;
    e->accelerator_options = options;
    if (accelerator->start(e, err) != 0) {
        interp_destroy(engine);
        return NULL;
    }
    e->accelerator = accelerator;
    return engine;
}

const struct engine_ops interp_engine = {
    .name = "interp",
    .create = interp_create,
    .destroy = interp_destroy,
    .vcpu_create = interp_vcpu_create,
    .vcpu_destroy = interp_vcpu_destroy,
    .run = interp_run,
    .state_out = interp_state_out,
    .state_in = interp_state_in,
    .gpn_changed = interp_gpn_changed,
    .stats = interp_stats,
    .rip = interp_rip,
    .history = interp_history,
};
