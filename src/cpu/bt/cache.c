/*
 * The translation cache, which all vCPUs of a machine share.
 *
 * One vCPU at a time adds to the cache; the others do not wait for it, but interpret meanwhile. A
 * part is translated once for all vCPUs. Translations stay as they are until all of them are
 * forgotten, while no vCPU runs; entries.c finds them.
 */
#include "cpu/bt/bt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXIT_POINTS_SIZE (BT_EXIT_POINTS * sizeof(struct bt_exit_point))

struct bt_cache *bt_cache_create(const struct core *e, struct error *err)
{
    struct bt_cache *cache = calloc(1, sizeof(*cache));

    if (!cache) {
        error_set(err, ENOMEM, "out of memory for the translation cache");
        return NULL;
    }
    cache->switches = *(const struct bt_switches *)e->accelerator_options;
    cache->measure = e->machine.measure;
    if (code_memory_create(&cache->memory, "doppel-translations", cache->switches.code_size,
                           BT_CODE_LEAST, err) < 0) {
        free(cache);
        return NULL;
    }
    cache->write = cache->memory.write;
    cache->run = cache->memory.run;
    cache->exit_points = bt_reserve(EXIT_POINTS_SIZE);
    if (!cache->exit_points || !bt_entries_create(&cache->entries, e->code_pages)) {
        error_set(err, errno, "cannot map memory for translations: %s", strerror(errno));
        bt_cache_destroy(cache);
        return NULL;
    }
    bt_emit_common(cache);
    return cache;
}

void bt_cache_destroy(struct bt_cache *cache)
{
    if (!cache)
        return;
    code_memory_destroy(&cache->memory);
    if (cache->exit_points)
        munmap(cache->exit_points, EXIT_POINTS_SIZE);
    bt_entries_destroy(&cache->entries);
    free(cache);
}

bool bt_cache_try(struct bt_cache *cache)
{
    return !atomic_exchange_explicit(&cache->busy, true, memory_order_acquire);
}

void bt_cache_release(struct bt_cache *cache)
{
    atomic_store_explicit(&cache->busy, false, memory_order_release);
}

void bt_cache_clear(struct bt_cache *cache)
{
    cache->used = cache->first;
    cache->exit_points_used = 0;
    bt_entries_clear(&cache->entries);
    atomic_store(&cache->stop_count, 0);
}
