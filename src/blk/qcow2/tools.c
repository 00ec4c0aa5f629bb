/*
 * What tools ask of an open image.
 */
#include "blk/qcow2/qcow2.h"

#include "blk/qcow2/check.h"
#include "blk/qcow2/commit.h"
#include "blk/qcow2/compress.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/io.h"
#include "blk/qcow2/records.h"
#include "blk/qcow2/snapshot.h"
#include "blk/qcow2/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct qcow2 *open_image(struct blk *blk, struct error *err)
{
    if (blk->driver == &qcow2_driver)
        return container_of(blk, struct qcow2, blk);
    error_set(err, EINVAL, "%s: not a qcow2 image", blk_info(blk).file);
    return NULL;
}

int qcow2_map(struct blk *image, uint64_t offset, struct qcow2_extent *extent, struct error *err)
{
    struct qcow2 *q = open_image(image, err);
    struct qcow2_part part;
    int ret;

    if (!q)
        return -EINVAL;
    if (offset >= q->disk_size)
        return error_set(err, EINVAL, "%s: the disk ends before", q->name);
    qcow2_begin(q);
    pthread_mutex_lock(&q->lock);
    ret = qcow2_find(q, offset, q->disk_size - offset, &part);
    pthread_mutex_unlock(&q->lock);
    qcow2_end(q);
    if (ret < 0)
        return error_set(err, -ret, "%s: cannot read its map: %s", q->name, strerror(-ret));
    extent->kind = part.kind;
    extent->size = part.size;
    extent->host = part.host;
    return 0;
}

/* ---- Compressed clusters ---- */

static int write_packed(struct qcow2 *q, uint64_t offset, const void *bytes)
{
    void *packed;
    int64_t size = qcow2_pack(q, bytes, &packed);
    int ret;

    if (size <= 0)
        return size < 0 ? (int)size : 1;
    qcow2_begin(q);
    ret = qcow2_write_packed(q, offset, packed, (uint64_t)size);
    pthread_mutex_lock(&q->lock);
    if (ret == 0 && qcow2_commit_is_due(q))
        ret = qcow2_commit(q, QCOW2_SETTLE);
    pthread_mutex_unlock(&q->lock);
    qcow2_end(q);
    free(packed);
    return ret;
}

int qcow2_write_compressed(struct blk *image, uint64_t offset, const void *data, uint64_t size,
                           struct error *err)
{
    struct qcow2 *q = open_image(image, err);
    uint8_t *whole;
    int ret;

    if (!q)
        return -EINVAL;
    if (!q->writable || atomic_load(&q->failed))
        return error_set(err, EPERM, "%s: cannot be written to", q->name);
    if (qcow2_in_cluster(q, offset) || offset >= q->disk_size ||
        size != MIN(q->cluster_size, q->disk_size - offset))
        return error_set(err, EINVAL, "%s: only whole clusters can be compressed", q->name);
    whole = qcow2_buffer(q->cluster_size);
    if (!whole)
        return error_set(err, ENOMEM, "%s: out of memory", q->name);
    memcpy(whole, data, size);
    ret = write_packed(q, offset, whole);
    free(whole);
    if (ret == 1)
        ret = blk_write(image, offset, data, size);
    return ret < 0 ? error_set(err, -ret, "%s: cannot be written to: %s", q->name, strerror(-ret))
                   : 0;
}

/* ---- With requests stopped ---- */

/* Returns the image of BLK, with nothing in flight, or NULL if it is no image. */
static struct qcow2 *stop_image(struct blk *blk, struct error *err)
{
    struct qcow2 *q = open_image(blk, err);

    if (q)
        qcow2_stop(q);
    return q;
}

/* Lets requests go on, on a disk whose size may have changed. */
static void let_go(struct qcow2 *q)
{
    atomic_store(&q->blk.size, ALIGN_DOWN(q->disk_size, q->blk.info.block));
    qcow2_go(q);
}

int qcow2_check(struct blk *image, const struct qcow2_check *how, struct qcow2_checked *checked,
                struct error *err)
{
    struct qcow2 *q = stop_image(image, err);
    int ret;

    if (!q)
        return -EINVAL;
    ret = qcow2_check_image(q, how, checked, err);
    let_go(q);
    return ret;
}

static int change(struct blk *image, const char *name,
                  int (*run)(struct qcow2 *q, const char *name, struct error *err),
                  struct error *err)
{
    struct qcow2 *q = stop_image(image, err);
    int ret;

    if (!q)
        return -EINVAL;
    ret = run(q, name, err);
    let_go(q);
    return ret;
}

int qcow2_snapshot_create(struct blk *image, const char *name, struct error *err)
{
    return change(image, name, qcow2_make_snapshot, err);
}

int qcow2_snapshot_apply(struct blk *image, const char *name, struct error *err)
{
    return change(image, name, qcow2_go_back, err);
}

int qcow2_snapshot_delete(struct blk *image, const char *name, struct error *err)
{
    return change(image, name, qcow2_drop_snapshot, err);
}

/* ---- The list of snapshots ---- */

int qcow2_snapshots(struct blk *image, struct qcow2_snapshot **list, unsigned *count,
                    struct error *err)
{
    struct qcow2 *q = stop_image(image, err);
    struct qcow2_records records;
    int ret;

    if (!q)
        return -EINVAL;
    ret = qcow2_records_read(q, &records, err);
    let_go(q);
    *count = 0;
    *list = ret == 0 ? calloc(records.count + 1, sizeof(**list)) : NULL;
    if (ret == 0 && !*list)
        ret = error_set(err, ENOMEM, "%s: out of memory", q->name);
    for (unsigned i = 0; i < records.count && ret == 0; i++) {
        (*list)[(*count)++] = records.record[i].shown;
        records.record[i].shown.id = records.record[i].shown.name = NULL;
    }
    qcow2_records_free(&records);
    return ret;
}

void qcow2_snapshots_free(struct qcow2_snapshot *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
}
