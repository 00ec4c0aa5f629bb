/*
 * Finding the block to execute next.
 */
#include "cpu/interp/block.h"

#include "cpu/core/debug.h"
#include "cpu/core/fault.h"
#include "cpu/core/fetch.h"

#include <string.h>

static unsigned hash_of(uint64_t gpa, unsigned mode)
{
    return (unsigned)((gpa * 0x9E3779B97F4A7C15ULL >> 40) + mode) & (HASH_SIZE - 1);
}

/* Whether block B lies within the limit of CS, which may have been larger when B was decoded. */
static bool within_limit(const struct vcpu *c, const struct block *b, uint64_t rip)
{
    uint64_t limit = c->x.seg[X86_CS].limit;

    return in_64(c) || limit == 0xFFFFFFFF || rip + b->bytes - 1 <= limit;
}

static struct block *find_by_gpa(struct vcpu *c, uint64_t rip, uint64_t linear, uint64_t gpa,
                                 unsigned mode)
{
    struct block_cache *cache = c->blocks;
    struct block **slot = &cache->hash[hash_of(gpa, mode)], **at = slot, *b;

    while ((b = *at)) {
        if (b->gpa == gpa && b->mode == mode) {
            if (!block_is_valid(b)) { /* it is out of date for good */
                *at = b->hash_next;
                continue;
            }
            if (within_limit(c, b, rip))
                return b;
        }
        at = &b->hash_next;
    }
    b = block_decode(c, rip, linear, gpa, mode);
    if (!b || !b->cached)
        return b;
    b->hash_next = *slot;
    *slot = b;
    return b;
}

bool block_has_run(const struct vcpu *c, uint64_t gpa)
{
    const struct block *b = c->blocks->hash[hash_of(gpa, c->mode)];

    while (b && (b->gpa != gpa || b->mode != c->mode || !block_is_valid(b)))
        b = b->hash_next;
    return b;
}

static struct jump_entry *jump_slot(struct block_cache *cache, uint64_t linear)
{
    uint64_t page = linear >> MEM_PAGE_SHIFT;
    unsigned group = (unsigned)(page ^ page >> 9) & ((1u << (JUMP_BITS - JUMP_GROUP_BITS)) - 1);
    unsigned slot = (unsigned)(linear ^ linear >> 6) & ((1u << JUMP_GROUP_BITS) - 1);

    return &cache->jump[group << JUMP_GROUP_BITS | slot];
}

void block_unmapped(struct vcpu *c, uint64_t linear, bool large)
{
    struct jump_entry *group = jump_slot(c->blocks, ALIGN_DOWN(linear, MEM_PAGE_SIZE));

    group =
        c->blocks->jump + ((group - c->blocks->jump) & ~(ptrdiff_t)((1 << JUMP_GROUP_BITS) - 1));
    if (large)
        memset(c->blocks->jump, 0, sizeof(c->blocks->jump));
    else
        memset(group, 0, sizeof(*group) << JUMP_GROUP_BITS);
}

/* Returns what decides which code a linear address means: mode, privilege and address space. */
static uint64_t view_of(const struct vcpu *c, unsigned mode)
{
    bool user = cpl(c) == 3;
    uint64_t space = mmu_code_space(&c->mmu, user);

    return 1u | mode << 1 | (uint64_t)user << 15 | space << 16 | (uint64_t)c->mmu.clears << 28;
}

/* Whether a link from FROM to TO is right wherever their page is mapped: the two are as far apart
 * in memory as in addresses, and no limit or wrap of RIP lies between them. No link leads to a
 * block outside of RAM or across two pages, which is decoded anew each time. */
static bool linkable(const struct vcpu *c, const struct block *from, const struct block *to)
{
    uint64_t rip = c->history[(c->history_at - 1) % HISTORY]; /* of FROM */

    return from->page == to->page && from->page != &c->blocks->no_page && !(to->mode & MODE_STEP) &&
           ((to->mode & MODE_SIZE) == MODE_64 || (to->mode & MODE_FLAT)) &&
           c->x.reg[X86_RIP] - rip == to->gpa - from->gpa;
}

struct block *block_linked(const struct vcpu *c)
{
    struct block *to =
        c->block && c->link != NO_LINK && !c->watches_code ? c->block->link[c->link] : NULL;

    return to && block_is_valid(to) ? to : NULL;
}

struct block *block_next(struct vcpu *c)
{
    struct block *to = block_linked(c);

    if (to)
        return to;
    to = block_find(c);
    if (c->block && c->link != NO_LINK && !c->watches_code &&
        linkable(c, c->block, to)) /* block_cache_clear may have changed both */
        c->block->link[c->link] = to;
    return to;
}

/* If an instruction breakpoint lies in the code at [LINEAR, LINEAR + SIZE), has the code executed
 * in steps. Does not return then. */
static void check_breakpoints(struct vcpu *c, uint64_t linear, unsigned size)
{
    if (unlikely(c->watches_code) && !c->stepping && breakpoint_in_code(c, linear, size))
        restart_as_step(c, NULL);
}

struct block *block_find(struct vcpu *c)
{
    unsigned mode = c->mode | (c->stepping || c->single ? MODE_STEP : 0);
    uint64_t rip = c->x.reg[X86_RIP];
    uint64_t linear = fetch_linear(c, rip);
    uint64_t view = view_of(c, mode), gpa;
    struct jump_entry *entry = jump_slot(c->blocks, linear);
    struct block *b = entry->block;

    if (likely(entry->linear == linear && entry->view == view && block_is_valid(b) &&
               within_limit(c, b, rip)))
        return b;
    check_breakpoints(c, linear, 1); /* a breakpoint comes before what fetching raises */
    gpa = fetch_gpa(c, linear);
    b = find_by_gpa(c, rip, linear, gpa, mode);
    if (!b)
        return block_straddling(c, rip, linear, gpa);
    check_breakpoints(c, linear, b->bytes);
    if (!b->cached || breakpoint_on_code(c, linear))
        return b;
    *entry =
        (struct jump_entry){linear, view_of(c, mode), b}; /* fetching may have changed the view */
    return b;
}
