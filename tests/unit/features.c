/*
 * Guests on processors that lack features, whatever the host has: their opcodes raise #UD, but for
 * those that are older instructions or NOPs then (SDM volume 2: TZCNT, LZCNT, WBNOINVD, table A-3).
 */
#include "interp_test.h"

#include "base/util.h"

#include <string.h>

#define CODE RIG_FREE
#define DATA 0x40000ULL

/* The features that a host may lack. Translated code itself needs AVX and BMI2. */
static const uint8_t optional[] = {
    X86_FEAT_CMOV,   X86_FEAT_CX16,    X86_FEAT_SSE3,      X86_FEAT_SSSE3,    X86_FEAT_SSE41,
    X86_FEAT_SSE42,  X86_FEAT_POPCNT,  X86_FEAT_AES,       X86_FEAT_PCLMUL,   X86_FEAT_SHA,
    X86_FEAT_MOVBE,  X86_FEAT_F16C,    X86_FEAT_FMA,       X86_FEAT_AVX2,     X86_FEAT_BMI1,
    X86_FEAT_LZCNT,  X86_FEAT_ADX,     X86_FEAT_RDRAND,    X86_FEAT_RDSEED,   X86_FEAT_CLFLUSHOPT,
    X86_FEAT_CLWB,   X86_FEAT_RDPID,   X86_FEAT_PREFETCHW, X86_FEAT_LAHF64,   X86_FEAT_XSAVEOPT,
    X86_FEAT_XSAVEC, X86_FEAT_INVPCID, X86_FEAT_RDTSCP,    X86_FEAT_FSGSBASE, X86_FEAT_SMAP,
};

static int setup_with(bool has)
{
    struct machine *m;

    rig = rig_create(1, 0);
    if (!rig)
        return -1;
    m = &rig->machine;
    RIG_ENGINE.vcpu_destroy(rig->cpu[0].vcpu);
    RIG_ENGINE.destroy(rig->engine);
    for (unsigned i = 0; !has && i < ARRAY_SIZE(optional); i++)
        m->model.feature[optional[i]] = false;
    rig->engine = RIG_ENGINE.create(m, NULL);
    rig->cpu[0].vcpu = RIG_ENGINE.vcpu_create(rig->engine, &rig->cpu[0].port, NULL);
    return rig->cpu[0].vcpu ? 0 : -1;
}

static int setup_all(void **state)
{
    return setup_with(true);
}

static int setup_few(void **state)
{
    return setup_with(false);
}

/* Runs CODE of SIZE bytes and HLT, with RBX pointing at DATA. Returns the vector that ended it, or
 * -1. */
static int run_code(const uint8_t *code, unsigned size, struct x86_cpu *cpu)
{
    uint64_t rax = cpu->reg[X86_RAX], rcx = cpu->reg[X86_RCX], flags = cpu->rflags, at;

    rig_clear(rig);
    put(CODE, code, size);
    PUT(CODE + size, 0xF4);
    rig_state_64(rig, cpu, CODE);
    cpu->cr4 |= X86_CR4_OSXSAVE | X86_CR4_FSGSBASE;
    cpu->xcr0 = X86_XCR0_ALL;
    cpu->reg[X86_RAX] = rax;
    cpu->reg[X86_RCX] = rcx;
    cpu->reg[X86_RBX] = DATA;
    cpu->rflags |= flags & X86_FLAGS_STATUS;
    assert_int_equal(run(cpu), EXIT_HALT);
    at = cpu->reg[X86_RIP] - 1 - RIG_HANDLERS;
    return at < 256 ? (int)at : -1;
}

static void test_undefined(void **unused)
{
    static const struct {
        const char *name;
        uint8_t code[8];
    } insn[] = {
        {"cmovz eax, ecx", {0x0F, 0x44, 0xC1}},
        {"cmpxchg16b [rbx]", {0x48, 0x0F, 0xC7, 0x0B}},
        {"haddps xmm0, xmm1", {0xF2, 0x0F, 0x7C, 0xC1}},
        {"fisttp dword [rbx]", {0xDB, 0x0B}},
        {"pshufb xmm0, xmm1", {0x66, 0x0F, 0x38, 0x00, 0xC1}},
        {"ptest xmm0, xmm1", {0x66, 0x0F, 0x38, 0x17, 0xC1}},
        {"crc32 eax, cl", {0xF2, 0x0F, 0x38, 0xF0, 0xC1}},
        {"popcnt eax, ecx", {0xF3, 0x0F, 0xB8, 0xC1}},
        {"aesenc xmm0, xmm1", {0x66, 0x0F, 0x38, 0xDC, 0xC1}},
        {"pclmulqdq xmm0, xmm1, 0", {0x66, 0x0F, 0x3A, 0x44, 0xC1, 0}},
        {"sha1msg1 xmm0, xmm1", {0x0F, 0x38, 0xC9, 0xC1}},
        {"movbe eax, [rbx]", {0x0F, 0x38, 0xF0, 0x03}},
        {"movbe [rbx], eax", {0x0F, 0x38, 0xF1, 0x03}},
        {"vcvtph2ps xmm0, xmm1", {0xC4, 0xE2, 0x79, 0x13, 0xC1}},
        {"vfmadd132ps xmm0, xmm1, xmm2", {0xC4, 0xE2, 0x71, 0x98, 0xC2}},
        {"vpaddb ymm0, ymm1, ymm2", {0xC5, 0xF5, 0xFC, 0xC2}},
        {"andn eax, ecx, edx", {0xC4, 0xE2, 0x70, 0xF2, 0xC2}},
        {"blsr eax, ecx", {0xC4, 0xE2, 0x78, 0xF3, 0xC9}},
        {"adcx eax, ecx", {0x66, 0x0F, 0x38, 0xF6, 0xC1}},
        {"adox eax, ecx", {0xF3, 0x0F, 0x38, 0xF6, 0xC1}},
        {"rdrand eax", {0x0F, 0xC7, 0xF0}},
        {"rdseed eax", {0x0F, 0xC7, 0xF8}},
        {"clflushopt [rbx]", {0x66, 0x0F, 0xAE, 0x3B}},
        {"clwb [rbx]", {0x66, 0x0F, 0xAE, 0x33}},
        {"rdpid rax", {0xF3, 0x0F, 0xC7, 0xF8}},
        {"lahf", {0x9F}},
        {"sahf", {0x9E}},
        {"xsaveopt [rbx]", {0x0F, 0xAE, 0x33}},
        {"xsavec [rbx]", {0x0F, 0xC7, 0x23}},
        {"invpcid rax, [rbx]", {0x66, 0x0F, 0x38, 0x82, 0x03}},
        {"rdtscp", {0x0F, 0x01, 0xF9}},
        {"rdfsbase rax", {0xF3, 0x48, 0x0F, 0xAE, 0xC0}},
        {"stac", {0x0F, 0x01, 0xCB}},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(insn); i++) {
        struct x86_cpu cpu = {0};

        if (run_code(insn[i].code, sizeof(insn[i].code), &cpu) != X86_UD)
            fail_msg("%s does not raise #UD", insn[i].name);
    }
}

/* What bit scans of VALUE, in CODE with source RCX or [RBX] and destination EAX, make of EAX. */
static uint64_t scan(const uint8_t *code, unsigned size, uint64_t value, bool *zero)
{
    struct x86_cpu cpu = {.reg = {[X86_RAX] = 0x77, [X86_RCX] = value}};
    uint8_t store[16] = {0x48, 0x89, 0x0B}; /* mov [rbx], rcx */

    memcpy(store + 3, code, size);
    assert_int_equal(run_code(store, size + 3, &cpu), -1);
    *zero = cpu.rflags & X86_FLAG_ZF;
    return cpu.reg[X86_RAX];
}

struct scan_case {
    uint8_t code[6];
    uint8_t size;
    uint64_t old, new; /* of 0x50, without the feature and with it */
};

static const struct scan_case scans[] = {
    {{0xF3, 0x0F, 0xBC, 0xC1}, 4, 4, 4},             /* tzcnt eax, ecx */
    {{0xF3, 0x48, 0x0F, 0xBC, 0xC1}, 5, 4, 4},       /* tzcnt rax, rcx */
    {{0xF3, 0x0F, 0xBC, 0x03}, 4, 4, 4},             /* tzcnt eax, [rbx] */
    {{0x66, 0xF3, 0x0F, 0xBC, 0xC1}, 5, 4, 4},       /* tzcnt ax, cx */
    {{0xF3, 0x0F, 0xBD, 0xC1}, 4, 6, 25},            /* lzcnt eax, ecx */
    {{0xF3, 0x48, 0x0F, 0xBD, 0xC1}, 5, 6, 57},      /* lzcnt rax, rcx */
    {{0xF3, 0x0F, 0xBD, 0x03}, 4, 6, 25},            /* lzcnt eax, [rbx] */
    {{0xF3, 0x66, 0x0F, 0xBD, 0x03}, 5, 6, 9},       /* lzcnt ax, [rbx] */
    {{0xF3, 0x64, 0x66, 0x0F, 0xBC, 0xC1}, 6, 4, 4}, /* fs tzcnt ax, cx */
};

/* BSF and BSR set ZF by their source and leave the destination alone if it is 0. */
static void test_scans_without(void **unused)
{
    for (unsigned i = 0; i < ARRAY_SIZE(scans); i++) {
        const struct scan_case *s = &scans[i];
        bool zero;

        assert_int_equal(scan(s->code, s->size, 0x50, &zero), s->old);
        assert_false(zero);
        assert_int_equal(scan(s->code, s->size, 1, &zero), 0);
        assert_false(zero); /* TZCNT would set it */
        assert_int_equal(scan(s->code, s->size, 0, &zero), 0x77);
        assert_true(zero);
    }
}

static void test_scans_with(void **unused)
{
    const bool *feature = rig->machine.model.feature;

    for (unsigned i = 0; i < ARRAY_SIZE(scans); i++) {
        const struct scan_case *s = &scans[i];
        bool zero;

        if (!feature[X86_FEAT_BMI1] || !feature[X86_FEAT_LZCNT])
            skip();
        assert_int_equal(scan(s->code, s->size, 0x50, &zero), s->new);
        assert_int_not_equal(scan(s->code, s->size, 0, &zero), 0x77);
        assert_false(zero);
    }
}

/* PREFETCHW is a NOP without the feature, and F3 in front of WBINVD means nothing. */
static void test_ignored(void **unused)
{
    static const uint8_t prefetchw[] = {0x0F, 0x0D, 0x0B}, wbnoinvd[] = {0xF3, 0x0F, 0x09};
    struct x86_cpu cpu = {0};

    assert_int_equal(run_code(prefetchw, sizeof(prefetchw), &cpu), -1);
    assert_int_equal(run_code(wbnoinvd, sizeof(wbnoinvd), &cpu), -1);
}

/* CPUID and what is executed agree. */
static void test_announced(void **unused)
{
    const struct x86_model *model = &rig->machine.model;
    struct x86_cpu cpu = {0};

    assert_false(x86_cpuid(model, &cpu, 0, 7, 0).ebx & 1u << 3);
    assert_false(x86_cpuid(model, &cpu, 0, 0x80000001, 0).ecx & 1u << 5);
    assert_false(x86_cpuid(model, &cpu, 0, 1, 0).ecx & 1u << 22);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_undefined, setup_few, teardown),
        cmocka_unit_test_setup_teardown(test_scans_without, setup_few, teardown),
        cmocka_unit_test_setup_teardown(test_scans_with, setup_all, teardown),
        cmocka_unit_test_setup_teardown(test_ignored, setup_few, teardown),
        cmocka_unit_test_setup_teardown(test_announced, setup_few, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
