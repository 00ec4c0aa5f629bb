/*
 * An engine and its vCPUs, for a machine whose board is there.
 */
#include "vm/vm_private.h"

/* Between the two, nobody requests anything of a vCPU by its port, which may lead to the engine:
 * what does not stand still has one of these locks (devices' lines the board's, and vm_kick_all the
 * other). */
static void hold_requests(struct vm *vm)
{
    bus_lock(vm->machine.bus);
    pthread_mutex_lock(&vm->engines);
}

static void let_requests_go(struct vm *vm)
{
    pthread_mutex_unlock(&vm->engines);
    bus_unlock(vm->machine.bus);
}

void vm_engine_unmake(struct vm *vm, struct vm_engine *e)
{
    const struct engine_ops *ops = e->engine ? e->engine->ops : NULL;

    if (!ops)
        return;
    hold_requests(vm);
    for (unsigned i = 0; i < vm->cpus; i++)
        if (e->vcpu[i])
            ops->vcpu_destroy(e->vcpu[i]);
    let_requests_go(vm);
    ops->destroy(e->engine);
}

void vm_plugs_note(const struct vm *vm, struct vm_plugs *plugs)
{
    for (unsigned i = 0; i < vm->cpus; i++) {
        plugs->ops[i] = vm->ports[i]->apic_ops;
        plugs->apic[i] = vm->ports[i]->apic;
    }
}

void vm_plugs_restore(struct vm *vm, const struct vm_plugs *plugs)
{
    for (unsigned i = 0; i < vm->cpus; i++) {
        vm->ports[i]->apic_ops = plugs->ops[i];
        vm->ports[i]->apic = plugs->apic[i];
    }
}

/* Has the ports lead to E's own local APICs, or to the board's. Returns false if it has some and
 * they cannot be had. */
static bool plug_local_apics(struct vm *vm, const struct engine_ops *ops, struct vm_engine *e,
                             struct error *err)
{
    const struct lapic_board outside = board_of_local_apics(vm->board);
    int ret = 1;

    if (ops->local_apics) {
        board_plug_local_apics(vm->board, false);
        ret = ops->local_apics(e->engine, &outside, &e->apics, err);
    }
    if (ret < 0)
        return false;
    e->own_apics = ret == 0;
    if (!e->own_apics)
        board_plug_local_apics(vm->board, true);
    return true;
}

static bool make_vcpus(struct vm *vm, const struct engine_ops *ops, struct vm_engine *e,
                       struct error *err)
{
    bool made = true;

    hold_requests(vm);
    for (unsigned i = 0; i < vm->cpus && made; i++) {
        e->vcpu[i] = ops->vcpu_create(e->engine, vm->ports[i], err);
        made = e->vcpu[i];
    }
    let_requests_go(vm);
    return made;
}

bool vm_engine_make(struct vm *vm, const struct engine_ops *ops, struct vm_engine *e,
                    struct error *err)
{
    e->engine = ops->create(&vm->machine, err);
    return e->engine && plug_local_apics(vm, ops, e, err) && make_vcpus(vm, ops, e, err);
}

void vm_engine_set_local_apics(struct vm *vm, const struct vm_engine *e)
{
    board_set_local_apics(vm->board, e->own_apics ? &e->apics : NULL);
}

void vm_engine_exchange(struct vm *vm, struct vm_engine *e)
{
    struct vm_engine before = {.engine = vm->engine, .own_apics = vm->own_apics};

    vm->engine = e->engine;
    vm->own_apics = e->own_apics;
    vm->wakes_inside = e->own_apics && e->apics.wakes_inside;
    for (unsigned i = 0; i < vm->cpus; i++) {
        before.vcpu[i] = vm->cpu[i].vcpu;
        vm->cpu[i].vcpu = e->vcpu[i];
    }
    *e = before;
}

bool vm_engine_create(struct vm *vm, const struct engine_ops *ops, struct error *err)
{
    struct vm_engine e = {0};

    if (!vm_engine_make(vm, ops, &e, err)) {
        vm_engine_unmake(vm, &e);
        return false;
    }
    if (e.own_apics)
        vm_engine_set_local_apics(vm, &e);
    vm_engine_exchange(vm, &e);
    return true;
}

void vm_engine_destroy(struct vm *vm)
{
    struct vm_engine e = {0};

    vm_engine_exchange(vm, &e);
    vm_engine_unmake(vm, &e);
}
