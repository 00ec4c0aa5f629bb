/*
 * Threads that may wait.
 */
#include "blk/pool.h"

#include "base/thread.h"
#include "base/util.h"
#include "base/where.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct pool_thread {
    struct pool *pool;
    pthread_t thread;
    struct where where;
};

struct pool {
    char name[12];
    pthread_mutex_t lock;
    pthread_cond_t posted;
    struct fifo jobs;
    unsigned idle;  /* threads that wait */
    unsigned woken; /* of them, those that have been told of a job and have not taken one yet */
    bool ending;
    _Atomic unsigned threads;
    unsigned most;
    struct pool_thread thread[];
};

static void *serve(void *opaque)
{
    struct pool_thread *self = opaque;
    struct pool *pool = self->pool;

    where_begin(&self->where);
    pthread_mutex_lock(&pool->lock);
    while (!pool->ending || pool->jobs.first) {
        struct fifo_link *first = pool->jobs.first;
        struct pool_job *job;

        if (!first) {
            pool->idle++;
            pthread_cond_wait(&pool->posted, &pool->lock);
            pool->idle--;
            if (pool->woken > 0)
                pool->woken--;
            continue;
        }
        fifo_remove(&pool->jobs, first);
        pthread_mutex_unlock(&pool->lock);
        job = container_of(first, struct pool_job, link);
        job->run(job);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    where_end(&self->where);
    return NULL;
}

/* Starts one more thread. With the lock held, or before anyone else knows the pool. */
static int grow(struct pool *pool, struct error *err)
{
    unsigned n = atomic_load(&pool->threads);
    struct pool_thread *thread = &pool->thread[n];
    char name[32];
    int ret;

    thread->pool = pool;
    snprintf(name, sizeof(name), "%s %u", pool->name, n);
    ret = thread_start(&thread->thread, name, serve, thread, err);
    if (ret == 0)
        atomic_store(&pool->threads, n + 1);
    return ret;
}

struct pool *pool_create(const char *name, unsigned most, struct error *err)
{
    struct pool *pool = calloc(1, sizeof(*pool) + most * sizeof(pool->thread[0]));

    if (!pool) {
        error_set(err, ENOMEM, "threads '%s': out of memory", name);
        return NULL;
    }
    snprintf(pool->name, sizeof(pool->name), "%s", name);
    pool->most = most;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->posted, NULL);
    if (grow(pool, err) < 0) {
        pool_destroy(pool);
        return NULL;
    }
    return pool;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    pthread_cond_broadcast(&pool->posted);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < atomic_load(&pool->threads); i++)
        pthread_join(pool->thread[i].thread, NULL);
    pthread_cond_destroy(&pool->posted);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void pool_post(struct pool *pool, struct pool_job *job)
{
    bool wake;

    pthread_mutex_lock(&pool->lock);
    fifo_put(&pool->jobs, &job->link);
    wake = pool->idle > pool->woken;
    if (wake)
        pool->woken++;
    else if (pool->jobs.length > pool->woken && atomic_load(&pool->threads) < pool->most)
        grow(pool, NULL); /* without it, the threads that there are do the job later */
    pthread_mutex_unlock(&pool->lock);
    if (wake)
        pthread_cond_signal(&pool->posted);
}

struct where *pool_where(struct pool *pool, unsigned n)
{
    return n < atomic_load(&pool->threads) ? &pool->thread[n].where : NULL;
}
