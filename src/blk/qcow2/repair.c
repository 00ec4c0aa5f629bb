/*
 * What was counted against what the image says. Refcounts that are too large are leaks: they cost
 * space. Those that are too small are errors: the allocator may give the cluster away again. Where
 * the refcount table or blocks are damaged, or a block is missing, all are made anew behind the end
 * of the file.
 */
#include "blk/qcow2/repair.h"

#include "blk/qcow2/cache.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"
#include "blk/qcow2/rebuild.h"
#include "blk/qcow2/refcount.h"
#include "blk/qcow2/set.h"
#include "blk/qcow2/table.h"

#include <errno.h>
#include <stdlib.h>

typedef unsigned long long ull;

/* ---- Refcounts ---- */

/* Whether the refcount block of CLUSTER is there. */
static bool has_block(const struct qcow2 *q, uint64_t cluster)
{
    uint64_t index = cluster >> q->block_bits;

    return index < q->blocks.slots && q->reftable.entries[index];
}

static int too_large(struct qcow2_counts *c, uint64_t cluster, uint64_t stored, uint64_t counted)
{
    int ret = 0;

    c->found->leaks++;
    qcow2_tell(c, "leak: cluster %llu has refcount %llu, references: %llu", (ull)cluster,
               (ull)stored, (ull)counted);
    if (c->how->repair_leaks && !c->structure) {
        ret = qcow2_refcount_set(c->q, cluster, counted);
        c->found->leaks_fixed += ret == 0;
    }
    return ret;
}

static int too_small(struct qcow2_counts *c, uint64_t cluster, uint64_t stored, uint64_t counted)
{
    int ret = 0;

    qcow2_found(c, "cluster %llu has refcount %llu, references: %llu", (ull)cluster, (ull)stored,
                (ull)counted);
    if (counted > qcow2_refcount_max(c->q))
        return 0;
    c->refcount_errors++;
    if (!c->how->repair_errors)
        return 0;
    if (!has_block(c->q, cluster))
        c->structure = true;
    if (!c->structure) {
        ret = qcow2_refcount_set(c->q, cluster, counted);
        c->found->errors_fixed += ret == 0;
        c->refcount_errors--;
    }
    return ret;
}

/* Whether the refcount block INDEX is not there, or a hole of the file. What is in memory has been
 * written, but for corrections to what comes before. */
static bool is_empty_block(struct qcow2_counts *c, uint64_t index)
{
    uint64_t offset = be64toh(c->q->reftable.entries[index]);

    return !offset || (!qcow2_in_cluster(c->q, offset) && offset < c->q->file_end &&
                       !qcow2_cache_find(&c->q->blocks, index) && qcow2_is_hole(c, offset));
}

/* Moves *CLUSTER to the first from there on, and before END, that has a refcount which is not 0 or
 * may have been counted. A sparse file may have 2^40 clusters that have neither. */
static int find_next(struct qcow2_counts *c, uint64_t end, uint64_t *cluster)
{
    uint64_t chunk = 1ULL << QCOW2_CHUNK_BITS, block = 1ULL << c->q->block_bits;
    int ret = 0;

    while (*cluster < end && ret == 0) {
        uint64_t stop = MIN(ALIGN_DOWN(*cluster, chunk) + chunk, end);
        uint64_t index = *cluster >> c->q->block_bits;

        if (*cluster < c->clusters && c->chunk[*cluster >> QCOW2_CHUNK_BITS])
            return 0;
        if (index < c->q->blocks.slots) {
            stop = MIN(stop, ALIGN_DOWN(*cluster, block) + block);
            if (is_empty_block(c, index)) {
                *cluster = stop;
                continue;
            }
        }
        ret = qcow2_refcount_find(c->q, *cluster, stop, cluster);
        if (*cluster < stop)
            return ret;
    }
    return ret;
}

static int compare_refcounts(struct qcow2_counts *c)
{
    uint64_t end = c->clusters;
    int ret = 0;

    /* Blocks that do not overlap and lie in the file cannot be more than the file has clusters.
     * With blocks that do overlap this might take for ever, and all are made anew. */
    if (!c->structure)
        end = MAX(end, c->q->blocks.slots << c->q->block_bits);
    for (uint64_t i = 0; ret == 0; i++) {
        uint64_t counted, stored;

        ret = find_next(c, end, &i);
        if (ret < 0 || i >= end)
            return ret;
        counted = qcow2_counted(c, i);
        ret = qcow2_refcount(c->q, i, &stored);
        if (ret == 0 && stored > counted)
            ret = too_large(c, i, stored, counted);
        else if (ret == 0 && stored < counted)
            ret = too_small(c, i, stored, counted);
    }
    return ret;
}

/* ---- Flags ---- */

/* ENTRY with the flag that it should have, COUNTED being the references to where it leads. */
static uint64_t flagged(uint64_t entry, uint32_t counted)
{
    return counted == 1 ? entry | QCOW2_COPIED : entry & ~QCOW2_COPIED;
}

/* Whether the flag of *ENTRY, big-endian, is wrong; corrects it in memory. */
static bool check_flag(struct qcow2_counts *c, uint64_t *entry, const char *what, uint64_t offset)
{
    uint64_t old = be64toh(*entry), cluster = qcow2_cluster(c->q, old & QCOW2_OFFSET);
    uint64_t right = flagged(old, qcow2_counted(c, cluster));

    if (old & QCOW2_IS_COMPRESSED || !cluster)
        right = old & ~QCOW2_COPIED;
    if (right == old)
        return false;
    qcow2_found(c, "the %s entry of the cluster at 0x%llx of the disk says wrongly that %s", what,
                (ull)offset,
                old & QCOW2_COPIED ? "no other entry refers to it" : "another entry refers to it");
    c->found->errors_fixed += c->how->repair_errors;
    *entry = htobe64(right);
    return true;
}

static int check_l2_flags(struct qcow2_counts *c, uint64_t index, uint64_t *l2)
{
    struct qcow2 *q = c->q;
    uint64_t place = be64toh(q->l1.entries[index]) & QCOW2_OFFSET;
    uint64_t offset = index << q->l2_bits << q->cluster_bits;
    bool changed = false;
    int ret;

    if (!qcow2_set_has(&c->l2, qcow2_cluster(q, place)) || qcow2_is_hole(c, place))
        return 0;
    ret = qcow2_file_read(q, place, l2, q->cluster_size);
    for (uint64_t i = 0; i < 1ULL << q->l2_bits && ret == 0; i++, offset += q->cluster_size)
        changed |= check_flag(c, &l2[i << q->extended], "L2", offset);
    if (ret < 0 || !changed || !c->how->repair_errors)
        return ret;
    return qcow2_file_write(q, place, l2, q->cluster_size);
}

static int check_flags(struct qcow2_counts *c)
{
    struct qcow2 *q = c->q;
    uint64_t *l2 = qcow2_buffer(q->cluster_size);
    int ret = l2 ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < q->l2.slots && ret == 0; i++) {
        uint64_t entry = q->l1.entries[i];

        if (!entry)
            continue;
        if (check_flag(c, &entry, "L1", i << q->l2_bits << q->cluster_bits) &&
            c->how->repair_errors) {
            q->l1.entries[i] = entry;
            qcow2_table_touch(&q->l1, i * sizeof(uint64_t), sizeof(uint64_t));
        }
        ret = check_l2_flags(c, i, l2);
    }
    free(l2);
    if (ret == 0 && q->l1.dirty)
        ret = qcow2_table_write(q, &q->l1);
    return ret;
}

int qcow2_compare(struct qcow2_counts *c)
{
    int ret = compare_refcounts(c);

    if (ret == 0 && c->structure && c->how->repair_errors)
        ret = qcow2_rebuild(c);
    else if (ret == 0 && (c->how->repair_leaks || c->how->repair_errors))
        ret = qcow2_refcounts_write(c->q);
    return ret < 0 ? ret : check_flags(c);
}
