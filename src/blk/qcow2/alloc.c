/*
 * Finding free clusters: the first that there are, so that images stay small and their ends become
 * free. Refcount blocks are made as they are needed, each within the range that it covers itself;
 * the refcount table, which is in one piece, moves behind the end of the file when it must grow.
 */
#include "blk/qcow2/alloc.h"

#include "blk/qcow2/cache.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"
#include "blk/qcow2/refcount.h"
#include "blk/qcow2/set.h"

#include <errno.h>
#include <stdlib.h>

int qcow2_metadata_add(struct qcow2 *q, uint64_t first, uint64_t n)
{
    int ret;

    pthread_mutex_lock(&q->map_lock);
    ret = qcow2_set_add(&q->metadata, first, n);
    pthread_mutex_unlock(&q->map_lock);
    if (ret == -EEXIST)
        return qcow2_corrupt(q, "two tables lie in the %llu clusters from %llu on",
                             (unsigned long long)n, (unsigned long long)first);
    return ret;
}

void qcow2_metadata_remove(struct qcow2 *q, uint64_t first, uint64_t n)
{
    pthread_mutex_lock(&q->map_lock);
    qcow2_set_remove(&q->metadata, first, n);
    pthread_mutex_unlock(&q->map_lock);
}

/* ---- Refcount table and blocks ---- */

/* Sets the refcount of N clusters that have none to 1. Their blocks are there. */
static int count_new(struct qcow2 *q, uint64_t first, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        int ret = qcow2_refcount_set(q, first + i, 1);

        if (ret < 0)
            return ret;
    }
    return 0;
}

/* Puts an empty block for range INDEX at CLUSTER, which is free. The entry of the refcount table in
 * the file follows at the next commit. Returns the block. */
static int put_block(struct qcow2 *q, uint64_t index, uint64_t cluster)
{
    struct qcow2_table *block = qcow2_cache_new(q, index, cluster << q->cluster_bits);
    int ret;

    if (!block)
        return -ENOMEM;
    qcow2_table_touch_all(block);
    /* Written now, so that a full host says so before anything depends on it. */
    ret = qcow2_file_extend(q, (cluster + 1) << q->cluster_bits);
    if (ret == 0)
        ret = qcow2_table_write(q, block);
    if (ret == 0)
        ret = qcow2_metadata_add(q, cluster, 1);
    if (ret < 0) {
        qcow2_cache_free_table(block);
        return ret;
    }
    ret = qcow2_cache_add(q, &q->blocks, block, true);
    if (ret < 0) {
        qcow2_metadata_remove(q, cluster, 1);
        return ret;
    }
    q->reftable.entries[index] = htobe64(cluster << q->cluster_bits);
    qcow2_table_touch(&q->reftable, index * sizeof(uint64_t), sizeof(uint64_t));
    q->fresh = MAX(q->fresh, (cluster + 1) << q->cluster_bits);
    return 0;
}

/* How many blocks and clusters of table a larger refcount table for CLUSTERS of the file needs, if
 * they are to lie behind the range that is covered now. */
static void plan_table(const struct qcow2 *q, uint64_t clusters, uint64_t *table_clusters,
                       uint64_t *new_blocks)
{
    uint64_t covered = q->blocks.slots << q->block_bits, per_block = 1ULL << q->block_bits;
    uint64_t per_cluster = q->cluster_size / sizeof(uint64_t);
    uint64_t entries = clusters / per_block + 1;

    entries = MAX(entries, q->blocks.slots) + q->blocks.slots / 2;
    do {
        *table_clusters = entries / per_cluster + 1;
        /* The blocks cover themselves and the table. */
        *new_blocks = 1;
        while (*new_blocks << q->block_bits < *new_blocks + *table_clusters)
            ++*new_blocks;
        entries = MAX(entries, (covered >> q->block_bits) + *new_blocks);
    } while (*table_clusters * per_cluster < entries);
}

/* Has the header lead to the table that TABLE holds, on stable storage. */
static int switch_table(struct qcow2 *q, struct qcow2_table *table)
{
    struct qcow2_raw_header *h = qcow2_header(q);
    struct qcow2_raw_header old = *h;
    int ret = qcow2_table_write(q, table);

    if (ret == 0)
        ret = qcow2_refcounts_write(q);
    if (ret == 0)
        ret = qcow2_file_flush(q);
    if (ret < 0)
        return ret;
    h->reftable_offset = htobe64(table->offset);
    h->reftable_clusters = htobe32((uint32_t)(table->size >> q->cluster_bits));
    ret = qcow2_header_write(q);
    if (ret < 0)
        *h = old;
    return ret;
}

/* Puts the new table TABLE, which has a place, in the place of the old one; NEW_BLOCKS blocks that
 * follow it cover both. Owns its entries, also after a failure. */
static int move_table(struct qcow2 *q, struct qcow2_table *table, uint64_t new_blocks)
{
    uint64_t first = qcow2_cluster(q, table->offset), n = table->size >> q->cluster_bits;
    uint64_t index = q->blocks.slots;
    struct qcow2_table old = q->reftable;
    int ret;

    pthread_mutex_lock(&q->map_lock);
    ret = qcow2_cache_widen(&q->blocks, table->size / sizeof(uint64_t));
    pthread_mutex_unlock(&q->map_lock);
    if (ret == 0)
        ret = qcow2_metadata_add(q, first, n);
    if (ret < 0) {
        qcow2_table_free(table);
        return ret;
    }
    q->reftable = *table;
    for (uint64_t i = 0; i < new_blocks && ret == 0; i++)
        ret = put_block(q, index + i, first + n + i);
    if (ret == 0)
        ret = count_new(q, first, n + new_blocks);
    if (ret == 0)
        ret = switch_table(q, &q->reftable);
    if (ret < 0) {
        /* Half of it is in memory: there is no way back that cannot fail, too. */
        atomic_store(&q->failed, ret);
        qcow2_table_free(&old);
        return ret;
    }
    q->fresh = MAX(q->fresh, (first + n + new_blocks) << q->cluster_bits);
    qcow2_metadata_remove(q, qcow2_cluster(q, old.offset), old.size >> q->cluster_bits);
    qcow2_table_free(&old);
    return qcow2_free(q, qcow2_cluster(q, old.offset), old.size >> q->cluster_bits);
}

/* Makes the refcount table large enough for CLUSTERS of the file. */
static int grow_table(struct qcow2 *q, uint64_t clusters)
{
    uint64_t first = q->blocks.slots << q->block_bits, n, new_blocks;
    struct qcow2_table table = {.offset = first << q->cluster_bits};
    int ret;

    plan_table(q, clusters, &n, &new_blocks);
    if (n << q->cluster_bits > QCOW2_REFTABLE_MAX)
        return -EFBIG;
    ret = qcow2_file_extend(q, (first + n + new_blocks) << q->cluster_bits);
    if (ret < 0)
        return ret;
    if (!qcow2_table_alloc(&table, n << q->cluster_bits))
        return -ENOMEM;
    for (uint64_t i = 0; i < q->blocks.slots; i++)
        table.entries[i] = q->reftable.entries[i];
    qcow2_table_touch_all(&table);
    /* The file has the space before anything has changed. */
    ret = qcow2_file_write(q, table.offset, table.bytes, table.size);
    if (ret == 0)
        return move_table(q, &table, new_blocks);
    qcow2_table_free(&table);
    return ret;
}

/* ---- Searching ---- */

struct run {
    uint64_t first, length;
};

/* Finds N free clusters in a row, or, if not EXACT, the first that are free, N at most. */
static int find_run(struct qcow2 *q, uint64_t n, bool exact, struct run *run)
{
    uint64_t end = QCOW2_FILE_MAX >> q->cluster_bits;
    bool seen = false;

    *run = (struct run){.first = q->first_free};
    for (uint64_t c = q->first_free; c < end; c++) {
        uint64_t count;
        int ret = qcow2_refcount(q, c, &count);

        if (ret < 0)
            return ret;
        if (count) {
            if (run->length && !exact)
                return 0;
            *run = (struct run){.first = c + 1};
            continue;
        }
        if (!seen)
            q->first_free = c;
        seen = true;
        if (qcow2_set_has(&q->metadata, c))
            return qcow2_corrupt(q, "cluster %llu holds metadata, but its refcount is 0",
                                 (unsigned long long)c);
        if (++run->length == n)
            return 0;
    }
    return run->length && !exact ? 0 : -EFBIG;
}

/* Makes the first block that RUN needs and that there is not. Returns 1 if it has: the run is no
 * longer free as it was. */
static int make_block(struct qcow2 *q, const struct run *run)
{
    uint64_t last = run->first + run->length - 1;
    int ret;

    if (last >> q->block_bits >= q->blocks.slots) {
        ret = grow_table(q, last + 1);
        return ret < 0 ? ret : 1;
    }
    for (uint64_t i = run->first >> q->block_bits; i <= last >> q->block_bits; i++) {
        /* The part of the run that the block covers is free: the block lies at its beginning. */
        uint64_t cluster = MAX(run->first, i << q->block_bits);

        if (q->reftable.entries[i])
            continue;
        ret = put_block(q, i, cluster);
        if (ret == 0)
            ret = count_new(q, cluster, 1);
        return ret < 0 ? ret : 1;
    }
    return 0;
}

static int64_t allocate(struct qcow2 *q, uint64_t n, bool exact, uint64_t *first)
{
    struct run run;
    int ret;

    if (atomic_load(&q->failed))
        return atomic_load(&q->failed);
    do {
        ret = find_run(q, n, exact, &run);
        if (ret == 0)
            ret = make_block(q, &run);
    } while (ret == 1);
    if (ret == 0)
        ret = qcow2_file_extend(q, (run.first + run.length) << q->cluster_bits);
    if (ret == 0)
        ret = count_new(q, run.first, run.length);
    if (ret < 0)
        return ret;
    if (run.first == q->first_free)
        q->first_free += run.length;
    q->fresh = MAX(q->fresh, (run.first + run.length) << q->cluster_bits);
    q->depends = true;
    *first = run.first;
    return (int64_t)run.length;
}

int64_t qcow2_alloc(struct qcow2 *q, uint64_t n, uint64_t *first)
{
    return allocate(q, n, false, first);
}

int qcow2_alloc_exactly(struct qcow2 *q, uint64_t n, uint64_t *first)
{
    int64_t got = allocate(q, n, true, first);

    return got < 0 ? (int)got : 0;
}

/* ---- Giving back ---- */

/* Clusters that have become free, one after the other. */
struct freed {
    uint64_t first, n;
};

static void flush_freed(struct qcow2 *q, struct freed *freed)
{
    if (freed->n)
        qcow2_file_punch(q, freed->first << q->cluster_bits, freed->n << q->cluster_bits);
    freed->n = 0;
}

/* Metadata is no longer noted as such when it is given back: what leads to it here is data. */
static int refuse_metadata(struct qcow2 *q, uint64_t cluster)
{
    uint64_t count;
    int ret = qcow2_refcount(q, cluster, &count);

    if (ret < 0 || count != 1 || !qcow2_set_has(&q->metadata, cluster))
        return ret;
    return qcow2_corrupt(q, "cluster %llu holds metadata, but is given back as data",
                         (unsigned long long)cluster);
}

static int drop(struct qcow2 *q, uint64_t cluster, struct freed *freed)
{
    uint64_t left;
    int ret = refuse_metadata(q, cluster);

    if (ret == 0)
        ret = qcow2_refcount_drop(q, cluster, &left);
    if (ret < 0 || left)
        return ret;
    q->first_free = MIN(q->first_free, cluster);
    if (q->packed && qcow2_cluster(q, q->packed) == cluster)
        q->packed = 0;
    atomic_fetch_add(&q->freed, 1);
    if (freed->n && freed->first + freed->n == cluster) {
        freed->n++;
        return 0;
    }
    flush_freed(q, freed);
    *freed = (struct freed){cluster, 1};
    return 0;
}

int qcow2_free(struct qcow2 *q, uint64_t first, uint64_t n)
{
    struct freed freed = {0};
    int ret = 0;

    for (uint64_t i = 0; i < n && ret == 0; i++)
        ret = drop(q, first + i, &freed);
    flush_freed(q, &freed);
    return ret;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

int qcow2_free_list(struct qcow2 *q, struct qcow2_drops *drops)
{
    struct freed freed = {0};
    int ret = 0;

    if (drops->count)
        qsort(drops->cluster, drops->count, sizeof(drops->cluster[0]), by_number);
    for (uint64_t i = 0; i < drops->count && ret == 0; i++)
        ret = drop(q, drops->cluster[i], &freed);
    drops->count = 0;
    flush_freed(q, &freed);
    return ret;
}
