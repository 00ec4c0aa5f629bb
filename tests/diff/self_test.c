/*
 * The test's test: the native side must agree with itself, and every kind of difference planted in
 * a result must be found.
 */
#include "self_test.h"

#include "compare.h"

#include "base/util.h"

#include <string.h>

/* Spoils one thing in R. False when this case does not have it. */
struct plant {
    const char *name;
    bool (*spoil)(struct rng *rng, const struct diff_case *c, struct diff_result *r);
};

static bool spoil_vector(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    r->vector ^= 1;
    return true;
}

static bool spoil_error(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    r->error ^= X86_PF_W;
    return true;
}

static bool spoil_cr2(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    r->cr2 ^= 1ULL << rng_below(rng, 48);
    return r->vector == X86_PF;
}

static bool spoil_rip(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    r->out.rip += 1 + rng_below(rng, 15);
    return true;
}

static bool spoil_flags(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    static const uint32_t flag[] = {X86_FLAG_CF, X86_FLAG_PF, X86_FLAG_AF, X86_FLAG_ZF,
                                    X86_FLAG_SF, X86_FLAG_OF, X86_FLAG_DF};
    struct mask mask;

    mask_find(c, r, r, &mask);
    for (unsigned i = (unsigned)rng_below(rng, ARRAY_SIZE(flag)); i < ARRAY_SIZE(flag); i++)
        if (!(mask.flags & flag[i])) {
            r->out.rflags ^= flag[i];
            return true;
        }
    return false;
}

static bool spoil_gpr(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    struct mask mask;
    bool half;

    mask_find(c, r, r, &mask);
    half = mask.narrow;
    r->out.gpr[rng_below(rng, half ? 8 : 16)] ^= 1ULL << rng_below(rng, half ? 32 : 64);
    return true;
}

static bool spoil_selector(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    r->out.selector[rng_below(rng, X86_SEGMENTS)] ^= 8;
    return true;
}

static bool spoil_base(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    if (rng_next(rng) & 1)
        r->out.fs_base ^= 1;
    else
        r->out.gs_base ^= 1;
    return true;
}

static bool spoil_x87(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    static const uint8_t control[] = {0, 1, 2, 3, 4};

    if (rng_next(rng) & 1)
        r->out.xsave[control[rng_below(rng, ARRAY_SIZE(control))]] ^= 1;
    else
        r->out.xsave[32 + rng_below(rng, 8) * 16 + rng_below(rng, 10)] ^= 0x10;
    return true;
}

static bool spoil_vector_register(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    unsigned part = (unsigned)(rng_next(rng) & 1 ? X86_XSAVE_XMM : X86_XSAVE_YMMH);

    r->out.xsave[part + rng_below(rng, 256)] ^= (uint8_t)(1 << rng_below(rng, 8));
    return true;
}

static bool spoil_mxcsr(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    r->out.xsave[X86_XSAVE_MXCSR + rng_below(rng, 2)] ^= (uint8_t)(1 << rng_below(rng, 8));
    return true;
}

static bool spoil_memory(struct rng *rng, const struct diff_case *c, struct diff_result *r)
{
    unsigned at = (unsigned)rng_below(rng, DIFF_SIZE);

    r->image[at] ^= (uint8_t)(1 << rng_below(rng, 8));
    return diff_page_access(at / 4096);
}

static const struct plant plants[] = {
    {"vector", spoil_vector},
    {"error code", spoil_error},
    {"cr2", spoil_cr2},
    {"rip", spoil_rip},
    {"flags", spoil_flags},
    {"general registers", spoil_gpr},
    {"selectors", spoil_selector},
    {"fs and gs base", spoil_base},
    {"x87", spoil_x87},
    {"xmm and ymm", spoil_vector_register},
    {"mxcsr", spoil_mxcsr},
    {"memory", spoil_memory},
};

/* Whether nothing but flags, and what spoil_x87 leaves alone, is masked. */
static bool compares_all(const struct diff_case *c, const struct diff_result *r)
{
    struct mask mask;
    uint64_t bits;

    mask_find(c, r, r, &mask);
    bits = mask.error | mask.cr2 | mask.vector_registers | mask.ranges | mask.mxcsr |
           mask.which_fault | mask.mmx | mask.fs_base | mask.gs_base;
    for (unsigned i = 0; i < X86_GPRS; i++)
        bits |= mask.gpr[i];
    return !mask.skip && !bits;
}

bool self_test(const struct generator *g, struct native *native, uint64_t count)
{
    static struct diff_case c;
    static struct diff_result first, second;
    unsigned planted[ARRAY_SIZE(plants)] = {0}, missed[ARRAY_SIZE(plants)] = {0}, unlike = 0;
    struct rng rng = {g->seed};
    bool good;

    for (uint64_t n = 0; n < count; n++) {
        const struct plant *plant = &plants[n % ARRAY_SIZE(plants)];

        if (!(n % 8 == 7 ? generate_sequence(g, n, &c) : generate_single(g, n, &c)))
            continue;
        native_run(native, &c, &first);
        native_run(native, &c, &second);
        if (first.timeout || second.timeout)
            continue;
        if (compare_results(&c, &first, &second, NULL)) {
            unlike++;
            compare_print(&c, &first, &second, "native again", stdout);
        }
        if (!compares_all(&c, &first) || !plant->spoil(&rng, &c, &second))
            continue;
        planted[n % ARRAY_SIZE(plants)]++;
        missed[n % ARRAY_SIZE(plants)] += !compare_results(&c, &first, &second, NULL);
    }
    good = unlike == 0;
    for (unsigned i = 0; i < ARRAY_SIZE(plants); i++) {
        printf("self-test: %-18s %5u planted, %u missed\n", plants[i].name, planted[i], missed[i]);
        good &= planted[i] && !missed[i];
    }
    printf("self-test: %u cases of %u were not the same when run again\n", unlike, (unsigned)count);
    return good;
}
