/*
 * Opening and closing a qcow2 image.
 */
#include "blk/qcow2/qcow2.h"

#include "base/pool.h"
#include "blk/qcow2/backing.h"
#include "blk/qcow2/check.h"
#include "blk/qcow2/commit.h"
#include "blk/qcow2/io.h"
#include "blk/qcow2/load.h"
#include "blk/qcow2/refcount.h"
#include "blk/qcow2/resize.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define THREADS_MOST 8

int qcow2_inspect(struct blk *file, struct qcow2_info *info, struct error *err)
{
    return qcow2_load_info(file, info, err);
}

/* ---- Closing ---- */

/* Cuts off what is not used at the end of the file. */
static void trim(struct qcow2 *q)
{
    uint64_t end = qcow2_cluster(q, q->file_end), count = 0;

    while (end > 1 && qcow2_refcount(q, end - 1, &count) == 0 && count == 0)
        end--;
    if (count && end < qcow2_cluster(q, q->file_end))
        blk_resize(q->file, end << q->cluster_bits, NULL);
}

static void finish(struct qcow2 *q)
{
    int ret;

    pthread_mutex_lock(&q->lock);
    ret = qcow2_commit_all(q);
    if (ret == 0) {
        trim(q);
        if (q->lazy)
            ret = qcow2_header_mark(q, 0, QCOW2_INCOMPATIBLE_DIRTY);
    }
    if (ret < 0 && q->blk.host)
        log_line(q->blk.host->log, LOG_LEVEL_ERROR, "%s: cannot be closed as it should be: %s",
                 q->name, strerror(-ret));
    pthread_mutex_unlock(&q->lock);
}

static void qcow2_close(struct blk *blk)
{
    struct qcow2 *q = container_of(blk, struct qcow2, blk);
    struct blk *file = q->file, *backing = q->backing;

    if (q->writable && !q->temporary && !atomic_load(&q->failed))
        finish(q);
    qcow2_unload(q);
    blk_close(backing);
    blk_close(file);
}

/* Finds thread *N of BLK, which may be NULL, or takes the number of its threads off *N. */
static struct where *where_below(struct blk *blk, unsigned *n)
{
    struct where *found;
    unsigned i = 0;

    for (; blk && (found = blk_where(blk, i)); i++)
        if (i == *n)
            return found;
    *n -= i;
    return NULL;
}

static struct where *qcow2_where(struct blk *blk, unsigned n)
{
    struct qcow2 *q = container_of(blk, struct qcow2, blk);
    struct where *found = where_below(q->file, &n);

    if (!found)
        found = where_below(q->backing, &n);
    return found ? found : pool_where(q->pool, n);
}

const struct blk_driver qcow2_driver = {
    .submit = qcow2_submit,
    .kick = qcow2_kick,
    .perform = qcow2_perform,
    .resize = qcow2_resize,
    .where = qcow2_where,
    .close = qcow2_close,
};

/* ---- Opening ---- */

static int check_backing(const struct qcow2 *q, const struct qcow2_info *info, struct error *err)
{
    char advice[QCOW2_ADVICE];

    if (q->backing && !q->has_backing)
        return error_set(err, EINVAL,
                         "%s: the image has no backing file; leave out backing=", q->name);
    if (!q->backing && q->has_backing && !q->offline) {
        qcow2_backing_advice(q, advice);
        return error_set(err, EINVAL,
                         "%s: its backing file is opened only if it is named; if you trust it, %s",
                         q->name, advice);
    }
    if (q->backing && !q->temporary)
        qcow2_backing_compare(q);
    return 0;
}

static int check_writable(const struct qcow2 *q, struct error *err)
{
    if (!q->writable || q->damaged)
        return 0;
    if (q->extended)
        return error_set(err, ENOTSUP,
                         "%s: images with extended L2 entries can be read only; add readonly",
                         q->name);
    if (q->incompatible & QCOW2_INCOMPATIBLE_CORRUPT)
        return error_set(err, EINVAL,
                         "%s: the image is marked as corrupt; 'doppel image check --repair' "
                         "may help, and readonly opens it as it is",
                         q->name);
    return 0;
}

/* Has the file end where qcow2_load has found its end. A device stays as long as it is, and what
 * does not fill a cluster at its end is not used. */
static int round_up(struct qcow2 *q, struct error *err)
{
    uint64_t size = blk_info(q->file).size;
    int ret;

    if (!q->writable || size >= q->file_end)
        return 0;
    ret = blk_resize(q->file, q->file_end, NULL);
    if (ret == -ENOTSUP || ret == -EINVAL) {
        q->file_end = ALIGN_DOWN(size, q->cluster_size);
        q->fresh = q->file_end;
        ret = 0;
    }
    return ret < 0 ? error_set(err, -ret, "%s: cannot be made longer: %s", q->name, strerror(-ret))
                   : 0;
}

/* Counts the references of an image that was not closed, and corrects its refcounts. */
static int repair_dirty(struct blk *file, struct error *err)
{
    struct qcow2_how how = {.damaged = true};
    struct qcow2_check what = {.repair_leaks = true, .repair_errors = true};
    struct qcow2_checked found;
    struct qcow2_info info;
    struct qcow2 *q = qcow2_load(file, &how, &info, err);
    int ret;

    if (!q)
        return -EINVAL;
    ret = round_up(q, err);
    if (ret == 0)
        ret = qcow2_check_image(q, &what, &found, err);
    if (ret == 0 && found.errors > found.errors_fixed)
        ret = error_set(err, EINVAL,
                        "%s: the image was not closed, and is damaged; 'doppel image check' says "
                        "more",
                        q->name);
    if (ret == 0 && q->blk.host)
        log_line(q->blk.host->log, LOG_LEVEL_INFO,
                 "%s: the image was not closed; its refcounts are right again", q->name);
    qcow2_unload(q);
    return ret;
}

/* Clears the autoclear bits. A write makes stale what features that we do not know, such as
 * bitmaps, have in the image, and the cleared bits say so. */
static int clear_autoclear(struct qcow2 *q, struct error *err)
{
    int ret = 0;

    if (!q->writable || !q->autoclear || q->damaged)
        return 0;
    qcow2_header(q)->autoclear = 0;
    q->autoclear = 0;
    ret = qcow2_header_write(q);
    return ret < 0
               ? error_set(err, -ret, "%s: cannot write the header: %s", q->name, strerror(-ret))
               : 0;
}

static int set_up(struct qcow2 *q, struct error *err)
{
    struct blk_info file = blk_info(q->file);

    q->blk.driver = &qcow2_driver;
    atomic_init(&q->blk.size, ALIGN_DOWN(q->disk_size, file.block));
    q->blk.info = (struct blk_info){
        .block = file.block,
        .optimal = MAX(file.optimal, q->cluster_size),
        .readonly = !q->writable,
        .discards = q->writable && file.discards,
        .zeroes = q->writable && q->version >= 3,
        .format = "qcow2",
        .file = q->name,
    };
    if (q->backing)
        q->blk.info.block = MAX(q->blk.info.block, blk_info(q->backing).block);
    q->pool = pool_create("qcow2", THREADS_MOST, err);
    return q->pool ? 0 : -ENOMEM;
}

struct blk *qcow2_open(struct blk *file, const struct qcow2_how *how, struct error *err)
{
    struct qcow2_info info;
    struct qcow2 *q = qcow2_load(file, how, &info, err);

    if (!q)
        return NULL;
    if (check_writable(q, err) < 0 || check_backing(q, &info, err) < 0)
        goto fail;
    if (info.dirty && q->writable && !q->damaged) {
        qcow2_unload(q);
        if (repair_dirty(file, err) < 0)
            return NULL;
        q = qcow2_load(file, how, &info, err);
        if (!q)
            return NULL;
    }
    if (round_up(q, err) < 0 || clear_autoclear(q, err) < 0 || set_up(q, err) < 0)
        goto fail;
    return &q->blk;

fail:
    qcow2_unload(q);
    return NULL;
}
