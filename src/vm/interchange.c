/*
 * Another engine in the place of the present one, while the machine lives.
 *
 * All of a vCPU that counts is in its struct x86_cpu, its port and its local APIC. So a machine
 * that stands still goes on under another engine when that has been given these:
 *
 *      stand still     vCPU threads are parked, guest time stands, devices are paused
 *      create          the next engine and its vCPUs, beside the present ones: this can fail
 *      hand over       local APICs, then vCPUs
 *      take its place  for threads that do not stand still: they kick vCPUs and ask for their RIP
 *                      and counters at any time
 *      destroy         the engine before
 *
 * What stays where it is: the ports with their requests (a kick, INIT, start-up and NMI that are
 * pending), the vCPU threads, guest time, devices, guest memory and its dirty log.
 */
#include "vm/vm_private.h"

#include <errno.h>

/* Gives the vCPUs of NEXT the state of the present ones. The local APICs come first: the vCPUs ask
 * them. */
static void hand_over(struct vm *vm, const struct vm_engine *next)
{
    vm_engine_set_local_apics(vm, next);
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct vm_cpu *cpu = &vm->cpu[i];
        struct x86_cpu x = {0};

        vm->engine->ops->state_out(cpu->vcpu, &x);
        next->engine->ops->state_in(next->vcpu[i], &x);
        cpu->wait_sipi = x.activity == X86_WAIT_SIPI;
    }
}

static int switch_engine(struct vm *vm, const struct engine_ops *ops, struct error *err)
{
    const struct engine_ops *before = vm->engine->ops;
    struct vm_engine next = {0};
    struct vm_plugs plugs;
    struct vm_sums past = {0};

    vm_plugs_note(vm, &plugs);
    vm_sums_collect(vm, &past);
    if (past.incomplete)
        error_set(err, ENOMEM, "no memory for the statistics of the engine %s", before->name);
    if (past.incomplete || !vm_engine_make(vm, ops, &next, err)) {
        vm_engine_unmake(vm, &next);
        vm_plugs_restore(vm, &plugs);
        vm_sums_free(&past);
        return -err->code;
    }
    hand_over(vm, &next);
    pthread_mutex_lock(&vm->engines);
    vm_engine_exchange(vm, &next);
    vm_sums_free(&vm->past);
    vm->past = past;
    pthread_mutex_unlock(&vm->engines);
    vm_engine_unmake(vm, &next);
    log_line(vm->log, LOG_LEVEL_INFO, "the machine goes on under the engine %s instead of %s",
             ops->name, before->name);
    return 0;
}

int vm_switch_engine(struct vm *vm, const struct engine_ops *ops, struct error *err)
{
    struct error local;
    bool ending;
    int ret;

    err = err ? err : &local;
    pthread_mutex_lock(&vm->standing);
    vm_pause(vm);
    pthread_mutex_lock(&vm->lock);
    ending = vm->ending;
    pthread_mutex_unlock(&vm->lock);
    ret = ending ? error_set(err, ESHUTDOWN, "the virtual machine has ended")
                 : switch_engine(vm, ops, err);
    vm_resume(vm);
    pthread_mutex_unlock(&vm->standing);
    return ret;
}
