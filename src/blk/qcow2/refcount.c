/*
 * Refcounts: a table of blocks, each one cluster of entries of 1 to 64 bits. Blocks may be written
 * at any time: a refcount rises before anything in the file refers to the cluster, and falls when
 * nothing does any more.
 */
#include "blk/qcow2/refcount.h"

#include "blk/qcow2/cache.h"
#include "blk/qcow2/file.h"
#include "blk/qcow2/header.h"

#include <errno.h>
#include <string.h>

/* Entry I of a refcount block whose entries have 2^ORDER bits. */
static uint64_t count_get(const uint8_t *block, uint64_t i, unsigned order)
{
    uint16_t v16;
    uint32_t v32;
    uint64_t v64;

    switch (order) {
    case 3: return block[i];
    case 4: memcpy(&v16, block + 2 * i, 2); return be16toh(v16);
    case 5: memcpy(&v32, block + 4 * i, 4); return be32toh(v32);
    case 6: memcpy(&v64, block + 8 * i, 8); return be64toh(v64);
    default: /* bit 0 of a byte is the first entry's */
        return (unsigned)block[i >> (3 - order)] >> ((i << order) & 7) &
               ((1u << (1u << order)) - 1);
    }
}

void qcow2_count_set(uint8_t *block, uint64_t i, unsigned order, uint64_t count)
{
    uint16_t v16 = htobe16((uint16_t)count);
    uint32_t v32 = htobe32((uint32_t)count);
    uint64_t v64 = htobe64(count);
    unsigned shift = (unsigned)(i << order) & 7, mask;

    switch (order) {
    case 3: block[i] = (uint8_t)count; break;
    case 4: memcpy(block + 2 * i, &v16, 2); break;
    case 5: memcpy(block + 4 * i, &v32, 4); break;
    case 6: memcpy(block + 8 * i, &v64, 8); break;
    default:
        mask = ((1u << (1u << order)) - 1) << shift;
        block += i >> (3 - order);
        *block = (uint8_t)((*block & ~mask) | ((unsigned)count << shift & mask));
    }
}

uint64_t qcow2_refcount_max(const struct qcow2 *q)
{
    return q->refcount_order == 6 ? UINT64_MAX : (1ULL << (1u << q->refcount_order)) - 1;
}

/* Stores the block that covers CLUSTER, or NULL if there is none: its refcounts are 0. */
static int find_block(struct qcow2 *q, uint64_t cluster, struct qcow2_table **block)
{
    uint64_t index = cluster >> q->block_bits, offset;

    *block = qcow2_cache_find(&q->blocks, index);
    if (*block || index >= q->blocks.slots)
        return 0;
    offset = be64toh(q->reftable.entries[index]);
    if (!offset)
        return 0;
    return qcow2_cache_read(q, &q->blocks, index, offset, true, block);
}

static uint64_t in_block(const struct qcow2 *q, uint64_t cluster)
{
    return cluster & ((1ULL << q->block_bits) - 1);
}

int qcow2_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    struct qcow2_table *block;
    int ret = find_block(q, cluster, &block);

    *count =
        ret == 0 && block ? count_get(block->bytes, in_block(q, cluster), q->refcount_order) : 0;
    return ret;
}

/* The first of the entries I to END of BLOCK that is not 0; END if all are. */
static uint64_t skip_zeroes(const uint8_t *block, uint64_t i, uint64_t end, unsigned order)
{
    while (i < end) {
        uint64_t bit = i << order, word = 1;

        if (bit % 64 == 0 && (end - i) << order >= 64)
            memcpy(&word, block + bit / 8, sizeof(word));
        if (!word)
            i += 64 >> order;
        else if (count_get(block, i, order))
            return i;
        else
            i++;
    }
    return end;
}

int qcow2_refcount_find(struct qcow2 *q, uint64_t cluster, uint64_t end, uint64_t *found)
{
    struct qcow2_table *block;
    int ret = find_block(q, cluster, &block);
    uint64_t first = cluster - in_block(q, cluster);

    *found = end;
    if (ret == 0 && block)
        *found = first + skip_zeroes(block->bytes, cluster - first, end - first, q->refcount_order);
    return ret;
}

int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    struct qcow2_table *block;
    uint64_t i = in_block(q, cluster);
    int ret = find_block(q, cluster, &block);

    if (ret < 0)
        return ret;
    if (!block)
        return qcow2_corrupt(q, "cluster %llu has no refcount", (unsigned long long)cluster);
    qcow2_count_set(block->bytes, i, q->refcount_order, count);
    qcow2_table_touch(block, i << q->refcount_order >> 3, 1ULL << q->refcount_order >> 3 ?: 1);
    atomic_store(&q->unclean, true);
    return 0;
}

int qcow2_refcount_add(struct qcow2 *q, uint64_t first, uint64_t n)
{
    uint64_t count;
    int ret;

    for (uint64_t i = 0; i < n; i++) {
        ret = qcow2_refcount(q, first + i, &count);
        if (ret == 0 && count == qcow2_refcount_max(q))
            ret = -ERANGE;
        if (ret < 0)
            return ret;
    }
    for (uint64_t i = 0; i < n; i++) {
        ret = qcow2_refcount(q, first + i, &count);
        if (ret == 0)
            ret = qcow2_refcount_set(q, first + i, count + 1);
        if (ret < 0)
            return ret;
    }
    return 0;
}

int qcow2_refcount_drop(struct qcow2 *q, uint64_t cluster, uint64_t *left)
{
    int ret = qcow2_refcount(q, cluster, left);

    if (ret < 0)
        return ret;
    if (*left == 0)
        return qcow2_corrupt(q, "cluster %llu is in use, but its refcount is 0",
                             (unsigned long long)cluster);
    *left -= 1;
    return qcow2_refcount_set(q, cluster, *left);
}

int qcow2_refcounts_write(struct qcow2 *q)
{
    for (unsigned i = 0; i < q->blocks.count; i++) {
        int ret = qcow2_table_write(q, q->blocks.loaded[i]);

        if (ret < 0)
            return ret;
    }
    return 0;
}
