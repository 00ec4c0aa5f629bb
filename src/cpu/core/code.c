/*
 * Code pages: who has decoded or translated code of which page, and who writes to it.
 *
 * A decoded block, or a translation, remembers the generation of its page and is valid while the
 * page still has that one. Whoever writes to a line of a page that code has been found in goes
 * through code_written, which moves the generation on; such a page is in no software TLB for
 * writing.
 */
#include "cpu/core/code.h"

#include "cpu/core/executor.h"
#include "cpu/core/present.h"

#define LINE_SHIFT  6
#define WRITES_KEPT 32 /* without decoding in between, until a page is unmarked */

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

unsigned code_rewrites(const struct code_page *page)
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

    /* The bytes are written before the lines are looked at, as mark_lines sets the lines before the
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
    /* The first on this page: nobody may have it open for writing, or be about to. */
    if (e->machine.cpus > 1)
        present_stop_others(c);
    host = mem_peek(c->mem, gpn); /* NULL: it is absent, and nobody may write to it */
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
