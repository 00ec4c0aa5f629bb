/*
 * Bringing metadata into the file.
 *
 *      1  refcounts are written: nothing refers to these clusters yet, so too many at worst
 *         the file is flushed: data and refcounts are stable
 *      2  L2 and L1 entries are written: each leads to where it led before, or to what is stable
 *         the file is flushed: now nothing leads to the clusters that entries led to before
 *      3  the refcounts of those fall, when the requests are done that may still use them, and the
 *         file is punched
 *
 * Between two of these a power cut costs clusters that nothing uses (leaks) and never data. With
 * lazy refcounts, the header says "dirty" from the first change on, and refcounts are written when
 * the image is closed: the program that opens it after a power cut counts again.
 *
 * Dropped references wait in `pending` until a commit begins, which moves them to `limbo`, and
 * from then on requests enter the other epoch. Those in limbo are given free when step 2 is
 * stable and the old epoch is empty. Until then what is pending stays pending.
 */
#include "blk/qcow2/commit.h"

#include "blk/qcow2/alloc.h"
#include "blk/qcow2/cache.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"
#include "blk/qcow2/refcount.h"

#include <errno.h>

#define PENDING_MAX (16 * MiB) /* of the file: more than this is not kept from its owner */

int qcow2_free_limbo(struct qcow2 *q)
{
    if (!q->limbo.count || !q->limbo_stable || atomic_load(&q->in_epoch[q->limbo_epoch]))
        return 0;
    return qcow2_free_list(q, &q->limbo);
}

bool qcow2_commit_is_due(const struct qcow2 *q)
{
    /* While old requests use what is in limbo, a commit gives nothing free. */
    bool helps = !q->limbo.count || !q->limbo_stable || !atomic_load(&q->in_epoch[q->limbo_epoch]);

    if (helps && q->pending.count >= PENDING_MAX >> q->cluster_bits && q->pending.count >= 64)
        return true;
    /* L2 tables that differ from the file cannot leave the cache. */
    return q->l2.count >= q->l2.limit && q->l2.dirty > q->l2.limit / 2;
}

/* Moves what is pending to limbo, if that is empty. */
static void begin_limbo(struct qcow2 *q)
{
    struct qcow2_drops empty = q->limbo;

    if (q->limbo.count || !q->pending.count)
        return;
    q->limbo = q->pending;
    q->pending = empty;
    q->limbo_stable = false;
    pthread_mutex_lock(&q->map_lock);
    q->limbo_epoch = q->epoch;
    q->epoch ^= 1;
    pthread_mutex_unlock(&q->map_lock);
}

/* Step 1; DIRTY: the refcounts in the file stay stale. */
static int write_refcounts(struct qcow2 *q, bool dirty)
{
    int ret;

    if (dirty)
        return qcow2_header_mark(q, QCOW2_INCOMPATIBLE_DIRTY, 0);
    /* A block's contents are stable before the table leads to it. */
    ret = qcow2_refcounts_write(q);
    if (ret < 0 || !q->reftable.dirty)
        return ret;
    ret = qcow2_file_flush(q);
    return ret < 0 ? ret : qcow2_table_write(q, &q->reftable);
}

static int write_map(struct qcow2 *q)
{
    int ret = 0;

    for (unsigned i = 0; i < q->l2.count && q->l2.dirty && ret == 0; i++) {
        struct qcow2_table *l2 = q->l2.loaded[i];

        if (!l2->dirty)
            continue;
        ret = qcow2_table_write(q, l2);
        q->l2.dirty -= ret == 0;
    }
    return ret < 0 ? ret : qcow2_table_write(q, &q->l1);
}

static int publish(struct qcow2 *q, bool lazy)
{
    int ret;

    if (!q->l2.dirty && !q->l1.dirty)
        return 0;
    ret = write_refcounts(q, lazy);
    if (ret == 0 && q->depends) {
        ret = qcow2_file_flush(q);
        q->depends = ret < 0;
    }
    return ret < 0 ? ret : write_map(q);
}

int qcow2_commit(struct qcow2 *q, enum qcow2_commit how)
{
    bool lazy = q->lazy && how != QCOW2_ALL;
    bool flush = how != QCOW2_SETTLE || qcow2_commit_is_due(q);
    int ret = atomic_load(&q->failed);

    if (ret < 0)
        return ret;
    ret = qcow2_free_limbo(q);
    begin_limbo(q);
    if (ret == 0)
        ret = publish(q, lazy);
    if (ret == 0 && flush)
        ret = qcow2_file_flush(q);
    if (ret == 0 && flush) {
        q->limbo_stable = true;
        ret = qcow2_free_limbo(q);
    }
    /* So that a process that is killed leaves as little as possible behind that nothing uses. */
    if (ret == 0 && !lazy)
        ret = write_refcounts(q, false);
    /* All the while the lock was held, so nothing has changed since. */
    atomic_store(&q->unclean, ret < 0 || q->pending.count || q->limbo.count);
    return ret;
}

int qcow2_commit_all(struct qcow2 *q)
{
    int ret = qcow2_commit(q, QCOW2_ALL);

    /* The first may have had to leave what is pending to the next. */
    while (ret == 0 && (q->pending.count || q->limbo.count))
        ret = qcow2_commit(q, QCOW2_ALL);
    return ret;
}

int qcow2_commit_refcounts(struct qcow2 *q)
{
    int ret = write_refcounts(q, false);

    return ret < 0 ? ret : qcow2_file_flush(q);
}
