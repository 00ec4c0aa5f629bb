/*
 * Decoding and the instruction table.
 */
#include "test.h"

#include "base/util.h"
#include "x86/cpu.h"
#include "x86/insn.h"

#include <stdlib.h>
#include <string.h>

struct encoding {
    enum x86_code_size size;
    bool real;
    unsigned length;
    uint8_t bytes[16];
    int result;
    enum x86_class class; /* if it decodes */
    enum x86_feature feature;
};

#define BYTES(...)                                                                                 \
    sizeof((uint8_t[]){__VA_ARGS__}),                                                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define CODE64 X86_CODE64, false
#define CODE32 X86_CODE32, false
#define CODE16 X86_CODE16, false
#define REAL   X86_CODE16, true

static const struct encoding encodings[] = {
    /* Lengths: default sizes, prefixes, immediates. */
    {CODE64, BYTES(0x90), 1, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE64, BYTES(0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8), 10, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE32, BYTES(0xB8, 1, 2, 3, 4), 5, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE16, BYTES(0xB8, 1, 2), 3, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {REAL, BYTES(0x66, 0xB8, 1, 2, 3, 4), 6, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE64, BYTES(0x8B, 0x84, 0x88, 1, 2, 3, 4), 7, X86_CLASS_INTEGER, X86_FEAT_BASE},
    /* As Intel's processors have it, PAUSE whatever REX says. */
    {CODE64, BYTES(0xF3, 0x49, 0x90), 3, X86_CLASS_INTEGER, X86_FEAT_BASE},
    /* Intel ignores 66h on near branches in 64-bit code. */
    {CODE64, BYTES(0x66, 0xE8, 0, 0, 0, 0), 6, X86_CLASS_BRANCH, X86_FEAT_BASE},
    /* The bytes end too early, or the instruction is longer than 15 bytes. */
    {CODE64, BYTES(0x48, 0xB8, 1, 2, 3), 0, 0, 0},
    {CODE64, BYTES(0x66), 0, 0, 0},
    {CODE64,
     BYTES(0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
           0x90),
     15, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE64,
     BYTES(0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
           0x66),
     -2, 0, 0},
    {CODE64,
     BYTES(0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x81,
           0xC0),
     -2, 0, 0},
    /* LOCK may stand before a read-modify-write of memory only. */
    {CODE64, BYTES(0xF0, 0x01, 0x00), 3, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE64, BYTES(0xF0, 0x0F, 0xB1, 0x00), 4, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE64, BYTES(0xF0, 0x01, 0xC0), -1, 0, 0},
    {CODE64, BYTES(0xF0, 0x03, 0x00), -1, 0, 0},
    {CODE64, BYTES(0xF0, 0x8B, 0x00), -1, 0, 0},
    {CODE64, BYTES(0xF0, 0x0F, 0xA3, 0x00), -1, 0, 0},
    {CODE64, BYTES(0xF0, 0x0F, 0xAB, 0x00), 4, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE64, BYTES(0xF0, 0xC5, 0xF8, 0x28, 0xC1), -1, 0, 0},
    /* Undefined. */
    {CODE64, BYTES(0x0F, 0x0B), -1, 0, 0},
    {CODE64, BYTES(0x0F, 0xB9, 0xC0), -1, 0, 0},
    {CODE64, BYTES(0x0F, 0xFF, 0xC0), -1, 0, 0},
    {CODE64, BYTES(0x06), -1, 0, 0},
    {CODE64, BYTES(0x27), -1, 0, 0},
    {CODE64, BYTES(0xD6), -1, 0, 0},
    {CODE64, BYTES(0x8E, 0xC8), -1, 0, 0},       /* mov cs, eax */
    {CODE64, BYTES(0x8E, 0xF0), -1, 0, 0},       /* no such segment register */
    {CODE64, BYTES(0x0F, 0x20, 0xC8), -1, 0, 0}, /* no CR1 */
    {CODE64, BYTES(0x0F, 0xAA), -1, 0, 0},       /* RSM outside SMM */
    {CODE64, BYTES(0x48, 0xC5, 0xF8, 0x28, 0xC1), -1, 0, 0},
    {CODE64, BYTES(0x66, 0xC5, 0xF8, 0x28, 0xC1), -1, 0, 0},
    {CODE64, BYTES(0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC1), -1, 0, 0},             /* EVEX */
    {CODE64, BYTES(0x8F, 0xE8, 0x78, 0xC2, 0xC1, 1), -1, 0, 0},                /* XOP */
    {CODE64, BYTES(0x0F, 0x0F, 0xC1, 0x9E), -1, 0, 0},                         /* 3DNow */
    {CODE64, BYTES(0xC5, 0xFA, 0xB8, 0xC1), -1, 0, 0},                         /* POPCNT with VEX */
    {CODE64, BYTES(0x0F, 0x01, 0xD5), -1, 0, 0},                               /* XEND */
    {CODE64, BYTES(0x0F, 0x01, 0xD8), -1, 0, 0},                               /* VMRUN */
    {CODE64, BYTES(0xC4, 0xE2, 0x69, 0x90, 0x04, 0x15, 0, 0, 0, 0), -1, 0, 0}, /* index = mask */
    {CODE32, BYTES(0x0F, 0x05), -1, 0, 0},
    {CODE64, BYTES(0x0F, 0x05), 2, X86_CLASS_FAR, X86_FEAT_SYSCALL},
    /* What real and virtual-8086 mode lack. */
    {CODE16, BYTES(0x63, 0xC1), 2, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {REAL, BYTES(0x63, 0xC1), -1, 0, 0},
    {CODE16, BYTES(0x0F, 0x00, 0xC0), 3, X86_CLASS_SYSTEM, X86_FEAT_BASE},
    {REAL, BYTES(0x0F, 0x00, 0xC0), -1, 0, 0},
    {CODE16, BYTES(0xC5, 0xF8, 0x28, 0xC1), 4, X86_CLASS_NATIVE, X86_FEAT_AVX},
    {REAL, BYTES(0xC5, 0xF8, 0x28, 0xC1), -1, 0, 0},
    {REAL, BYTES(0xC5, 0x07), 2, X86_CLASS_SYSTEM, X86_FEAT_BASE}, /* lds */
    {REAL, BYTES(0x0F, 0x28, 0xC1), 3, X86_CLASS_NATIVE, X86_FEAT_SSE},
    /* Reserved NOPs stay NOPs without the features that use them. */
    {CODE64, BYTES(0xF3, 0x0F, 0x1E, 0xFA), 4, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE64, BYTES(0x66, 0x0F, 0x1B, 0xC1), 4, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE64, BYTES(0x0F, 0x1C, 0x01), 3, X86_CLASS_INTEGER, X86_FEAT_BASE},
    /* One mnemonic, several classes. */
    {CODE64, BYTES(0x8B, 0xC1), 2, X86_CLASS_INTEGER, X86_FEAT_BASE},
    {CODE64, BYTES(0x8E, 0xD8), 2, X86_CLASS_SYSTEM, X86_FEAT_BASE},
    {CODE64, BYTES(0x0F, 0x22, 0xD8), 3, X86_CLASS_SYSTEM, X86_FEAT_BASE},
    {CODE64, BYTES(0x0F, 0x23, 0xF8), 3, X86_CLASS_SYSTEM, X86_FEAT_BASE},
    {CODE64, BYTES(0xFF, 0xD0), 2, X86_CLASS_BRANCH, X86_FEAT_BASE},
    {CODE64, BYTES(0xFF, 0x18), 2, X86_CLASS_FAR, X86_FEAT_BASE},
    {CODE64, BYTES(0xFF, 0x28), 2, X86_CLASS_FAR, X86_FEAT_BASE},
    {CODE64, BYTES(0xC3), 1, X86_CLASS_BRANCH, X86_FEAT_BASE},
    {CODE64, BYTES(0xCB), 1, X86_CLASS_FAR, X86_FEAT_BASE},
    {CODE64, BYTES(0xA5), 1, X86_CLASS_STRING, X86_FEAT_BASE},
    {CODE64, BYTES(0xF2, 0x0F, 0x10, 0xC1), 4, X86_CLASS_NATIVE, X86_FEAT_SSE2},
    {CODE64, BYTES(0xF3, 0xA7), 2, X86_CLASS_STRING, X86_FEAT_BASE},
    {CODE64, BYTES(0xF2, 0x0F, 0xC2, 0xC1, 0), 5, X86_CLASS_NATIVE, X86_FEAT_SSE2},
    {CODE64, BYTES(0x0F, 0xFC, 0xC1), 3, X86_CLASS_X87, X86_FEAT_MMX},
    {CODE64, BYTES(0x66, 0x0F, 0xFC, 0xC1), 4, X86_CLASS_NATIVE, X86_FEAT_SSE2},
    {CODE64, BYTES(0x0F, 0x6E, 0xC1), 3, X86_CLASS_X87, X86_FEAT_MMX},
    {CODE64, BYTES(0x66, 0x0F, 0x7E, 0xC1), 4, X86_CLASS_NATIVE, X86_FEAT_SSE2},
    /* One mnemonic, several features. */
    {CODE64, BYTES(0xC5, 0xF1, 0xFC, 0xC1), 4, X86_CLASS_NATIVE, X86_FEAT_AVX},
    {CODE64, BYTES(0xC5, 0xF5, 0xFC, 0xC1), 4, X86_CLASS_NATIVE, X86_FEAT_AVX2},
    {CODE64, BYTES(0xC4, 0xE2, 0x71, 0xDC, 0xC1), 5, X86_CLASS_NATIVE, X86_FEAT_AVX},
    {CODE64, BYTES(0xC4, 0xE2, 0x75, 0xDC, 0xC1), 5, X86_CLASS_NATIVE, X86_FEAT_VAES},
    {CODE64, BYTES(0x66, 0x0F, 0x3A, 0x15, 0x00, 0), 6, X86_CLASS_NATIVE, X86_FEAT_SSE41},
    {CODE64, BYTES(0x9F), 1, X86_CLASS_INTEGER, X86_FEAT_LAHF64},
    {CODE32, BYTES(0x9F), 1, X86_CLASS_INTEGER, X86_FEAT_BASE},
};

static void test_encodings(void **unused)
{
    struct x86_insn insn;

    for (unsigned i = 0; i < ARRAY_SIZE(encodings); i++) {
        const struct encoding *e = &encodings[i];
        int result = x86_decode(e->size, e->real, e->bytes, e->length, &insn);

        if (result != e->result)
            fail_msg("encoding %u (%02x %02x %02x ...): %d, not %d", i, e->bytes[0], e->bytes[1],
                     e->bytes[2], result, e->result);
        if (result <= 0)
            continue;
        assert_memory_equal(insn.bytes, e->bytes, result);
        if (insn.info->class != e->class || insn.feature != e->feature)
            fail_msg("encoding %u (%s): class %u and feature %u, not %u and %u", i,
                     ZydisMnemonicGetString(insn.z.mnemonic), insn.info->class, insn.feature,
                     e->class, e->feature);
    }
}

/* Every prefix of an instruction is "too short" and never anything else. */
static void test_truncated(void **unused)
{
    struct x86_insn insn;

    for (unsigned i = 0; i < ARRAY_SIZE(encodings); i++)
        for (int n = 0; n < encodings[i].result; n++)
            assert_int_equal(
                x86_decode(encodings[i].size, encodings[i].real, encodings[i].bytes, n, &insn), 0);
}

struct reach {
    bool *seen; /* by row of the table */
    const struct x86_insn_info *table;
    unsigned count;
};

static void reach(struct reach *r, enum x86_code_size size, const uint8_t bytes[15])
{
    struct x86_insn insn;
    unsigned undefined;

    if (x86_decode(size, false, bytes, 15, &insn) <= 0)
        return;
    if (insn.info >= r->table && insn.info < r->table + r->count)
        r->seen[insn.info - r->table] = true;
    else /* the only entries outside the table are those for MMX registers */
        assert_int_equal(insn.info->class, X86_CLASS_X87);
    assert_int_equal(insn.info->mnemonic, insn.z.mnemonic);
    assert_true(insn.feature < X86_FEAT_COUNT);
    /* Zydis knows undefined flags too, if not all of them. About two instructions it is wrong:
     * BEXTR clears OF and CF, and SBB sets AF. */
    undefined = insn.z.cpu_flags ? insn.z.cpu_flags->undefined & X86_FLAGS_STATUS : 0;
    if (insn.z.mnemonic != ZYDIS_MNEMONIC_BEXTR && insn.z.mnemonic != ZYDIS_MNEMONIC_SBB &&
        (undefined & ~insn.info->undefined))
        fail_msg("%s: flags %x are undefined", ZydisMnemonicGetString(insn.z.mnemonic), undefined);
}

static const struct {
    uint8_t length, bytes[4];
} prefixes[] = {
    {0, {0}},          {1, {0x66}},       {1, {0xF2}},       {1, {0xF3}},       {1, {0x48}},
    {2, {0x66, 0x48}}, {2, {0xF2, 0x48}}, {2, {0xF3, 0x48}}, {2, {0x66, 0xF2}}, {1, {0x67}},
};
static const struct {
    uint8_t length, bytes[2];
} maps[] = {{0, {0}}, {1, {0x0F}}, {2, {0x0F, 0x38}}, {2, {0x0F, 0x3A}}};

static void reach_legacy(struct reach *r, unsigned opcode, unsigned modrm)
{
    for (unsigned p = 0; p < ARRAY_SIZE(prefixes); p++) {
        for (unsigned m = 0; m < ARRAY_SIZE(maps); m++) {
            uint8_t bytes[15] = {0};
            unsigned n = prefixes[p].length;

            memcpy(bytes, prefixes[p].bytes, n);
            memcpy(bytes + n, maps[m].bytes, maps[m].length);
            n += maps[m].length;
            bytes[n++] = opcode;
            bytes[n] = modrm;
            reach(r, X86_CODE64, bytes);
            if (m < 2) /* opcodes that differ outside 64-bit code are in the old maps */
                reach(r, X86_CODE32, bytes);
            if (m == 0)
                reach(r, X86_CODE16, bytes);
        }
    }
}

static void reach_vex(struct reach *r, unsigned opcode, unsigned modrm)
{
    for (unsigned map = 1; map <= 3; map++) {
        for (unsigned wlpp = 0; wlpp < 16; wlpp++) {
            for (unsigned vvvv = 14; vvvv < 16; vvvv++) {
                uint8_t w = (wlpp & 8) << 4, lpp = wlpp & 7;
                const uint8_t bytes[15] = {0xC4,   0xE0 | map, w | vvvv << 3 | lpp,
                                           opcode, modrm,      0x23};

                reach(r, X86_CODE64, bytes);
            }
        }
    }
}

/* No row of the table is dead, and what the decoder finds agrees with it. */
static void test_table_reachable(void **unused)
{
    /* Registers, memory, memory with SIB: enough ModRM bytes for each opcode extension. */
    static const uint8_t rm[] = {0x00, 0x04, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7};
    struct reach r;

    r.table = x86_insn_table(&r.count);
    r.seen = calloc(r.count, sizeof(*r.seen));
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        for (unsigned i = 0; i < ARRAY_SIZE(rm); i++) {
            for (unsigned reg = 0; reg < 8; reg++)
                reach_legacy(&r, opcode, rm[i] | reg << 3);
            if (i < 3)
                for (unsigned reg = 0; reg < 8; reg++)
                    reach_vex(&r, opcode, rm[i] | reg << 3);
        }
    }
    for (unsigned i = 0; i < r.count; i++)
        if (!r.seen[i])
            fail_msg("no encoding gives %s, class %u", ZydisMnemonicGetString(r.table[i].mnemonic),
                     r.table[i].class);
    free(r.seen);
}

static void test_table_consistent(void **unused)
{
    unsigned count;
    const struct x86_insn_info *table = x86_insn_table(&count);

    for (unsigned i = 0; i < count; i++) {
        const struct x86_insn_info *a = &table[i];

        assert_int_not_equal(a->class, X86_CLASS_NONE);
        assert_int_equal(x86_insn_info(a->mnemonic)->mnemonic, a->mnemonic);
        /* What traps outside CPL 0 or depends on control bits is sensitive by definition. */
        if (a->privilege != X86_PRIV_USER)
            assert_int_not_equal(a->sensitive, 0);
        if (a->class == X86_CLASS_SYSTEM || a->class == X86_CLASS_FAR)
            assert_int_not_equal(a->sensitive, 0);
        if (a->class == X86_CLASS_NATIVE || a->class == X86_CLASS_X87)
            assert_int_equal(a->sensitive, 0);
        for (unsigned j = 0; j < i; j++)
            if (table[j].mnemonic == a->mnemonic && table[j].class == a->class &&
                table[j].privilege == a->privilege && table[j].sensitive == a->sensitive)
                fail_msg("%s is there twice", ZydisMnemonicGetString(a->mnemonic));
    }
    assert_int_equal(x86_insn_info(ZYDIS_MNEMONIC_INVALID)->class, X86_CLASS_NONE);
    assert_int_equal(x86_insn_info(ZYDIS_MNEMONIC_VMLAUNCH)->class, X86_CLASS_NONE);
    assert_int_equal(x86_insn_info(ZYDIS_MNEMONIC_MAX_VALUE + 1)->class, X86_CLASS_NONE);
}

static void test_reset(void **unused)
{
    struct x86_cpu cpu;

    memset(&cpu, 0xA5, sizeof(cpu));
    x86_cpu_reset(&cpu);
    assert_int_equal(cpu.seg[X86_CS].base + cpu.reg[X86_RIP], 0xFFFFFFF0);
    assert_int_equal(cpu.cr0, 0x60000010);
    assert_int_equal(cpu.rflags, 2);
    assert_int_equal(x86_cpl(&cpu), 0);
    assert_int_equal(cpu.reg[X86_NONE], 0);

    cpu.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_ET;
    cpu.efer = X86_EFER_LME;
    cpu.pat = 1;
    cpu.xsave[X86_XSAVE_XMM] = 7;
    cpu.activity = X86_HALTED;
    x86_cpu_init(&cpu);
    assert_int_equal(cpu.cr0, X86_CR0_ET); /* CD and NW as they were: clear */
    assert_int_equal(cpu.efer, 0);
    assert_int_equal(cpu.pat, 1);
    assert_int_equal(cpu.xsave[X86_XSAVE_XMM], 7);
    assert_int_equal(cpu.activity, X86_RUNNING);
}

static void test_exceptions(void **unused)
{
    assert_true(x86_vector_has_error(X86_GP));
    assert_true(x86_vector_has_error(X86_AC));
    assert_false(x86_vector_has_error(X86_UD));
    assert_false(x86_vector_has_error(X86_MF));

    assert_int_equal(x86_vector_combine(X86_GP, X86_GP), X86_DF);
    assert_int_equal(x86_vector_combine(X86_GP, X86_PF), X86_PF);
    assert_int_equal(x86_vector_combine(X86_PF, X86_PF), X86_DF);
    assert_int_equal(x86_vector_combine(X86_PF, X86_NP), X86_DF);
    assert_int_equal(x86_vector_combine(X86_UD, X86_GP), X86_GP);
    assert_int_equal(x86_vector_combine(X86_GP, X86_UD), X86_UD);
    assert_int_equal(x86_vector_combine(X86_DE, X86_TS), X86_DF);
    assert_int_equal(x86_vector_combine(X86_DF, X86_PF), -1);
    assert_int_equal(x86_vector_combine(X86_DF, X86_GP), -1);
    assert_int_equal(x86_vector_combine(X86_DF, X86_DB), X86_DB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encodings),       cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_table_reachable), cmocka_unit_test(test_table_consistent),
        cmocka_unit_test(test_reset),           cmocka_unit_test(test_exceptions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
