/*
 * Standing still: pausing a VM and letting it go on, and draining its devices.
 *
 * A pause goes from what drives to what is driven:
 *
 *      vCPU threads park --> time stops, so no timer fires --> devices finish their work
 *
 * and a resume goes the other way.
 */
#include "vm/vm_private.h"

#include <assert.h>

void vm_begin_turn(struct vm *vm)
{
    /* Who has the turn may wait for a thread that wants the board lock. */
    assert(!bus_is_locked_here(vm->machine.bus));
    pthread_mutex_lock(&vm->lock);
    while (vm->turning)
        pthread_cond_wait(&vm->changed, &vm->lock);
    vm->turning = true;
    pthread_mutex_unlock(&vm->lock);
}

void vm_end_turn(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->turning = false;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
}

/* ---- Devices; the caller has the turn ---- */

static void hold_devices(struct vm *vm)
{
    if (vm->still++ == 0)
        board_pause(vm->board);
}

static void release_devices(struct vm *vm)
{
    if (--vm->still == 0)
        board_resume(vm->board);
}

void vm_drain(struct vm *vm)
{
    vm_begin_turn(vm);
    hold_devices(vm);
    vm_end_turn(vm);
}

void vm_undrain(struct vm *vm)
{
    vm_begin_turn(vm);
    release_devices(vm);
    vm_end_turn(vm);
}

/* ---- The whole VM ---- */

/* Returns when no vCPU's thread runs guest code, and none is about to. */
static void park_processors(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->pauses++;
    pthread_mutex_unlock(&vm->lock);
    vm_kick_all(vm);
    pthread_mutex_lock(&vm->lock);
    while (!vm->over && (vm->resetting || vm->parked < vm->threads))
        pthread_cond_wait(&vm->changed, &vm->lock);
    pthread_mutex_unlock(&vm->lock);
}

void vm_stop_time(struct vm *vm)
{
    if (vm->time_stops++ == 0)
        clock_pause(vm->machine.clock);
}

void vm_start_time(struct vm *vm)
{
    if (--vm->time_stops == 0)
        clock_resume(vm->machine.clock);
}

/* Returns when no timer fires any more. */
static void stop_timers(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm_stop_time(vm);
    pthread_mutex_unlock(&vm->lock);
    /* Waits out a timer's callback that has begun. */
    bus_lock(vm->machine.bus);
    bus_unlock(vm->machine.bus);
}

void vm_pause(struct vm *vm)
{
    park_processors(vm);
    vm_begin_turn(vm);
    if (vm->paused++ == 0)
        stop_timers(vm);
    hold_devices(vm);
    vm_end_turn(vm);
}

void vm_resume(struct vm *vm)
{
    bool paused;

    vm_begin_turn(vm);
    paused = vm->paused;
    if (paused) {
        release_devices(vm);
        pthread_mutex_lock(&vm->lock);
        if (--vm->paused == 0)
            vm_start_time(vm);
        vm->pauses--;
        pthread_mutex_unlock(&vm->lock);
    }
    vm_end_turn(vm); /* which wakes the vCPUs */
}
