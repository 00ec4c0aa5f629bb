/*
 * vCPU threads: each runs its engine's vCPU, sleeps while the guest has halted it, does what INIT
 * and start-up IPIs ask (SDM volume 3, 9.4), and stands still or leaves when the VM wants it to.
 */
#include "vm/vm_private.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "cpu/trace.h"
#include "x86/dump.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- Sleeping and waking ---- */

static void futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void wake(void *opaque)
{
    struct vm_cpu *cpu = opaque;

    /* The request is already in port.requests. Either the sleeper sees it after it has announced
     * its sleep, or this sees the announcement. */
    if (atomic_load(&cpu->sleeping))
        futex(&cpu->port.requests, FUTEX_WAKE, 1);
}

static void sleep_until(struct vm_cpu *cpu, uint32_t requests)
{
    uint32_t seen;

    atomic_store(&cpu->sleeping, true);
    while (!((seen = atomic_load(&cpu->port.requests)) & requests))
        futex(&cpu->port.requests, FUTEX_WAIT, seen);
    atomic_store(&cpu->sleeping, false);
}

/* How long a halted vCPU's thread looks for a request before it sleeps: about as long as it takes
 * the host to wake a thread on another processor. */
#define POLL_NS 50000

/* Returns when a request has come, or POLL_NS after START. */
static void poll(struct vm_cpu *cpu, uint64_t start)
{
    do
        for (unsigned i = 0; i < 20; i++) {
            if (atomic_load(&cpu->port.requests))
                return;
            __builtin_ia32_pause();
        }
    while (time_now_ns() - start < POLL_NS);
}

/* Until something happens to a vCPU that has halted. */
static void halt(struct vm_cpu *cpu)
{
    const struct tracer *tracer = cpu->vm->machine.tracer;
    uint64_t start = time_now_ns(), spent;

    if (cpu->polls)
        poll(cpu, start);
    sleep_until(cpu, UINT32_MAX);
    spent = time_now_ns() - start;
    cpu->polls = cpu->vm->cpus > 1 && spent < POLL_NS;
    counter_add(&cpu->halted_ns, spent);
    if (trace_on(tracer))
        tracer->event(tracer->opaque, &(struct trace_event){.kind = TRACE_MONITOR,
                                                            .cause = CAUSE_HALT,
                                                            .cpu = cpu->port.id,
                                                            .ns = spent});
}

void vm_kick_all(struct vm *vm)
{
    pthread_mutex_lock(&vm->engines);
    for (unsigned i = 0; i < vm->cpus; i++)
        if (vm->cpu[i].vcpu)
            vm->engine->ops->kick(vm->cpu[i].vcpu);
    pthread_mutex_unlock(&vm->engines);
}

/* ---- INIT and start-up ---- */

static bool take_request(struct vm_cpu *cpu, uint32_t request)
{
    return atomic_fetch_and(&cpu->port.requests, ~request) & request;
}

static void handle_init(struct vm_cpu *cpu)
{
    const struct engine_ops *ops = cpu->vm->engine->ops;
    struct x86_cpu state;

    ops->state_out(cpu->vcpu, &state);
    x86_cpu_init(&state);
    /* The bootstrap processor goes to the reset vector instead of waiting. */
    cpu->wait_sipi = cpu->port.id != 0;
    state.activity = cpu->wait_sipi ? X86_WAIT_SIPI : X86_RUNNING;
    ops->state_in(cpu->vcpu, &state);
}

static void handle_sipi(struct vm_cpu *cpu)
{
    const struct engine_ops *ops = cpu->vm->engine->ops;
    uint8_t vector = atomic_load(&cpu->port.sipi_vector);
    struct x86_cpu state;

    if (!cpu->wait_sipi)
        return;
    ops->state_out(cpu->vcpu, &state);
    state.seg[X86_CS].selector = (uint16_t)(vector << 8);
    state.seg[X86_CS].base = (uint64_t)vector << 12;
    state.reg[X86_RIP] = 0;
    state.activity = X86_RUNNING;
    ops->state_in(cpu->vcpu, &state);
    cpu->wait_sipi = false;
}

/* ---- Standing still ---- */

/* Does the reset that all wait for, on the one thread that still moves. Others may wake meanwhile,
 * but go back to sleep, because reset_wanted still stands. */
static void reset_machine(struct vm *vm)
{
    struct error err;
    int ret;

    vm->resetting = true;
    pthread_mutex_unlock(&vm->lock);
    log_line(vm->log, LOG_LEVEL_INFO, "the guest resets the machine");
    /* What devices still do with the memory of before must not reach that of afterwards. */
    vm_drain(vm);
    ret = vm_boot(vm, &err);
    vm_undrain(vm);
    if (ret < 0)
        vm_finish(vm, VM_FAILED, 0, err.text);
    else if (vm->events.reset)
        vm->events.reset(vm->events.opaque);
    pthread_mutex_lock(&vm->lock);
    vm->reset_wanted = vm->resetting = false;
    pthread_cond_broadcast(&vm->changed);
}

/* Parks while the VM wants its vCPUs to stand still. Returns false when the thread is to leave. */
static bool may_run(struct vm_cpu *cpu)
{
    struct vm *vm = cpu->vm;
    bool run;

    take_request(cpu, CPU_REQ_KICK);
    pthread_mutex_lock(&vm->lock);
    while (!vm->ending && (vm->pauses || vm->reset_wanted)) {
        vm->parked++;
        pthread_cond_broadcast(&vm->changed);
        if (vm->reset_wanted && !vm->resetting && !vm->pauses && vm->parked == vm->threads)
            reset_machine(vm);
        else
            pthread_cond_wait(&vm->changed, &vm->lock);
        vm->parked--;
    }
    run = !vm->ending;
    pthread_mutex_unlock(&vm->lock);
    return run;
}

/* ---- The thread ---- */

static void report_crash(struct vm_cpu *cpu)
{
    struct vm *vm = cpu->vm;
    size_t size = VM_REPORT_SIZE, length;
    char *report = calloc(1, size);
    struct x86_cpu state;

    if (report) {
        vm->engine->ops->state_out(cpu->vcpu, &state);
        length = (size_t)snprintf(report, size, "vCPU %u: triple fault\n", cpu->port.id);
        length += x86_dump(&state, report + length, size - length);
        length += (size_t)snprintf(report + length, size - length, "last instructions:\n");
        vm->engine->ops->history(cpu->vcpu, report + length, (unsigned)(size - length));
    }
    vm_finish(vm, VM_CRASHED, 0, report ? report : "triple fault");
    free(report);
}

static void run_once(struct vm_cpu *cpu)
{
    const uint32_t outside = CPU_REQ_INIT | CPU_REQ_SIPI | CPU_REQ_KICK;

    if (take_request(cpu, CPU_REQ_INIT))
        handle_init(cpu);
    if (take_request(cpu, CPU_REQ_SIPI))
        handle_sipi(cpu);
    cpu->port.held &= board_output_full(cpu->vm->board);
    if ((cpu->wait_sipi && !cpu->vm->wakes_inside) || cpu->port.held) {
        sleep_until(cpu, outside);
        return;
    }
    switch (cpu->vm->engine->ops->run(cpu->vcpu)) {
    case EXIT_KICK: break;
    case EXIT_HALT: halt(cpu); break;
    case EXIT_SHUTDOWN: report_crash(cpu); break;
    case EXIT_MEMORY:
        vm_finish(cpu->vm, VM_CRASHED, 0, "guest memory that was swapped out cannot be read back");
        break;
    case EXIT_FAILED:
        vm_finish(cpu->vm, VM_FAILED, 0, cpu->vm->engine->ops->failure(cpu->vcpu)->text);
        break;
    case EXIT_STEP:
    case EXIT_BREAKPOINT: break; /* no debugger has asked for them */
    }
}

static void *vcpu_thread(void *opaque)
{
    struct vm_cpu *cpu = opaque;
    struct vm *vm = cpu->vm;

    where_begin(&cpu->where);
    while (may_run(cpu))
        run_once(cpu);

    vm_leave(vm);
    where_end(&cpu->where);
    return NULL;
}

void vm_cpu_init(struct vm *vm, unsigned id)
{
    struct vm_cpu *cpu = &vm->cpu[id];

    cpu->vm = vm;
    cpu->port.id = id;
    cpu->port.wake = wake;
    cpu->port.wake_opaque = cpu;
}

int vm_cpu_start(struct vm_cpu *cpu, struct error *err)
{
    char name[32];
    int ret;

    snprintf(name, sizeof(name), "vcpu %u", cpu->port.id);
    ret = thread_start(&cpu->thread, name, vcpu_thread, cpu, err);
    cpu->started = ret == 0;
    return ret;
}
