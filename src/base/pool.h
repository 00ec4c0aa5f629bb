/*
 * Threads that may wait: for the host's disk, for the lock of an image's metadata, for a folder.
 *
 * What is to be done embeds a struct pool_job. Posting allocates nothing and cannot fail. Jobs
 * begin in the order in which they were posted; a job that waits for another one may wait for ever,
 * because there may be one thread only. Each disk has a pool of its own, and so has each format
 * above a file, so that a format's jobs may wait for what the file's jobs do.
 *
 * With the pool's lock only that of its workers is taken (base/workers.h). Nothing is called with
 * either held.
 */
#ifndef DOPPEL_BASE_POOL_H
#define DOPPEL_BASE_POOL_H

#include "base/error.h"
#include "base/fifo.h"

struct pool;
struct where;

struct pool_job {
    void (*run)(struct pool_job *job); /* may free JOB, or post it again */
    struct fifo_link link;             /* zero at first */
};

/* Starts one thread; up to MOST are started when jobs wait and no thread is idle. Debuggers show
 * them as "NAME 0", "NAME 1", ... */
struct pool *pool_create(const char *name, unsigned most, struct error *err);
/* All jobs are done. POOL may be NULL. */
void pool_destroy(struct pool *pool);

/* Any thread. JOB is in no queue. */
void pool_post(struct pool *pool, struct pool_job *job);

/* For asking where the threads are (base/where.h): thread N, or NULL if there are no more. */
struct where *pool_where(struct pool *pool, unsigned n);

#endif
