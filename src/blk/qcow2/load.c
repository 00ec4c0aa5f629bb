/*
 * An image in memory. The L1 and the refcount table are read as a whole; of all else that is
 * metadata it is noted where it lies (q->metadata), and two things in one place are an error.
 */
#include "blk/qcow2/load.h"

#include "base/pool.h"
#include "blk/qcow2/cache.h"
#include "blk/qcow2/compress.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/records.h"
#include "blk/qcow2/set.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is kept in memory of L2 tables maps 256 GiB of a disk with clusters of 64 KiB; of refcount
 * blocks, 128 GiB of a file. */
#define L2_BYTES     (32 * MiB)
#define BLOCKS_BYTES (4 * MiB)

/* ---- Where the metadata lies ---- */

static int add_range(struct qcow2 *q, uint64_t offset, uint64_t size, const char *what,
                     struct error *err)
{
    int ret;

    if (!size)
        return 0;
    if (qcow2_in_cluster(q, offset) || offset >= q->file_end || size > q->file_end - offset)
        return error_set(err, EINVAL, "%s: %s is not in the file, which may have been cut off",
                         q->name, what);
    ret = qcow2_set_add(&q->metadata, qcow2_cluster(q, offset), qcow2_clusters(q, size));
    if (ret == -EEXIST)
        return error_set(err, EINVAL,
                         "%s: %s overlaps with other metadata; doppel image check says more",
                         q->name, what);
    return ret < 0 ? error_set(err, -ret, "%s: out of memory", q->name) : 0;
}

static int add_snapshots(struct qcow2 *q, struct error *err)
{
    struct qcow2_records records;
    int ret = qcow2_records_read(q, &records, err);

    if (ret == 0)
        ret = add_range(q, q->snapshots_offset, records.bytes, "the snapshot table", err);
    for (unsigned i = 0; i < records.count && ret == 0; i++)
        ret = add_range(q, records.record[i].l1_offset,
                        records.record[i].l1_entries * sizeof(uint64_t), "a snapshot's L1 table",
                        err);
    qcow2_records_free(&records);
    return ret;
}

static int add_entries(struct qcow2 *q, const struct qcow2_table *table, uint64_t mask,
                       const char *what, struct error *err)
{
    for (uint64_t i = 0; i < table->size / sizeof(uint64_t); i++) {
        uint64_t entry = be64toh(table->entries[i]);
        int ret = entry ? add_range(q, entry & mask, q->cluster_size, what, err) : 0;

        if (ret < 0)
            return ret;
    }
    return 0;
}

/* Entries of the refcount table are used as they are, so they have no bits but those of a place. */
static int check_reserved(const struct qcow2 *q, struct error *err)
{
    for (uint64_t i = 0; i < q->blocks.slots; i++)
        if (be64toh(q->reftable.entries[i]) & QCOW2_NO_PLACE)
            return error_set(err, EINVAL,
                             "%s: entry %llu of the refcount table has reserved bits; doppel image "
                             "check says more",
                             q->name, (unsigned long long)i);
    return 0;
}

static int note_metadata(struct qcow2 *q, struct error *err)
{
    int ret = add_range(q, 0, q->cluster_size, "the header", err);

    if (ret == 0)
        ret = add_range(q, q->l1.offset, q->l2.slots * sizeof(uint64_t), "the L1 table", err);
    if (ret == 0)
        ret = add_range(q, q->reftable.offset, q->reftable.size, "the refcount table", err);
    if (ret == 0)
        ret = check_reserved(q, err);
    if (ret == 0)
        ret = add_entries(q, &q->reftable, UINT64_MAX, "a refcount block", err);
    if (ret == 0)
        ret = add_entries(q, &q->l1, QCOW2_OFFSET, "an L2 table", err);
    if (ret == 0)
        ret = add_snapshots(q, err);
    return ret;
}

/* ---- Tables ---- */

static int read_table(struct qcow2 *q, struct qcow2_table *table, uint64_t bytes, const char *what,
                      struct error *err)
{
    uint64_t size = ALIGN_UP(MAX(bytes, 1), q->cluster_size);
    int ret;

    if (bytes && !q->damaged &&
        (table->offset >= q->file_end || bytes > q->file_end - table->offset))
        return error_set(err, EINVAL, "%s: %s is not in the file, which may have been cut off",
                         q->name, what);
    if (!qcow2_table_alloc(table, size))
        return error_set(err, ENOMEM, "%s: out of memory", q->name);
    ret = bytes ? qcow2_file_read(q, table->offset, table->bytes, bytes) : 0;
    if (ret < 0)
        return error_set(err, -ret, "%s: cannot read %s: %s", q->name, what, strerror(-ret));
    return 0;
}

static int load_tables(struct qcow2 *q, const struct qcow2_places *places, struct error *err)
{
    uint64_t reftable = (uint64_t)places->reftable_clusters << q->cluster_bits;
    int ret;

    q->l1.offset = places->l1_offset;
    q->reftable.offset = places->reftable_offset;
    ret = read_table(q, &q->l1, places->l1_entries * sizeof(uint64_t), "the L1 table", err);
    if (ret == 0 && (q->writable || q->damaged))
        ret = read_table(q, &q->reftable, reftable, "the refcount table", err);
    if (ret < 0)
        return ret;
    if (qcow2_cache_init(&q->l2, places->l1_entries, L2_BYTES, q->cluster_size) < 0 ||
        qcow2_cache_init(&q->blocks, q->reftable.size / sizeof(uint64_t), BLOCKS_BYTES,
                         q->cluster_size) < 0)
        return error_set(err, ENOMEM, "%s: out of memory", q->name);
    return 0;
}

/* ---- All of it ---- */

static struct qcow2 *create(struct blk *file, const struct qcow2_how *how, struct error *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));

    if (!q) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&q->lock, NULL);
    pthread_mutex_init(&q->map_lock, NULL);
    pthread_cond_init(&q->claim_ended, NULL);
    pthread_cond_init(&q->idle, NULL);
    q->file = file;
    q->backing = how->backing;
    q->offline = how->offline || how->damaged;
    q->damaged = how->damaged;
    q->temporary = how->temporary;
    q->settled = how->settled;
    q->depth = how->depth;
    q->writable = !how->readonly && !blk_info(file).readonly;
    q->blk.host = file->host;
    snprintf(q->name, sizeof(q->name), "%s", how->name ? how->name : blk_info(file).file);
    return q;
}

/* The file is taken to end with a cluster: what is missing of the last reads as zeroes. */
static int find_end(struct qcow2 *q, struct error *err)
{
    uint64_t end = ALIGN_UP(blk_info(q->file).size, q->cluster_size);

    if (q->cluster_size < blk_info(q->file).block)
        return error_set(err, ENOTSUP,
                         "%s: clusters of %u bytes are smaller than the blocks of the disk that "
                         "it is on",
                         q->name, q->cluster_size);
    q->file_end = end;
    q->fresh = end;
    return 0;
}

/* Reads what the header leads to. */
static int load_rest(struct qcow2 *q, const struct qcow2_places *places, struct error *err)
{
    int ret = load_tables(q, places, err);

    if (ret < 0 || (!q->writable && !q->damaged))
        return ret;
    ret = note_metadata(q, q->damaged ? NULL : err);
    if (ret == 0 || !q->damaged)
        return ret;
    atomic_store(&q->failed, -EINVAL);
    return 0;
}

static int load(struct qcow2 *q, struct qcow2_info *info, struct error *err)
{
    struct qcow2_places places;
    int ret = qcow2_header_read(q, info, &places, err);

    if (ret == 0)
        ret = find_end(q, err);
    if (ret == 0)
        ret = load_rest(q, &places, err);
    if (ret < 0)
        return ret;
    q->unpacked = qcow2_unpacked_create();
    return q->unpacked ? 0 : error_set(err, ENOMEM, "%s: out of memory", q->name);
}

static void forget_tables(struct qcow2 *q)
{
    qcow2_cache_free(&q->l2);
    qcow2_cache_free(&q->blocks);
    qcow2_table_free(&q->l1);
    qcow2_table_free(&q->reftable);
    q->l1.entries = q->reftable.entries = NULL;
    qcow2_set_free(&q->metadata);
}

/* Reads the header anew. What buffers and unpacked clusters were sized by cannot have changed, but
 * for another writer of the file, or a server that answers otherwise: it stays as it was then. */
static int read_header_again(struct qcow2 *q, struct qcow2_places *places, struct error *err)
{
    unsigned version = q->version, bits = q->cluster_bits, order = q->refcount_order;
    unsigned l2_bits = q->l2_bits, block_bits = q->block_bits;
    bool extended = q->extended, same;
    struct qcow2_info info;
    int ret = qcow2_header_read(q, &info, places, err);

    same = version == q->version && bits == q->cluster_bits && order == q->refcount_order &&
           extended == q->extended;
    if (same)
        return ret;
    q->version = version;
    q->cluster_bits = bits;
    q->cluster_size = 1u << bits;
    q->refcount_order = order;
    q->l2_bits = l2_bits;
    q->block_bits = block_bits;
    q->extended = extended;
    return ret < 0
               ? ret
               : error_set(err, EIO, "%s: its header is another than when it was opened", q->name);
}

int qcow2_load_again(struct qcow2 *q, struct error *err)
{
    struct qcow2_places places;
    int ret;

    /* Requests that wait look at nothing here. */
    forget_tables(q);
    free(q->head);
    q->first_free = q->packed = 0;
    ret = read_header_again(q, &places, err);
    if (ret == 0)
        ret = load_rest(q, &places, err);
    if (ret < 0)
        atomic_store(&q->failed, ret);
    return ret;
}

int qcow2_start_over(struct qcow2 *q, struct error *err)
{
    q->pending.count = q->limbo.count = 0;
    q->limbo_stable = q->depends = false;
    return qcow2_load_again(q, err);
}

int qcow2_load_info(struct blk *file, struct qcow2_info *info, struct error *err)
{
    struct qcow2_how how = {.readonly = true};
    struct qcow2_places places;
    struct qcow2 *q = create(file, &how, err);
    int ret;

    if (!q)
        return -ENOMEM;
    ret = qcow2_header_read(q, info, &places, err);
    qcow2_unload(q);
    return ret;
}

struct qcow2 *qcow2_load(struct blk *file, const struct qcow2_how *how, struct qcow2_info *info,
                         struct error *err)
{
    struct qcow2 *q = create(file, how, err);

    if (q && load(q, info, err) < 0) {
        qcow2_unload(q);
        return NULL;
    }
    return q;
}

void qcow2_unload(struct qcow2 *q)
{
    pool_destroy(q->pool);
    forget_tables(q);
    qcow2_unpacked_free(q->unpacked);
    free(q->pending.cluster);
    free(q->limbo.cluster);
    free(q->head);
    pthread_cond_destroy(&q->idle);
    pthread_cond_destroy(&q->claim_ended);
    pthread_mutex_destroy(&q->map_lock);
    pthread_mutex_destroy(&q->lock);
    free(q);
}
