/*
 * Requests.
 *
 *      submit --- all is mapped in memory, in few parts, ---> straight to file and backing image;
 *        |        and a write changes no map                  done when the last part is
 *        '------- all else ---------------------------------> a job of the pool, which may wait
 */
#include "blk/qcow2/io.h"

#include "base/pool.h"
#include "base/buffers.h"
#include "blk/qcow2/commit.h"
#include "blk/qcow2/discard.h"
#include "blk/qcow2/table.h"
#include "blk/qcow2/write.h"

#include <errno.h>
#include <stdlib.h>

#define PARTS_MAX 16

static struct qcow2 *of(struct blk *blk)
{
    return container_of(blk, struct qcow2, blk);
}

/* ---- Beginning and ending ---- */

void qcow2_begin(struct qcow2 *q)
{
    pthread_mutex_lock(&q->map_lock);
    while (q->stopped)
        pthread_cond_wait(&q->idle, &q->map_lock);
    q->in_flight++;
    pthread_mutex_unlock(&q->map_lock);
}

void qcow2_end(struct qcow2 *q)
{
    pthread_mutex_lock(&q->map_lock);
    q->in_flight--;
    if (q->stopped && !q->in_flight)
        pthread_cond_broadcast(&q->idle);
    pthread_mutex_unlock(&q->map_lock);
}

/* REQUEST is over. The image may be closed when this returns. */
static void finish(struct qcow2 *q, struct blk_request *request, int result)
{
    qcow2_end(q);
    blk_complete(request, result);
}

void qcow2_stop(struct qcow2 *q)
{
    pthread_mutex_lock(&q->map_lock);
    while (q->stopped)
        pthread_cond_wait(&q->idle, &q->map_lock);
    q->stopped = true;
    while (q->in_flight)
        pthread_cond_wait(&q->idle, &q->map_lock);
    pthread_mutex_unlock(&q->map_lock);
}

void qcow2_go(struct qcow2 *q)
{
    struct blk_request *request;
    struct blk_list waiting;

    pthread_mutex_lock(&q->map_lock);
    waiting = blk_list_take_all(&q->waiting);
    q->stopped = false;
    pthread_cond_broadcast(&q->idle);
    pthread_mutex_unlock(&q->map_lock);
    while ((request = blk_list_take(&waiting)))
        qcow2_submit(&q->blk, request);
    qcow2_kick(&q->blk);
}

/* ---- On a thread that may wait ---- */

static int transfer(struct qcow2 *q, struct blk_request *r)
{
    struct qcow2_buffers buffers = {.iov = r->iov, .iovs = r->iovs};
    unsigned epoch;
    int ret;

    pthread_mutex_lock(&q->map_lock);
    epoch = qcow2_enter(q);
    pthread_mutex_unlock(&q->map_lock);
    if (r->kind == BLK_READ)
        ret = qcow2_read_range(q, r->own.at, r->size, &buffers);
    else
        ret = qcow2_write_range(q, r->own.at, r->size, &buffers);
    qcow2_leave(q, epoch);
    return ret;
}

/* After a change of the map: has it reach the file if that is due, or promised. */
static int follow_up(struct qcow2 *q)
{
    int ret = 0;

    pthread_mutex_lock(&q->lock);
    qcow2_free_limbo(q);
    if (q->settled || qcow2_commit_is_due(q))
        ret = qcow2_commit(q, QCOW2_SETTLE);
    pthread_mutex_unlock(&q->lock);
    return q->settled ? ret : 0;
}

/* One flush of the file does for all that were asked for before it began. */
static int flush(struct qcow2 *q)
{
    uint64_t own = atomic_fetch_add(&q->flushes, 1) + 1, covered;
    int ret = 0;

    pthread_mutex_lock(&q->lock);
    if (q->flushed < own) {
        covered = atomic_load(&q->flushes);
        ret = qcow2_commit(q, QCOW2_FLUSH);
        if (ret == 0)
            q->flushed = covered;
    }
    pthread_mutex_unlock(&q->lock);
    return ret;
}

static int carry_out(struct qcow2 *q, struct blk_request *r)
{
    int ret;

    switch (r->kind) {
    case BLK_READ: return transfer(q, r);
    case BLK_FLUSH: return flush(q);
    case BLK_WRITE: ret = transfer(q, r); break;
    case BLK_DISCARD: ret = qcow2_erase(q, r->own.at, r->size, QCOW2_DISCARD); break;
    case BLK_ZEROES:
        ret = qcow2_erase(q, r->own.at, r->size, r->unmap ? QCOW2_UNMAP : QCOW2_KEEP);
        break;
    default: return -EINVAL;
    }
    return ret < 0 ? ret : follow_up(q);
}

static void run_slow(struct pool_job *job)
{
    struct blk_request *request = container_of(job, struct blk_request, own.job);
    struct qcow2 *q = of(request->own.blk);

    finish(q, request, carry_out(q, request));
}

static void post_slow(struct qcow2 *q, struct blk_request *request)
{
    request->own.job = (struct pool_job){.run = run_slow};
    pool_post(q->pool, &request->own.job);
}

int qcow2_perform(struct blk *blk, struct blk_request *request)
{
    struct qcow2 *q = of(blk);
    int ret;

    qcow2_begin(q);
    ret = carry_out(q, request);
    qcow2_end(q);
    return ret;
}

/* ---- Straight to the file ---- */

/* A request that goes straight to the file and the backing image, in parts. */
struct fast {
    struct qcow2 *q;
    struct blk_request *request;
    unsigned epoch;
    _Atomic unsigned left;
    _Atomic int result;
    struct fast_part {
        struct blk_request request;
        struct fast *fast;
    } part[];
};

/* What the map says of such a request; EPOCH is the one that it has entered. */
struct plan {
    unsigned count, epoch;
    struct qcow2_part part[PARTS_MAX];
};

static void part_done(struct blk_request *request, int result)
{
    struct fast *fast = container_of(request, struct fast_part, request)->fast;
    struct qcow2 *q = fast->q;

    if (result < 0)
        atomic_store(&fast->result, result);
    if (atomic_fetch_sub(&fast->left, 1) != 1)
        return;
    result = atomic_load(&fast->result);
    request = fast->request;
    if (request->kind != BLK_FLUSH)
        qcow2_leave(q, fast->epoch);
    else if (result < 0)
        atomic_store(&q->failed, -EIO); /* as in qcow2_file_flush: metadata may be lost */
    free(fast);
    finish(q, request, result);
}

/* With map_lock: looks up all of REQUEST. Returns false if it cannot go straight to the file. */
static bool make_plan(struct qcow2 *q, const struct blk_request *r, struct plan *plan)
{
    uint64_t backed = q->backing ? atomic_load(&q->backing->size) : 0;
    uint64_t offset = r->own.at, end = offset + r->size;

    plan->count = 0;
    if (r->kind == BLK_WRITE && atomic_load(&q->failed))
        return false;
    while (offset < end) {
        struct qcow2_part *part = &plan->part[plan->count];

        if (plan->count++ == PARTS_MAX || qcow2_lookup(q, offset, end - offset, part) < 0 ||
            part->kind == QCOW2_COMPRESSED)
            return false;
        if (part->kind == QCOW2_UNALLOCATED && q->has_backing &&
            (!q->backing || offset + part->size > backed))
            return false;
        if (part->kind == QCOW2_DATA && part->host + part->size > atomic_load(&q->file->size))
            return false;
        if (r->kind == BLK_WRITE &&
            !(part->kind == QCOW2_DATA && part->owned && qcow2_may_overwrite(q, part)))
            return false;
        offset += part->size;
    }
    return true;
}

/* One allocation: what all parts need, and behind it the pieces of the buffers. */
static struct fast *new_fast(struct qcow2 *q, struct blk_request *request, unsigned parts,
                             struct iovec **iov)
{
    unsigned iovs = parts > 1 ? request->iovs + parts : 0;
    struct fast *fast =
        malloc(sizeof(*fast) + parts * sizeof(fast->part[0]) + iovs * sizeof(**iov));

    if (!fast)
        return NULL;
    fast->q = q;
    fast->request = request;
    atomic_init(&fast->result, 0);
    *iov = (struct iovec *)&fast->part[parts];
    return fast;
}

/* Makes CHILD the request for PART, which begins SKIP bytes into the disk's request; its buffers go
 * to *IOV, which moves behind them. Returns the disk that it is for, or NULL if PART reads as
 * zeroes without one. */
static struct blk *make_child(struct fast *fast, struct fast_part *child,
                              const struct qcow2_part *part, uint64_t skip, struct iovec **iov)
{
    const struct blk_request *request = fast->request;
    bool in_file = part->kind == QCOW2_DATA;

    if (!in_file && (part->kind != QCOW2_UNALLOCATED || !fast->q->has_backing))
        return NULL;
    *child = (struct fast_part){.fast = fast};
    child->request = (struct blk_request){.kind = request->kind,
                                          .offset = in_file ? part->host : request->own.at + skip,
                                          .size = part->size,
                                          .iov = request->iov,
                                          .iovs = request->iovs,
                                          .done = part_done};
    if (part->size < request->size) {
        child->request.iov = *iov;
        child->request.iovs = buffers_slice(*iov, request->iov, request->iovs, skip, part->size);
        *iov += child->request.iovs;
    }
    return in_file ? fast->q->file : fast->q->backing;
}

static void submit_parts(struct qcow2 *q, struct blk_request *request, const struct plan *plan)
{
    struct blk *where[PARTS_MAX];
    uint64_t skip = 0;
    unsigned n = 0;
    struct iovec *iov;
    struct fast *fast = new_fast(q, request, plan->count, &iov);
    /* Stands for the parts that need no disk, and is done when all others have been submitted. */
    struct fast_part last = {.fast = fast};

    if (!fast) {
        qcow2_leave(q, plan->epoch);
        finish(q, request, -ENOMEM);
        return;
    }
    fast->epoch = plan->epoch;
    for (unsigned i = 0; i < plan->count; i++) {
        const struct qcow2_part *part = &plan->part[i];

        where[n] = make_child(fast, &fast->part[n], part, skip, &iov);
        if (where[n])
            n++;
        else
            buffers_clear(request->iov, skip, part->size);
        skip += part->size;
    }
    atomic_init(&fast->left, n + 1);
    for (unsigned i = 0; i < n; i++)
        blk_submit(where[i], &fast->part[i].request);
    part_done(&last.request, 0);
}

static bool submit_flush(struct qcow2 *q, struct blk_request *request)
{
    struct iovec *iov;
    struct fast *fast;

    if (q->temporary || atomic_load(&q->unclean) || atomic_load(&q->failed))
        return false;
    fast = new_fast(q, request, 1, &iov);
    if (!fast)
        return false;
    atomic_init(&fast->left, 1);
    fast->part[0] = (struct fast_part){.fast = fast};
    fast->part[0].request.kind = BLK_FLUSH;
    fast->part[0].request.done = part_done;
    blk_submit(q->file, &fast->part[0].request);
    return true;
}

void qcow2_submit(struct blk *blk, struct blk_request *request)
{
    struct qcow2 *q = of(blk);
    bool data = request->kind == BLK_READ || request->kind == BLK_WRITE;
    struct plan plan;
    bool planned = false;

    pthread_mutex_lock(&q->map_lock);
    if (q->stopped) {
        blk_list_put(&q->waiting, request);
        pthread_mutex_unlock(&q->map_lock);
        return;
    }
    q->in_flight++;
    if (data)
        planned = make_plan(q, request, &plan);
    if (planned)
        plan.epoch = qcow2_enter(q);
    pthread_mutex_unlock(&q->map_lock);
    if (planned)
        submit_parts(q, request, &plan);
    else if (request->kind != BLK_FLUSH || !submit_flush(q, request))
        post_slow(q, request);
}

void qcow2_kick(struct blk *blk)
{
    struct qcow2 *q = of(blk);

    blk_kick(q->file);
    if (q->backing)
        blk_kick(q->backing);
}
