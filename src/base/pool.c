/*
 * Threads that may wait: a work of a pool of workers (base/workers.h) for each thread, which does
 * jobs until there are none.
 */
#include "base/pool.h"

#include "base/util.h"
#include "base/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct lane {
    struct pool *pool;
    struct work work;
    struct lane *next; /* that is idle */
};

struct pool {
    struct workers *workers;
    pthread_mutex_t lock;
    struct fifo jobs;
    struct lane *idle; /* lanes that do not run and are not about to */
    unsigned lanes, most;
    struct lane lane[];
};

static void do_jobs(void *opaque)
{
    struct lane *lane = opaque;
    struct pool *pool = lane->pool;
    struct fifo_link *first;

    pthread_mutex_lock(&pool->lock);
    while ((first = pool->jobs.first)) {
        struct pool_job *job = container_of(first, struct pool_job, link);

        fifo_remove(&pool->jobs, first);
        pthread_mutex_unlock(&pool->lock);
        job->run(job);
        pthread_mutex_lock(&pool->lock);
    }
    lane->next = pool->idle;
    pool->idle = lane;
    pthread_mutex_unlock(&pool->lock);
}

/* Makes one more lane, with a thread of its own. Returns NULL if there are enough or no thread can
 * be started. With the lock, or before any other thread knows the pool. */
static struct lane *add_lane(struct pool *pool, struct error *err)
{
    struct lane *lane = &pool->lane[pool->lanes];

    if (pool->lanes == pool->most)
        return NULL;
    lane->pool = pool;
    if (workers_add(pool->workers, &lane->work, do_jobs, lane, err) < 0)
        return NULL;
    pool->lanes++;
    return lane;
}

struct pool *pool_create(const char *name, unsigned most, struct error *err)
{
    struct pool *pool = calloc(1, sizeof(*pool) + most * sizeof(pool->lane[0]));

    if (!pool) {
        error_set(err, ENOMEM, "threads '%s': out of memory", name);
        return NULL;
    }
    pool->most = most;
    pthread_mutex_init(&pool->lock, NULL);
    pool->workers = workers_create(name, most, err);
    if (pool->workers)
        pool->idle = add_lane(pool, err);
    if (!pool->idle) {
        pool_destroy(pool);
        return NULL;
    }
    return pool;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    if (pool->workers)
        workers_drain(pool->workers);
    workers_destroy(pool->workers);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void pool_post(struct pool *pool, struct pool_job *job)
{
    struct lane *lane;

    pthread_mutex_lock(&pool->lock);
    fifo_put(&pool->jobs, &job->link);
    lane = pool->idle;
    if (lane)
        pool->idle = lane->next;
    else
        lane = add_lane(pool, NULL); /* without it, the lanes that there are do the job later */
    pthread_mutex_unlock(&pool->lock);
    if (lane)
        workers_post(&lane->work);
}

struct where *pool_where(struct pool *pool, unsigned n)
{
    return workers_where(pool->workers, n);
}
