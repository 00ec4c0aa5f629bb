/*
 * One virtual machine: memory, clock, board, an engine, and a thread for each vCPU.
 *
 * All functions may be called from any thread but a vCPU's, except where it says otherwise.
 */
#ifndef DOPPEL_VM_VM_H
#define DOPPEL_VM_VM_H

#include "base/error.h"
#include "base/log.h"
#include "cpu/engine.h"
#include "vm/board.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vm;

enum vm_outcome {
    VM_RUNNING,
    VM_POWEROFF,
    VM_RESET, /* only with no_reboot */
    VM_DEBUG_EXIT,
    VM_CRASHED, /* triple fault */
    VM_FAILED,  /* the host lacks the memory, or a reset failed: not the guest's doing */
    VM_STOPPED,
};

#define VM_REPORT_SIZE 16384
#define VM_MAX_CPUS    64

struct vm_end {
    enum vm_outcome outcome;
    int status;                  /* VM_DEBUG_EXIT */
    char report[VM_REPORT_SIZE]; /* VM_CRASHED: lines of text; VM_FAILED: one line */
};

/* What happens to a VM. On any thread; must not wait. May be NULL, each. */
struct vm_events {
    void (*started)(void *opaque); /* before any vCPU runs */
    void (*reset)(void *opaque);   /* the guest has reset the machine, which begins anew */
    void (*ended)(void *opaque);   /* once: vm_wait returns at once from now on */
    /* The host lacks what a device needs: WHY says so in one line. vCPUs and guest time stand still
     * until the device can go on, which is tried each second. */
    void (*held)(void *opaque, const char *why);
    void (*released)(void *opaque, const char *why);
    void *opaque;
};

struct vm_config {
    unsigned cpus;
    uint64_t memory;
    /* Puts what is booted into zeroed memory and sets the bootstrap processor to where it begins;
     * at power-on and at each reset. NULL: nothing is loaded, and it starts at the reset vector. */
    int (*load)(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err);
    void *load_opaque;
    const struct log *log; /* or NULL; must outlive the VM */
    struct vm_events events;
    bool no_reboot;
    bool measure;                /* see struct machine */
    const struct tracer *tracer; /* the same; must outlive the VM */
    struct board_devices devices;
    /* The engine for the case that the one asked for cannot be had, which the log then says; NULL:
     * creating the machine fails then. */
    const struct engine_ops *instead;
};

struct vm_stats {
    uint64_t elapsed_ns; /* guest time since vm_start */
    uint64_t resident;   /* bytes of guest RAM on the host */
};

struct vm *vm_create(const struct engine_ops *engine, const struct vm_config *config,
                     struct error *err);
/* The engine that VM has at the moment. */
const struct engine_ops *vm_engine_of(struct vm *vm);
int vm_start(struct vm *vm, struct error *err); /* once */
/* Ends VM as pulling the plug does; does not wait. From any thread. */
void vm_stop(struct vm *vm);
/* Waits for the end, at most TIMEOUT_MS (-1: for ever): 0, or -ETIMEDOUT. END may be NULL. After
 * the end nothing touches guest memory. */
int vm_wait(struct vm *vm, int timeout_ms, struct vm_end *end);
void vm_destroy(struct vm *vm); /* stops it first */

/* Between the two, no vCPU runs, guest time stands still, and nothing of a device touches guest
 * memory: the machine can be saved. Calls nest, before the start and after the end, too; each
 * vm_resume undoes one vm_pause that has returned. Waits for vCPUs, devices and a reset: not on a
 * thread of the VM's, and not with a lock that one of its backends takes. */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);

/* Has VM go on under ENGINE, which makes vCPUs that continue those there are, instead of its
 * present engine; pauses it meanwhile. If that cannot be done, nothing has changed: ENGINE cannot
 * be created, or -ESHUTDOWN: VM has ended. As vm_pause, it is called with no lock held and not on a
 * thread of the VM's. What a debugger wanted of the engine (engine_ops.debug) is not kept. */
int vm_switch_engine(struct vm *vm, const struct engine_ops *engine, struct error *err);

/* Whether a device holds the machine because the host lacks something; and has such devices try
 * again at once. */
bool vm_held(struct vm *vm);
void vm_retry(struct vm *vm);

/* See board_resize_disk. */
int vm_resize_disk(struct vm *vm, unsigned disk, uint64_t size, struct error *err);

/* See board_change_network (one at a time for all cards) and board_forward_port. */
int vm_change_network(struct vm *vm, unsigned nic, const char *settings, struct error *err);
unsigned vm_forward_port(struct vm *vm, unsigned nic, unsigned n);

/* From any thread. */
void vm_power_button(struct vm *vm);
/* The backend of a device that was full has room again: vCPUs that are held look. */
void vm_output_room(struct vm *vm);
size_t vm_serial_input(struct vm *vm, unsigned port, const void *data, size_t size);
size_t vm_console_input(struct vm *vm, const void *data, size_t size);
void vm_console_resize(struct vm *vm, unsigned rows, unsigned columns);

/* Says what each thread does at this moment, a line each: for a VM that does not come to its end.
 * Takes no lock. Also while vm_destroy waits for a thread. */
void vm_where(struct vm *vm, void (*line)(void *opaque, const char *text), void *opaque);

void vm_stats(struct vm *vm, struct vm_stats *stats);
/* Calls EACH for each statistic of the engines that VM has had, summed over them and over vCPUs. */
void vm_counters(struct vm *vm, engine_counter_fn *each, void *opaque);

#endif
