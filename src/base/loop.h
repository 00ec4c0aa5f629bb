/*
 * The event loop: one thread that waits on file descriptors, and for jobs, and calls back.
 */
#ifndef DOPPEL_BASE_LOOP_H
#define DOPPEL_BASE_LOOP_H

#include "base/error.h"
#include "base/fifo.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_watch;
struct where;

/* EVENTS is what epoll(7) reported (EPOLLIN, ...). */
typedef void loop_cb(void *opaque, uint32_t events);

struct loop *loop_create(struct error *err);
void loop_destroy(struct loop *loop); /* stops it first */

/* Starts and stops the thread. Callbacks run on that thread only. Stop waits for a callback in
 * progress and must not be called from one. */
int loop_start(struct loop *loop, struct error *err);
void loop_stop(struct loop *loop);

/* For asking where the thread is (where.h). */
struct where *loop_where(struct loop *loop);

/* Watches FD (not owned) for EVENTS; callable from any thread. NULL on failure. */
struct loop_watch *loop_add(struct loop *loop, int fd, uint32_t events, loop_cb *cb, void *opaque,
                            struct error *err);
/* 0 events: paused. */
int loop_modify(struct loop_watch *watch, uint32_t events);
/* After this returns the callback is not running and is not called again; from within a callback
 * a watch may remove itself. */
void loop_remove(struct loop_watch *watch);

/* Something that is to be done once on the loop's thread. Intrusive: posting allocates nothing and
 * cannot fail. The poster sets RUN and OPAQUE; the rest is the loop's and 0 at first. */
struct loop_job {
    void (*run)(void *opaque);
    void *opaque;
    struct fifo_link link;
};

/* Has the loop's thread call JOB's function soon, without a lock. A job that is queued already is
 * not queued twice: what is called does all that was asked for before. Posted while its function
 * runs, it is called once more. Jobs are called in the order in which they were posted, and watches
 * have their turn between them. From any thread, with any lock held. A loop that is not started
 * keeps its jobs. */
void loop_post(struct loop *loop, struct loop_job *job);
/* After this returns the function is not running and is not called, until JOB is posted again; from
 * within the function itself it only takes back what was posted. Returns true if the job was queued
 * and so has been taken back. Not with a lock that the function takes. */
bool loop_cancel(struct loop *loop, struct loop_job *job);

#endif
