/*
 * A pool of worker threads: a queue of works under one lock.
 *
 *              post               taken             returned
 *     idle ----------> queued ------------> running ---------> idle
 *                        ^                     |
 *                        '---- posted again <--'
 *
 * A paused work stands where it is; `wanted` remembers that it was posted.
 */
#include "base/workers.h"

#include "base/thread.h"
#include "base/util.h"
#include "base/where.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct worker {
    struct workers *workers;
    pthread_t thread;
    struct where where;
};

struct workers {
    char name[16];
    unsigned capacity;
    _Atomic unsigned threads; /* started; grows with the lock held */

    pthread_mutex_t lock;   /* guards what follows, and every work that was added */
    pthread_cond_t posted;  /* the queue has grown, or the pool ends */
    pthread_cond_t changed; /* a work has returned */
    struct fifo queue;
    unsigned works, running;
    bool ending;
    struct worker worker[];
};

/* ---- The queue; the lock is held ---- */

static void enqueue(struct workers *pool, struct work *work)
{
    if (!work->wanted || work->link.queued || work->running || work->paused)
        return;
    fifo_put(&pool->queue, &work->link);
    pthread_cond_signal(&pool->posted);
}

static void dequeue(struct workers *pool, struct work *work)
{
    if (fifo_remove(&pool->queue, &work->link))
        pthread_cond_broadcast(&pool->changed);
}

/* ---- The threads ---- */

static void run_first(struct workers *pool)
{
    struct work *work = container_of(pool->queue.first, struct work, link);

    dequeue(pool, work);
    work->wanted = false;
    work->running = true;
    pool->running++;
    pthread_mutex_unlock(&pool->lock);
    work->run(work->opaque);
    pthread_mutex_lock(&pool->lock);
    pool->running--;
    work->running = false;
    enqueue(pool, work);
    pthread_cond_broadcast(&pool->changed);
}

static void *serve(void *opaque)
{
    struct worker *self = opaque;
    struct workers *pool = self->workers;

    where_begin(&self->where);
    pthread_mutex_lock(&pool->lock);
    while (!pool->ending) {
        if (pool->queue.first)
            run_first(pool);
        else
            pthread_cond_wait(&pool->posted, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    where_end(&self->where);
    return NULL;
}

/* Starts one more thread, unless there are as many as there are works, or as there may be. */
static int grow(struct workers *pool, struct error *err)
{
    unsigned n = atomic_load(&pool->threads);
    struct worker *worker = &pool->worker[n];
    char name[32];
    int ret;

    if (n == pool->capacity || n > pool->works)
        return 0;
    worker->workers = pool;
    snprintf(name, sizeof(name), "%s %u", pool->name, n);
    ret = thread_start(&worker->thread, name, serve, worker, err);
    if (ret == 0)
        atomic_store(&pool->threads, n + 1);
    return ret;
}

/* ---- For everybody ---- */

struct workers *workers_create(const char *name, unsigned threads, struct error *err)
{
    struct workers *pool = calloc(1, sizeof(*pool) + threads * sizeof(pool->worker[0]));

    if (!pool) {
        error_set(err, ENOMEM, "workers '%s': out of memory", name);
        return NULL;
    }
    snprintf(pool->name, sizeof(pool->name), "%s", name);
    pool->capacity = threads;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->posted, NULL);
    pthread_cond_init(&pool->changed, NULL);
    return pool;
}

void workers_destroy(struct workers *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    pthread_cond_broadcast(&pool->posted);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < atomic_load(&pool->threads); i++)
        pthread_join(pool->worker[i].thread, NULL);
    pthread_cond_destroy(&pool->changed);
    pthread_cond_destroy(&pool->posted);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

int workers_add(struct workers *pool, struct work *work, void (*run)(void *opaque), void *opaque,
                struct error *err)
{
    int ret;

    pthread_mutex_lock(&pool->lock);
    ret = grow(pool, err);
    if (ret == 0) {
        *work = (struct work){.workers = pool, .run = run, .opaque = opaque};
        pool->works++;
    }
    pthread_mutex_unlock(&pool->lock);
    return ret;
}

void workers_remove(struct work *work)
{
    struct workers *pool = work->workers;

    if (!pool)
        return;
    workers_pause(work);
    pthread_mutex_lock(&pool->lock);
    pool->works--;
    work->workers = NULL;
    pthread_mutex_unlock(&pool->lock);
}

void workers_post(struct work *work)
{
    struct workers *pool = work->workers;

    pthread_mutex_lock(&pool->lock);
    work->wanted = true;
    enqueue(pool, work);
    pthread_mutex_unlock(&pool->lock);
}

void workers_pause(struct work *work)
{
    struct workers *pool = work->workers;

    pthread_mutex_lock(&pool->lock);
    work->paused = true;
    dequeue(pool, work);
    while (work->running)
        pthread_cond_wait(&pool->changed, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void workers_resume(struct work *work)
{
    struct workers *pool = work->workers;

    pthread_mutex_lock(&pool->lock);
    work->paused = false;
    enqueue(pool, work);
    pthread_mutex_unlock(&pool->lock);
}

void workers_drain(struct workers *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (pool->queue.first || pool->running)
        pthread_cond_wait(&pool->changed, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

struct where *workers_where(struct workers *pool, unsigned n)
{
    return n < atomic_load(&pool->threads) ? &pool->worker[n].where : NULL;
}
