/*
 * All that an L1 table leads to. A cluster has a reference for each way from an L1 table to it, so
 * two tables that share an L2 table are two references to all that it maps.
 */
#include "blk/qcow2/tree.h"

#include "blk/qcow2/alloc.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"
#include "blk/qcow2/refcount.h"
#include "blk/qcow2/table.h"

#include <errno.h>
#include <stdlib.h>

static int try_add(struct qcow2 *q, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++) {
        uint64_t count;
        int ret = qcow2_refcount(q, i, &count);

        if (ret < 0)
            return ret;
        if (count == 0)
            return qcow2_corrupt(q, "cluster %llu is in use, but its refcount is 0",
                                 (unsigned long long)i);
        if (count == qcow2_refcount_max(q))
            return -ERANGE;
    }
    return 0;
}

/* Sets the flag of *ENTRY, big-endian, which leads to CLUSTER. */
static int set_flag(struct qcow2 *q, uint64_t *entry, uint64_t cluster, bool *changed)
{
    uint64_t old = be64toh(*entry), new = old & ~QCOW2_COPIED, count;
    int ret = qcow2_refcount(q, cluster, &count);

    if (ret == 0 && count == 1 && !(old & QCOW2_IS_COMPRESSED))
        new |= QCOW2_COPIED;
    *changed |= new != old;
    *entry = htobe64(new);
    return ret;
}

static int visit_entry(struct qcow2 *q, uint64_t *entry, enum qcow2_tree how, bool *changed)
{
    uint64_t first, n = qcow2_entry_clusters(q, be64toh(*entry), &first);

    if (!n)
        return 0;
    switch (how) {
    case QCOW2_TREE_TRY: return try_add(q, first, n);
    case QCOW2_TREE_ADD: return qcow2_refcount_add(q, first, n);
    case QCOW2_TREE_DROP: return qcow2_free(q, first, n);
    case QCOW2_TREE_FLAGS: return set_flag(q, entry, first, changed);
    }
    return -EINVAL;
}

static int visit_l2(struct qcow2 *q, uint64_t offset, uint64_t *l2, enum qcow2_tree how)
{
    bool changed = false;
    int ret = qcow2_file_read(q, offset, l2, q->cluster_size);

    for (uint64_t i = 0; i < 1ULL << q->l2_bits && ret == 0; i++) {
        uint64_t *entry = &l2[i << q->extended];
        struct qcow2_part part;

        if (!*entry)
            continue;
        if (how == QCOW2_TREE_TRY && qcow2_decode(q, be64toh(*entry), 0, 0, &part) < 0)
            ret = qcow2_corrupt(q, "the L2 table at 0x%llx leads out of the file",
                                (unsigned long long)offset);
        else
            ret = visit_entry(q, entry, how, &changed);
    }
    if (ret == 0 && changed)
        ret = qcow2_file_write(q, offset, l2, q->cluster_size);
    return ret;
}

int qcow2_tree(struct qcow2 *q, uint64_t *l1, uint64_t count, enum qcow2_tree how)
{
    uint64_t *l2 = qcow2_buffer(q->cluster_size);
    int ret = l2 ? 0 : -ENOMEM;
    bool changed = false;

    for (uint64_t i = 0; i < count && ret == 0; i++) {
        uint64_t offset = be64toh(l1[i]) & QCOW2_OFFSET;

        if (!l1[i])
            continue;
        if (!offset || qcow2_in_cluster(q, offset) || offset >= q->file_end ||
            be64toh(l1[i]) & QCOW2_IS_COMPRESSED)
            ret = qcow2_corrupt(q, "an L1 table leads to 0x%llx, where no L2 table can be",
                                (unsigned long long)offset);
        if (ret == 0)
            ret = visit_l2(q, offset, l2, how);
        /* The L2 tables of the disk are noted as metadata; those of snapshots are not. */
        if (ret == 0 && how == QCOW2_TREE_DROP && l1 == q->l1.entries)
            qcow2_metadata_remove(q, qcow2_cluster(q, offset), 1);
        /* The entry of L1 has its flag in the same place. */
        if (ret == 0)
            ret = visit_entry(q, &l1[i], how, &changed);
    }
    free(l2);
    return ret;
}
