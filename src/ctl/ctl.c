/*
 * The public library: checks what it is given and hands a machine to vm/.
 */
#include "ctl/doppel.h"

#include "ctl/files.h"
#include "ctl/host.h"
#include "ctl/trace.h"

#include "base/error.h"
#include "base/time.h"
#include "base/util.h"
#include "cpu/engines.h"
#include "vm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

struct doppel_vm {
    struct vm *vm;
    enum doppel_engine engine;
    bool measured;
    struct tracer tracer;
    void (*step)(void *opaque, const struct doppel_step *step);
    void *step_opaque;
    _Atomic uint64_t trace_start; /* by time_now_ns */
    struct boot_files *files;
};

_Static_assert(sizeof(((struct doppel_end *)0)->report) == VM_REPORT_SIZE, "reports are copied");
_Static_assert(DOPPEL_MAX_CPUS == VM_MAX_CPUS, "one limit");
_Static_assert(DOPPEL_SERIAL_PORTS == BOARD_SERIAL_PORTS, "every serial port can be plugged in");
_Static_assert(ARRAY_SIZE(((struct doppel_stats *)0)->exits) >= CAUSE_COUNT, "all causes fit");
_Static_assert(ARRAY_SIZE(((struct doppel_stats *)0)->forgotten) >= FORGET_COUNT, "all fit");

/* ---- Configuration ---- */

void doppel_config_init(struct doppel_config *config)
{
    *config = (struct doppel_config){.engine = DOPPEL_ENGINE_AUTO, .cpus = 1, .memory = 512 * MiB};
}

static int check_memory(uint64_t bytes, struct error *err)
{
    unsigned long long memory = bytes, host;
    struct sysinfo info;

    if (memory < MiB)
        return error_set(err, EINVAL, "%llu bytes of memory are too few: at least 1 MiB", memory);
    if (memory > DOPPEL_MAX_MEMORY)
        return error_set(err, EINVAL, "%llu MiB of memory are too many: at most %llu MiB",
                         memory / MiB, DOPPEL_MAX_MEMORY / MiB);
    if (memory % MEM_PAGE_SIZE)
        return error_set(err, EINVAL, "%llu bytes of memory: must be a multiple of 4096", memory);
    if (sysinfo(&info) < 0)
        return 0;
    host = ((unsigned long long)info.totalram + info.totalswap) * info.mem_unit;
    if (memory > host)
        return error_set(err, ENOMEM,
                         "%llu MiB of memory are more than this host's %llu MiB, swap included",
                         memory / MiB, host / MiB);
    return 0;
}

static int check_config(const struct doppel_config *config, struct error *err)
{
    if (config->engine < DOPPEL_ENGINE_AUTO || config->engine > DOPPEL_ENGINE_BT)
        return error_set(err, EINVAL, "there is no engine number %d", (int)config->engine);
    if (config->cpus < 1 || config->cpus > DOPPEL_MAX_CPUS)
        return error_set(err, EINVAL, "%u vCPUs: must be 1 to %d", config->cpus, DOPPEL_MAX_CPUS);
    if (!config->kernel || !*config->kernel)
        return error_set(err, EINVAL, "no kernel given");
    if (config->initrd_extra_size && !config->initrd_extra)
        return error_set(err, EINVAL, "initrd_extra_size without initrd_extra");
    return check_memory(config->memory, err);
}

/* ---- Creation ---- */

static bool create_vm(struct doppel_vm *d, const struct doppel_config *config, struct error *err)
{
    struct vm_config vm = {
        .cpus = config->cpus,
        .memory = config->memory,
        .load = boot_files_load,
        .load_opaque = d->files,
        .no_reboot = config->no_reboot,
        .measure = config->measure,
        .tracer = config->trace ? &d->tracer : NULL,
        .devices = {.list = config->devices,
                    .debug_output = {.output = config->debug_output,
                                     .full = config->debug_full,
                                     .opaque = config->debug_opaque}},
    };

    for (unsigned i = 0; i < DOPPEL_SERIAL_PORTS; i++)
        vm.devices.serial[i] = (struct uart_backend){.sent = {.output = config->serial[i].output,
                                                              .full = config->serial[i].full,
                                                              .opaque = config->serial[i].opaque},
                                                     .input_ready = config->serial[i].input_ready,
                                                     .opaque = config->serial[i].opaque};
    d->vm = vm_create(d->engine == DOPPEL_ENGINE_BT ? &bt_engine : &interp_engine, &vm, err);
    boot_files_quiet(d->files);
    return d->vm != NULL;
}

static void on_trace(void *opaque, const struct trace_event *event)
{
    struct doppel_vm *d = opaque;
    char text[TRACE_TEXT];
    struct doppel_step step = {
        .ns = time_now_ns() - atomic_load_explicit(&d->trace_start, memory_order_relaxed),
        .cpu = event->cpu,
        .actor = trace_describe(event, text),
        .text = text,
    };

    d->step(d->step_opaque, &step);
}

/* Hands the library's own kind of error to the caller. */
static int give_error(struct doppel_error *to, const struct error *from)
{
    if (to) {
        to->code = from->code;
        snprintf(to->text, sizeof(to->text), "%s", from->text);
    }
    return -from->code;
}

struct doppel_vm *doppel_create(const struct doppel_config *config, struct doppel_error *error)
{
    struct error err = {0};
    struct doppel_vm *d = calloc(1, sizeof(*d));

    if (!d) {
        error_set(&err, ENOMEM, "no memory for a virtual machine");
        give_error(error, &err);
        return NULL;
    }
    d->engine = config->engine == DOPPEL_ENGINE_AUTO ? host_engine() : config->engine;
    d->measured = config->measure;
    d->tracer.event = on_trace;
    d->tracer.opaque = d;
    d->step = config->trace;
    d->step_opaque = config->trace_opaque;
    if (check_config(config, &err) < 0 || !(d->files = boot_files_open(config, &err)) ||
        !create_vm(d, config, &err)) {
        give_error(error, &err);
        doppel_destroy(d);
        return NULL;
    }
    return d;
}

void doppel_destroy(struct doppel_vm *d)
{
    if (!d)
        return;
    vm_destroy(d->vm);
    boot_files_close(d->files);
    free(d);
}

/* ---- Life ---- */

int doppel_start(struct doppel_vm *d, struct doppel_error *error)
{
    struct error err;

    return vm_start(d->vm, &err) < 0 ? give_error(error, &err) : 0;
}

static enum doppel_outcome public_outcome(enum vm_outcome outcome)
{
    switch (outcome) {
    case VM_RUNNING: break;
    case VM_POWEROFF: return DOPPEL_POWEROFF;
    case VM_RESET: return DOPPEL_RESET;
    case VM_DEBUG_EXIT: return DOPPEL_DEBUG_EXIT;
    case VM_CRASHED: return DOPPEL_CRASHED;
    case VM_STOPPED: return DOPPEL_STOPPED;
    }
    return DOPPEL_RUNNING;
}

int doppel_wait(struct doppel_vm *d, int timeout_ms, struct doppel_end *end)
{
    struct vm_end *inner = calloc(1, sizeof(*inner));
    int ret;

    if (!inner)
        return -ENOMEM;
    ret = vm_wait(d->vm, timeout_ms, inner);
    if (end) {
        end->outcome = public_outcome(inner->outcome);
        end->status = inner->status;
        memcpy(end->report, inner->report, sizeof(end->report));
    }
    free(inner);
    return ret;
}

void doppel_stop(struct doppel_vm *d)
{
    vm_stop(d->vm);
}

void doppel_where(struct doppel_vm *d, void (*line)(void *opaque, const char *text), void *opaque)
{
    vm_where(d->vm, line, opaque);
}

void doppel_power_button(struct doppel_vm *d)
{
    vm_power_button(d->vm);
}

void doppel_output_room(struct doppel_vm *d)
{
    vm_output_room(d->vm);
}

size_t doppel_serial_input(struct doppel_vm *d, unsigned port, const void *data, size_t size)
{
    return vm_serial_input(d->vm, port, data, size);
}

static uint64_t process_resident(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long long pages = 0;

    if (file && fscanf(file, "%*u %llu", &pages) != 1)
        pages = 0;
    if (file)
        fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Adds COUNTER to LIST, of USED entries so far. */
static void append(struct doppel_count *list, unsigned *used, unsigned room,
                   const struct engine_counter *counter)
{
    if (*used < room)
        list[(*used)++] = (struct doppel_count){counter->name, counter->count, counter->ns};
}

/* Adds COUNTER to LIST, which is in order and keeps the most frequent ones. */
static void insert(struct doppel_count *list, unsigned *used, unsigned room,
                   const struct engine_counter *counter)
{
    unsigned at = *used;

    while (at > 0 && list[at - 1].count < counter->count)
        at--;
    if (at == room)
        return;
    *used = MIN(*used + 1, room);
    memmove(&list[at + 1], &list[at], (*used - 1 - at) * sizeof(*list));
    list[at] = (struct doppel_count){counter->name, counter->count, counter->ns};
}

static void take_run_counter(struct doppel_stats *stats, const struct engine_counter *counter)
{
    if (!strcmp(counter->name, "instructions"))
        stats->instructions = counter->count;
    else if (!strcmp(counter->name, "run"))
        stats->run_ns = counter->ns;
    else if (!strcmp(counter->name, "guest"))
        stats->guest_ns = counter->ns;
}

static void take_counter(void *opaque, const struct engine_counter *counter)
{
    struct doppel_stats *stats = opaque;

    if (!strcmp(counter->group, "run"))
        take_run_counter(stats, counter);
    else if (!strcmp(counter->group, "exits"))
        append(stats->exits, &stats->exit_causes, ARRAY_SIZE(stats->exits), counter);
    else if (!strcmp(counter->group, "forgotten"))
        append(stats->forgotten, &stats->forget_causes, ARRAY_SIZE(stats->forgotten), counter);
    else if (!strcmp(counter->group, "work"))
        append(stats->work, &stats->work_kinds, ARRAY_SIZE(stats->work), counter);
    else if (!strcmp(counter->group, "interpreted"))
        insert(stats->interpreted, &stats->interpreted_kinds, ARRAY_SIZE(stats->interpreted),
               counter);
}

/* How much of the engine's work NAME is. */
static double work(const struct doppel_stats *stats, const char *name)
{
    for (unsigned i = 0; i < stats->work_kinds; i++)
        if (!strcmp(stats->work[i].name, name))
            return (double)stats->work[i].count;
    return 0;
}

void doppel_stats(struct doppel_vm *d, struct doppel_stats *stats)
{
    struct vm_stats inner;

    vm_stats(d->vm, &inner);
    *stats = (struct doppel_stats){
        .engine = doppel_engine_name(d->engine),
        .elapsed_ns = inner.elapsed_ns,
        .guest_resident = inner.resident,
        .resident = process_resident(),
        .measured = d->measured,
    };
    vm_counters(d->vm, take_counter, stats);
    if (work(stats, "tlb-checks") > 0)
        stats->tlb_hit_rate = 1 - work(stats, "tlb-fills") / work(stats, "tlb-checks");
}

void doppel_trace(struct doppel_vm *d, bool on)
{
    uint64_t never = 0;

    if (!d->step)
        return;
    atomic_compare_exchange_strong(&d->trace_start, &never, time_now_ns());
    atomic_store(&d->tracer.on, on);
}

const char *doppel_version(void)
{
    return DOPPEL_VERSION;
}
