/*
 * The translation cache, which all vCPUs of a machine share: the memory of translated code, one
 * memfd mapped twice, written through one mapping and run through the other; and where that code
 * can be entered.
 *
 * Every start of a part can be, found by its guest physical address and what else its translation
 * depends on. A part is translated once, whoever wants it: what is entered from outside gets an
 * entrance then.
 *
 * One vCPU at a time adds to the cache; the others do not wait for it, but interpret meanwhile.
 * Looking into it takes no lock: an entry is written before the slot that leads to it, and stays as
 * it is until all goes, when no vCPU runs.
 */
#include "cpu/bt/bt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SITES_SIZE   (BT_SITES * sizeof(struct bt_site))
#define ENTRIES_SIZE (BT_ENTRIES * sizeof(struct bt_entry))
#define HASH_SIZE    (BT_ENTRY_SLOTS * sizeof(_Atomic uint32_t))

static void *reserve(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

/* Maps the code's memory twice; as far as it succeeds. */
static void map_code(struct bt_cache *cache)
{
    uint32_t size = cache->switches.code_size;
    int fd = memfd_create("doppel-translations", MFD_CLOEXEC);
    void *write = MAP_FAILED, *run = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, size) == 0) {
        write = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        run = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    cache->write = write == MAP_FAILED ? NULL : write;
    cache->run = run == MAP_FAILED ? NULL : run;
    if (fd >= 0)
        close(fd);
}

struct bt_cache *bt_cache_create(const struct bt_switches *switches, struct error *err)
{
    struct bt_cache *cache = calloc(1, sizeof(*cache));

    if (cache) {
        cache->switches = *switches;
        map_code(cache);
        cache->sites = reserve(SITES_SIZE);
        cache->entries = reserve(ENTRIES_SIZE);
        cache->entry_hash = reserve(HASH_SIZE);
    }
    if (!cache || !cache->write || !cache->run || !cache->sites || !cache->entries ||
        !cache->entry_hash) {
        error_set(err, errno, "cannot map memory for translated code: %s", strerror(errno));
        bt_cache_destroy(cache);
        return NULL;
    }
    bt_emit_common(cache);
    cache->entry_count = 1;
    return cache;
}

void bt_cache_destroy(struct bt_cache *cache)
{
    if (!cache)
        return;
    if (cache->write)
        munmap(cache->write, cache->switches.code_size);
    if (cache->run)
        munmap(cache->run, cache->switches.code_size);
    if (cache->sites)
        munmap(cache->sites, SITES_SIZE);
    if (cache->entries)
        munmap(cache->entries, ENTRIES_SIZE);
    if (cache->entry_hash)
        munmap(cache->entry_hash, HASH_SIZE);
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
    cache->site_count = 0;
    memset(cache->entry_hash, 0, HASH_SIZE);
    cache->entry_count = 1;
    atomic_store(&cache->stop_count, 0);
}

/* --- Entries ---------------------------------------------------------------------------------- */

/* A slot holds an entry's number and above it some bits of a hash of its key, so that a search
 * hardly ever looks at another entry. */
static uint32_t tag_of(uint64_t key)
{
    return (uint32_t)(key * 0x9E3779B97F4A7C15ULL >> 32) & ~(BT_ENTRY_SLOTS - 1);
}

/* The slot of KEY, and the entry that it leads to; or the slot where it would be, and 0. Code that
 * stands together is found in slots that do, because of the processor's caches. Entries that are no
 * longer valid stay until all goes, so a search never ends too early. */
static _Atomic uint32_t *slot_of(const struct bt_cache *cache, uint64_t key, uint32_t *found)
{
    uint32_t page = (uint32_t)((key >> MEM_PAGE_SHIFT) * 0x9E3779B97F4A7C15ULL >> 32);
    uint32_t slot = page + (uint32_t)(key % MEM_PAGE_SIZE >> 2), tag = tag_of(key), seen;

    for (;; slot++) {
        _Atomic uint32_t *at = &cache->entry_hash[slot & (BT_ENTRY_SLOTS - 1)];

        seen = atomic_load_explicit(at, memory_order_acquire);
        *found = seen ^ tag;
        if (!seen || (*found < BT_ENTRY_SLOTS && cache->entries[*found].key == key)) {
            *found = seen ? *found : 0;
            return at;
        }
    }
}

struct bt_entry *bt_entry_find(const struct bt *bt, uint64_t gpa)
{
    struct bt_entry *entry;
    uint32_t found;

    slot_of(bt->cache, bt_key(bt, gpa), &found);
    entry = &bt->cache->entries[found];
    return found && entry->generation ==
                        atomic_load_explicit(bt_generation(bt, gpa), memory_order_relaxed)
               ? entry
               : NULL;
}

void bt_entry_add(struct translation *t, const struct part *p, const uint8_t *entrance)
{
    struct bt_cache *cache = t->cache;
    uint32_t number = cache->entry_count++, old;
    struct bt_entry *entry = &cache->entries[number];

    *entry = (struct bt_entry){
        .key = bt_key(t->bt, ALIGN_DOWN(t->gpa, MEM_PAGE_SIZE) + p->start),
        .generation = t->generation,
        .entrance = entrance ? (uint32_t)(entrance - cache->run) : 0,
        .inside = (uint32_t)(p->code - cache->write),
        .live = (uint16_t)p->live,
        .files = t->files,
        .s0 = (uint8_t)t->s0,
        .s1 = (uint8_t)t->s1,
    };
    atomic_store_explicit(slot_of(cache, entry->key, &old), number | tag_of(entry->key),
                          memory_order_release);
}
