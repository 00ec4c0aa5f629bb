/*
 * A pool of worker threads: where a device does what may block or take long.
 *
 * A device embeds a struct work for each queue that it serves. A doorbell posts it; a worker calls
 * the function, without any lock. Posts are coalesced: a function that is called serves all that
 * was asked for before the call. One work never runs on two threads at once.
 *
 *      vCPU: write to a doorbell --> workers_post --> [queue] --> worker: serve(device)
 *                                                                  |-- pins, reads, writes memory
 *                                                                  '-- loop_post or an MSI
 *
 * The pool's lock is taken last: all functions but those that say so may be called with any other
 * lock held, and the pool calls nothing while it holds the lock.
 */
#ifndef DOPPEL_BASE_WORKERS_H
#define DOPPEL_BASE_WORKERS_H

#include "base/error.h"
#include "base/fifo.h"

#include <stdbool.h>

struct where;
struct worker;
struct workers;

/* Intrusive: posting allocates nothing and cannot fail. The members are the pool's. */
struct work {
    struct workers *workers; /* NULL: not added */
    void (*run)(void *opaque);
    void *opaque;
    struct fifo_link link; /* in the queue: wanted, not running, not paused */
    bool wanted;           /* posted and not yet begun */
    bool running;          /* a worker is inside run() */
    bool paused;
};

/* A pool of at most THREADS threads, which debuggers show as "NAME 0", "NAME 1", ... A thread is
 * started when a work is added and there are fewer threads than works. */
struct workers *workers_create(const char *name, unsigned threads, struct error *err);
/* Waits for what runs; what is queued is dropped. All works have been removed, or are forgotten. */
void workers_destroy(struct workers *workers);

/* Makes WORK known to the pool, idle. Fails if a thread is needed and cannot be started. */
int workers_add(struct workers *workers, struct work *work, void (*run)(void *opaque), void *opaque,
                struct error *err);
/* Afterwards WORK is not running and does not run again. Nothing happens if WORK was never added.
 * Waits: not from a worker of this pool, and not with a lock that run() takes. */
void workers_remove(struct work *work);

/* Has a worker call run() soon, if none is about to already. Called while run() runs, it has it
 * called once more. While WORK is paused the wish is kept. */
void workers_post(struct work *work);

/* Afterwards run() is not under way and is not called until workers_resume. Does not nest.
 * Waits, like workers_remove. */
void workers_pause(struct work *work);
void workers_resume(struct work *work);

/* Returns when nothing is queued and nothing runs. Waits, like workers_remove. Endless if works
 * post each other for ever. */
void workers_drain(struct workers *workers);

/* For asking where the threads are (where.h): thread N, or NULL if there are no more. Any thread,
 * no lock. */
struct where *workers_where(struct workers *workers, unsigned n);

#endif
