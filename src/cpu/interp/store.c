/*
 * The memory of decoded blocks, and how a block that is out of date comes to its end.
 */
#include "cpu/interp/block.h"

#include "base/large_pages.h"
#include "cpu/core/present.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct block_cache *block_cache_create(size_t arena_size, struct error *err)
{
    struct block_cache *cache = large_pages_map(sizeof(*cache) + arena_size);

    if (!cache) {
        error_set(err, ENOMEM, "out of memory for the decoded-instruction cache");
        return NULL;
    }
    cache->size = arena_size;
    for (unsigned i = 0; i < STRADDLES; i++) {
        cache->straddle[i].block = calloc(1, sizeof(struct block) + sizeof(struct uop) * 2);
        if (!cache->straddle[i].block) {
            error_set(err, ENOMEM, "out of memory for the decoded-instruction cache");
            block_cache_destroy(cache);
            return NULL;
        }
    }
    return cache;
}

void block_cache_destroy(struct block_cache *cache)
{
    if (!cache)
        return;
    for (unsigned i = 0; i < STRADDLES; i++)
        free(cache->straddle[i].block);
    munmap(cache, sizeof(*cache) + cache->size);
}

/* The handler of all instructions of an abandoned block: leaves the block in front of OP. */
static const struct uop *op_stale(struct vcpu *c, const struct uop *op)
{
    uop_retract(c, op);
    c->link = NO_LINK;
    return NULL;
}

/* Has the vCPU leave B behind the instruction that it executes now. */
static void abandon(struct block *b)
{
    for (unsigned i = 0; i < b->uops; i++)
        block_uops(b)[i].fn = op_stale;
}

void block_cache_clear(struct vcpu *c, enum forget_cause cause)
{
    struct block_cache *cache = c->blocks;

    counter_add(&c->forgets[cause], 1);
    if (c->block)
        abandon(c->block);
    c->link = NO_LINK;
    cache->used = 0;
    cache->drops++;
    memset(cache->hash, 0, sizeof(cache->hash));
    memset(cache->jump, 0, sizeof(cache->jump));
    for (unsigned i = 0; i < STRADDLES; i++)
        cache->straddle[i].available = 0;
    if (c->core->accelerator)
        c->core->accelerator->forget(c);
}

void block_renew_thunks(struct vcpu *c)
{
    struct core *e = c->core;

    present_stop_others(c);
    if (thunk_cache_full(interp_of(e)->thunks)) { /* no other vCPU has done this meanwhile */
        for (unsigned i = 0; i < e->machine.cpus; i++)
            if (e->vcpu[i])
                block_cache_clear(e->vcpu[i], FORGET_THUNKS_FULL);
        thunk_cache_clear(interp_of(e)->thunks);
    }
    present_resume_others(c);
}

void block_check(struct vcpu *c)
{
    if (!c->block || block_is_valid(c->block))
        return;
    counter_add(&c->blocks->invalidated, 1);
    abandon(c->block);
}
