/*
 * The machine's life: assembly, power-on and reset, and the end.
 */
#include "vm/vm_private.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "mem/change.h"
#include "vm/acpi.h"
#include "vm/mp_table.h"
#include "vm/smbios.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- What devices ask for: on any thread, board lock held ---- */

static void on_reset(void *opaque)
{
    struct vm *vm = opaque;

    if (vm->no_reboot) {
        vm_finish(vm, VM_RESET, 0, NULL);
        return;
    }
    pthread_mutex_lock(&vm->lock);
    vm->reset_wanted = true;
    pthread_mutex_unlock(&vm->lock);
    vm_kick_all(vm);
}

static void on_poweroff(void *opaque)
{
    vm_finish(opaque, VM_POWEROFF, 0, NULL);
}

static void on_debug_exit(void *opaque, int status)
{
    vm_finish(opaque, VM_DEBUG_EXIT, status, NULL);
}

/* On any thread, without locks. */
static void on_hold(void *opaque, const char *why)
{
    vm_hold(opaque, why);
}

static void on_release(void *opaque, const char *why)
{
    vm_release(opaque, why);
}

/* On the event loop's thread. */
static void on_lost(struct vm *vm, const struct error *what)
{
    vm_finish(vm, VM_FAILED, 0, what->text);
}

/* ---- Power-on ---- */

/* Memory types as firmware sets them (SDM volume 3, 12.11): write-back, but for the VGA window and
 * the device hole below 4 GiB. */
static void set_memory_types(struct x86_cpu *cpu, unsigned physical_bits)
{
    const uint64_t write_back = 0x0606060606060606, enable = 1u << 11, fixed = 1u << 10;
    const uint64_t hole = MEM_HOLE_END - MEM_HOLE_START, valid = 1u << 11;

    for (unsigned i = 0; i < ARRAY_SIZE(cpu->mtrr_fixed); i++)
        cpu->mtrr_fixed[i] = write_back;
    cpu->mtrr_fixed[2] = 0; /* A0000h-BFFFFh: uncacheable */
    cpu->mtrr_base[0] = MEM_HOLE_START;
    cpu->mtrr_mask[0] = (((UINT64_C(1) << physical_bits) - 1) & ~(hole - 1)) | valid;
    cpu->mtrr_def_type = enable | fixed | 6;
}

/* What firmware would leave for kernels to find. */
static int write_tables(struct vm *vm, struct error *err)
{
    struct mem *mem = vm->machine.mem;
    int ret = acpi_write(mem, vm->cpus, vm->machine.model.physical_bits, err);

    if (ret == 0)
        ret = mp_table_write(mem, &vm->machine.model, err);
    if (ret == 0)
        ret = smbios_write(mem, &vm->machine.model, err);
    return ret;
}

int vm_boot(struct vm *vm, struct error *err)
{
    struct mem *mem = vm->machine.mem;
    int ret = mem_clear(mem, err);

    if (ret < 0)
        return ret;
    board_reset(vm->board);
    ret = write_tables(vm, err);
    if (ret < 0)
        return ret;
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct vm_cpu *cpu = &vm->cpu[i];
        struct x86_cpu state = {0};

        x86_cpu_reset(&state);
        state.physical_bits = vm->machine.model.physical_bits;
        if (i == 0 && vm->load) {
            ret = vm->load(vm->load_opaque, mem, &state, err);
            if (ret < 0)
                return ret;
        }
        set_memory_types(&state, state.physical_bits);
        cpu->wait_sipi = i != 0;
        state.activity = cpu->wait_sipi ? X86_WAIT_SIPI : X86_RUNNING;
        vm->engine->ops->state_in(cpu->vcpu, &state);
        /* Nothing sent to the processor before counts any more, but a kick is for its thread. */
        atomic_fetch_and(&cpu->port.requests, CPU_REQ_KICK);
    }
    return vm_lost_check(vm, err);
}

/* ---- Assembly ---- */

/* Guest memory is about to wait for vCPUs, one of which may be waiting for the board lock. */
static void check_locks(void *opaque)
{
    assert(!bus_is_locked_here(opaque));
}

/* By how much the TSCs of two hosts may differ that count as equal: 1 in so many. They have been
 * measured. */
#define TSC_TOLERANCE 1000

void vm_machine_state(struct machine *m, struct state *s)
{
    uint64_t here = clock_tsc_hz(m->clock), saved;

    x86_model_state(&m->model, s);
    saved = m->model.tsc_hz;
    if ((here > saved ? here - saved : saved - here) > here / TSC_TOLERANCE)
        state_fail(s,
                   "tsc_hz: the TSC of the saved machine runs at %llu Hz, and this host's at %llu",
                   (unsigned long long)saved, (unsigned long long)here);
    clock_state(m->clock, s);
}

static bool create_machine(struct vm *vm, const struct vm_config *config, struct state *past,
                           struct error *err)
{
    struct machine *m = &vm->machine;

    if (config->cpus < 1 || config->cpus > VM_MAX_CPUS) {
        error_set(err, EINVAL, "%u vCPUs: must be 1 to %d", config->cpus, VM_MAX_CPUS);
        return false;
    }
    if (!(m->mem = mem_create(config->memory, err)) || !(m->bus = bus_create(err)) ||
        !(vm->loop = loop_create(err)) || vm_lost_init(vm, on_lost, err) < 0 ||
        vm_hold_init(vm, err) < 0 || !(m->clock = clock_create(vm->loop, m->bus, err)) ||
        !(vm->workers = workers_create("doppel-io", VM_WORKERS, err)))
        return false;
    mem_set_check(m->mem, check_locks, m->bus);
    clock_pause(m->clock); /* until vm_start */
    vm->time_stops = 1;
    m->cpus = config->cpus;
    m->measure = config->measure;
    m->tracer = config->tracer;
    x86_model_default(&m->model, config->cpus, clock_tsc_hz(m->clock));
    if (past)
        vm_machine_state(m, past);
    if (past && state_error(past))
        *err = *state_failure(past);
    return !past || !state_error(past);
}

/* Cuts the machine's model down to what ENGINE can give a guest, before anything depends on it. A
 * machine that was saved must have what it had. */
static bool fit_model(struct vm *vm, const struct engine_ops *engine, const struct state *past,
                      struct error *err)
{
    struct x86_model fitted = vm->machine.model;

    if (!engine->restrict_model)
        return true;
    if (engine->restrict_model(&fitted, err) < 0)
        return false;
    if (past && !x86_model_within(&vm->machine.model, &fitted)) {
        error_set(err, ENOTSUP,
                  "the saved machine's processor has features that the engine %s does not offer on "
                  "this host; use another engine",
                  engine->name);
        return false;
    }
    if (!past)
        vm->machine.model = fitted;
    return true;
}

/* Tells why VM gets the engine INSTEAD. */
static void log_instead(const struct vm *vm, const struct engine_ops *engine,
                        const struct engine_ops *instead, const struct error *why)
{
    log_line(vm->log, LOG_LEVEL_WARNING, "the engine is %s, because %s cannot be used: %s",
             instead->name, engine->name, why->text);
}

/* Has VM's model fit ENGINE, or if that is refused, INSTEAD, unless that is NULL. Returns which; or
 * NULL, and ERR says why. */
static const struct engine_ops *fit_engine(struct vm *vm, const struct engine_ops *engine,
                                           const struct engine_ops *instead,
                                           const struct state *past, struct error *err)
{
    if (fit_model(vm, engine, past, err))
        return engine;
    if (!instead || !fit_model(vm, instead, past, err))
        return NULL;
    log_instead(vm, engine, instead, err);
    return instead;
}

/* Gives VM its first engine: ENGINE, or if that cannot be created, INSTEAD, unless that is NULL. */
static bool create_engine(struct vm *vm, const struct engine_ops *engine,
                          const struct engine_ops *instead, struct error *err)
{
    if (vm_engine_create(vm, engine, err))
        return true;
    if (!instead || instead == engine)
        return false;
    log_instead(vm, engine, instead, err);
    return vm_engine_create(vm, instead, err);
}

static bool create_board(struct vm *vm, const struct vm_config *config, struct error *err)
{
    struct board_config board = {
        .cpus = vm->cpus,
        .physical_bits = vm->machine.model.physical_bits,
        .ports = vm->ports,
        .loop = vm->loop,
        .workers = vm->workers,
        .log = vm->log,
        .events = {.reset = on_reset,
                   .poweroff = on_poweroff,
                   .debug_exit = on_debug_exit,
                   .hold = on_hold,
                   .release = on_release,
                   .opaque = vm},
        .devices = &config->devices,
    };

    vm->board = board_create(vm->machine.bus, vm->machine.clock, vm->machine.mem, &board, err);
    return vm->board != NULL;
}

struct vm *vm_assemble(const struct engine_ops *engine, const struct vm_config *config,
                       struct state *past, struct error *err)
{
    struct vm *vm = calloc(1, sizeof(*vm));

    if (!vm) {
        error_set(err, ENOMEM, "no memory for a virtual machine");
        return NULL;
    }
    pthread_mutex_init(&vm->networks, NULL);
    pthread_mutex_init(&vm->asking, NULL);
    pthread_mutex_init(&vm->standing, NULL);
    pthread_mutex_init(&vm->engines, NULL);
    pthread_mutex_init(&vm->lock, NULL);
    thread_cond_init(&vm->changed);
    vm->lost_fd = vm->retry_fd = -1;
    vm->cpus = MIN(config->cpus, VM_MAX_CPUS);
    for (unsigned i = 0; i < vm->cpus; i++) {
        vm->ports[i] = &vm->cpu[i].port;
        vm_cpu_init(vm, i);
    }
    vm->load = config->load;
    vm->load_opaque = config->load_opaque;
    vm->log = config->log;
    vm->events = config->events;
    vm->no_reboot = config->no_reboot;
    if (!create_machine(vm, config, past, err) ||
        !(engine = fit_engine(vm, engine, config->instead, past, err)) ||
        !create_board(vm, config, err) || !create_engine(vm, engine, config->instead, err)) {
        vm_destroy(vm);
        return NULL;
    }
    return vm;
}

struct vm *vm_create(const struct engine_ops *engine, const struct vm_config *config,
                     struct error *err)
{
    struct error local;
    struct vm *vm;

    err = err ? err : &local;
    vm = vm_assemble(engine, config, NULL, err);
    if (vm && vm_boot(vm, err) < 0) {
        vm_destroy(vm);
        return NULL;
    }
    return vm;
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    vm_stop(vm);
    for (unsigned i = 0; i < vm->cpus; i++)
        if (vm->cpu[i].started)
            pthread_join(vm->cpu[i].thread, NULL);
    if (vm->machine.mem)
        mem_change_end(vm->machine.mem); /* its thread calls listeners: the engine, devices */
    if (vm->board)
        vm_drain(vm); /* while the loop runs, as jobs on it may be what ends a device's work */
    if (vm->loop)
        loop_stop(vm->loop);
    vm_engine_destroy(vm);
    vm_sums_free(&vm->past);
    board_destroy(vm->board);
    workers_destroy(vm->workers);
    vm->workers = NULL;
    vm_lost_free(vm);
    vm_hold_free(vm);
    if (vm->machine.clock)
        clock_destroy(vm->machine.clock);
    if (vm->loop)
        loop_destroy(vm->loop);
    vm->loop = NULL;
    bus_destroy(vm->machine.bus);
    mem_destroy(vm->machine.mem);
    pthread_cond_destroy(&vm->changed);
    pthread_mutex_destroy(&vm->lock);
    pthread_mutex_destroy(&vm->networks);
    pthread_mutex_destroy(&vm->asking);
    pthread_mutex_destroy(&vm->standing);
    pthread_mutex_destroy(&vm->engines);
    free(vm);
}

/* ---- Life ---- */

/* Starts the threads of all vCPUs, or ends the VM. */
static int start_processors(struct vm *vm, struct error *err)
{
    for (unsigned i = 0; i < vm->cpus; i++) {
        int ret = vm_cpu_start(&vm->cpu[i], err);

        if (ret < 0) {
            vm_stop(vm);
            for (; i < vm->cpus; i++)
                vm_leave(vm); /* for those that never came */
            return ret;
        }
    }
    return 0;
}

int vm_start(struct vm *vm, struct error *err)
{
    struct error local;
    bool loaded;
    int ret;

    err = err ? err : &local;
    vm_begin_turn(vm);
    loaded = vm->loaded;
    if (vm->started)
        ret = error_set(err, EALREADY, "the virtual machine has been started already");
    else
        ret = loop_start(vm->loop, err);
    if (ret == 0) {
        atomic_store(&vm->start_ns, clock_now(vm->machine.clock));
        pthread_mutex_lock(&vm->lock);
        vm_start_time(vm);
        vm->started = true;
        vm->threads = vm->cpus;
        pthread_mutex_unlock(&vm->lock);
    }
    vm_end_turn(vm);
    if (ret == 0 && vm->events.started)
        vm->events.started(vm->events.opaque);
    if (ret == 0 && loaded)
        vm_undrain(vm);
    return ret < 0 ? ret : start_processors(vm, err);
}

static const char *outcome_text(enum vm_outcome outcome)
{
    switch (outcome) {
    case VM_RUNNING: break;
    case VM_POWEROFF: return "the guest has powered the machine off";
    case VM_RESET: return "the guest has reset the machine, which ends it";
    case VM_DEBUG_EXIT: return "the guest has written to the debug exit port";
    case VM_CRASHED: return "the machine has crashed";
    case VM_FAILED: return "the machine cannot go on";
    case VM_STOPPED: return "the machine has been stopped";
    }
    return "the machine ends";
}

static void tell_end(struct vm *vm)
{
    bool told;

    pthread_mutex_lock(&vm->lock);
    told = vm->end_told;
    vm->end_told = true;
    pthread_mutex_unlock(&vm->lock);
    if (!told && vm->events.ended)
        vm->events.ended(vm->events.opaque);
}

static void log_end(struct vm *vm, enum vm_outcome outcome, const char *report)
{
    log_line(vm->log, LOG_LEVEL_INFO, "%s", outcome_text(outcome));
    if (outcome == VM_FAILED)
        log_line(vm->log, LOG_LEVEL_ERROR, "%s", report);
    pthread_mutex_lock(&vm->lock);
    vm->end_logged = true;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
}

void vm_finish(struct vm *vm, enum vm_outcome outcome, int status, const char *report)
{
    bool first, over;

    pthread_mutex_lock(&vm->lock);
    first = !vm->ending;
    over = !vm->started;
    if (first) {
        vm->ending = true;
        vm->end.outcome = outcome;
        vm->end.status = status;
        if (report)
            snprintf(vm->end.report, sizeof(vm->end.report), "%s", report);
    }
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
    if (first)
        log_end(vm, outcome, report);
    vm_kick_all(vm);
    if (over)
        tell_end(vm);
}

void vm_leave(struct vm *vm)
{
    bool last;

    pthread_mutex_lock(&vm->lock);
    last = --vm->threads == 0;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
    if (!last)
        return;
    vm_drain(vm);
    board_flush(vm->board);
    pthread_mutex_lock(&vm->lock);
    while (!vm->end_logged) /* the reason comes before the end, in the log and among the events */
        pthread_cond_wait(&vm->changed, &vm->lock);
    vm->over = true;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
    tell_end(vm);
}

void vm_stop(struct vm *vm)
{
    vm_finish(vm, VM_STOPPED, 0, NULL);
}

int vm_wait(struct vm *vm, int timeout_ms, struct vm_end *end)
{
    struct timespec until = time_spec(time_now_ns() + (uint64_t)MAX(timeout_ms, 0) * NS_PER_MS);
    int ret = 0;

    pthread_mutex_lock(&vm->lock);
    /* A VM that was stopped before it was started has no threads to wait for. */
    while (!vm->over && !(vm->end_logged && !vm->started) && ret == 0)
        ret = timeout_ms < 0 ? pthread_cond_wait(&vm->changed, &vm->lock)
                             : pthread_cond_timedwait(&vm->changed, &vm->lock, &until);
    if (ret == 0 && end)
        *end = vm->end;
    pthread_mutex_unlock(&vm->lock);
    return -ret;
}

const struct engine_ops *vm_engine_of(struct vm *vm)
{
    const struct engine_ops *ops;

    pthread_mutex_lock(&vm->engines);
    ops = vm->engine->ops;
    pthread_mutex_unlock(&vm->engines);
    return ops;
}

void vm_power_button(struct vm *vm)
{
    board_power_button(vm->board);
}

int vm_resize_disk(struct vm *vm, unsigned disk, uint64_t size, struct error *err)
{
    return board_resize_disk(vm->board, disk, size, err);
}

int vm_change_network(struct vm *vm, unsigned nic, const char *settings, struct error *err)
{
    int ret;

    pthread_mutex_lock(&vm->networks);
    ret = board_change_network(vm->board, nic, settings, err);
    pthread_mutex_unlock(&vm->networks);
    return ret;
}

unsigned vm_forward_port(struct vm *vm, unsigned nic, unsigned n)
{
    return board_forward_port(vm->board, nic, n);
}

void vm_output_room(struct vm *vm)
{
    vm_kick_all(vm);
    board_console_room(vm->board);
}

size_t vm_console_input(struct vm *vm, const void *data, size_t size)
{
    return board_console_input(vm->board, data, size);
}

void vm_console_resize(struct vm *vm, unsigned rows, unsigned columns)
{
    board_console_resize(vm->board, rows, columns);
}

size_t vm_serial_input(struct vm *vm, unsigned port, const void *data, size_t size)
{
    return board_serial_input(vm->board, port, data, size);
}

void vm_stats(struct vm *vm, struct vm_stats *stats)
{
    *stats =
        (struct vm_stats){.elapsed_ns = clock_now(vm->machine.clock) - atomic_load(&vm->start_ns),
                          .resident = mem_resident(vm->machine.mem)};
}
