/*
 * CPUID: that the leaves agree with the model, with each other and with what the manual promises.
 */
#include "test.h"

#include "base/util.h"
#include "x86/cpuid.h"

#include <string.h>

#define TSC_HZ 2595124000ull

static struct x86_cpuid_regs get(const struct x86_model *model, const struct x86_cpu *cpu,
                                 uint32_t leaf, uint32_t subleaf)
{
    return x86_cpuid(model, cpu, 1, leaf, subleaf);
}

static void test_identity(void **unused)
{
    struct x86_model model;
    struct x86_cpu cpu;
    struct x86_cpuid_regs r;
    char brand[49] = {0};

    x86_cpu_reset(&cpu);
    x86_model_default(&model, 2, TSC_HZ);
    r = get(&model, &cpu, 0, 0);
    assert_memory_equal(&r.ebx, "Genu", 4);
    assert_memory_equal(&r.edx, "ineI", 4);
    assert_memory_equal(&r.ecx, "ntel", 4);
    assert_int_equal(get(&model, &cpu, 1, 0).eax, cpu.reg[X86_RDX]);
    for (unsigned i = 0; i < 3; i++) {
        r = get(&model, &cpu, 0x80000002 + i, 0);
        memcpy(brand + 16 * i, &r, 16);
    }
    assert_string_equal(brand, "doppel virtual processor");
    r = get(&model, &cpu, 0x40000000, 0);
    assert_memory_equal(&r.ebx, "KVMKVMKVM\0\0\0", 12);
}

static void test_limits(void **unused)
{
    struct x86_model model;
    struct x86_cpu cpu;
    struct x86_cpuid_regs highest, r;

    x86_cpu_reset(&cpu);
    x86_model_default(&model, 2, TSC_HZ);
    highest = get(&model, &cpu, get(&model, &cpu, 0, 0).eax, 0);
    r = get(&model, &cpu, 0x3FFFFFFF, 0);
    assert_memory_equal(&r, &highest, sizeof(r));
    r = get(&model, &cpu, get(&model, &cpu, 0x80000000, 0).eax + 1, 0);
    assert_memory_equal(&r, &highest, sizeof(r));
    r = get(&model, &cpu, 7, 1);
    assert_int_equal(r.eax | r.ebx | r.ecx | r.edx, 0);
}

/* Taking a feature from the model takes away exactly what announces it. */
static void test_features(void **unused)
{
    static const struct {
        enum x86_feature feature;
        uint32_t leaf;
        unsigned reg, bit;
    } known[] = {
        {X86_FEAT_SSE3, 1, 2, 0},
        {X86_FEAT_AVX, 1, 2, 28},
        {X86_FEAT_FPU, 1, 3, 0},
        {X86_FEAT_SYSENTER, 1, 3, 11},
        {X86_FEAT_AVX2, 7, 1, 5},
        {X86_FEAT_SMAP, 7, 1, 20},
        {X86_FEAT_RDPID, 7, 2, 22},
        {X86_FEAT_SHA, 7, 1, 29},
        {X86_FEAT_LZCNT, 0x80000001, 2, 5},
        {X86_FEAT_LM, 0x80000001, 3, 29},
        {X86_FEAT_RDTSCP, 0x80000001, 3, 27},
    };
    struct x86_model model;
    struct x86_cpu cpu;

    x86_cpu_reset(&cpu);
    x86_model_default(&model, 1, TSC_HZ);
    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        uint32_t with[4], without[4];
        struct x86_cpuid_regs r;

        model.feature[known[i].feature] = true;
        r = get(&model, &cpu, known[i].leaf, 0);
        memcpy(with, &r, sizeof(with));
        model.feature[known[i].feature] = false;
        r = get(&model, &cpu, known[i].leaf, 0);
        memcpy(without, &r, sizeof(without));
        for (unsigned reg = 0; reg < 4; reg++)
            assert_int_equal(with[reg] ^ without[reg],
                             reg == known[i].reg ? 1u << known[i].bit : 0);
    }
}

static void test_state(void **unused)
{
    struct x86_model model;
    struct x86_cpu cpu;
    struct x86_cpuid_regs r;

    x86_cpu_reset(&cpu);
    x86_model_default(&model, 2, TSC_HZ);
    model.feature[X86_FEAT_AVX] = true;
    assert_int_equal(get(&model, &cpu, 1, 0).ecx >> 27 & 1, 0);
    cpu.cr4 |= X86_CR4_OSXSAVE;
    assert_int_equal(get(&model, &cpu, 1, 0).ecx >> 27 & 1, 1);

    r = get(&model, &cpu, 0xD, 0);
    assert_int_equal(r.eax, X86_XCR0_ALL);
    assert_int_equal(r.ebx, 576);
    assert_int_equal(r.ecx, X86_XSAVE_SIZE);
    cpu.xcr0 = X86_XCR0_ALL;
    assert_int_equal(get(&model, &cpu, 0xD, 0).ebx, X86_XSAVE_SIZE);
    r = get(&model, &cpu, 0xD, 2);
    assert_int_equal(r.ebx + r.eax, X86_XSAVE_SIZE);
    model.feature[X86_FEAT_AVX] = false;
    assert_int_equal(get(&model, &cpu, 0xD, 0).ecx, 576);
    assert_int_equal(get(&model, &cpu, 0xD, 2).eax, 0);

    /* SYSCALL is announced in 64-bit code only. */
    assert_int_equal(get(&model, &cpu, 0x80000001, 0).edx >> 11 & 1, 0);
    cpu.efer |= X86_EFER_LMA;
    cpu.seg[X86_CS].attr |= X86_ATTR_L;
    assert_int_equal(get(&model, &cpu, 0x80000001, 0).edx >> 11 & 1, 1);
}

static void test_topology(void **unused)
{
    static const unsigned cpus[] = {1, 2, 3, 4, 5, 64, 255};
    struct x86_model model;
    struct x86_cpu cpu;

    x86_cpu_reset(&cpu);
    for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
        unsigned last = cpus[i] - 1;
        struct x86_cpuid_regs smt, core, l3;

        x86_model_default(&model, cpus[i], TSC_HZ);
        smt = x86_cpuid(&model, &cpu, last, 0xB, 0);
        core = x86_cpuid(&model, &cpu, last, 0xB, 1);
        l3 = x86_cpuid(&model, &cpu, last, 4, 3);
        assert_int_equal(smt.edx, last);
        assert_int_equal(core.edx, last);
        assert_int_equal(smt.eax & 31, 0);            /* every APIC ID is a core of its own ... */
        assert_int_equal(last >> (core.eax & 31), 0); /* ... and all are in one package */
        assert_int_equal(core.ebx, cpus[i]);
        assert_true((l3.eax >> 14 & 0xFFF) >= last);
        assert_int_equal(x86_cpuid(&model, &cpu, last, 0xB, 2).ebx, 0);
        assert_int_equal(x86_cpuid(&model, &cpu, last, 4, 4).eax & 31, 0);
        assert_int_equal(x86_cpuid(&model, &cpu, last, 1, 0).ebx >> 24, last);
        assert_int_equal(x86_cpuid(&model, &cpu, last, 1, 0).edx >> 28 & 1, cpus[i] > 1);
    }
}

static void test_frequencies(void **unused)
{
    static const uint64_t hz[] = {TSC_HZ, 1000000000, 3333333333, 4200000000, 799987654};
    struct x86_model model;
    struct x86_cpu cpu;

    x86_cpu_reset(&cpu);
    for (unsigned i = 0; i < ARRAY_SIZE(hz); i++) {
        struct x86_cpuid_regs r;
        uint32_t khz;

        x86_model_default(&model, 1, hz[i]);
        r = get(&model, &cpu, 0x15, 0);
        khz = r.ecx / 1000 * r.ebx / r.eax; /* in 32 bits, as Linux computes it: to 100 ppm */
        assert_in_range(khz, hz[i] / 1000 * 9999 / 10000, hz[i] / 1000 * 10001 / 10000);
        assert_int_equal(get(&model, &cpu, 0x40000010, 0).eax, hz[i] / 1000);
    }
}

/* What another hypervisor offers: all but the bits LACKS of leaf LEAF's register REG. */
struct offer {
    uint32_t leaf, lacks;
    unsigned reg;
};

static struct x86_cpuid_regs offered(const void *opaque, uint32_t leaf, uint32_t subleaf)
{
    const struct offer *offer = opaque;
    uint32_t r[4] = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};

    if (leaf == offer->leaf)
        r[offer->reg] &= ~offer->lacks;
    return (struct x86_cpuid_regs){r[0], r[1], r[2], r[3]};
}

/* A model that is restricted has what was offered and nothing else, and nothing that needs what is
 * gone; what every model has stays. */
static void test_restricted(void **unused)
{
    const struct offer nothing = {0}, pcid = {1, 1u << 17, 2}, xsave = {1, 1u << 26, 2},
                       smep = {7, 1u << 7, 1}, x2apic = {1, 1u << 21, 2};
    struct x86_model whole, model;
    struct x86_cpu cpu;

    x86_cpu_reset(&cpu);
    x86_model_default(&whole, 1, TSC_HZ);
    model = whole;
    x86_model_restrict(&model, offered, &nothing);
    assert_true(x86_model_within(&whole, &model));
    x86_model_restrict(&model, offered, &x2apic);
    assert_true(x86_model_within(&whole, &model));
    x86_model_restrict(&model, offered, &pcid);
    assert_false(get(&model, &cpu, 1, 0).ecx >> 17 & 1);
    assert_false(get(&model, &cpu, 7, 0).ebx >> 10 & 1); /* INVPCID */
    assert_false(x86_cr4_bits(&model) & X86_CR4_PCIDE);
    assert_true(x86_cr4_bits(&model) & X86_CR4_SMEP);
    assert_true(x86_model_within(&model, &whole));
    assert_false(x86_model_within(&whole, &model));
    x86_model_restrict(&model, offered, &smep);
    assert_false(x86_cr4_bits(&model) & X86_CR4_SMEP);
    x86_model_restrict(&model, offered, &xsave);
    assert_false(get(&model, &cpu, 1, 0).ecx & (1u << 26 | 1u << 28)); /* and AVX */
    assert_int_equal(x86_xcr0_bits(&model), X86_XCR0_X87 | X86_XCR0_SSE);
    model = whole;
    model.arch_capabilities &= model.arch_capabilities - 1;
    assert_true(x86_model_within(&model, &whole));
    assert_false(x86_model_within(&whole, &model));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),    cmocka_unit_test(test_limits),
        cmocka_unit_test(test_features),    cmocka_unit_test(test_restricted),
        cmocka_unit_test(test_state),       cmocka_unit_test(test_topology),
        cmocka_unit_test(test_frequencies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
