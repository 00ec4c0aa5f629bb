/*
 * Inside struct vm: shared by vm.c (the machine) and vcpu.c (its threads).
 *
 * vm->lock guards the requests below; vCPU threads look at them when they are kicked. It is taken
 * after the board lock, and neither devices nor engines are called with it held.
 */
#ifndef DOPPEL_VM_VM_PRIVATE_H
#define DOPPEL_VM_VM_PRIVATE_H

#include "base/where.h"
#include "vm/vm.h"

#include <pthread.h>

struct vm_cpu {
    struct vm *vm;
    struct cpu_port port;
    struct vcpu *vcpu;
    pthread_t thread;
    struct where where;
    bool started;
    bool wait_sipi; /* only on the vCPU's thread, or while it is parked */

    /* How the thread waits in HLT. */
    _Atomic bool sleeping;
    uint64_t halted_ns; /* all that it has waited */
    bool polls;         /* the last wait was short, so the next one begins without sleep */
};

struct vm {
    struct machine machine;
    struct loop *loop;
    struct board *board;
    const struct engine_ops *ops;
    struct engine *engine;
    int (*load)(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err);
    void *load_opaque;
    bool no_reboot;
    unsigned cpus;
    struct vm_cpu cpu[VM_MAX_CPUS];
    struct cpu_port *ports[VM_MAX_CPUS];

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started;
    bool ending;       /* how it ends is decided: threads leave */
    bool reset_wanted; /* threads park until it is done */
    bool resetting;    /* one of them is at it */
    unsigned pauses;   /* threads park while not 0 */
    unsigned threads;  /* vCPU threads that have not left */
    unsigned parked;   /* of those, how many stand still */
    bool over;         /* all have left, and all output is out */
    struct vm_end end;
    uint64_t start_ns;
};

/* vcpu.c */
void vm_cpu_init(struct vm *vm, unsigned id);
void vm_cpu_free(struct vm_cpu *cpu);
int vm_cpu_start(struct vm_cpu *cpu, struct error *err);
void vm_kick_all(struct vm *vm);

/* vm.c */

/* Decides how the VM ends, unless that is decided already. REPORT may be NULL. */
void vm_finish(struct vm *vm, enum vm_outcome outcome, int status, const char *report);
/* Memory, devices and processors as firmware leaves them, and the image loaded. All vCPUs stand
 * still. */
int vm_boot(struct vm *vm, struct error *err);
/* A vCPU thread leaves; the last one turns off the light. */
void vm_leave(struct vm *vm);

#endif
