/*
 * The decoded-instruction cache of one vCPU. Blocks are found by guest physical address and mode,
 * so that they survive changes of address space; the jump cache in front of that is by linear
 * address and is as short-lived as translations are.
 *
 * A block is valid while its page's generation is the one that it was decoded under (core/code.h).
 *
 *     block.c    finds the block to execute
 *     decode.c   makes one, when none is found
 *     store.c    the memory that blocks are in
 */
#ifndef DOPPEL_CPU_INTERP_BLOCK_H
#define DOPPEL_CPU_INTERP_BLOCK_H

#include "cpu/interp/interp.h"

#define HASH_SIZE (1u << 16)

/* Where the block that starts at a linear address was found last. */
struct jump_entry {
    uint64_t linear;
    uint64_t view; /* mode, privilege and address space; see view_of in block.c */
    struct block *block;
};
#define JUMP_GROUP_BITS 6 /* entries of one page lie together */
#define JUMP_BITS       12
#define JUMP_ENTRIES    (1u << JUMP_BITS)

/* An instruction that lies across two pages. It is not in the cache proper, because its bytes come
 * from two pages that change independently: it is fetched each time, and decoded again if its bytes
 * have changed. */
#define STRADDLES 16
struct straddle {
    uint64_t linear;
    uint8_t bytes[15];
    uint8_t available;
    struct block *block;
};

struct block_cache {
    size_t size, used; /* of the arena */
    unsigned drops;    /* how often everything was forgotten */
    struct block *hash[HASH_SIZE];
    struct jump_entry jump[JUMP_ENTRIES];
    struct straddle straddle[STRADDLES];
    struct code_page
        no_page; /* the page of blocks that are decoded anew each time; never written */
    struct counter decoded, invalidated;
    _Alignas(64) uint8_t arena[]; /* blocks */
};

static inline bool block_is_valid(const struct block *b)
{
    return atomic_load_explicit(&b->page->generation, memory_order_relaxed) == b->generation;
}

/* --- store.c ---------------------------------------------------------------------------------- */

/* ARENA_SIZE: bytes for decoded blocks; the cache starts over when they are used up. */
struct block_cache *block_cache_create(size_t arena_size, struct error *err);
void block_cache_destroy(struct block_cache *cache);
/* Forgets all that C has decoded; a block under way ends after its present instruction. On C's own
 * thread or at a safe point. */
void block_cache_clear(struct vcpu *c, enum forget_cause cause);
/* Makes room for thunks: has all vCPUs forget their thunks, and all that they have decoded. */
void block_renew_thunks(struct vcpu *c);
/* If the block under way is out of date, has it end behind the present instruction. The blocks of
 * other vCPUs run to their end: a processor, too, sees the changes that another makes to code only
 * when it serializes. */
void block_check(struct vcpu *c);

/* --- decode.c --------------------------------------------------------------------------------- */

/* Decodes a block at RIP, which is at LINEAR and GPA, for MODE. Returns NULL if not even one
 * instruction ends in its page or within the limit of CS. */
struct block *block_decode(struct vcpu *c, uint64_t rip, uint64_t linear, uint64_t gpa,
                           unsigned mode);
/* Returns a block with the instruction at LINEAR, which does not end in its page, or not before the
 * limit of CS. */
struct block *block_straddling(struct vcpu *c, uint64_t rip, uint64_t linear, uint64_t gpa);

/* --- block.c ---------------------------------------------------------------------------------- */

/* Returns the block at X86_RIP; decodes it if need be. Raises what fetching raises. */
struct block *block_find(struct vcpu *c);
/* Returns the block to execute after c->block: by a link if there is one, else as block_find does.
 * */
struct block *block_next(struct vcpu *c);
/* Returns that block if a link leads to it, else NULL. */
struct block *block_linked(const struct vcpu *c);
/* Forgets where blocks of the page at LINEAR were found (INVLPG); LARGE: of any page. */
void block_unmapped(struct vcpu *c, uint64_t linear, bool large);
/* Whether the code at GPA has been executed here in the present mode, and has not changed since. */
bool block_has_run(const struct vcpu *c, uint64_t gpa);

#endif
