/*
 * Stops: guest physical addresses that translated code does not go past, because an instruction
 * breakpoint of some vCPU stands there (SDM volume 3, 18.2). No instruction at a stop is
 * translated: a region ends in front of it, and the interpreter, which looks for breakpoints,
 * executes it. So the rest of the page runs translated, on the vCPU that debugs as on the others.
 *
 * A stop stays when its breakpoint goes, as kernels arm breakpoints again and again. All go with
 * the translations.
 */
#include "cpu/bt/bt.h"

#include "cpu/core/code.h"

bool bt_is_stop(const struct bt_cache *cache, uint64_t gpa)
{
    unsigned count = atomic_load_explicit(&cache->stop_count, memory_order_acquire);

    for (unsigned i = 0; i < count; i++)
        if (cache->stop[i] == gpa)
            return true;
    return false;
}

bool bt_stop_at(struct bt *bt, uint64_t gpa)
{
    struct bt_cache *cache = bt->cache;
    unsigned count;

    if (bt_is_stop(cache, gpa))
        return true;
    if (!bt_cache_try(cache))
        return false;
    count = atomic_load(&cache->stop_count);
    if (count == BT_STOPS) {
        bt->full = true;
    } else {
        cache->stop[count] = gpa;
        /* Earlier translations go past it. They must be out of date before another vCPU with a
         * breakpoint here sees the stop. No vCPU translates in between. */
        code_discard(&bt->c, gpa);
        atomic_store_explicit(&cache->stop_count, count + 1, memory_order_release);
    }
    bt_cache_release(cache);
    return count < BT_STOPS;
}
