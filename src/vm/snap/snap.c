/*
 * The whole machine as one walk over its parts, for saving and for loading.
 */
#include "vm/snap/snap.h"

#include "base/util.h"
#include "vm/vm_private.h"
#include "x86/cpu_state.h"

#include <errno.h>

/* What of a vCPU's requests is the guest's; the others are the monitor's own. */
#define GUEST_REQUESTS                                                                             \
    (CPU_REQ_INTR | CPU_REQ_NMI | CPU_REQ_NMI_AGAIN | CPU_REQ_INIT | CPU_REQ_SIPI)

/* What must be known before there is a machine, and what is pending for the machine as a whole. */
struct outline {
    uint32_t cpus;
    uint64_t memory;
    bool reset_wanted;
};

static void visit_outline(struct outline *outline, struct state *s)
{
    state_section(s, "machine", 0, 1);
    state_field(s, outline->cpus);
    state_field(s, outline->memory);
    state_bool(s, &outline->reset_wanted);
}

static void visit_requests(struct cpu_port *port, struct state *s)
{
    uint32_t requests = atomic_load(&port->requests) & GUEST_REQUESTS;
    uint8_t sipi_vector = atomic_load(&port->sipi_vector);

    state_section(s, "requests", port->id, 1);
    state_field(s, requests);
    state_field(s, sipi_vector);
    if (state_saving(s) || state_error(s))
        return;
    /* Those that devices have made while they were loaded are among them. */
    atomic_store(&port->requests, requests & GUEST_REQUESTS);
    atomic_store(&port->sipi_vector, sipi_vector);
}

static void visit_cpu(struct vm_cpu *cpu, struct state *s)
{
    const struct vm *vm = cpu->vm;
    const struct engine_ops *ops = vm->engine->ops;
    struct x86_cpu x = {0};
    struct error err = {0};

    ops->state_out(cpu->vcpu, &x);
    x86_cpu_state(&x, s, cpu->port.id);
    if (!state_saving(s) && !state_error(s)) {
        if (x86_cpu_check(&x, &vm->machine.model, &err) < 0)
            state_fail(s, "%s", err.text);
        else
            ops->state_in(cpu->vcpu, &x);
        cpu->wait_sipi = x.activity == X86_WAIT_SIPI;
    }
    visit_requests(&cpu->port, s);
}

/* All but what visit_outline and vm_assemble visit. The interrupt controllers come before the
 * processors, which ask them, and RAM, which is long, at the end. */
static void visit_parts(struct vm *vm, struct state *s)
{
    board_state(vm->board, s);
    for (unsigned i = 0; i < vm->cpus; i++)
        visit_cpu(&vm->cpu[i], s);
    mem_state(vm->machine.mem, s);
}

/* ---- Saving ---- */

static int save(struct vm *vm, struct outline *outline, struct state *s, struct error *err)
{
    visit_outline(outline, s);
    vm_machine_state(&vm->machine, s);
    visit_parts(vm, s);
    /* What the host could not provide reads as zeros: then the state must not look complete. */
    if (!state_error(s) && vm_lost_check(vm, err) < 0)
        return -err->code;
    if (state_finish(s) < 0)
        *err = *state_failure(s);
    return state_error(s);
}

/* False if VM has ended. */
static bool make_outline(struct vm *vm, struct outline *outline)
{
    bool ending;

    *outline = (struct outline){.cpus = vm->cpus, .memory = mem_ram_size(vm->machine.mem)};
    pthread_mutex_lock(&vm->lock);
    outline->reset_wanted = vm->reset_wanted;
    ending = vm->ending;
    pthread_mutex_unlock(&vm->lock);
    return !ending;
}

int vm_save(struct vm *vm, const char *maker, const struct state_writer *writer, struct error *err)
{
    struct outline outline;
    struct error local;
    struct state *s;
    int ret;

    err = err ? err : &local;
    pthread_mutex_lock(&vm->standing);
    vm_pause(vm);
    if (!make_outline(vm, &outline)) {
        ret = error_set(err, ESHUTDOWN, "the virtual machine has ended: there is nothing to save");
    } else if (!(s = state_create_save(writer, maker, err))) {
        ret = -err->code;
    } else {
        ret = save(vm, &outline, s, err);
        state_free(s);
    }
    vm_resume(vm);
    pthread_mutex_unlock(&vm->standing);
    return ret;
}

/* ---- Loading ---- */

/* Whether CONFIG describes the machine that was saved. */
static void check_outline(const struct outline *outline, const struct vm_config *config,
                          struct state *s)
{
    if (outline->cpus != config->cpus)
        state_fail(s, "the saved machine has %u vCPUs, and this one %u", outline->cpus,
                   config->cpus);
    else if (outline->memory != config->memory)
        state_fail(s, "the saved machine has %llu MiB of memory, and this one %llu",
                   (unsigned long long)(outline->memory / MiB),
                   (unsigned long long)(config->memory / MiB));
}

static struct vm *load(const struct engine_ops *engine, const struct vm_config *config,
                       struct state *s, struct error *err)
{
    struct outline outline = {0};
    struct vm *vm;

    visit_outline(&outline, s);
    if (!state_error(s))
        check_outline(&outline, config, s);
    if (state_error(s)) {
        *err = *state_failure(s);
        return NULL;
    }
    vm = vm_assemble(engine, config, s, err);
    if (!vm)
        return NULL;
    vm->reset_wanted = outline.reset_wanted;
    vm_drain(vm); /* no device reaches memory that is not loaded yet */
    vm->loaded = true;
    visit_parts(vm, s);
    if (state_finish(s) == 0)
        return vm;
    *err = *state_failure(s);
    vm_destroy(vm);
    return NULL;
}

struct vm *vm_load(const struct engine_ops *engine, const struct vm_config *config,
                   const struct state_reader *reader, struct error *err)
{
    struct error local;
    struct state *s;
    struct vm *vm;

    err = err ? err : &local;
    s = state_create_load(reader, err);
    if (!s)
        return NULL;
    vm = load(engine, config, s, err);
    state_free(s);
    return vm;
}
