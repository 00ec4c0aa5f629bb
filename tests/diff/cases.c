/*
 * Cases from cases-*.S.
 */
#include "cases.h"

#include <string.h>

/* The table that the CASE macro builds; the linker names its ends. */
struct hand_case {
    const char *name;
    const uint8_t *start, *end;
    uint32_t bits, writable;
};
extern const struct hand_case __start_hand_cases[], __stop_hand_cases[];

unsigned cases_count(void)
{
    return (unsigned)(__stop_hand_cases - __start_hand_cases);
}

void cases_make(const struct generator *g, unsigned i, unsigned variation, struct diff_case *c)
{
    const struct hand_case *h = &__start_hand_cases[i];
    uint64_t base, *gpr = c->in.gpr;
    struct rng rng;

    generate_empty(g, i * 1000 + variation,
                   h->bits == 64   ? X86_CODE64
                   : h->bits == 32 ? X86_CODE32
                                   : X86_CODE16,
                   c, &rng);
    c->number = variation;
    c->name = h->name;
    c->size = (unsigned)(h->end - h->start);
    c->in.rflags &= ~(uint64_t)(X86_FLAG_AC | X86_FLAG_DF);
    /* Code pages, data and stack at either address; 32-bit parts need the lower one. */
    base = h->bits == 16 ? 0 : DIFF_LOW;
    c->in.rip = base + (h->writable ? DIFF_CODE_RWX : DIFF_CODE) + 0x180 * (1 + variation % 12);
    if (h->bits == 64 && variation % 2)
        base = DIFF_HIGH;
    gpr[X86_RBX] = base + DIFF_DATA2;
    gpr[X86_RSI] = base + DIFF_DATA + 0x400;
    gpr[X86_RDI] = base + DIFF_DATA + 0x900;
    gpr[X86_RSP] = (h->bits == 16 ? 0 : DIFF_LOW) + DIFF_STACK + 0x1000;
    gpr[X86_RBP] = gpr[X86_RSP] + 0x80;
    gpr[X86_RCX] = 5;
    case_poke(c, c->in.rip + diff_segment_base(c, X86_CS), h->start, c->size);
}
