/*
 * Making blocks: fetches guest code, decodes it (x86/insn.h) and chooses a handler for each
 * instruction (select.c).
 */
#include "cpu/core/code.h"
#include "cpu/core/fault.h"
#include "cpu/core/fetch.h"
#include "cpu/interp/block.h"
#include "cpu/interp/select.h"

#include <string.h>

#define BLOCK_SIZE (sizeof(struct block) + BLOCK_MAX * sizeof(struct uop))

/* Copies up to 15 bytes of code from GPA on, as far as they lie in one page. Outside of RAM they
 * read as FFh, as from a bus where nothing answers. Returns how many bytes there are. */
static unsigned fetch_in_page(struct vcpu *c, uint64_t linear, uint64_t gpa, uint8_t bytes[15])
{
    unsigned offset = gpa & (MEM_PAGE_SIZE - 1), size = MIN(15, MEM_PAGE_SIZE - offset);
    uint64_t gpn = gpa >> MEM_PAGE_SHIFT;
    void *page;

    switch (mem_page(c->mem, gpn, MEM_READ, &page)) {
    case MEM_OK: memcpy(bytes, (uint8_t *)page + offset, size); break;
    case MEM_NOT_RAM: memset(bytes, 0xFF, size); break;
    case MEM_ABSENT: c->absent = (struct mmu_absent){gpn, MEM_READ}; raise_absent(c, NULL);
    }
    return size;
}

/* Returns how many bytes from RIP on lie within the limit of CS; at most 15, because no instruction
 * is longer. */
static unsigned limit_left(const struct vcpu *c, uint64_t rip)
{
    uint64_t limit = c->x.seg[X86_CS].limit;

    if (in_64(c) || limit == 0xFFFFFFFF)
        return 15;
    return rip > limit ? 0 : (unsigned)MIN(limit - rip + 1, 15);
}

/* Decodes one instruction into OP; *ENDS becomes true if it ends a block. Returns its length, or 0
 * if it is longer than AVAILABLE bytes. */
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

/* The handler behind the last instruction of a block that no branch ends: goes on behind the block.
 * */
static const struct uop *op_go_on(struct vcpu *c, const struct uop *op)
{
    end_block(c, op);
    c->link = LINK_ON;
    return NULL;
}

/* Completes B, which has BYTES bytes. ENDS: its last instruction ends it. */
static void close_block(struct block *b, unsigned bytes, bool ends)
{
    b->bytes = (uint16_t)bytes;
    b->uops = b->count;
    if (!ends)
        block_uops(b)[b->uops++] =
            (struct uop){.fn = op_go_on, .off = (uint16_t)bytes, .number = (uint8_t)b->count};
}

struct block *block_decode(struct vcpu *c, uint64_t rip, uint64_t linear, uint64_t gpa,
                           unsigned mode)
{
    struct block_cache *cache = c->blocks;
    uint64_t gpn = gpa >> MEM_PAGE_SHIFT;
    unsigned limit = mode & MODE_STEP ? 1 : BLOCK_MAX - 1, off = 0;
    struct code_page *page =
        gpn < c->core->code_pages && !c->core->writes_unseen && mem_holds_code(c->mem, gpn)
            ? &c->core->code[gpn]
            : &cache->no_page;
    unsigned drops;
    struct block *b;
    bool ends = false;

    if (cache->used + BLOCK_SIZE > cache->size)
        block_cache_clear(c, FORGET_BLOCKS_FULL);
    drops = cache->drops;
    b = (struct block *)(cache->arena + cache->used);
    *b = (struct block){.page = page, .gpa = gpa, .mode = (uint8_t)mode};
    b->cached = page != &cache->no_page;
    if (page != &cache->no_page) {
        b->generation = atomic_load(&page->generation);
        code_end_writes(page);
        code_watch(c, gpa, X86_LENGTH_MAX);
    }
    while (b->count < limit && !ends) {
        uint8_t bytes[15];
        unsigned available, length;

        if (off && !((gpa + off) & (MEM_PAGE_SIZE - 1)))
            break;
        if (page != &cache->no_page)
            code_watch(c, gpa + off, X86_LENGTH_MAX);
        available = MIN(fetch_in_page(c, linear + off, gpa + off, bytes), limit_left(c, rip + off));
        length = decode_one(c, bytes, available, off, &block_uops(b)[b->count], &ends);
        if (!length)
            break;
        block_uops(b)[b->count].number = (uint8_t)b->count;
        b->count++;
        off += length;
        if (((gpa + off) ^ gpa) >> MEM_PAGE_SHIFT)
            break;
    }
    if (cache->drops !=
        drops) /* the cache was cleared meanwhile, and with it the thunks of the first uops */
        return block_decode(c, rip, linear, gpa, mode);
    if (!b->count)
        return NULL;
    close_block(b, off, ends);
    counter_add(&cache->decoded, 1);
    if (!b->cached) /* it will be executed once, and the next block is decoded in its place */
        return b;
    cache->used += sizeof(*b) + b->uops * sizeof(struct uop);
    cache->used = ALIGN_UP(cache->used, 16);
    return b;
}

struct block *block_straddling(struct vcpu *c, uint64_t rip, uint64_t linear, uint64_t gpa)
{
    struct straddle *s = &c->blocks->straddle[linear >> MEM_PAGE_SHIFT & (STRADDLES - 1)];
    unsigned first, available, length;
    struct block *b = s->block;
    uint8_t bytes[15];
    bool ends = false;

    first = fetch_in_page(c, linear, gpa, bytes);
    available = MIN(15, limit_left(c, rip));
    if (available <= first) /* the next byte is beyond the limit of CS */
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
    length = decode_one(c, bytes, available, 0, block_uops(b), &ends);
    if (!length) {
        b->count = 0;
        raise_error(c, NULL, X86_GP, 0); /* the instruction goes beyond the limit of CS */
    }
    close_block(b, length, ends);
    s->linear = linear;
    s->available = (uint8_t)available;
    memcpy(s->bytes, bytes, available);
    return b;
}
