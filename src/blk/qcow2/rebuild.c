/*
 * Refcounts made anew.
 *
 *      the file as it was        | table | block | block | ...
 *                                ^ c->clusters
 *
 * The new blocks also cover themselves and the table.
 */
#include "blk/qcow2/rebuild.h"

#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"
#include "blk/qcow2/refcount.h"

#include <errno.h>
#include <stdlib.h>

struct plan {
    uint64_t first; /* cluster of the table */
    uint64_t table_clusters, blocks;
};

static uint64_t counted(const struct qcow2_counts *c, const struct plan *p, uint64_t cluster)
{
    if (cluster >= p->first)
        return cluster < p->first + p->table_clusters + p->blocks;
    return qcow2_counted(c, cluster);
}

/* Whether block INDEX has a refcount that is not 0. */
static bool is_needed(const struct qcow2_counts *c, const struct plan *p, uint64_t index)
{
    uint64_t first = index << c->q->block_bits, end = first + (1ULL << c->q->block_bits);
    uint64_t chunk = 1ULL << QCOW2_CHUNK_BITS;

    if (end > p->first && first < p->first + p->table_clusters + p->blocks)
        return true;
    for (uint64_t i = first; i < MIN(end, c->clusters); i++) {
        if (!c->chunk[i >> QCOW2_CHUNK_BITS])
            i = ALIGN_DOWN(i, chunk) + chunk - 1;
        else if (qcow2_counted(c, i))
            return true;
    }
    return false;
}

static uint64_t last_block(const struct qcow2_counts *c, const struct plan *p)
{
    return (p->first + p->table_clusters + p->blocks - 1) >> c->q->block_bits;
}

/* Grows the plan until it covers itself. */
static int make_plan(const struct qcow2_counts *c, struct plan *p)
{
    uint64_t per_cluster = c->q->cluster_size / sizeof(uint64_t), needed, entries;

    *p = (struct plan){.first = c->clusters, .table_clusters = 1, .blocks = 1};
    for (;;) {
        needed = 0;
        for (uint64_t i = 0; i <= last_block(c, p); i++)
            needed += is_needed(c, p, i);
        entries = last_block(c, p) + 1;
        if (entries * sizeof(uint64_t) > QCOW2_REFTABLE_MAX)
            return -EFBIG;
        if (needed <= p->blocks && entries <= p->table_clusters * per_cluster)
            return 0;
        p->blocks = MAX(p->blocks, needed);
        p->table_clusters = MAX(p->table_clusters, entries / per_cluster + 1);
    }
}

static int write_block(struct qcow2_counts *c, const struct plan *p, uint64_t index, uint64_t at,
                       uint8_t *bytes)
{
    struct qcow2 *q = c->q;
    uint64_t n = 1ULL << q->block_bits;

    for (uint64_t i = 0; i < n; i++)
        qcow2_count_set(bytes, i, q->refcount_order,
                        MIN(counted(c, p, (index << q->block_bits) + i), qcow2_refcount_max(q)));
    return qcow2_file_write(q, at << q->cluster_bits, bytes, q->cluster_size);
}

static int write_all(struct qcow2_counts *c, const struct plan *p, uint64_t *table)
{
    struct qcow2 *q = c->q;
    uint64_t at = p->first + p->table_clusters;
    uint8_t *bytes = qcow2_buffer(q->cluster_size);
    int ret = bytes ? 0 : -ENOMEM;

    for (uint64_t i = 0; i <= last_block(c, p) && ret == 0; i++) {
        if (!is_needed(c, p, i))
            continue;
        table[i] = htobe64(at << q->cluster_bits);
        ret = write_block(c, p, i, at++, bytes);
    }
    free(bytes);
    if (ret == 0)
        ret = qcow2_file_write(q, p->first << q->cluster_bits, table,
                               p->table_clusters << q->cluster_bits);
    return ret < 0 ? ret : qcow2_file_flush(q);
}

int qcow2_rebuild(struct qcow2_counts *c)
{
    struct qcow2 *q = c->q;
    struct qcow2_raw_header *h = qcow2_header(q);
    struct plan p;
    uint64_t *table;
    int ret = make_plan(c, &p);

    if (ret == 0)
        ret = qcow2_file_extend(q, (p.first + p.table_clusters + p.blocks) << q->cluster_bits);
    if (ret < 0)
        return ret;
    table = qcow2_buffer(p.table_clusters << q->cluster_bits);
    if (!table)
        return -ENOMEM;
    ret = write_all(c, &p, table);
    free(table);
    if (ret < 0)
        return ret;
    h->reftable_offset = htobe64(p.first << q->cluster_bits);
    h->reftable_clusters = htobe32((uint32_t)p.table_clusters);
    ret = qcow2_header_write(q);
    if (ret < 0)
        return ret;
    c->rebuilt = true;
    c->found->errors_fixed += c->refcount_errors;
    c->found->leaks_fixed = c->found->leaks;
    return 0;
}
