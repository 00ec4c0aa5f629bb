/*
 * Code pages: in which pages code has been found, and what a write to them does.
 *
 * A decoded block, or a translation, remembers the generation of its page and is valid while the
 * page still has that one. No software TLB has a page with code for writing. So every write to it
 * comes to code_written, which changes the generation if one of the written lines holds code.
 */
#include "cpu/core/code.h"

#include "cpu/core/executor.h"
#include "cpu/core/present.h"

#define LINE_SHIFT 6
/* So many writes in a row, without decoding in between, and a page counts as one of data. */
#define WRITES_KEPT 32

/* Returns a bit for each line of a page that SIZE bytes at OFFSET touch. */
static uint64_t line_mask(uint64_t offset, uint64_t size)
{
    unsigned first = (unsigned)(offset >> LINE_SHIFT);
    unsigned last = (unsigned)MIN((offset + size - 1) >> LINE_SHIFT, 63);

    return (~0ULL << first) & (~0ULL >> (63 - last));
}

/* Has all vCPUs but SELF leave translated code, which compares the generation only where it is
 * entered. */
static void hurry_others(struct core *e, const struct vcpu *self)
{
    for (unsigned i = 0; e->accelerator && i < e->machine.cpus; i++)
        if (e->vcpu[i] && e->vcpu[i] != self)
            cpu_port_request(e->vcpu[i]->port, CPU_REQ_ENGINE);
}

/* code_page.rewrites has three fields:
 *     bits 31:16   the period in which the next field was last changed
 *     bits 15:8    how often the page's code was rewritten; counts half for each period since then
 *     bits 7:0     writes to the page since code of it was last decoded */
#define REWRITES_PERIOD 32 /* bits of the TSC: about a second */
#define REWRITES_SHIFT  8
#define REWRITES_MAX    0xFFu
#define WRITES_MASK     0xFFu

unsigned code_rewrites(const struct code_page *page)
{
    uint32_t rewrites = atomic_load_explicit(&page->rewrites, memory_order_relaxed);
    uint16_t periods;

    if (!rewrites) /* the usual case, and this is asked often */
        return 0;
    periods = (uint16_t)((__builtin_ia32_rdtsc() >> REWRITES_PERIOD) - (rewrites >> 16));
    return (rewrites >> REWRITES_SHIFT & REWRITES_MAX) >> MIN(periods, 16);
}

/* Counts a write to decoded code. Returns whether the page goes on counting as one with code. One
 * that is rewritten often does, because otherwise it would have to be dropped from the software
 * TLBs of all vCPUs each time its code is decoded again. One that is written to but no longer
 * executed does not, as it may hold data by now. Two vCPUs that count at once may lose a count,
 * which does not matter. */
static bool count_write(struct code_page *page)
{
    uint32_t seen = atomic_load_explicit(&page->rewrites, memory_order_relaxed);
    unsigned writes = seen & WRITES_MASK, before;
    uint32_t period;

    if (writes) {
        atomic_store_explicit(&page->rewrites, seen + (writes < WRITES_MASK), memory_order_relaxed);
        return writes + 1 < WRITES_KEPT;
    }
    before = code_rewrites(page);
    period = (uint32_t)(__builtin_ia32_rdtsc() >> REWRITES_PERIOD);
    atomic_store_explicit(&page->rewrites,
                          period << 16 | MIN(before + 1, REWRITES_MAX) << REWRITES_SHIFT | 1,
                          memory_order_relaxed);
    return before > 0;
}

void code_end_writes(struct code_page *page)
{
    uint32_t seen = atomic_load_explicit(&page->rewrites, memory_order_relaxed);

    if (seen & WRITES_MASK)
        atomic_store_explicit(&page->rewrites, seen & ~WRITES_MASK, memory_order_relaxed);
}

bool code_written(struct core *e, const struct vcpu *self, uint64_t gpa, uint64_t size)
{
    bool changed = false;

    /* Whoever writes stores the bytes and then looks at the lines; whoever decodes sets the lines
     * (mark_lines) and then reads the bytes. So one of the two sees what the other has done. */
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

/* Notes that LINES of the page GPN hold code. */
static void mark_lines(struct vcpu *c, uint64_t gpn, uint64_t lines)
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
    /* The first code of this page: no vCPU may have the page in its software TLB for writing, or be
     * about to enter it there. */
    if (e->machine.cpus > 1)
        present_stop_others(c);
    host = mem_peek(c->mem, gpn); /* NULL: the page is not present, so no software TLB has it */
    for (unsigned i = 0; host && i < e->machine.cpus; i++)
        if (e->vcpu[i])
            mmu_drop_writable(&e->vcpu[i]->mmu, host);
    atomic_fetch_or(&page->lines, lines);
    if (e->machine.cpus > 1)
        present_resume_others(c);
}

void code_watch(struct vcpu *c, uint64_t gpa, uint64_t size)
{
    mark_lines(c, gpa >> MEM_PAGE_SHIFT, line_mask(gpa & (MEM_PAGE_SIZE - 1), size));
}

void code_discard(struct vcpu *c, uint64_t gpa)
{
    atomic_fetch_add(&c->core->code[gpa >> MEM_PAGE_SHIFT].generation, 1);
}

void code_unmapped(struct vcpu *c, uint64_t linear, bool large)
{
    counter_add(&c->forgets[FORGET_MAPPING], 1);
    if (c->core->accelerator)
        c->core->accelerator->unmapped(c, linear, large);
    c->core->interpreter->unmapped(c, linear, large);
}
