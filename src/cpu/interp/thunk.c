/*
 * Thunks: the cache. A thunk depends on nothing but the instruction as thunk_plan.c rewrote it and
 * on what RSP was renamed to, so a thunk is found by those.
 */
#include "cpu/interp/thunk_impl.h"

#include "base/util.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What a thunk is made from. */
struct source {
    uint8_t code[16];
    uint8_t length, rsp, registers;
};

struct entry {
    struct source source;
    thunk_fn *fn; /* NULL: the slot is free */
};

struct thunk_cache {
    pthread_mutex_t lock;
    struct thunk_memory *memory;
    struct signals_watch *faults; /* in that memory */
    struct entry *entries;        /* open addressing, at most half full */
    uint32_t slots, used;         /* SLOTS is a power of two */
    bool full;
};

#define FIRST_SLOTS 1024

struct thunk_cache *thunk_cache_create(struct error *err)
{
    struct thunk_cache *cache = calloc(1, sizeof(*cache));
    struct entry *entries = calloc(FIRST_SLOTS, sizeof(*entries));

    if (!cache || !entries) {
        error_set(err, ENOMEM, "out of memory");
        goto fail;
    }
    cache->memory = thunk_memory_create(err);
    cache->faults = cache->memory ? thunk_fault_watch(cache->memory, err) : NULL;
    if (!cache->faults)
        goto fail;
    pthread_mutex_init(&cache->lock, NULL);
    cache->entries = entries;
    cache->slots = FIRST_SLOTS;
    return cache;
fail:
    if (cache)
        thunk_memory_destroy(cache->memory);
    free(entries);
    free(cache);
    return NULL;
}

void thunk_cache_destroy(struct thunk_cache *cache)
{
    if (!cache)
        return;
    signals_unwatch(cache->faults);
    thunk_memory_destroy(cache->memory);
    pthread_mutex_destroy(&cache->lock);
    free(cache->entries);
    free(cache);
}

/* Returns the slot that holds SOURCE, or the free slot where it belongs. */
static struct entry *find(struct entry *entries, uint32_t slots, const struct source *source)
{
    uint64_t low, high;
    uint32_t slot;

    memcpy(&low, source->code, 8);
    memcpy(&high, source->code + 8, 8);
    low = (low ^ high << 7 ^ high >> 57 ^ source->rsp) * 0x9E3779B97F4A7C15;
    for (slot = low >> 32; entries[slot & (slots - 1)].fn; slot++)
        if (memcmp(&entries[slot & (slots - 1)].source, source, sizeof(*source)) == 0)
            break;
    return &entries[slot & (slots - 1)];
}

static bool grow(struct thunk_cache *cache)
{
    uint32_t slots = cache->slots * 2;
    struct entry *entries = calloc(slots, sizeof(*entries));

    if (!entries)
        return false;
    for (uint32_t i = 0; i < cache->slots; i++)
        if (cache->entries[i].fn)
            *find(entries, slots, &cache->entries[i].source) = cache->entries[i];
    free(cache->entries);
    cache->entries = entries;
    cache->slots = slots;
    return true;
}

static thunk_fn *get_locked(struct thunk_cache *cache, const struct thunk_plan *plan,
                            const struct source *source)
{
    struct entry *entry = find(cache->entries, cache->slots, source);
    struct thunk_code code;

    if (entry->fn)
        return entry->fn;
    cache->full = true; /* until all has succeeded */
    if (cache->used >= cache->slots / 2) {
        if (!grow(cache))
            return NULL;
        entry = find(cache->entries, cache->slots, source);
    }
    thunk_emit(&code, plan);
    entry->fn = thunk_memory_add(cache->memory, &code);
    if (!entry->fn)
        return NULL;
    entry->source = *source;
    cache->used++;
    cache->full = false;
    return entry->fn;
}

thunk_fn *thunk_get(struct thunk_cache *cache, const struct x86_insn *insn)
{
    struct thunk_plan plan;
    struct source source = {0};
    thunk_fn *fn;

    if (!thunk_plan_make(&plan, insn))
        return NULL;
    memcpy(source.code, plan.code, plan.length);
    source.length = plan.length;
    source.rsp = plan.gpr & 1u << X86_RSP ? plan.rsp : X86_RSP;
    source.registers = plan.clear_high == 0xFF ? 8 : 16;
    pthread_mutex_lock(&cache->lock);
    fn = get_locked(cache, &plan, &source);
    pthread_mutex_unlock(&cache->lock);
    return fn;
}

bool thunk_cache_full(struct thunk_cache *cache)
{
    bool full;

    pthread_mutex_lock(&cache->lock);
    full = cache->full;
    pthread_mutex_unlock(&cache->lock);
    return full;
}

void thunk_cache_clear(struct thunk_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    thunk_memory_clear(cache->memory);
    memset(cache->entries, 0, cache->slots * sizeof(*cache->entries));
    cache->used = 0;
    cache->full = false;
    pthread_mutex_unlock(&cache->lock);
}
