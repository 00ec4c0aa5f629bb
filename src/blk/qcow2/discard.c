/*
 * Giving clusters of the disk back. Whole clusters change their entries in the map; what is left at
 * both ends is written with zeroes. Version 2 has no entry for "reads as zeroes": without a backing
 * image the empty entry says so, with one zeroes are written.
 */
#include "blk/qcow2/discard.h"

#include "blk/qcow2/claim.h"
#include "blk/qcow2/commit.h"
#include "blk/qcow2/table.h"
#include "blk/qcow2/write.h"

#include <errno.h>

/* ---- Parts of clusters ---- */

static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t size)
{
    struct qcow2_part part;
    unsigned epoch;
    int ret;

    pthread_mutex_lock(&q->map_lock);
    epoch = qcow2_enter(q);
    pthread_mutex_unlock(&q->map_lock);
    pthread_mutex_lock(&q->lock);
    ret = qcow2_find(q, offset, size, &part);
    pthread_mutex_unlock(&q->lock);
    if (ret == 0 && !(part.size == size && qcow2_reads_zero(q, &part, offset)))
        ret = qcow2_write_zeroes(q, offset, size);
    qcow2_leave(q, epoch);
    return ret;
}

/* ---- Whole clusters; with the lock ---- */

/* What the entry of a cluster becomes; OLD if nothing changes. */
static uint64_t erased(const struct qcow2 *q, uint64_t old, enum qcow2_erase how)
{
    uint64_t host = old & QCOW2_OFFSET;

    if (how == QCOW2_FORGET || (!q->has_backing && how != QCOW2_KEEP))
        return 0;
    if (!old && !q->has_backing)
        return 0;
    if (q->version < 3)
        return q->has_backing ? old : 0;
    if (how == QCOW2_KEEP && !(old & QCOW2_IS_COMPRESSED) && host && (old & QCOW2_COPIED))
        return host | QCOW2_COPIED | QCOW2_READS_ZERO;
    return QCOW2_READS_ZERO;
}

/* Changes the entries of the clusters from OFFSET to END, which one L2 table maps. */
static int erase_in_table(struct qcow2 *q, uint64_t offset, uint64_t end, enum qcow2_erase how)
{
    uint64_t index = qcow2_l1_index(q, offset);
    struct qcow2_table *l2;
    int ret = qcow2_l2_read(q, index, &l2);

    if (ret < 0 || (!l2 && !erased(q, 0, how)))
        return ret;
    ret = qcow2_l2_for_writing(q, index, &l2);
    if (ret == 0)
        ret = qcow2_drop_room(q, qcow2_clusters(q, end - offset) * QCOW2_ENTRY_CLUSTERS);
    if (ret < 0)
        return ret;
    for (; offset < end; offset += q->cluster_size) {
        uint64_t word = qcow2_l2_word(q, offset);
        uint64_t old = be64toh(l2->entries[word]), entry = erased(q, old, how);

        if (entry == old)
            continue;
        if (!(entry & QCOW2_OFFSET))
            qcow2_drop_entry(q, old);
        qcow2_l2_set(q, l2, word, entry);
    }
    return 0;
}

static int erase_clusters(struct qcow2 *q, uint64_t offset, uint64_t end, enum qcow2_erase how)
{
    int ret = 0;

    while (offset < end && ret == 0) {
        uint64_t to = MIN(end, qcow2_l2_end(q, offset));

        pthread_mutex_lock(&q->lock);
        qcow2_claims_wait(q, qcow2_cluster(q, offset), qcow2_clusters(q, to));
        ret = atomic_load(&q->failed);
        if (ret == 0)
            ret = erase_in_table(q, offset, to, how);
        if (ret == 0 && qcow2_commit_is_due(q))
            ret = qcow2_commit(q, QCOW2_SETTLE);
        pthread_mutex_unlock(&q->lock);
        offset = to;
    }
    return ret;
}

/* ---- Both ---- */

int qcow2_erase(struct qcow2 *q, uint64_t offset, uint64_t size, enum qcow2_erase how)
{
    uint64_t end = offset + size;
    uint64_t first = ALIGN_UP(offset, q->cluster_size), last = ALIGN_DOWN(end, q->cluster_size);
    int ret = 0;

    if (end == q->disk_size)
        last = ALIGN_UP(end, q->cluster_size);
    /* Version 2 cannot say it: zeroes are written, unless they need not be read. */
    if (q->version < 3 && q->has_backing && how != QCOW2_FORGET)
        return how == QCOW2_DISCARD ? 0 : zero_part(q, offset, size);
    if (first > last || first >= end)
        return zero_part(q, offset, size);
    if (offset < first)
        ret = zero_part(q, offset, first - offset);
    if (ret == 0)
        ret = erase_clusters(q, first, last, how);
    if (ret == 0 && last < end)
        ret = zero_part(q, last, end - last);
    return ret;
}
