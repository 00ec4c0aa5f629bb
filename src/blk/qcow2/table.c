/*
 * The map of the disk's clusters.
 *
 *      L1 (in memory as a whole)      L2 tables (as many as the cache may hold)      the file
 *      [offset | owned] -----------> [offset | owned | zero] --------------------> data
 *                                    [offset | sectors | compressed] ------------> compressed data
 *                                    [0] reads the backing image
 */
#include "blk/qcow2/table.h"

#include "blk/qcow2/alloc.h"
#include "blk/qcow2/cache.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- What an entry means ---- */

static int decode_compressed(const struct qcow2 *q, uint64_t entry, struct qcow2_part *part)
{
    unsigned shift = 62 - (q->cluster_bits - 8);
    uint64_t sectors = (entry >> shift & ((1ULL << (q->cluster_bits - 8)) - 1)) + 1;

    part->kind = QCOW2_COMPRESSED;
    part->host = entry & ((1ULL << shift) - 1);
    part->packed_size = sectors * 512 - part->host % 512;
    part->owned = false;
    /* The last sector may be cut off where the file ends. */
    return part->host >= q->cluster_size && part->host < q->file_end &&
                   part->packed_size - 1 <= QCOW2_FILE_MAX - part->host
               ? 0
               : -EIO;
}

/* The part of a cluster with subclusters, of which BITMAP tells, that begins at OFFSET in it. */
static int decode_subclusters(const struct qcow2 *q, uint64_t bitmap, uint64_t offset,
                              struct qcow2_part *part)
{
    uint32_t allocated = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);
    uint64_t size = q->cluster_size / 32;
    unsigned i = (unsigned)(offset / size), end = i + 1;

    if (allocated & zero)
        return -EIO;
    while (end < 32 && (allocated >> end & 1) == (allocated >> i & 1) &&
           (zero >> end & 1) == (zero >> i & 1))
        end++;
    part->size = end * size - offset;
    if (zero >> i & 1)
        part->kind = QCOW2_ZERO;
    else if (!(allocated >> i & 1))
        part->kind = QCOW2_UNALLOCATED;
    else if (!part->host)
        return -EIO;
    return 0;
}

int qcow2_decode(const struct qcow2 *q, uint64_t entry, uint64_t bitmap, uint64_t offset,
                 struct qcow2_part *part)
{
    *part = (struct qcow2_part){.size = q->cluster_size - offset};
    if (entry & QCOW2_IS_COMPRESSED)
        return decode_compressed(q, entry, part);
    part->host = entry & QCOW2_OFFSET;
    part->owned = part->host && (entry & QCOW2_COPIED);
    if (part->host && (qcow2_in_cluster(q, part->host) || part->host >= q->file_end))
        return -EIO;
    part->kind = part->host ? QCOW2_DATA : QCOW2_UNALLOCATED;
    if (q->extended) {
        int ret = decode_subclusters(q, bitmap, offset, part);

        if (ret < 0)
            return ret;
    } else if (q->version >= 3 && (entry & QCOW2_READS_ZERO)) {
        part->kind = QCOW2_ZERO;
    }
    if (part->host)
        part->host += offset;
    return 0;
}

/* Whether NEXT, which follows PART on the disk, may be one part with it. */
static bool continues(const struct qcow2_part *part, const struct qcow2_part *next)
{
    return next->kind == part->kind && next->owned == part->owned &&
           part->kind != QCOW2_COMPRESSED &&
           (part->host ? next->host == part->host + part->size : !next->host);
}

static int decode_at(const struct qcow2 *q, const struct qcow2_table *l2, uint64_t offset,
                     struct qcow2_part *part)
{
    uint64_t word = qcow2_l2_word(q, offset);

    return qcow2_decode(q, be64toh(l2->entries[word]),
                        q->extended ? be64toh(l2->entries[word + 1]) : 0,
                        qcow2_in_cluster(q, offset), part);
}

int qcow2_lookup(struct qcow2 *q, uint64_t offset, uint64_t size, struct qcow2_part *part)
{
    uint64_t index = qcow2_l1_index(q, offset);
    uint64_t most = MIN(size, qcow2_l2_end(q, offset) - offset);
    struct qcow2_table *l2;
    int ret;

    if (index >= q->l2.slots || !q->l1.entries[index]) {
        *part = (struct qcow2_part){.kind = QCOW2_UNALLOCATED, .size = most};
        return 0;
    }
    l2 = qcow2_cache_find(&q->l2, index);
    if (!l2)
        return -EAGAIN;
    ret = decode_at(q, l2, offset, part);
    while (ret == 0 && part->size < most) {
        struct qcow2_part next;

        if (decode_at(q, l2, offset + part->size, &next) < 0 || !continues(part, &next))
            break;
        part->size += next.size;
    }
    part->size = MIN(part->size, most);
    return ret;
}

int qcow2_find(struct qcow2 *q, uint64_t offset, uint64_t size, struct qcow2_part *part)
{
    int ret = qcow2_lookup(q, offset, size, part);
    struct qcow2_table *l2;

    if (ret == -EAGAIN) {
        ret = qcow2_l2_read(q, qcow2_l1_index(q, offset), &l2);
        if (ret < 0)
            return ret;
        ret = qcow2_lookup(q, offset, size, part);
    }
    if (ret == -EIO)
        return qcow2_corrupt(q, "the L2 entry of the disk's cluster %llu leads nowhere",
                             (unsigned long long)qcow2_cluster(q, offset));
    return ret;
}

/* ---- Reading and changing ---- */

int qcow2_l2_read(struct qcow2 *q, uint64_t index, struct qcow2_table **table)
{
    uint64_t offset;

    *table = qcow2_cache_find(&q->l2, index);
    if (*table || index >= q->l2.slots || !q->l1.entries[index])
        return 0;
    offset = be64toh(q->l1.entries[index]) & QCOW2_OFFSET;
    if (!offset || qcow2_in_cluster(q, offset) || offset >= q->file_end)
        return qcow2_corrupt(q, "entry %llu of the L1 table leads nowhere",
                             (unsigned long long)index);
    return qcow2_cache_read(q, &q->l2, index, offset, false, table);
}

/* Sets entry INDEX of L1. */
static void l1_set(struct qcow2 *q, uint64_t index, uint64_t entry)
{
    pthread_mutex_lock(&q->map_lock);
    q->l1.entries[index] = htobe64(entry);
    pthread_mutex_unlock(&q->map_lock);
    qcow2_table_touch(&q->l1, index * sizeof(uint64_t), sizeof(uint64_t));
    atomic_store(&q->unclean, true);
}

void qcow2_l2_set(struct qcow2 *q, struct qcow2_table *table, uint64_t word, uint64_t entry)
{
    pthread_mutex_lock(&q->map_lock);
    table->entries[word] = htobe64(entry);
    pthread_mutex_unlock(&q->map_lock);
    q->l2.dirty += !table->dirty;
    qcow2_table_touch(table, word * sizeof(uint64_t), sizeof(uint64_t));
    atomic_store(&q->unclean, true);
}

/* A cluster for an L2 table. Its first contents BYTES, which map nothing new, are written at once:
 * a full host says so now, and later L1 and L2 entries may reach the file in any order. */
static int place_l2(struct qcow2 *q, const void *bytes, uint64_t *cluster)
{
    int ret = qcow2_alloc_exactly(q, 1, cluster);

    if (ret < 0)
        return ret;
    ret = qcow2_file_write(q, *cluster << q->cluster_bits, bytes, q->cluster_size);
    if (ret == 0)
        ret = qcow2_metadata_add(q, *cluster, 1);
    if (ret < 0)
        qcow2_free(q, *cluster, 1);
    return ret;
}

static int new_l2(struct qcow2 *q, uint64_t index, struct qcow2_table **table)
{
    uint64_t cluster;
    int ret;

    *table = qcow2_cache_new(q, index, 0);
    if (!*table)
        return -ENOMEM;
    ret = place_l2(q, (*table)->bytes, &cluster);
    if (ret < 0) {
        qcow2_cache_free_table(*table);
        return ret;
    }
    (*table)->offset = cluster << q->cluster_bits;
    ret = qcow2_cache_add(q, &q->l2, *table, false);
    if (ret < 0) {
        qcow2_metadata_remove(q, cluster, 1);
        qcow2_free(q, cluster, 1);
        return ret;
    }
    l1_set(q, index, cluster << q->cluster_bits | QCOW2_COPIED);
    return 0;
}

/* The refcounts of N clusters are to fall by one each when nothing in the file leads there any
 * more. There is room for them in q->pending. */
static void drop_later(struct qcow2 *q, uint64_t first, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        q->pending.cluster[q->pending.count++] = first + i;
    atomic_store(&q->unclean, true);
}

int qcow2_l2_for_writing(struct qcow2 *q, uint64_t index, struct qcow2_table **table)
{
    uint64_t cluster, old;
    int ret = qcow2_l2_read(q, index, table);

    if (ret < 0)
        return ret;
    if (!*table)
        return new_l2(q, index, table);
    if (be64toh(q->l1.entries[index]) & QCOW2_COPIED)
        return 0;
    ret = qcow2_drop_room(q, 1);
    if (ret == 0)
        ret = place_l2(q, (*table)->bytes, &cluster);
    if (ret < 0)
        return ret;
    old = qcow2_cluster(q, (*table)->offset);
    qcow2_metadata_remove(q, old, 1);
    drop_later(q, old, 1);
    (*table)->offset = cluster << q->cluster_bits;
    q->l2.dirty -= (*table)->dirty != 0;
    (*table)->dirty = 0;
    l1_set(q, index, cluster << q->cluster_bits | QCOW2_COPIED);
    return 0;
}

/* ---- References that end ---- */

int qcow2_drop_room(struct qcow2 *q, uint64_t n)
{
    struct qcow2_drops *drops = &q->pending;
    uint64_t room = MAX(drops->room, 64);
    uint64_t *larger;

    while (room < drops->count + n)
        room *= 2;
    if (room == drops->room)
        return 0;
    larger = realloc(drops->cluster, room * sizeof(drops->cluster[0]));
    if (!larger)
        return -ENOMEM;
    drops->cluster = larger;
    drops->room = room;
    return 0;
}

uint64_t qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry, uint64_t *first)
{
    struct qcow2_part part;

    if (entry & QCOW2_IS_COMPRESSED) {
        decode_compressed(q, entry, &part);
        *first = qcow2_cluster(q, part.host);
        return qcow2_cluster(q, part.host + part.packed_size - 1) - *first + 1;
    }
    *first = qcow2_cluster(q, entry & QCOW2_OFFSET);
    return *first != 0;
}

void qcow2_drop_entry(struct qcow2 *q, uint64_t entry)
{
    uint64_t first, n = qcow2_entry_clusters(q, entry, &first);

    drop_later(q, first, n);
}
