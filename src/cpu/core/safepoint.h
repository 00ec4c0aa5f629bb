/*
 * Safe points: how one thread gets all vCPUs of an engine to stand still between two guest
 * instructions, so that what they have cached can be changed.
 */
#ifndef DOPPEL_CPU_CORE_SAFEPOINT_H
#define DOPPEL_CPU_CORE_SAFEPOINT_H

#include "bus/cpu_port.h"

#include <pthread.h>
#include <stdbool.h>

#define SAFEPOINT_MAX_CPUS 64

struct safepoint {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopping;                             /* someone has, or waits for, the exclusive right */
    unsigned running;                          /* vCPUs between enter and leave */
    struct cpu_port *port[SAFEPOINT_MAX_CPUS]; /* by vCPU id; whom to interrupt */
};

void safepoint_init(struct safepoint *sp);
void safepoint_destroy(struct safepoint *sp);

/* Around run(): between the two, the vCPU counts as running guest code. */
void safepoint_enter(struct safepoint *sp);
void safepoint_leave(struct safepoint *sp);
/* A running vCPU that has seen CPU_REQ_ENGINE lets others have their turn. */
void safepoint_poll(struct safepoint *sp);

/* Returns when no vCPU (but the caller's, if INSIDE: the caller is one that has entered) is running
 * guest code; none will until safepoint_resume. What the caller cached about the guest before the
 * call may be out of date after it. Not recursive. */
void safepoint_stop(struct safepoint *sp, bool inside);
void safepoint_resume(struct safepoint *sp, bool inside);

#endif
