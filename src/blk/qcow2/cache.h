/*
 * Tables in memory: L2 tables and refcount blocks, of which a cache keeps as many as it may; and L1
 * and refcount tables, which are in memory as a whole.
 */
#ifndef DOPPEL_BLK_QCOW2_CACHE_H
#define DOPPEL_BLK_QCOW2_CACHE_H

#include "blk/qcow2/qcow2_private.h"

/* Memory for SIZE bytes of entries, zero. Returns false if there is none. */
bool qcow2_table_alloc(struct qcow2_table *table, uint64_t size);
/* Notes that entries in SIZE bytes from AT on differ from the file. */
void qcow2_table_touch(struct qcow2_table *table, uint64_t at, uint64_t size);
/* Notes that none of it is in the file. */
void qcow2_table_touch_all(struct qcow2_table *table);
/* Writes what differs. What could not be written still differs. */
int qcow2_table_write(struct qcow2 *q, struct qcow2_table *table);
void qcow2_table_free(struct qcow2_table *table);

/* SLOTS: how many indices there are. */
int qcow2_cache_init(struct qcow2_cache *cache, uint64_t slots, uint64_t bytes,
                     uint64_t table_size);
/* Makes room for larger indices. With both locks. */
int qcow2_cache_widen(struct qcow2_cache *cache, uint64_t slots);
void qcow2_cache_free(struct qcow2_cache *cache);

/* The table at INDEX if it is in memory, else NULL. */
static inline struct qcow2_table *qcow2_cache_find(struct qcow2_cache *cache, uint64_t index)
{
    struct qcow2_table *table = index < cache->slots ? cache->slot[index] : NULL;

    if (table && !atomic_load_explicit(&table->used, memory_order_relaxed))
        atomic_store_explicit(&table->used, true, memory_order_relaxed);
    return table;
}

/* Makes a table in memory that qcow2_cache_find does not find before qcow2_cache_add. NULL: out of
 * memory. */
struct qcow2_table *qcow2_cache_new(struct qcow2 *q, uint64_t index, uint64_t offset);
/* Frees a table that qcow2_cache_new has made and that no cache has. */
void qcow2_cache_free_table(struct qcow2_table *table);
/* Puts TABLE, for whose index there is none, into CACHE. It takes the place of one that was not
 * used of late and does not differ from the file, if the cache is full and there is one. Those that
 * differ are written first if MAY_WRITE. With the image's lock; takes map_lock. On failure TABLE
 * is freed. */
int qcow2_cache_add(struct qcow2 *q, struct qcow2_cache *cache, struct qcow2_table *table,
                    bool may_write);
/* Reads the table at OFFSET of the file and puts it into CACHE as qcow2_cache_add does. Stores it,
 * or NULL after a failure. */
int qcow2_cache_read(struct qcow2 *q, struct qcow2_cache *cache, uint64_t index, uint64_t offset,
                     bool may_write, struct qcow2_table **table);

#endif
