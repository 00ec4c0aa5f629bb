/*
 * Inside struct vm: shared by vm.c (the machine), vcpu.c (its threads), engine.c and interchange.c
 * (its engines), counters.c (what those have counted), pause.c (standing still), hold.c (waiting
 * for the host) and where.c (where the threads are).
 *
 * vm->lock guards the requests below; vCPU threads look at them when they are kicked. It is taken
 * after the board lock, and neither devices nor engines are called with it held. What changes
 * whether devices stand still calls them, and so takes the *turn* instead, which is a lock, too,
 * but one that is held across those calls. It is taken with no lock held that a vCPU, a device or
 * an engine takes.
 */
#ifndef DOPPEL_VM_VM_PRIVATE_H
#define DOPPEL_VM_VM_PRIVATE_H

#include "base/counter.h"
#include "base/loop.h"
#include "base/where.h"
#include "base/workers.h"
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
    struct counter halted_ns; /* all that it has waited */
    bool polls;               /* the last wait was short, so the next one begins without sleep */
};

/* What has been counted, by group and name. */
struct vm_sums {
    struct engine_counter *sum;
    unsigned count, room;
    bool incomplete; /* there was no memory for some */
};

/* The most threads that do the work of devices. One is started for each work that devices have. */
#define VM_WORKERS 4

struct vm {
    struct machine machine;
    const struct log *log;
    struct vm_events events;
    struct loop *loop;
    struct workers *workers;
    int lost_fd; /* an eventfd: the host lacks memory (lost.c) */
    struct loop_watch *lost_watch;
    void (*lost)(struct vm *vm, const struct error *what);
    int retry_fd; /* a timer while a device holds the machine (hold.c) */
    struct loop_watch *retry_watch;
    struct board *board;
    struct engine *engine; /* of vm_cpu.vcpu; guarded as they are: see ENGINES */
    bool own_apics;        /* it has brought local APICs */
    bool wakes_inside;     /* which wake vCPUs inside of its run() */
    int (*load)(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err);
    void *load_opaque;
    bool no_reboot;
    unsigned cpus;
    struct vm_cpu cpu[VM_MAX_CPUS];
    struct cpu_port *ports[VM_MAX_CPUS];

    pthread_mutex_t networks; /* held while a network's settings are changed: one at a time */
    pthread_mutex_t asking;   /* held by vm_where, which no thread of the VM calls */
    /* Held while the machine, which stands still, is saved or gets another engine. */
    pthread_mutex_t standing;
    /* Held while an engine is called for vCPUs that may run, and while another engine takes its
     * place. The vCPUs' threads do without: they are parked then. */
    pthread_mutex_t engines;
    struct vm_sums past; /* what engines have counted that are gone; guarded by ENGINES, too */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started;
    bool ending;         /* how it ends is decided: threads leave */
    bool reset_wanted;   /* threads park until it is done */
    bool resetting;      /* one of them is at it */
    unsigned pauses;     /* threads park while not 0 */
    unsigned holds;      /* devices that hold the machine; together one of PAUSES */
    unsigned time_stops; /* guest time stands still while not 0 */
    unsigned threads;    /* vCPU threads that have not left */
    unsigned parked;     /* of those, how many stand still */
    bool over;           /* all have left, and all output is out */
    bool end_logged;     /* the log says how it ends */
    bool end_told;       /* to events.ended */
    struct vm_end end;
    _Atomic uint64_t start_ns;

    bool turning; /* a thread has the turn, which guards what follows */
    bool loaded;  /* devices stand still until the start, as they are to change nothing outside */
    unsigned paused; /* calls of vm_pause that have been done and not undone */
    unsigned still;  /* who wants devices to stand still: pauses, a reset, the end */
};

/* vcpu.c */
void vm_cpu_init(struct vm *vm, unsigned id);
int vm_cpu_start(struct vm_cpu *cpu, struct error *err);
void vm_kick_all(struct vm *vm);

/* engine.c */

/* An engine with its vCPUs. */
struct vm_engine {
    struct engine *engine;
    struct vcpu *vcpu[VM_MAX_CPUS];
    struct local_apics apics; /* if it brings its own */
    bool own_apics;           /* that it does */
};

/* Makes one, in E, which is zeroed, beside the one that VM may have, and has the ports as it wants
 * them. vm_engine_unmake is due in any case. While no vCPU runs. */
bool vm_engine_make(struct vm *vm, const struct engine_ops *ops, struct vm_engine *e,
                    struct error *err);
void vm_engine_unmake(struct vm *vm, struct vm_engine *e);
/* What is plugged into the ports of vCPUs; taken from there, and put back. */
struct vm_plugs {
    const struct apic_ops *ops[VM_MAX_CPUS];
    void *apic[VM_MAX_CPUS];
};
void vm_plugs_note(const struct vm *vm, struct vm_plugs *plugs);
void vm_plugs_restore(struct vm *vm, const struct vm_plugs *plugs);
/* Has the board lead to the local APICs that E wants, which are given the state of those before. */
void vm_engine_set_local_apics(struct vm *vm, const struct vm_engine *e);
/* Puts E in the place of VM's engine, which is in E then. */
void vm_engine_exchange(struct vm *vm, struct vm_engine *e);

/* Gives VM, which has a board and no engine, its first one. False: ERR says why. */
bool vm_engine_create(struct vm *vm, const struct engine_ops *ops, struct error *err);
/* The vCPUs first. There may be none, or not all. */
void vm_engine_destroy(struct vm *vm);

/* counters.c */
/* An engine_counter_fn: adds COUNTER to a struct vm_sums. */
void vm_sums_add(void *sums, const struct engine_counter *counter);
/* Adds what has been counted until now. */
void vm_sums_collect(struct vm *vm, struct vm_sums *sums);
void vm_sums_free(struct vm_sums *sums);

/* lost.c */

/* Has LOST called on the event loop's thread when the host cannot provide the VM's memory. */
int vm_lost_init(struct vm *vm, void (*lost)(struct vm *vm, const struct error *what),
                 struct error *err);
void vm_lost_free(struct vm *vm); /* no thread runs any more */
/* Returns a negative errno when that has happened, and says what. */
int vm_lost_check(struct vm *vm, struct error *err);

/* hold.c */
int vm_hold_init(struct vm *vm, struct error *err);
void vm_hold_free(struct vm *vm); /* no thread runs any more */
/* One more device holds the machine, and WHY, a line for the user; and one less, which may say why,
 * too, or NULL if it has been told to stop. Any thread; neither vm->lock nor a lock that is taken
 * after it is held. */
void vm_hold(struct vm *vm, const char *why);
void vm_release(struct vm *vm, const char *why);

/* vm.c */

/* Makes a VM whose memory is empty and whose processors are as after RESET. PAST: the one that it
 * continues, whose model and clock are loaded from there; or NULL. */
struct vm *vm_assemble(const struct engine_ops *engine, const struct vm_config *config,
                       struct state *past, struct error *err);
/* The sections of a saved machine that come before the devices: the processors' model and the
 * clock. Loading, only before there are devices and an engine. */
void vm_machine_state(struct machine *machine, struct state *s);
/* Decides how the VM ends, unless that is decided already. REPORT may be NULL. */
void vm_finish(struct vm *vm, enum vm_outcome outcome, int status, const char *report);
/* Memory, devices and processors as firmware leaves them, and the image loaded. All vCPUs stand
 * still. */
int vm_boot(struct vm *vm, struct error *err);
/* A vCPU thread leaves; the last one turns off the light. */
void vm_leave(struct vm *vm);

/* pause.c */

/* Stop guest time, and let it go on when each stop is undone. vm->lock held. */
void vm_stop_time(struct vm *vm);
void vm_start_time(struct vm *vm);
/* Takes the turn, and gives it back. */
void vm_begin_turn(struct vm *vm);
void vm_end_turn(struct vm *vm);
/* Between the two, nothing of a device touches guest memory or sends an interrupt, but for what
 * vCPUs and timers do to its registers. Calls nest. Waits for workers: with no lock held, and not
 * on a worker's or the loop's thread. */
void vm_drain(struct vm *vm);
void vm_undrain(struct vm *vm);

#endif
