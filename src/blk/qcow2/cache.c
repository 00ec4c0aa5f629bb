/*
 * Tables in memory. A table remembers by pieces, a 64th of it each, what differs from the file, so
 * that a changed entry does not cost the write of a whole cluster. A full cache evicts by the clock
 * algorithm: a hand goes round, and evicts the first table that was not used since it last passed.
 */
#include "blk/qcow2/cache.h"

#include "blk/qcow2/file.h"

#include <errno.h>
#include <stdlib.h>

#define PIECES 64

/* ---- One table ---- */

bool qcow2_table_alloc(struct qcow2_table *table, uint64_t size)
{
    table->entries = qcow2_buffer(size);
    table->size = size;
    table->dirty = 0;
    return table->entries;
}

/* A piece is a 64th of the table, and at least a block of the file. */
static uint64_t piece_size(const struct qcow2_table *table, unsigned block)
{
    return MAX(block, table->size / PIECES + (table->size % PIECES != 0));
}

void qcow2_table_touch(struct qcow2_table *table, uint64_t at, uint64_t size)
{
    /* Without blocks: qcow2_table_write widens what it writes. */
    uint64_t piece = piece_size(table, 1);

    for (uint64_t i = at / piece; i <= (at + size - 1) / piece; i++)
        table->dirty |= 1ULL << i;
}

void qcow2_table_touch_all(struct qcow2_table *table)
{
    table->dirty = UINT64_MAX;
}

int qcow2_table_write(struct qcow2 *q, struct qcow2_table *table)
{
    unsigned block = blk_info(q->file).block;
    uint64_t piece = piece_size(table, 1), dirty = table->dirty;
    unsigned first = 0;

    while (dirty >> first) {
        unsigned end;
        uint64_t from, to;
        int ret;

        first += (unsigned)__builtin_ctzll(dirty >> first);
        for (end = first; end < PIECES && dirty >> end & 1; end++)
            ;
        from = ALIGN_DOWN(MIN(first * piece, table->size), block);
        to = MIN(ALIGN_UP(end * piece, block), table->size);
        ret = from < to ? qcow2_file_write(q, table->offset + from, table->bytes + from, to - from)
                        : 0;
        if (ret < 0)
            return ret;
        for (unsigned i = first; i < end; i++)
            table->dirty &= ~(1ULL << i);
        if (end == PIECES)
            break;
        first = end;
    }
    return 0;
}

void qcow2_table_free(struct qcow2_table *table)
{
    if (table)
        free(table->entries);
}

void qcow2_cache_free_table(struct qcow2_table *table)
{
    qcow2_table_free(table);
    free(table);
}

/* ---- Many ---- */

int qcow2_cache_init(struct qcow2_cache *cache, uint64_t slots, uint64_t bytes, uint64_t table_size)
{
    *cache = (struct qcow2_cache){.slots = slots};
    cache->limit = (unsigned)MAX(bytes / table_size, 8);
    cache->slot = calloc(MAX(slots, 1), sizeof(struct qcow2_table *));
    return cache->slot ? 0 : -ENOMEM;
}

int qcow2_cache_widen(struct qcow2_cache *cache, uint64_t slots)
{
    struct qcow2_table **slot;

    if (slots <= cache->slots)
        return 0;
    slot = realloc(cache->slot, slots * sizeof(struct qcow2_table *));
    if (!slot)
        return -ENOMEM;
    for (uint64_t i = cache->slots; i < slots; i++)
        slot[i] = NULL;
    cache->slot = slot;
    cache->slots = slots;
    return 0;
}

void qcow2_cache_free(struct qcow2_cache *cache)
{
    for (unsigned i = 0; i < cache->count; i++)
        qcow2_cache_free_table(cache->loaded[i]);
    free(cache->loaded);
    free(cache->slot);
    *cache = (struct qcow2_cache){0};
}

struct qcow2_table *qcow2_cache_new(struct qcow2 *q, uint64_t index, uint64_t offset)
{
    struct qcow2_table *table = calloc(1, sizeof(*table));

    if (!table)
        return NULL;
    table->index = index;
    table->offset = offset;
    table->used = true;
    if (qcow2_table_alloc(table, q->cluster_size))
        return table;
    free(table);
    return NULL;
}

static void forget(struct qcow2 *q, struct qcow2_cache *cache, unsigned i)
{
    struct qcow2_table *table = cache->loaded[i];

    pthread_mutex_lock(&q->map_lock);
    cache->slot[table->index] = NULL;
    cache->loaded[i] = cache->loaded[--cache->count];
    pthread_mutex_unlock(&q->map_lock);
    qcow2_cache_free_table(table);
}

/* Drops a table that was not used of late. Where all must stay, the cache grows. */
static int evict(struct qcow2 *q, struct qcow2_cache *cache, bool may_write)
{
    for (unsigned steps = 0; steps < 2 * cache->limit && cache->count >= cache->limit; steps++) {
        struct qcow2_table *table;
        int ret;

        cache->hand = cache->hand + 1 < cache->count ? cache->hand + 1 : 0;
        table = cache->loaded[cache->hand];
        if (table->used || (table->dirty && !may_write)) {
            table->used = false;
            continue;
        }
        ret = qcow2_table_write(q, table);
        if (ret < 0)
            return ret;
        forget(q, cache, cache->hand);
    }
    return 0;
}

int qcow2_cache_add(struct qcow2 *q, struct qcow2_cache *cache, struct qcow2_table *table,
                    bool may_write)
{
    int ret = evict(q, cache, may_write);

    if (ret == 0 && cache->count == cache->room) {
        unsigned room = cache->room ? 2 * cache->room : 16;
        void *larger = realloc(cache->loaded, room * sizeof(struct qcow2_table *));

        if (larger) {
            cache->loaded = larger;
            cache->room = room;
        } else {
            ret = -ENOMEM;
        }
    }
    if (ret < 0) {
        qcow2_cache_free_table(table);
        return ret;
    }
    pthread_mutex_lock(&q->map_lock);
    cache->loaded[cache->count++] = table;
    cache->slot[table->index] = table;
    pthread_mutex_unlock(&q->map_lock);
    return 0;
}

int qcow2_cache_read(struct qcow2 *q, struct qcow2_cache *cache, uint64_t index, uint64_t offset,
                     bool may_write, struct qcow2_table **table)
{
    struct qcow2_table *loaded = qcow2_cache_new(q, index, offset);
    int ret = loaded ? qcow2_file_read(q, offset, loaded->bytes, q->cluster_size) : -ENOMEM;

    if (ret == 0)
        ret = qcow2_cache_add(q, cache, loaded, may_write);
    else if (loaded)
        qcow2_cache_free_table(loaded);
    *table = ret == 0 ? loaded : NULL;
    return ret;
}
