/*
 * Rate limits of a disk.
 */
#include "blk/limit.h"

#include "blk/list.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "base/where.h"

#include <errno.h>
#include <stdlib.h>

/* A bucket as the time at which it is full. It is empty when that is BURST_NS ahead. */
struct bucket {
    uint64_t rate;      /* units a second; 0: no limit */
    uint64_t full;      /* nanoseconds of the clock */
    uint64_t remainder; /* of a nanosecond, in 1/rate */
};

#define BURST_NS (NS_PER_S / 10)

struct limit {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* the queue is not empty any more, or it ends */
    struct bucket requests, bytes;
    struct blk_list waiting;
    bool ending;
    const struct blk_clock *clock;
    struct limit_exit way_out;
    pthread_t thread;
    struct where where;
};

static uint64_t host_now(void *opaque)
{
    return time_now_ns();
}

static void host_wait(void *opaque, pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until)
{
    struct timespec at = time_spec(until);

    pthread_cond_timedwait(cond, lock, &at);
}

static const struct blk_clock host_clock = {.now = host_now, .wait = host_wait};

/* ---- Buckets ---- */

/* When BUCKET will not be empty. */
static uint64_t ready_at(const struct bucket *bucket)
{
    return bucket->rate && bucket->full > BURST_NS ? bucket->full - BURST_NS : 0;
}

static void take_out(struct bucket *bucket, uint64_t units, uint64_t now)
{
    unsigned __int128 cost;

    if (!bucket->rate)
        return;
    if (bucket->full < now) {
        bucket->full = now;
        bucket->remainder = 0;
    }
    cost = (unsigned __int128)units * NS_PER_S + bucket->remainder;
    bucket->remainder = (uint64_t)(cost % bucket->rate);
    cost /= bucket->rate;
    bucket->full += (uint64_t)MIN(cost, (unsigned __int128)(UINT64_MAX / 2 - bucket->full));
}

/* When the next request may pass. With the lock held. */
static uint64_t next_at(const struct limit *limit)
{
    return MAX(ready_at(&limit->requests), ready_at(&limit->bytes));
}

/* With the lock held. */
static void charge(struct limit *limit, const struct blk_request *request, uint64_t now)
{
    bool moves = request->kind == BLK_READ || request->kind == BLK_WRITE;

    take_out(&limit->requests, 1, now);
    take_out(&limit->bytes, moves ? request->size : 0, now);
}

/* ---- The queue ---- */

/* Takes off the queue what may pass now. With the lock held. */
static struct blk_list take_ready(struct limit *limit)
{
    uint64_t now = limit->clock->now(limit->clock->opaque);
    struct blk_list ready = {0};

    while (limit->waiting.first && next_at(limit) <= now) {
        charge(limit, limit->waiting.first, now);
        blk_list_put(&ready, blk_list_take(&limit->waiting));
    }
    return ready;
}

static void let_pass(const struct limit_exit *way_out, struct blk_list *list)
{
    struct blk_request *request;

    while ((request = blk_list_take(list)))
        way_out->submit(way_out->blk, request);
    way_out->kick(way_out->blk);
}

static void *serve(void *opaque)
{
    struct limit *limit = opaque;

    where_begin(&limit->where);
    pthread_mutex_lock(&limit->lock);
    while (!limit->ending) {
        struct blk_list ready = take_ready(limit);

        if (ready.first) {
            pthread_mutex_unlock(&limit->lock);
            let_pass(&limit->way_out, &ready);
            pthread_mutex_lock(&limit->lock);
        } else if (limit->waiting.first) {
            limit->clock->wait(limit->clock->opaque, &limit->changed, &limit->lock, next_at(limit));
        } else {
            pthread_cond_wait(&limit->changed, &limit->lock);
        }
    }
    pthread_mutex_unlock(&limit->lock);
    where_end(&limit->where);
    return NULL;
}

/* ---- For blk.c ---- */

struct limit *limit_create(uint64_t iops, uint64_t bps, const struct blk_clock *clock,
                           const struct limit_exit *way_out, struct error *err)
{
    struct limit *limit = calloc(1, sizeof(*limit));

    if (!limit) {
        error_set(err, ENOMEM, "rate limits: out of memory");
        return NULL;
    }
    limit->requests.rate = iops;
    limit->bytes.rate = bps;
    limit->clock = clock ? clock : &host_clock;
    limit->way_out = *way_out;
    pthread_mutex_init(&limit->lock, NULL);
    thread_cond_init(&limit->changed);
    if (thread_start(&limit->thread, "blk limit", serve, limit, err) < 0) {
        pthread_cond_destroy(&limit->changed);
        pthread_mutex_destroy(&limit->lock);
        free(limit);
        return NULL;
    }
    return limit;
}

void limit_destroy(struct limit *limit)
{
    if (!limit)
        return;
    pthread_mutex_lock(&limit->lock);
    limit->ending = true;
    pthread_cond_signal(&limit->changed);
    pthread_mutex_unlock(&limit->lock);
    pthread_join(limit->thread, NULL);
    pthread_cond_destroy(&limit->changed);
    pthread_mutex_destroy(&limit->lock);
    free(limit);
}

void limit_submit(struct limit *limit, struct blk_request *request)
{
    bool passes;
    uint64_t now;

    pthread_mutex_lock(&limit->lock);
    now = limit->clock->now(limit->clock->opaque);
    passes = !limit->waiting.first && next_at(limit) <= now;
    if (passes) {
        charge(limit, request, now);
    } else {
        blk_list_put(&limit->waiting, request);
        if (limit->waiting.first == request)
            pthread_cond_signal(&limit->changed);
    }
    pthread_mutex_unlock(&limit->lock);
    if (passes)
        limit->way_out.submit(limit->way_out.blk, request);
}

void limit_recall(struct limit *limit)
{
    struct blk_request *request;
    struct blk_list recalled;

    pthread_mutex_lock(&limit->lock);
    recalled = blk_list_take_all(&limit->waiting);
    pthread_mutex_unlock(&limit->lock);
    while ((request = blk_list_take(&recalled)))
        request->done(request, -ECANCELED);
}

struct where *limit_where(struct limit *limit)
{
    return &limit->where;
}
