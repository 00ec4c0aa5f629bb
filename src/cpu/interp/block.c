/*
 * The decoded-instruction cache of one vCPU. Blocks are found by guest physical address and mode,
 * so that they survive changes of address space; the jump cache in front of that is by linear
 * address and is as short-lived as translations are.
 *
 * A block is valid while its page's generation is the one that it was decoded under. Whoever
 * writes to a page with decoded lines goes through code_written, which moves the generation on.
 */
#include "cpu/core/access.h"
#include "cpu/core/debug.h"
#include "cpu/core/executor.h"
#include "cpu/interp/select.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HASH_SIZE    (1u << 16)
#define JUMP_ENTRIES (1u << JUMP_BITS)
#define BLOCK_SIZE   (sizeof(struct block) + BLOCK_MAX * sizeof(struct uop))
#define LINE_SHIFT   6
#define WRITES_KEPT  32 /* without decoding in between, until a page is unmarked */

/* An instruction that lies across two pages is not in the cache proper, because its bytes come
 * from two places that change independently: it is fetched anew each time, and decoded anew when
 * its bytes have changed. */
#define STRADDLES 16
struct straddle {
    uint64_t linear;
    uint8_t bytes[15];
    uint8_t available;
    struct block *block;
};

struct block_cache {
    uint8_t *arena;
    size_t size, used;
    unsigned drops; /* how often everything was forgotten */
    struct block *hash[HASH_SIZE];
    struct jump_entry jump[JUMP_ENTRIES];
    struct straddle straddle[STRADDLES];
    struct code_page no_page; /* what straddling blocks belong to; never written */
    uint64_t decoded, invalidated;
};

struct block_cache *block_cache_create(size_t arena_size, struct error *err)
{
    struct block_cache *cache = calloc(1, sizeof(*cache));

    if (!cache) {
        error_set(err, ENOMEM, "out of memory for the decoded-instruction cache");
        return NULL;
    }
    cache->size = arena_size;
    cache->arena = mmap(NULL, cache->size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->arena == MAP_FAILED) {
        error_set(err, ENOMEM, "out of memory for the decoded-instruction cache");
        free(cache);
        return NULL;
    }
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
    munmap(cache->arena, cache->size);
    free(cache);
}

uint64_t block_decoded(const struct block_cache *cache)
{
    return cache->decoded;
}

uint64_t block_invalidated(const struct block_cache *cache)
{
    return cache->invalidated;
}

static bool is_valid(const struct block *b)
{
    return atomic_load_explicit(&b->page->generation, memory_order_relaxed) == b->generation;
}

/* Stands in for what follows in an abandoned block. */
static const struct uop *op_stale(struct vcpu *c, const struct uop *op)
{
    uint64_t rip = c->x.reg[X86_RIP] + op->off;

    c->x.reg[X86_RIP] = in_64(c) ? rip : (uint32_t)rip;
    c->link = 2;
    c->instructions -= (uint64_t)(c->block->count - op->number);
    return NULL;
}

/* Has a block end after the instruction that it executes now. */
static void abandon(struct block *b)
{
    for (unsigned i = 0; i < b->uops; i++)
        b->op[i].fn = op_stale;
}

/* Forgets all that C has decoded; a block under way ends after its present instruction. On C's own
 * thread or at a safe point. */
static void drop_all(struct vcpu *c, enum forget_cause cause)
{
    struct block_cache *cache = c->blocks;

    c->forgets[cause]++;
    if (c->block)
        abandon(c->block);
    c->link = 2;
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

    safepoint_stop(&e->safepoint, true);
    if (thunk_cache_full(e->thunks)) { /* no other vCPU was faster */
        for (unsigned i = 0; i < e->machine.cpus; i++)
            if (e->vcpu[i])
                drop_all(e->vcpu[i], FORGET_THUNKS_FULL);
        thunk_cache_clear(e->thunks);
    }
    safepoint_resume(&e->safepoint, true);
}

/* --- Writes to decoded code ------------------------------------------------------------------- */

static uint64_t line_mask(uint64_t offset, uint64_t size)
{
    unsigned first = (unsigned)(offset >> LINE_SHIFT);
    unsigned last = (unsigned)MIN((offset + size - 1) >> LINE_SHIFT, 63);

    return (~0ULL << first) & (~0ULL >> (63 - last));
}

/* Has all but SELF leave translated code, which looks at the generation only where it is entered.
 */
static void hurry_others(struct core *e, const struct vcpu *self)
{
    for (unsigned i = 0; e->accelerator && i < e->machine.cpus; i++)
        if (e->vcpu[i] && e->vcpu[i] != self)
            cpu_port_request(e->vcpu[i]->port, CPU_REQ_ENGINE);
}

/* code_page.rewrites: in its upper half a period; then how often the page's code was rewritten, a
 * count that was right in that period and is halved with each; lowest, how often the page was
 * written to since code of it was last decoded. */
#define REWRITES_PERIOD 32 /* bits of the TSC: about a second */
#define REWRITES_SHIFT  8
#define REWRITES_MAX    0xFFu
#define WRITES_MASK     0xFFu

unsigned interp_rewrites(const struct code_page *page)
{
    uint32_t rewrites = atomic_load_explicit(&page->rewrites, memory_order_relaxed);
    uint16_t periods;

    if (!rewrites) /* as most: this is asked often */
        return 0;
    periods = (uint16_t)((__builtin_ia32_rdtsc() >> REWRITES_PERIOD) - (rewrites >> 16));
    return (rewrites >> REWRITES_SHIFT & REWRITES_MAX) >> MIN(periods, 16);
}

/* Counts a write to decoded code. Returns whether the page is to stay marked: a page that is
 * rewritten often should, so that it need not be taken from everybody's software TLB each time its
 * code is decoded again; but not one that is written to and no longer executed, as it may hold data
 * by now. A count lost to another processor does not matter. */
static bool count_write(struct code_page *page)
{
    uint32_t seen = atomic_load_explicit(&page->rewrites, memory_order_relaxed);
    unsigned writes = seen & WRITES_MASK, before;
    uint32_t period;

    if (writes) {
        atomic_store_explicit(&page->rewrites, seen + (writes < WRITES_MASK), memory_order_relaxed);
        return writes + 1 < WRITES_KEPT;
    }
    before = interp_rewrites(page);
    period = (uint32_t)(__builtin_ia32_rdtsc() >> REWRITES_PERIOD);
    atomic_store_explicit(&page->rewrites,
                          period << 16 | MIN(before + 1, REWRITES_MAX) << REWRITES_SHIFT | 1,
                          memory_order_relaxed);
    return before > 0;
}

/* Code of PAGE is being decoded. */
static void end_writes(struct code_page *page)
{
    uint32_t seen = atomic_load_explicit(&page->rewrites, memory_order_relaxed);

    if (seen & WRITES_MASK)
        atomic_store_explicit(&page->rewrites, seen & ~WRITES_MASK, memory_order_relaxed);
}

bool code_written(struct core *e, const struct vcpu *self, uint64_t gpa, uint64_t size)
{
    bool changed = false;

    /* The bytes are written before the lines are looked at, as mark_code sets the lines before the
     * bytes are read: one of the two notices. */
    atomic_thread_fence(memory_order_seq_cst);
    while (size) {
        uint64_t offset = gpa & (MEM_PAGE_SIZE - 1), part = MIN(size, MEM_PAGE_SIZE - offset);
        uint64_t gpn = gpa >> MEM_PAGE_SHIFT;

        if (gpn < e->code_pages && (atomic_load(&e->code[gpn].lines) & line_mask(offset, part))) {
            if (!count_write(&e->code[gpn]))
                atomic_store(&e->code[gpn].lines, 0);
            atomic_fetch_add(&e->code[gpn].generation, 1);
            changed = true;
        }
        gpa += part;
        size -= part;
    }
    if (changed)
        hurry_others(e, self);
    return changed;
}

void block_check(struct vcpu *c)
{
    if (!c->block || is_valid(c->block))
        return;
    c->blocks->invalidated++;
    abandon(c->block);
}

/* Announces that lines of a page are about to be decoded, so that from now on every write to them
 * is noticed. Only then may their bytes be read. */
static void mark_code(struct vcpu *c, uint64_t gpn, uint64_t lines)
{
    struct core *e = c->core;
    struct code_page *page = &e->code[gpn];
    uint64_t before = atomic_load(&page->lines);
    const void *host;

    if ((before & lines) == lines)
        return;
    while (before)
        if (atomic_compare_exchange_weak(&page->lines, &before, before | lines))
            return;
    /* The first on this page: nobody may have it open for writing, or be about to. */
    if (e->machine.cpus > 1)
        safepoint_stop(&e->safepoint, true);
    host = mem_page(c->mem, gpn);
    for (unsigned i = 0; i < e->machine.cpus; i++)
        if (e->vcpu[i])
            mmu_drop_writable(&e->vcpu[i]->mmu, host);
    atomic_fetch_or(&page->lines, lines);
    if (e->machine.cpus > 1)
        safepoint_resume(&e->safepoint, true);
}

void interp_watch_code(struct vcpu *c, uint64_t gpa, uint64_t size)
{
    mark_code(c, gpa >> MEM_PAGE_SHIFT, line_mask(gpa & (MEM_PAGE_SIZE - 1), size));
}

void interp_discard_code(struct vcpu *c, uint64_t gpa)
{
    atomic_fetch_add(&c->core->code[gpa >> MEM_PAGE_SHIFT].generation, 1);
}

/* --- Fetching and decoding -------------------------------------------------------------------- */

/* The linear address of offset RIP in CS; canonical or below 4 GiB. */
static uint64_t code_linear(struct vcpu *c, uint64_t rip)
{
    if (in_64(c)) {
        if (!is_canonical(rip))
            raise_error(c, NULL, X86_GP, 0);
        return rip;
    }
    return (uint32_t)(c->x.seg[X86_CS].base + rip);
}

static enum mmu_context fetch_context(const struct vcpu *c)
{
    return cpl(c) == 3 ? MMU_USER : MMU_SUPER;
}

static uint64_t fetch_gpa(struct vcpu *c, uint64_t linear)
{
    enum mmu_context context = fetch_context(c);
    const struct mmu_entry *entry = mmu_entry(c->mmu.table[context], MMU_EXEC, linear);
    struct mmu_page page;
    unsigned before;
    uint32_t error;

    /* Here the addend leads to the guest physical address. */
    if (mmu_hit(entry, linear, 1))
        return linear + entry->addend;
    c->exits[CAUSE_TLB_MISS]++;
    before = meter_enter(c->meter, CAUSE_TLB_MISS, 0, linear, MMU_EXEC);
    if (mmu_walk(c->mem, &c->x, linear, MMU_EXEC, context, &page, &error) != 0) {
        meter_detail(c->meter, CAUSE_TLB_MISS, linear, MMU_EXEC | TRACE_FAULT);
        meter_leave(c->meter, before);
        raise_page_fault(c, NULL, linear, error);
    }
    mmu_fill(&c->mmu, context, MMU_EXEC, linear,
             (void *)(uintptr_t)ALIGN_DOWN(page.gpa, MEM_PAGE_SIZE), &page);
    meter_leave(c->meter, before);
    return page.gpa;
}

/* Copies up to 15 bytes of code at LINEAR within its page; outside RAM an empty bus reads. */
static unsigned fetch_in_page(struct vcpu *c, uint64_t linear, uint64_t gpa, uint8_t bytes[15])
{
    unsigned offset = gpa & (MEM_PAGE_SIZE - 1), size = MIN(15, MEM_PAGE_SIZE - offset);
    const uint8_t *page = mem_page(c->mem, gpa >> MEM_PAGE_SHIFT);

    if (page)
        memcpy(bytes, page + offset, size);
    else
        memset(bytes, 0xFF, size);
    return size;
}

/* Bytes before the limit of CS from RIP on; 15 are as good as any number. */
static unsigned limit_left(const struct vcpu *c, uint64_t rip)
{
    uint64_t limit = c->x.seg[X86_CS].limit;

    if (in_64(c) || limit == 0xFFFFFFFF)
        return 15;
    return rip > limit ? 0 : (unsigned)MIN(limit - rip + 1, 15);
}

/* Decodes one instruction into OP. Returns its length, 0 if more bytes are needed than AVAILABLE.
 */
static unsigned decode_one(struct vcpu *c, const uint8_t *bytes, unsigned available, unsigned off,
                           struct uop *op, bool *ends)
{
    static const enum x86_code_size size[] = {X86_CODE16, X86_CODE32, X86_CODE64};
    struct x86_insn insn;
    int length = x86_decode_for(c->core->machine.model.feature, size[c->mode & MODE_SIZE],
                                c->mode & MODE_REAL, bytes, available, &insn);

    if (length == 0)
        return 0;
    memset(op, 0, sizeof(*op));
    op->off = (uint16_t)off;
    if (length < 0) {
        select_undefined(op, length == -1 ? X86_UD : X86_GP);
        *ends = true;
        return 1;
    }
    op->len = (uint8_t)length;
    op->mnemonic = (uint16_t)insn.z.mnemonic;
    *ends = select_uop(c, &insn, c->mode, op);
    return (unsigned)length;
}

/* Closes a block that no branch ends: goes on with the instruction at OFF. */
static const struct uop *op_go_on(struct vcpu *c, const struct uop *op)
{
    end_block(c, op);
    c->link = 0;
    return NULL;
}

static void close_block(struct block *b, unsigned bytes, bool ends)
{
    b->bytes = (uint16_t)bytes;
    b->uops = b->count;
    if (!ends)
        b->op[b->uops++] =
            (struct uop){.fn = op_go_on, .off = (uint16_t)bytes, .number = (uint8_t)b->count};
}

static struct block *decode_block(struct vcpu *c, uint64_t rip, uint64_t linear, uint64_t gpa,
                                  unsigned mode)
{
    struct block_cache *cache = c->blocks;
    uint64_t gpn = gpa >> MEM_PAGE_SHIFT;
    unsigned limit = mode & MODE_STEP ? 1 : BLOCK_MAX - 1, off = 0;
    struct code_page *page =
        gpn < c->core->code_pages && mem_page(c->mem, gpn) ? &c->core->code[gpn] : &cache->no_page;
    unsigned drops;
    struct block *b;
    bool ends = false;

    if (cache->used + BLOCK_SIZE > cache->size)
        drop_all(c, FORGET_BLOCKS_FULL);
    drops = cache->drops;
    b = (struct block *)(cache->arena + cache->used);
    *b = (struct block){.page = page, .gpa = gpa, .mode = (uint8_t)mode};
    b->cached = page != &cache->no_page;
    if (page != &cache->no_page) {
        b->generation = atomic_load(&page->generation);
        end_writes(page);
        mark_code(c, gpn, line_mask(gpa & (MEM_PAGE_SIZE - 1), 15));
    }
    while (b->count < limit && !ends) {
        uint8_t bytes[15];
        unsigned available, length;

        if (off && !((gpa + off) & (MEM_PAGE_SIZE - 1)))
            break;
        if (page != &cache->no_page)
            mark_code(c, gpn, line_mask((gpa + off) & (MEM_PAGE_SIZE - 1), 15));
        available = MIN(fetch_in_page(c, linear + off, gpa + off, bytes), limit_left(c, rip + off));
        length = decode_one(c, bytes, available, off, &b->op[b->count], &ends);
        if (!length)
            break;
        b->op[b->count].number = (uint8_t)b->count;
        b->count++;
        off += length;
        if (((gpa + off) ^ gpa) >> MEM_PAGE_SHIFT)
            break;
    }
    if (cache->drops != drops) /* what was decoded first has lost its thunks */
        return decode_block(c, rip, linear, gpa, mode);
    if (!b->count)
        return NULL;
    close_block(b, off, ends);
    cache->used += sizeof(*b) + b->uops * sizeof(struct uop);
    cache->used = ALIGN_UP(cache->used, 16);
    cache->decoded++;
    return b;
}

/* The instruction at LINEAR, which does not end in its page (or before the limit of CS). */
static struct block *straddling_block(struct vcpu *c, uint64_t rip, uint64_t linear, uint64_t gpa)
{
    struct straddle *s = &c->blocks->straddle[linear >> MEM_PAGE_SHIFT & (STRADDLES - 1)];
    unsigned first, available, length;
    struct block *b = s->block;
    uint8_t bytes[15];
    bool ends = false;

    first = fetch_in_page(c, linear, gpa, bytes);
    available = MIN(15, limit_left(c, rip));
    if (available <= first) /* the limit cuts it off */
        raise_error(c, NULL, X86_GP, 0);
    {
        uint64_t next = in_64(c) ? linear + first : (uint32_t)(linear + first);
        uint8_t rest[15];

        fetch_in_page(c, next, fetch_gpa(c, next), rest);
        memcpy(bytes + first, rest, available - first);
    }
    if (s->linear == linear && b->count && b->mode == c->mode && s->available == available &&
        memcmp(s->bytes, bytes, available) == 0)
        return b;
    *b = (struct block){.page = &c->blocks->no_page, .mode = c->mode, .count = 1};
    length = decode_one(c, bytes, available, 0, &b->op[0], &ends);
    if (!length) {
        b->count = 0;
        raise_error(c, NULL, X86_GP, 0); /* cut off by the limit after all */
    }
    close_block(b, length, ends);
    s->linear = linear;
    s->available = (uint8_t)available;
    memcpy(s->bytes, bytes, available);
    return b;
}

/* --- Finding ---------------------------------------------------------------------------------- */

static unsigned hash_of(uint64_t gpa, unsigned mode)
{
    return (unsigned)((gpa * 0x9E3779B97F4A7C15ULL >> 40) + mode) & (HASH_SIZE - 1);
}

/* A block decoded under a larger limit may reach beyond the present one. */
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
            if (!is_valid(b)) { /* and never will be again */
                *at = b->hash_next;
                continue;
            }
            if (within_limit(c, b, rip))
                return b;
        }
        at = &b->hash_next;
    }
    b = decode_block(c, rip, linear, gpa, mode);
    if (!b)
        return NULL;
    b->hash_next = *slot;
    *slot = b;
    return b;
}

bool interp_has_run(const struct vcpu *c, uint64_t gpa)
{
    const struct block *b = c->blocks->hash[hash_of(gpa, c->mode)];

    while (b && (b->gpa != gpa || b->mode != c->mode || !is_valid(b)))
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

void block_flush_page(struct vcpu *c, uint64_t linear, bool large)
{
    struct jump_entry *group = jump_slot(c->blocks, ALIGN_DOWN(linear, MEM_PAGE_SIZE));

    group =
        c->blocks->jump + ((group - c->blocks->jump) & ~(ptrdiff_t)((1 << JUMP_GROUP_BITS) - 1));
    c->forgets[FORGET_MAPPING]++;
    if (c->core->accelerator)
        c->core->accelerator->unmapped(c, linear, large);
    if (large)
        memset(c->blocks->jump, 0, sizeof(c->blocks->jump));
    else
        memset(group, 0, sizeof(*group) << JUMP_GROUP_BITS);
}

/* Mode, privilege and address space: all that the meaning of a linear address depends on. What is
 * mapped globally means the same in all of them. */
static uint64_t jump_key(const struct vcpu *c, unsigned mode)
{
    bool user = cpl(c) == 3;
    uint64_t space = user || c->mmu.private ? c->mmu.space : 0;

    return 1u | mode << 1 | (uint64_t)user << 15 | space << 16 | (uint64_t)c->mmu.clears << 28;
}

/* A link holds for every address that the page is mapped at if it leads to the same distance in
 * memory as in addresses, and no limit or wrap of RIP comes between. Blocks outside of RAM or
 * across two pages are not what they seem for long, so nothing leads to them. */
static bool linkable(const struct vcpu *c, const struct block *from, const struct block *to)
{
    uint64_t rip = c->history[(c->history_at - 1) % HISTORY]; /* of FROM */

    return from->page == to->page && from->page != &c->blocks->no_page && !(to->mode & MODE_STEP) &&
           ((to->mode & MODE_SIZE) == MODE_64 || (to->mode & MODE_FLAT)) &&
           c->x.reg[X86_RIP] - rip == to->gpa - from->gpa;
}

struct block *block_linked(const struct vcpu *c)
{
    struct block *to = c->block && c->link < 2 && !c->watches_code ? c->block->link[c->link] : NULL;

    return to && is_valid(to) ? to : NULL;
}

struct block *block_next(struct vcpu *c)
{
    struct block *to = block_linked(c);

    if (to)
        return to;
    to = block_find(c);
    if (c->block && c->link < 2 && !c->watches_code &&
        linkable(c, c->block, to)) /* drop_all changes both */
        c->block->link[c->link] = to;
    return to;
}

/* Has code at [LINEAR, LINEAR + SIZE) executed in steps if an instruction breakpoint stands in it.
 */
static void check_breakpoints(struct vcpu *c, uint64_t linear, unsigned size)
{
    if (unlikely(c->watches_code) && !c->stepping && debug_breaks(c, linear, size))
        restart_as_step(c, NULL);
}

struct block *block_find(struct vcpu *c)
{
    unsigned mode = c->mode | (c->stepping || c->single ? MODE_STEP : 0);
    uint64_t rip = c->x.reg[X86_RIP];
    uint64_t linear = code_linear(c, rip);
    uint64_t key = jump_key(c, mode), gpa;
    struct jump_entry *entry = jump_slot(c->blocks, linear);
    struct block *b = entry->block;

    if (likely(entry->linear == linear && entry->key == key && is_valid(b) &&
               within_limit(c, b, rip)))
        return b;
    check_breakpoints(c, linear, 1); /* they come before what fetching raises */
    gpa = fetch_gpa(c, linear);
    b = find_by_gpa(c, rip, linear, gpa, mode);
    if (!b)
        return straddling_block(c, rip, linear, gpa);
    check_breakpoints(c, linear, b->bytes);
    if (debug_watches_code(c, linear))
        return b;
    *entry = (struct jump_entry){linear, jump_key(c, mode), b}; /* fetching may have changed it */
    return b;
}

bool interp_code_peek(const struct vcpu *c, uint64_t linear, uint64_t *gpa)
{
    const struct mmu_entry *entry = mmu_entry(c->mmu.table[fetch_context(c)], MMU_EXEC, linear);

    *gpa = linear + entry->addend;
    return mmu_hit(entry, linear, 1);
}

uint64_t interp_code_gpa(struct vcpu *c)
{
    return fetch_gpa(c, code_linear(c, c->x.reg[X86_RIP]));
}
