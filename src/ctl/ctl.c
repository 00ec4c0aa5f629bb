/*
 * The public library: checks what it is given and hands a machine to vm/.
 */
#include "ctl/doppel.h"

#include "ctl/config.h"
#include "ctl/events.h"
#include "ctl/files.h"
#include "ctl/host.h"
#include "ctl/sized.h"
#include "ctl/trace.h"

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "base/util.h"
#include "blk/isolated/isolated.h"
#include "cpu/engines.h"
#include "share/serve.h"
#include "vm/disk.h"
#include "vm/share.h"
#include "vm/vm.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct doppel_vm {
    struct vm *vm;
    pthread_mutex_t life; /* start, pause, resume and a change of engine take their turns */
    _Atomic bool started, paused;
    struct event_hub events;
    struct log log;
    void (*line)(void *opaque, enum doppel_log_level level, const char *text);
    void *line_opaque;
    _Atomic enum doppel_engine engine; /* the present one */
    bool measured;
    struct tracer tracer;
    void (*step)(void *opaque, const struct doppel_step *step);
    void *step_opaque;
    _Atomic uint64_t trace_start; /* by time_now_ns */
    struct boot_files *files;
};

_Static_assert(sizeof(((struct doppel_end *)0)->report) == VM_REPORT_SIZE, "reports are copied");
_Static_assert((int)DOPPEL_LOG_ERROR == LOG_LEVEL_ERROR && (int)DOPPEL_LOG_DEBUG == LOG_LEVEL_DEBUG,
               "the levels are the same");
_Static_assert(DOPPEL_MAX_CPUS == VM_MAX_CPUS, "one limit");
_Static_assert(DOPPEL_SERIAL_PORTS == BOARD_SERIAL_PORTS, "every serial port can be plugged in");
_Static_assert(ARRAY_SIZE(((struct doppel_stats *)0)->exits) >= CAUSE_COUNT, "all causes fit");
_Static_assert(ARRAY_SIZE(((struct doppel_stats *)0)->forgotten) >= FORGET_COUNT, "all fit");

/* ---- What the machine tells: on any thread, with any lock held ---- */

static void on_line(void *opaque, enum log_level level, const char *text)
{
    struct doppel_vm *d = opaque;

    if (d->line)
        d->line(d->line_opaque, (enum doppel_log_level)level, text);
    event_tell(&d->events, DOPPEL_EVENT_LOG, (enum doppel_log_level)level, text);
}

static void on_tell(void *opaque, enum log_level level, const char *text)
{
    struct doppel_vm *d = opaque;

    event_tell(&d->events, DOPPEL_EVENT_DISK, (enum doppel_log_level)level, text);
}

static void tell(struct doppel_vm *d, enum doppel_event_kind kind)
{
    event_tell(&d->events, kind, DOPPEL_LOG_ERROR, NULL);
}

static void on_started(void *opaque)
{
    tell(opaque, DOPPEL_EVENT_STARTED);
}

static void on_reset(void *opaque)
{
    tell(opaque, DOPPEL_EVENT_RESET);
}

static void on_ended(void *opaque)
{
    tell(opaque, DOPPEL_EVENT_ENDED);
}

static void on_held(void *opaque, const char *why)
{
    struct doppel_vm *d = opaque;

    event_tell(&d->events, DOPPEL_EVENT_HELD, DOPPEL_LOG_WARNING, why);
}

static void on_released(void *opaque, const char *why)
{
    struct doppel_vm *d = opaque;

    event_tell(&d->events, DOPPEL_EVENT_GOES_ON, DOPPEL_LOG_INFO, why);
}

/* ---- Creation ---- */

/* Not AUTO's. */
static const struct engine_ops *engine_ops_of(enum doppel_engine engine)
{
    switch (engine) {
    case DOPPEL_ENGINE_BT: return &bt_engine;
    case DOPPEL_ENGINE_KVM: return &kvm_engine;
    default: return &interp_engine;
    }
}

static enum doppel_engine choose_engine(enum doppel_engine wanted)
{
    return wanted == DOPPEL_ENGINE_AUTO ? host_engine() : wanted;
}

static bool create_vm(struct doppel_vm *d, const struct doppel_config *config, struct error *err)
{
    const enum doppel_engine engine = choose_engine(config->engine);
    const enum doppel_engine instead = host_engine_without_kvm();
    struct vm_config vm = {
        .cpus = config->cpus,
        .memory = config->memory,
        .load = boot_files_load,
        .load_opaque = d->files,
        .log = &d->log,
        .events = {.started = on_started,
                   .reset = on_reset,
                   .ended = on_ended,
                   .held = on_held,
                   .released = on_released,
                   .opaque = d},
        .no_reboot = config->no_reboot,
        .measure = config->measure,
        .tracer = config->trace ? &d->tracer : NULL,
        .instead = config->engine == DOPPEL_ENGINE_AUTO ? engine_ops_of(instead) : NULL,
        .devices = {.list = config->devices,
                    .isolate = config->isolate,
                    .isolate_opaque = config->isolate_opaque,
                    .name = config->name,
                    .remote = config->remote,
                    .remote_opaque = config->remote_opaque,
                    .debug_output = {.output = config->debug_output,
                                     .full = config->debug_full,
                                     .opaque = config->debug_opaque},
                    .console = {.output = config->console.output,
                                .full = config->console.full,
                                .input_ready = config->console.input_ready,
                                .opaque = config->console.opaque}},
    };

    for (unsigned i = 0; i < DOPPEL_SERIAL_PORTS; i++)
        vm.devices.serial[i] = (struct uart_backend){.sent = {.output = config->serial[i].output,
                                                              .full = config->serial[i].full,
                                                              .opaque = config->serial[i].opaque},
                                                     .input_ready = config->serial[i].input_ready,
                                                     .opaque = config->serial[i].opaque};
    d->vm = vm_create(engine_ops_of(engine), &vm, err);
    boot_files_quiet(d->files);
    if (!d->vm)
        return false;
    atomic_store(&d->engine, vm_engine_of(d->vm) == engine_ops_of(engine) ? engine : instead);
    return true;
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

/* Fills in D, which is zeroed. */
static bool create(struct doppel_vm *d, const struct doppel_config *config, struct error *err)
{
    d->measured = config->measure;
    d->tracer.event = on_trace;
    d->tracer.opaque = d;
    d->step = config->trace;
    d->step_opaque = config->trace_opaque;
    d->line = config->log;
    d->line_opaque = config->log_opaque;
    d->log = (struct log){
        .most = (enum log_level)config->log_level, .line = on_line, .tell = on_tell, .opaque = d};
    d->files = boot_files_open(config, err);
    return d->files && create_vm(d, config, err);
}

struct doppel_vm *doppel_create_sized(const struct doppel_config *from, size_t size,
                                      struct doppel_error *error)
{
    struct error err = {0};
    struct doppel_config config;
    struct doppel_vm *d = NULL;

    if (config_take(&config, from, size, &err) == 0) {
        d = calloc(1, sizeof(*d));
        if (!d)
            error_set(&err, ENOMEM, "no memory for a virtual machine");
    }
    if (d) {
        pthread_mutex_init(&d->life, NULL);
        event_hub_init(&d->events);
        if (!create(d, &config, &err)) {
            doppel_destroy(d);
            d = NULL;
        }
    }
    if (!d)
        give_error(error, &err);
    return d;
}

void doppel_destroy(struct doppel_vm *d)
{
    if (!d)
        return;
    vm_destroy(d->vm);
    boot_files_close(d->files);
    event_hub_destroy(&d->events);
    pthread_mutex_destroy(&d->life);
    free(d);
}

/* ---- Life ---- */

static bool has_ended(struct doppel_vm *d)
{
    return vm_wait(d->vm, 0, NULL) == 0;
}

static int check_not_ended(struct doppel_vm *d, struct error *err)
{
    return has_ended(d) ? error_set(err, ESHUTDOWN, "the virtual machine has ended") : 0;
}

int doppel_start(struct doppel_vm *d, struct doppel_error *error)
{
    struct error err;
    int ret;

    pthread_mutex_lock(&d->life);
    ret = check_not_ended(d, &err);
    if (ret == 0)
        ret = vm_start(d->vm, &err);
    if (ret == 0)
        atomic_store(&d->started, true);
    pthread_mutex_unlock(&d->life);
    return ret < 0 ? give_error(error, &err) : 0;
}

/* Pauses D, or has it go on. */
static int set_paused(struct doppel_vm *d, bool paused, struct doppel_error *error)
{
    struct error err;
    int ret;

    pthread_mutex_lock(&d->life);
    ret = check_not_ended(d, &err);
    if (ret == 0 && atomic_load(&d->paused) != paused) {
        if (paused)
            vm_pause(d->vm);
        atomic_store(&d->paused, paused);
        tell(d, paused ? DOPPEL_EVENT_PAUSED : DOPPEL_EVENT_RESUMED);
        if (!paused)
            vm_resume(d->vm); /* what happens then is told afterwards */
    }
    pthread_mutex_unlock(&d->life);
    return ret < 0 ? give_error(error, &err) : 0;
}

int doppel_pause(struct doppel_vm *d, struct doppel_error *error)
{
    return set_paused(d, true, error);
}

int doppel_resume(struct doppel_vm *d, struct doppel_error *error)
{
    int ret = set_paused(d, false, error);

    if (ret == 0)
        vm_retry(d->vm);
    return ret;
}

int doppel_switch_engine(struct doppel_vm *d, enum doppel_engine engine, struct doppel_error *error)
{
    struct error err;
    int ret;

    if (engine > DOPPEL_ENGINE_KVM) {
        error_set(&err, EINVAL, "there is no engine %d", (int)engine);
        return give_error(error, &err);
    }
    engine = choose_engine(engine);
    pthread_mutex_lock(&d->life);
    ret = check_not_ended(d, &err);
    if (ret == 0 && atomic_load(&d->engine) != engine) {
        ret = vm_switch_engine(d->vm, engine_ops_of(engine), &err);
        if (ret == 0)
            atomic_store(&d->engine, engine);
    }
    pthread_mutex_unlock(&d->life);
    return ret < 0 ? give_error(error, &err) : 0;
}

enum doppel_state doppel_state(struct doppel_vm *d)
{
    if (has_ended(d))
        return DOPPEL_STATE_ENDED;
    if (!atomic_load(&d->started))
        return DOPPEL_STATE_NEW;
    if (atomic_load(&d->paused))
        return DOPPEL_STATE_PAUSED;
    return vm_held(d->vm) ? DOPPEL_STATE_HELD : DOPPEL_STATE_RUNNING;
}

struct doppel_events *doppel_events_open(struct doppel_vm *d, struct doppel_error *error)
{
    struct error err;
    struct doppel_events *events = event_queue_open(&d->events, &err);

    if (!events)
        give_error(error, &err);
    return events;
}

static enum doppel_outcome public_outcome(enum vm_outcome outcome)
{
    switch (outcome) {
    case VM_RUNNING: break;
    case VM_POWEROFF: return DOPPEL_POWEROFF;
    case VM_RESET: return DOPPEL_RESET;
    case VM_DEBUG_EXIT: return DOPPEL_DEBUG_EXIT;
    case VM_CRASHED: return DOPPEL_CRASHED;
    case VM_FAILED: return DOPPEL_FAILED;
    case VM_STOPPED: return DOPPEL_STOPPED;
    }
    return DOPPEL_RUNNING;
}

static void give_end(struct doppel_end *to, size_t size, const struct vm_end *from)
{
    struct doppel_end end;

    end.outcome = public_outcome(from->outcome);
    end.status = from->status;
    memcpy(end.report, from->report, sizeof(end.report));
    sized_copy_out(to, size, &end, sizeof(end));
}

int doppel_wait_sized(struct doppel_vm *d, int timeout_ms, struct doppel_end *end, size_t size)
{
    struct vm_end *inner; /* too large for a small stack */
    int ret;

    if (!end)
        return vm_wait(d->vm, timeout_ms, NULL);
    inner = calloc(1, sizeof(*inner));
    if (!inner)
        return -ENOMEM;
    ret = vm_wait(d->vm, timeout_ms, inner);
    give_end(end, size, inner);
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

int doppel_resize_disk(struct doppel_vm *d, unsigned disk, uint64_t size,
                       struct doppel_error *error)
{
    struct error err;
    int ret = vm_resize_disk(d->vm, disk, size, &err);

    return ret < 0 ? give_error(error, &err) : 0;
}

int doppel_change_network(struct doppel_vm *d, unsigned nic, const char *settings,
                          struct doppel_error *error)
{
    struct error err;
    int ret = vm_change_network(d->vm, nic, settings, &err);

    return ret < 0 ? give_error(error, &err) : 0;
}

unsigned doppel_forward_port(struct doppel_vm *d, unsigned nic, unsigned forward)
{
    return vm_forward_port(d->vm, nic, forward);
}

int doppel_serve_disk(const char *description, int socket, struct doppel_error *error)
{
    struct blk_options options;
    struct error err = {0};
    int ret = disk_options(description, &options, &err);

    if (ret == 0) {
        ret = isolated_serve(socket, &options, NULL, &err);
        blk_options_free(&options);
    }
    return ret < 0 ? give_error(error, &err) : 0;
}

int doppel_serve_folder(const char *description, int socket, struct doppel_error *error)
{
    struct share_options options;
    struct error err = {0};
    int ret = share_description(description, &options, &err);

    if (ret == 0) {
        ret = share_serve(socket, &options, NULL, &err);
        share_options_free(&options);
    }
    return ret < 0 ? give_error(error, &err) : 0;
}

void doppel_output_room(struct doppel_vm *d)
{
    vm_output_room(d->vm);
}

size_t doppel_console_input(struct doppel_vm *d, const void *data, size_t size)
{
    return vm_console_input(d->vm, data, size);
}

void doppel_console_resize(struct doppel_vm *d, unsigned rows, unsigned columns)
{
    vm_console_resize(d->vm, rows, columns);
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

void doppel_stats_sized(struct doppel_vm *d, struct doppel_stats *to, size_t size)
{
    struct doppel_stats stats;
    struct vm_stats inner;

    vm_stats(d->vm, &inner);
    stats = (struct doppel_stats){
        .engine = doppel_engine_name(atomic_load(&d->engine)),
        .elapsed_ns = inner.elapsed_ns,
        .guest_resident = inner.resident,
        .resident = process_resident(),
        .measured = d->measured,
    };
    vm_counters(d->vm, take_counter, &stats);
    if (work(&stats, "tlb-checks") > 0)
        stats.tlb_hit_rate = 1 - work(&stats, "tlb-fills") / work(&stats, "tlb-checks");
    sized_copy_out(to, size, &stats, sizeof(stats));
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
