/*
 * Where code is. Entries of the software TLB for execution lead to guest physical addresses, not
 * to host memory, because blocks and translations are found by those.
 */
#include "cpu/core/fetch.h"

#include "cpu/core/fault.h"

uint64_t fetch_linear(struct vcpu *c, uint64_t rip)
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

uint64_t fetch_gpa(struct vcpu *c, uint64_t linear)
{
    enum mmu_context context = fetch_context(c);
    const struct mmu_entry *entry = mmu_entry(c->mmu.table[context], MMU_EXEC, linear);
    enum mmu_result result;
    struct mmu_page page;
    unsigned before;
    uint32_t error;

    /* Here the addend leads to the guest physical address. */
    if (mmu_hit(entry, linear, 1))
        return linear + entry->addend;
    counter_add(&c->exits[CAUSE_TLB_MISS], 1);
    before = meter_enter(c->meter, CAUSE_TLB_MISS, 0, linear, MMU_EXEC);
    result = mmu_walk(c->mem, &c->x, linear, MMU_EXEC, context, &page, &error, &c->absent);
    if (result == MMU_ABSENT) {
        meter_leave(c->meter, before);
        raise_absent(c, NULL);
    }
    if (result == MMU_FAULT) {
        meter_detail(c->meter, CAUSE_TLB_MISS, linear, MMU_EXEC | TRACE_FAULT);
        meter_leave(c->meter, before);
        raise_page_fault(c, NULL, linear, error);
    }
    mmu_fill(&c->mmu, context, MMU_EXEC, linear,
             (void *)(uintptr_t)ALIGN_DOWN(page.gpa, MEM_PAGE_SIZE), &page);
    meter_leave(c->meter, before);
    return page.gpa;
}

bool fetch_peek(const struct vcpu *c, uint64_t linear, uint64_t *gpa)
{
    const struct mmu_entry *entry = mmu_entry(c->mmu.table[fetch_context(c)], MMU_EXEC, linear);

    *gpa = linear + entry->addend;
    return mmu_hit(entry, linear, 1);
}
