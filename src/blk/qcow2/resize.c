/*
 * Making the disk of an image larger or smaller. What is added reads as zeroes: whatever the map
 * has there is given back, the rest of the last cluster is written, and zeroes hide a backing image
 * that is larger than the disk was. The disk is larger in the header when all this is on stable
 * storage. It is smaller there before anything is given back.
 */
#include "blk/qcow2/resize.h"

#include "blk/qcow2/alloc.h"
#include "blk/qcow2/backing.h"
#include "blk/qcow2/cache.h"
#include "blk/qcow2/commit.h"
#include "blk/qcow2/discard.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"
#include "blk/qcow2/io.h"

#include <errno.h>
#include <string.h>

/* ---- The L1 table; with the lock ---- */

/* Has the header lead to the L1 table with ENTRIES at OFFSET. */
static int switch_l1(struct qcow2 *q, uint64_t offset, uint64_t entries)
{
    struct qcow2_raw_header *h = qcow2_header(q);
    int ret = qcow2_commit_refcounts(q);

    if (ret < 0)
        return ret;
    h->l1_offset = htobe64(offset);
    h->l1_entries = htobe32((uint32_t)entries);
    return qcow2_header_write(q);
}

/* Puts a copy of L1 with room for SIZE bytes elsewhere. */
static int move_l1(struct qcow2 *q, uint64_t size, uint64_t entries)
{
    struct qcow2_table larger = {0}, old = q->l1;
    uint64_t cluster;
    int ret;

    if (!qcow2_table_alloc(&larger, size))
        return -ENOMEM;
    memcpy(larger.bytes, old.bytes, old.size);
    ret = qcow2_alloc_exactly(q, size >> q->cluster_bits, &cluster);
    if (ret < 0) {
        qcow2_table_free(&larger);
        return ret;
    }
    larger.offset = cluster << q->cluster_bits;
    ret = qcow2_file_write(q, larger.offset, larger.bytes, size);
    if (ret == 0)
        ret = qcow2_metadata_add(q, cluster, size >> q->cluster_bits);
    if (ret < 0) {
        qcow2_free(q, cluster, size >> q->cluster_bits);
        qcow2_table_free(&larger);
        return ret;
    }
    ret = switch_l1(q, larger.offset, entries);
    if (ret < 0) {
        /* The header in the file may lead to either of them. */
        atomic_store(&q->failed, ret);
        qcow2_table_free(&larger);
        return ret;
    }
    q->l1 = larger;
    qcow2_metadata_remove(q, qcow2_cluster(q, old.offset), old.size >> q->cluster_bits);
    qcow2_table_free(&old);
    return qcow2_free(q, qcow2_cluster(q, old.offset), old.size >> q->cluster_bits);
}

static int grow_l1(struct qcow2 *q, uint64_t entries)
{
    uint64_t size = ALIGN_UP(entries * sizeof(uint64_t), q->cluster_size);
    int ret = qcow2_commit_all(q);

    if (ret < 0 || entries <= q->l2.slots)
        return ret;
    if (entries > QCOW2_L1_MAX / sizeof(uint64_t))
        return -EFBIG;
    ret = qcow2_cache_widen(&q->l2, entries);
    if (ret < 0)
        return ret;
    if (q->l2.slots && size <= q->l1.size && q->l1.offset)
        return switch_l1(q, q->l1.offset, entries);
    return move_l1(q, MAX(size, q->l1.size), entries);
}

/* ---- The disk; without the lock ---- */

static int set_size(struct qcow2 *q, uint64_t size)
{
    int ret;

    qcow2_header(q)->size = htobe64(size);
    ret = qcow2_header_write(q);
    if (ret == 0)
        q->disk_size = size;
    return ret;
}

/* Has what lies from the end of the disk to SIZE read as zeroes. */
static int clear_added(struct qcow2 *q, uint64_t size)
{
    uint64_t from = q->disk_size, covered = q->l2.slots << q->l2_bits << q->cluster_bits;
    uint64_t backed = q->backing ? blk_info(q->backing).size : 0;
    int ret = 0;

    if (from < backed) {
        uint64_t to = MIN(size, ALIGN_UP(backed, q->cluster_size));

        ret = qcow2_erase(q, from, to - from, QCOW2_UNMAP);
        from = to;
    }
    if (ret == 0 && from < MIN(size, covered))
        ret = qcow2_erase(q, from, MIN(ALIGN_UP(size, q->cluster_size), covered) - from,
                          QCOW2_FORGET);
    return ret;
}

static int grow(struct qcow2 *q, uint64_t size)
{
    int ret;

    pthread_mutex_lock(&q->lock);
    ret = grow_l1(q, qcow2_l1_entries(q, size));
    pthread_mutex_unlock(&q->lock);
    if (ret == 0)
        ret = clear_added(q, size);
    if (ret < 0)
        return ret;
    pthread_mutex_lock(&q->lock);
    ret = qcow2_commit_all(q);
    if (ret == 0)
        ret = set_size(q, size);
    pthread_mutex_unlock(&q->lock);
    return ret;
}

static int shrink(struct qcow2 *q, uint64_t size)
{
    uint64_t from = ALIGN_UP(size, q->cluster_size), end = ALIGN_UP(q->disk_size, q->cluster_size);
    int ret;

    pthread_mutex_lock(&q->lock);
    ret = qcow2_commit_all(q);
    if (ret == 0)
        ret = set_size(q, size);
    pthread_mutex_unlock(&q->lock);
    if (ret == 0 && from < end)
        ret = qcow2_erase(q, from, end - from, QCOW2_FORGET);
    if (ret < 0)
        return ret;
    pthread_mutex_lock(&q->lock);
    ret = qcow2_commit_all(q);
    pthread_mutex_unlock(&q->lock);
    return ret;
}

int qcow2_resize(struct blk *blk, uint64_t size, struct error *err)
{
    struct qcow2 *q = container_of(blk, struct qcow2, blk);
    char advice[QCOW2_ADVICE];
    int ret;

    if (q->version < 3 && q->snapshots)
        return error_set(err, ENOTSUP, "%s: an image of version 2 with snapshots cannot be resized",
                         q->name);
    if (size > q->disk_size && q->has_backing && !q->backing) {
        qcow2_backing_advice(q, advice);
        return error_set(err, EINVAL, "%s: growing it needs its backing file; if you trust it, %s",
                         q->name, advice);
    }
    if (size % 512 || qcow2_l1_entries(q, size) > QCOW2_L1_MAX / sizeof(uint64_t))
        return error_set(err, EFBIG, "%s: with its clusters of %u bytes it cannot be so large",
                         q->name, q->cluster_size);
    qcow2_stop(q);
    ret = size > q->disk_size ? grow(q, size) : shrink(q, size);
    qcow2_go(q);
    return ret < 0 ? error_set(err, -ret, "%s: cannot be resized: %s", q->name, strerror(-ret)) : 0;
}
