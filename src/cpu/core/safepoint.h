/*
 * Safe points: how one thread has all vCPUs of an engine stand still between two guest
 * instructions, so that what they have cached can be changed; and how it learns that each vCPU has
 * gone from one instruction to the next, which suffices for what each vCPU changes by itself.
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
    bool stopping;    /* a thread has stopped the vCPUs, or waits for them to stop */
    unsigned running; /* vCPUs between enter and leave */
    struct cpu_port *port[SAFEPOINT_MAX_CPUS]; /* by vCPU id */
    bool inside[SAFEPOINT_MAX_CPUS];   /* by vCPU id: between enter and leave, or has stopped the
                                          others */
    uint64_t seen[SAFEPOINT_MAX_CPUS]; /* see safepoint_settle */
    /* Asserts that the calling thread has no lock that a vCPU may wait for; or NULL. */
    void (*check)(void *opaque);
    void *check_opaque;
};

void safepoint_init(struct safepoint *sp);
void safepoint_destroy(struct safepoint *sp);

/* Around run(): between the two, vCPU ID counts as running guest code. */
void safepoint_enter(struct safepoint *sp, unsigned id);
void safepoint_leave(struct safepoint *sp, unsigned id);
/* Lets other threads stop the vCPUs. Called by a running vCPU that has seen CPU_REQ_ENGINE. */
void safepoint_poll(struct safepoint *sp, unsigned id);

/* The caller is no vCPU that has entered. */
#define SAFEPOINT_OUTSIDE UINT32_MAX

/* Returns when no vCPU but ID's, the caller's, is running guest code; none will until
 * safepoint_resume. What the caller cached about the guest before the call may be out of date after
 * it. Not recursive, and never with a lock held that a vCPU may wait for, as the board lock is. */
void safepoint_stop(struct safepoint *sp, unsigned id);
void safepoint_resume(struct safepoint *sp, unsigned id);

/* Has each vCPU that runs guest code look at its requests before its next instruction. With the
 * lock. */
void safepoint_hurry(struct safepoint *sp);
/* Tells that vCPU ID has done what was asked for up to NUMBER; numbers rise. */
void safepoint_note(struct safepoint *sp, unsigned id, uint64_t number);
/* Returns when each vCPU that runs guest code has told of NUMBER. The caller is no such vCPU, and
 * has no lock that one may wait for. */
void safepoint_settle(struct safepoint *sp, uint64_t number);

#endif
