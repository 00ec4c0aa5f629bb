/*
 * Safe points: how one thread gets all vCPUs of an engine to stand still between two guest
 * instructions, so that what they have cached can be changed; and how it learns that each has
 * passed from one instruction to the next, which is enough for what each vCPU changes itself.
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
    bool inside[SAFEPOINT_MAX_CPUS]; /* by vCPU id: between enter and leave, or it has the right */
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
/* A running vCPU that has seen CPU_REQ_ENGINE lets others have their turn. */
void safepoint_poll(struct safepoint *sp, unsigned id);

/* The caller is no vCPU that has entered. */
#define SAFEPOINT_OUTSIDE UINT32_MAX

/* Returns when no vCPU but ID's, the caller's, is running guest code; none will until
 * safepoint_resume. What the caller cached about the guest before the call may be out of date after
 * it. Not recursive, and never with a lock held that a vCPU may wait for, as the board lock is. */
void safepoint_stop(struct safepoint *sp, unsigned id);
void safepoint_resume(struct safepoint *sp, unsigned id);

/* Asks the vCPUs that run guest code to look up before their next instruction. With the lock. */
void safepoint_hurry(struct safepoint *sp);
/* vCPU ID has done what it owed up to NUMBER; numbers rise. */
void safepoint_note(struct safepoint *sp, unsigned id, uint64_t number);
/* Returns when each vCPU that runs guest code has noted NUMBER. The caller is no such vCPU, and has
 * no lock that one may wait for. */
void safepoint_settle(struct safepoint *sp, uint64_t number);

#endif
