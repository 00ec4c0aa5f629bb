/*
 * Thunks against the processor itself: the same instruction with the same state once as it stands,
 * in a frame of the test's own, and once as a thunk.
 */
#include "test.h"

#include "base/util.h"
#include "cpu/interp/thunk.h"
#include "x86/cpu.h"
#include "x86/cpuid.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define MEMORY_SIZE 256 /* more than any operand */

/* The state of one run. */
struct state {
    uint64_t gpr[16], flags;
    uint64_t host_rsp;
    _Alignas(64) uint8_t xsave[X86_XSAVE_SIZE];
    _Alignas(64) uint8_t memory[MEMORY_SIZE];
};

/* Code that the native runs are made in, and the state that it addresses relative to RIP. */
struct arena {
    _Alignas(4096) uint8_t code[4096];
    struct state state;
};

static struct {
    struct arena *arena;
    unsigned size;         /* of the code */
    uintptr_t insn, after; /* the instruction, and where it ends */
    volatile int vector;   /* what it raised, or -1 */
    struct thunk_cache *cache;
    struct x86_model model;
    uint64_t seed;
    struct sigaction actions[3]; /* as thunks want them */
} t;

static const int signals[3] = {SIGFPE, SIGSEGV, SIGILL};

static uint64_t rnd(void) /* xorshift64* */
{
    t.seed ^= t.seed >> 12;
    t.seed ^= t.seed << 25;
    t.seed ^= t.seed >> 27;
    return t.seed * 0x2545F4914F6CDD1D;
}

/* --- Native runs --- */

static void byte(unsigned value)
{
    t.arena->code[t.size++] = value;
}

static void bytes(const uint8_t *data, unsigned count)
{
    memcpy(&t.arena->code[t.size], data, count);
    t.size += count;
}

/* OPCODE with a REX.W prefix, REG and a RIP-relative operand in the arena. */
static void op(const char *opcode, unsigned reg, const void *data)
{
    int32_t disp;

    byte(0x48 | reg >> 3 << 2);
    bytes((const uint8_t *)opcode, strlen(opcode));
    byte((reg & 7) << 3 | 5);
    disp = (const uint8_t *)data - &t.arena->code[t.size + 4];
    bytes((const uint8_t *)&disp, 4);
}

/* Runs the LENGTH bytes at CODE with the arena's state. Returns 0 or 1 + vector. */
static int run_native(const uint8_t *code, unsigned length)
{
    static const uint8_t saved[] = {X86_RBX, X86_RBP, X86_R12, X86_R13, X86_R14, X86_R15};
    struct state *s = &t.arena->state;
    uint32_t mxcsr;
    void (*fn)(void);
    void *entry = t.arena->code;

    t.size = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(saved); i++) {
        byte(0x41 - (saved[i] < 8));
        byte(0x50 | (saved[i] & 7));
    }
    op("\x89", X86_RSP, &s->host_rsp);
    bytes((const uint8_t[]){0xB8, 7, 0, 0, 0, 0x31, 0xD2}, 7); /* mov eax, 7; xor edx, edx */
    op("\x0F\xAE", 5, s->xsave);                               /* xrstor64 */
    op("\x8B", X86_RAX, &s->flags);
    byte(0x50);
    byte(0x9D);
    for (unsigned i = 0; i < 16; i++)
        op("\x8B", i, &s->gpr[i]);
    t.insn = (uintptr_t)&t.arena->code[t.size];
    bytes(code, length);
    t.after = (uintptr_t)&t.arena->code[t.size];
    for (unsigned i = 0; i < 16; i++)
        op("\x89", i, &s->gpr[i]);
    op("\x8B", X86_RSP, &s->host_rsp);
    byte(0x9C);
    byte(0x58);
    op("\x89", X86_RAX, &s->flags);
    bytes((const uint8_t[]){0xB8, 7, 0, 0, 0, 0x31, 0xD2}, 7);
    op("\x0F\xAE", 4, s->xsave);                   /* xsave64 */
    bytes((const uint8_t[]){0xDB, 0xE3, 0xFC}, 3); /* fninit; cld */
    if (t.model.feature[X86_FEAT_AVX])
        bytes((const uint8_t[]){0xC5, 0xF8, 0x77}, 3); /* vzeroupper */
    for (unsigned i = ARRAY_SIZE(saved); i-- > 0;) {
        byte(0x41 - (saved[i] < 8));
        byte(0x58 | (saved[i] & 7));
    }
    byte(0xC3);

    t.vector = -1;
    memcpy(&fn, &entry, sizeof(fn));
    mxcsr = __builtin_ia32_stmxcsr();
    fn();
    __builtin_ia32_ldmxcsr(mxcsr);
    return 1 + t.vector;
}

/* Gets what is not a thunk's, so it also shows that thunks hand signals on. */
static void on_signal(int number, siginfo_t *info, void *context)
{
    greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;

    if ((uintptr_t)gregs[REG_RIP] != t.insn) {
        signal(number, SIG_DFL);
        return;
    }
    t.vector = gregs[REG_TRAPNO];
    gregs[REG_RIP] = t.after;
}

/* cmocka puts its own handlers in front of each test. */
static void catch_signals(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &t.actions[i], NULL);
}

/* --- States --- */

static void put16(uint8_t *p, uint16_t value)
{
    memcpy(p, &value, 2);
}

static void put32(uint8_t *p, uint32_t value)
{
    memcpy(p, &value, 4);
}

/* A number that does something interesting in most instructions. */
static uint64_t random_value(void)
{
    static const uint64_t interesting[] = {
        0,
        1,
        2,
        31,
        32,
        63,
        64,
        0x7F,
        0x80,
        0xFF,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFF,
        0x7FFFFFFFFFFFFFFF,
        0x8000000000000000,
        0xFFFFFFFFFFFFFFFF,
        0x3FF0000000000000,
        0x3F8000003F800000,
        0x7FF0000000000000,
        0x7FF8000000000000,
        0x7F8000007F800001,
        0x0000000100000001,
        0x4000000040490FDB,
        0xC08000003DCCCCCD,
    };

    switch (rnd() % 4) {
    case 0: return interesting[rnd() % ARRAY_SIZE(interesting)];
    case 1: return rnd() % 256;
    default: return rnd();
    }
}

static void random_state(struct state *s)
{
    uint16_t rounding = rnd() % 4;

    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = random_value();
    s->flags = X86_FLAG_ONE | X86_FLAG_IF | (rnd() & X86_FLAGS_STATUS);
    for (unsigned i = 0; i < MEMORY_SIZE; i += 8)
        memcpy(&s->memory[i], &(uint64_t){random_value()}, 8);
    put16(&s->xsave[0], 0x037F | rounding << 10);
    s->xsave[2 + 1] = (rnd() & 7) << 3 | (rnd() & 0x47); /* TOP and condition codes */
    s->xsave[4] = rnd();                                 /* which registers are in use */
    put32(&s->xsave[X86_XSAVE_MXCSR], 0x1F80 | rounding << 13);
    put32(&s->xsave[X86_XSAVE_MXCSR + 4], X86_MXCSR_MASK);
    for (unsigned i = 0; i < 8; i++) { /* doubles, widened: 64-bit mantissa with its top bit */
        uint64_t mantissa = rnd() | 1ull << 63;

        memcpy(&s->xsave[32 + 16 * i], &mantissa, 8);
        put16(&s->xsave[32 + 16 * i + 8], 0x3FFF + rnd() % 9 - 4);
    }
    for (unsigned i = 0; i < 256; i += 8) {
        memcpy(&s->xsave[X86_XSAVE_XMM + i], &(uint64_t){random_value()}, 8);
        memcpy(&s->xsave[X86_XSAVE_YMMH + i], &(uint64_t){random_value()}, 8);
    }
    s->xsave[X86_XSAVE_HEADER] = t.model.feature[X86_FEAT_AVX] ? 7 : 3;
}

/* --- Comparison --- */

static int run_thunk(thunk_fn *fn, struct state *s, const struct x86_insn *insn)
{
    struct thunk_state state = {.gpr = s->gpr, .flags = &s->flags, .xsave = s->xsave};
    bool memory = false;
    uint32_t mxcsr = __builtin_ia32_stmxcsr();
    uint64_t flags;
    uint16_t fcw, fcw_after, fsw;
    int result;

    for (unsigned i = 0; i < insn->z.operand_count; i++)
        memory |= insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
    __asm__ volatile("fnstcw %0" : "=m"(fcw));
    result = fn(&state, memory ? s->memory : NULL);
    __asm__ volatile("fnstcw %0; fnstsw %1" : "=m"(fcw_after), "=m"(fsw));
    __asm__ volatile("pushfq; pop %0" : "=r"(flags));
    /* What the ABI asks of a function. */
    assert_int_equal(__builtin_ia32_stmxcsr(), mxcsr);
    assert_int_equal(fcw, fcw_after);
    assert_int_equal(fsw & 0x3800, 0);
    assert_int_equal(flags & (X86_FLAG_DF | X86_FLAG_AC), 0);
    return result;
}

static const char *text(const struct x86_insn *insn)
{
    static char buf[256];
    char bytes_text[64] = "", line[128] = "?";
    ZydisFormatter formatter;

    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, &insn->z, insn->op, insn->z.operand_count_visible,
                                    line, sizeof(line), 0, NULL);
    for (unsigned i = 0; i < insn->z.length; i++)
        snprintf(bytes_text + 3 * i, 4, "%02x ", insn->bytes[i]);
    snprintf(buf, sizeof(buf), "%s(%s)", bytes_text, line);
    return buf;
}

/* That an instruction changes no flags but those that decoding says it does. */
static void check_flags(const struct x86_insn *insn, uint64_t before, uint64_t after)
{
    const ZydisAccessedFlags *flags = insn->z.cpu_flags;
    uint64_t written = insn->info->undefined;

    if (flags)
        written |= flags->modified | flags->set_0 | flags->set_1 | flags->undefined;
    if ((before ^ after) & X86_FLAGS_STATUS & ~written)
        fail_msg("%s: changes flags %lx", text(insn), before ^ after);
}

static void compare(const struct x86_insn *insn, int native, int thunk, const struct state *a,
                    const struct state *b)
{
    uint64_t flags = X86_FLAGS_STATUS & ~(uint64_t)insn->info->undefined;

    if (native != thunk)
        fail_msg("%s: result %d, thunk %d", text(insn), native, thunk);
    for (unsigned i = 0; i < 16; i++)
        if (a->gpr[i] != b->gpr[i])
            fail_msg("%s: r%u is %lx, in the thunk %lx", text(insn), i, a->gpr[i], b->gpr[i]);
    if (native == 0 && (a->flags ^ b->flags) & flags)
        fail_msg("%s: flags %lx, in the thunk %lx", text(insn), a->flags, b->flags);
    if ((b->flags ^ a->flags) & ~(uint64_t)X86_FLAGS_STATUS)
        fail_msg("%s: the thunk changed flags that are not its business: %lx", text(insn),
                 b->flags);
    for (unsigned i = 0; i < X86_XSAVE_SIZE; i++) {
        /* FOP, FIP and FDP differ by design; MXCSR_MASK, what follows the XMM registers and the
         * header are no state. */
        if ((i >= 6 && i < 24) || (i >= 28 && i < 32) || (i >= 416 && i < X86_XSAVE_YMMH))
            continue;
        if (i >= X86_XSAVE_YMMH && !t.model.feature[X86_FEAT_AVX])
            break;
        if (a->xsave[i] != b->xsave[i])
            fail_msg("%s: byte %u of the XSAVE area is %02x, in the thunk %02x", text(insn), i,
                     a->xsave[i], b->xsave[i]);
    }
    if (memcmp(a->memory, b->memory, MEMORY_SIZE) != 0)
        fail_msg("%s: memory differs", text(insn));
}

static unsigned gpr_of(ZydisRegister reg)
{
    return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg) - ZYDIS_REGISTER_RAX;
}

/* Sets the registers of the memory operand such that it stands at the arena's memory. False where
 * they cannot (ESP as a base of addresses above 4 GiB, ...). */
static bool aim(const struct x86_insn *insn, struct state *s, uint8_t *code)
{
    for (unsigned i = 0; i < insn->z.operand_count; i++) {
        const ZydisDecodedOperand *o = &insn->op[i];
        uint64_t address = (uint64_t)t.arena->state.memory;

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (o->mem.base == ZYDIS_REGISTER_RIP) { /* the arena's code is not far from its memory */
            unsigned prologue = t.insn - (uintptr_t)t.arena->code;
            int32_t disp = t.arena->state.memory - &t.arena->code[prologue + insn->z.length];

            memcpy(code + insn->z.raw.disp.offset, &disp, 4);
            continue;
        }
        if (insn->z.address_width != 64 || o->mem.base == ZYDIS_REGISTER_NONE ||
            o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS)
            return false;
        if (o->mem.index != ZYDIS_REGISTER_NONE) {
            if (gpr_of(o->mem.index) == gpr_of(o->mem.base))
                return false;
            s->gpr[gpr_of(o->mem.index)] = rnd() % 64;
            address -= s->gpr[gpr_of(o->mem.index)] * o->mem.scale;
        }
        s->gpr[gpr_of(o->mem.base)] = address - o->mem.disp.value;
    }
    return true;
}

/* Whether the host may take INSN for another instruction: F3 90 with REX.B is PAUSE on Intel's
 * processors and XCHG of R8 with RAX on AMD's (SDM volume 2, table A-2; APM volume 3, XCHG). */
static bool differs_by_vendor(const struct x86_insn *insn)
{
    return insn->z.mnemonic == ZYDIS_MNEMONIC_PAUSE && insn->z.raw.rex.B;
}

/* Runs what stands at CODE both ways. False when it is no thunk on this host. */
static bool check_code(const uint8_t code[15])
{
    uint8_t copy[15];
    struct x86_insn insn;
    struct state start, mine;
    int native, thunk;
    thunk_fn *fn;

    if (x86_decode(X86_CODE64, false, code, 15, &insn) <= 0 || !t.model.feature[insn.feature] ||
        insn.z.mnemonic == ZYDIS_MNEMONIC_RDRAND || insn.z.mnemonic == ZYDIS_MNEMONIC_RDSEED ||
        differs_by_vendor(&insn))
        return false;
    fn = thunk_get(t.cache, &insn);
    if (!fn && thunk_cache_full(t.cache)) {
        thunk_cache_clear(t.cache);
        fn = thunk_get(t.cache, &insn);
        assert_non_null(fn);
    }
    if (!fn)
        return false;
    memcpy(copy, code, sizeof(copy));
    random_state(&start);
    if (!aim(&insn, &start, copy))
        return false;
    mine = start;
    t.arena->state = start;
    native = run_native(copy, insn.z.length);
    thunk = run_thunk(fn, &mine, &insn);
    compare(&insn, native, thunk, &t.arena->state, &mine);
    /* What decodes exists; but AMD's processors know 0F 0D only with memory. */
    if (native == 1 + X86_UD && insn.z.mnemonic != ZYDIS_MNEMONIC_NOP)
        fail_msg("%s: undefined", text(&insn));
    if (native == 0)
        check_flags(&insn, start.flags, mine.flags);
    return true;
}

/* --- Every encoding --- */

/* Registers with and without RSP's and R12's number, and every addressing shape: no displacement, 8
 * bits, 32 bits, each with and without SIB, and relative to RIP. The bytes beyond the ModRM byte
 * are a SIB byte that names RCX as the index and RDX as the base, and a displacement. */
static const uint8_t shapes[] = {0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7,
                                 0x03, 0x04, 0x05, 0x46, 0x44, 0x87, 0x84};

static void every_legacy(bool seen[], unsigned *count)
{
    static const uint8_t prefixes[][3] = {
        {0},          {0x66}, {0xF2}, {0xF3},       {0x48}, {0x66, 0x48}, {0xF2, 0x48},
        {0xF3, 0x4D}, {0x47}, {0x41}, {0x66, 0xF2}, {0xF0}, {0x3E, 0x44}, {0x66, 0x4A}};
    static const char *const maps[] = {"", "\x0F", "\x0F\x38", "\x0F\x3A"};

    for (unsigned n = 0; n < ARRAY_SIZE(prefixes) * ARRAY_SIZE(maps) * 256; n++) {
        const uint8_t *prefix = prefixes[n / 256 / ARRAY_SIZE(maps)];
        const char *map = maps[n / 256 % ARRAY_SIZE(maps)];

        for (unsigned m = 0; m < ARRAY_SIZE(shapes) * 8; m++) {
            uint8_t code[15] = {0};
            unsigned size = strlen((const char *)prefix);
            struct x86_insn insn;

            memcpy(code, prefix, size);
            memcpy(code + size, map, strlen(map));
            size += strlen(map);
            code[size++] = n & 0xFF;
            code[size++] = shapes[m / 8] | (m % 8) << 3;
            memcpy(code + size, "\x8A\x10\x01\x00\x00\x27\x13", 7);
            if (!check_code(code))
                continue;
            x86_decode(X86_CODE64, false, code, 15, &insn);
            seen[insn.z.mnemonic] = true;
            ++*count;
            if (!insn.z.raw.modrm.offset)
                break;
        }
    }
}

static void every_vex(bool seen[], unsigned *count)
{
    for (unsigned n = 0; n < 3 * 16 * 256; n++) {
        for (unsigned m = 0; m < ARRAY_SIZE(shapes) * 8; m++) {
            static const uint8_t vvvv[] = {15, 14, 11, 2}; /* inverted: 0, 1, RSP's number, 13 */
            unsigned map = 1 + n / 256 / 16, wlpp = n / 256 % 16;
            uint8_t modrm = shapes[m / 8] | (m % 8) << 3;
            uint8_t high = rnd() & 0xA0; /* inverted R and B */
            uint8_t code[15] = {0xC4, 0x40 | high | map, 0, n & 0xFF, modrm};
            struct x86_insn insn;

            memcpy(code + 5, "\x8A\x10\x01\x00\x00\x27\x13", 7);
            for (unsigned v = 0; v < ARRAY_SIZE(vvvv); v++) {
                code[2] = (wlpp & 8) << 4 | vvvv[v] << 3 | (wlpp & 7);
                if (!check_code(code))
                    continue;
                x86_decode(X86_CODE64, false, code, 15, &insn);
                seen[insn.z.mnemonic] = true;
                ++*count;
            }
        }
    }
}

/* Instructions of the classes for thunks that are none, each for a reason. */
static bool may_be_missing(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_RDRAND: /* never the same twice */
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_MASKMOVQ: /* memory at [rdi] */
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPD: /* parts of memory */
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ: return true;
    default: return false;
    }
}

static void test_every_encoding(void **unused)
{
    bool *seen = calloc(ZYDIS_MNEMONIC_MAX_VALUE + 1, sizeof(bool));
    unsigned count, tested = 0;
    const struct x86_insn_info *table = x86_insn_table(&count);

    catch_signals();
    every_legacy(seen, &tested);
    if (t.model.feature[X86_FEAT_AVX])
        every_vex(seen, &tested);
    for (unsigned i = 0; i < count; i++) {
        const struct x86_insn_info *info = &table[i];

        if (seen[info->mnemonic] || !t.model.feature[info->feature] ||
            may_be_missing(info->mnemonic))
            continue;
        if (info->class == X86_CLASS_NATIVE || info->class == X86_CLASS_X87)
            fail_msg("%s is not a thunk", ZydisMnemonicGetString(info->mnemonic));
    }
    print_message("%u encodings\n", tested);
    assert_true(tested > 10000);
    free(seen);
}

/* --- Particular cases --- */

static thunk_fn *get(enum x86_code_size size, const uint8_t code[15], struct x86_insn *insn)
{
    assert_true(x86_decode(size, false, code, 15, insn) > 0);
    return thunk_get(t.cache, insn);
}
#define CODE(...) ((const uint8_t[15]){__VA_ARGS__})

static int run(enum x86_code_size size, const uint8_t code[15], struct state *s)
{
    struct x86_insn insn;
    thunk_fn *fn = get(size, code, &insn);

    if (!fn)
        fail_msg("%s is not a thunk", text(&insn));
    return run_thunk(fn, s, &insn);
}

static void test_faults(void **unused)
{
    struct state start, s;
    struct x86_insn insn;
    struct thunk_state state = {.gpr = s.gpr, .flags = &s.flags, .xsave = s.xsave};
    thunk_fn *fn;

    catch_signals();
    random_state(&start);
    s = start;
    s.gpr[X86_RCX] = 0; /* div ecx */
    assert_int_equal(run(X86_CODE64, CODE(0xF7, 0xF1), &s), 1 + X86_DE);
    start.gpr[X86_RCX] = 0;
    assert_memory_equal(&s, &start, sizeof(s));

    /* divps by zero, unmasked: XMM0 stays, MXCSR says why. */
    s = start;
    memset(&s.xsave[X86_XSAVE_XMM], 0, 16);
    put32(&s.xsave[X86_XSAVE_XMM], 0x3F800000);
    memset(&s.xsave[X86_XSAVE_XMM + 16], 0, 16);
    put32(&s.xsave[X86_XSAVE_MXCSR], 0x1D80);
    start = s;
    assert_int_equal(run(X86_CODE64, CODE(0x0F, 0x5E, 0xC1), &s), 1 + X86_XM);
    assert_int_equal(s.xsave[X86_XSAVE_MXCSR] & 4, 4);
    memcpy(&s.xsave[X86_XSAVE_MXCSR], &start.xsave[X86_XSAVE_MXCSR], 4);
    assert_memory_equal(&s, &start, sizeof(s));

    /* vdivps leaves upper halves alone when it faults, too. */
    if (t.model.feature[X86_FEAT_AVX]) {
        assert_int_equal(run(X86_CODE64, CODE(0xC5, 0xF8, 0x5E, 0xC1), &s), 1 + X86_XM);
        memcpy(&s.xsave[X86_XSAVE_MXCSR], &start.xsave[X86_XSAVE_MXCSR], 4);
        assert_memory_equal(&s, &start, sizeof(s));
    }

    /* fld1 with an exception pending and unmasked: nothing happens but #MF. */
    put16(&s.xsave[0], 0x037E);
    put16(&s.xsave[2], 0x8081);
    start = s;
    assert_int_equal(run(X86_CODE64, CODE(0xD9, 0xE8), &s), 1 + X86_MF);
    assert_memory_equal(s.xsave, start.xsave, 160);

    /* movaps from an address that is not aligned. */
    fn = get(X86_CODE64, CODE(0x0F, 0x28, 0x00), &insn);
    assert_int_equal(fn(&state, s.memory + 8), 1 + X86_GP);
    assert_int_equal(fn(&state, s.memory + 16), 0);
    assert_memory_equal(&s.xsave[X86_XSAVE_XMM], s.memory + 16, 16);

    /* An MXCSR that cannot be loaded faults before the instruction, and none of the host's state
     * gets into the guest's. */
    start = s;
    put32(&s.xsave[X86_XSAVE_MXCSR], 0xFFFFFFFF);
    put32(&start.xsave[X86_XSAVE_MXCSR], 0xFFFFFFFF);
    assert_int_equal(run(X86_CODE64, CODE(0x0F, 0x58, 0xC1), &s), 1 + X86_GP);
    assert_int_equal(run(X86_CODE64, CODE(0xD9, 0xE8), &s), 1 + X86_GP);
    assert_memory_equal(&s, &start, sizeof(s));
}

/* Code of 16 and 32 bits: the same bytes mean other sizes. */
static void test_other_code_sizes(void **unused)
{
    static const struct {
        enum x86_code_size size;
        uint8_t code[15];
        uint64_t rax; /* from RAX = 0x1111FFFF, RCX = 1 */
    } cases[] = {
        {X86_CODE16, {0x01, 0xC8}, 0x11110000},                      /* add ax, cx */
        {X86_CODE16, {0x66, 0x01, 0xC8}, 0x11120000},                /* add eax, ecx */
        {X86_CODE32, {0x01, 0xC8}, 0x11120000},                      /* add eax, ecx */
        {X86_CODE32, {0x66, 0x01, 0xC8}, 0x11110000},                /* add ax, cx */
        {X86_CODE16, {0x05, 0x02, 0x00}, 0x11110001},                /* add ax, 2 */
        {X86_CODE16, {0x66, 0x05, 0x02, 0, 0, 0}, 0x11120001},       /* add eax, 2 */
        {X86_CODE16, {0x66, 0x0F, 0xB6, 0xC1}, 0x00000001},          /* movzx eax, cl */
        {X86_CODE16, {0x0F, 0xB6, 0xC1}, 0x11110001},                /* movzx ax, cl */
        {X86_CODE32, {0xC4, 0xE2, 0xF0, 0xF2, 0xC0}, 0x1111FFFE},    /* andn eax, ecx, eax; W = 1 */
        {X86_CODE32, {0x66, 0x0F, 0x7E, 0xC0}, 0x33333333},          /* movd eax, xmm0 */
        {X86_CODE16, {0xF3, 0x0F, 0x2D, 0xC1}, 2},                   /* cvtss2si eax, xmm1 */
        {X86_CODE16, {0x66, 0x0F, 0x3A, 0x16, 0xC0, 1}, 0x33333333}, /* pextrd eax, xmm0, 1 */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct state s;

        random_state(&s);
        s.gpr[X86_RAX] = 0x1111FFFF;
        s.gpr[X86_RCX] = 1;
        memset(&s.xsave[X86_XSAVE_XMM], 0x33, 16);
        put32(&s.xsave[X86_XSAVE_XMM + 16], 0x40000000);
        assert_int_equal(run(cases[i].size, cases[i].code, &s), 0);
        if (s.gpr[X86_RAX] != cases[i].rax)
            fail_msg("case %u: eax is %lx, not %lx", i, s.gpr[X86_RAX], cases[i].rax);
    }
}

/* FNSTENV writes 14 bytes in 16-bit code and 28 in 32-bit code. */
static void test_environment_size(void **unused)
{
    static const struct {
        enum x86_code_size size;
        unsigned bytes;
    } cases[] = {{X86_CODE16, 14}, {X86_CODE32, 28}, {X86_CODE64, 28}};

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct state s;

        random_state(&s);
        memset(s.memory, 0xAA, sizeof(s.memory));
        assert_int_equal(run(cases[i].size, CODE(0xD9, 0x37), &s), 0);
        assert_int_not_equal(s.memory[0], 0xAA);
        for (unsigned j = cases[i].bytes; j < MEMORY_SIZE; j++)
            assert_int_equal(s.memory[j], 0xAA);
    }
}

/* Outside 64-bit code VZEROALL reaches eight registers. */
static void test_vzero(void **unused)
{
    struct state start, s;

    if (!t.model.feature[X86_FEAT_AVX])
        skip();
    random_state(&start);
    s = start;
    assert_int_equal(run(X86_CODE32, CODE(0xC5, 0xFC, 0x77), &s), 0);
    memset(&start.xsave[X86_XSAVE_XMM], 0, 128);
    memset(&start.xsave[X86_XSAVE_YMMH], 0, 128);
    assert_memory_equal(&s, &start, sizeof(s));
    assert_int_equal(run(X86_CODE64, CODE(0xC5, 0xF8, 0x77), &s), 0);
    memset(&start.xsave[X86_XSAVE_YMMH], 0, 256);
    assert_memory_equal(&s, &start, sizeof(s));
}

static void test_not_thunks(void **unused)
{
    static const struct {
        enum x86_code_size size;
        uint8_t code[15];
    } cases[] = {
        {X86_CODE64, {0x50}},                               /* push rax */
        {X86_CODE64, {0xA4}},                               /* movsb */
        {X86_CODE64, {0xD7}},                               /* xlat */
        {X86_CODE64, {0xFD}},                               /* std */
        {X86_CODE64, {0x8D, 0x00}},                         /* lea */
        {X86_CODE64, {0xE8}},                               /* call */
        {X86_CODE64, {0x0F, 0xA2}},                         /* cpuid */
        {X86_CODE64, {0x0F, 0xAE, 0x00}},                   /* fxsave */
        {X86_CODE64, {0x0F, 0xA3, 0x08}},                   /* bt [rax], ecx */
        {X86_CODE64, {0xA1}},                               /* mov eax, moffs */
        {X86_CODE64, {0x66, 0x0F, 0xF7, 0xC1}},             /* maskmovdqu */
        {X86_CODE64, {0xC4, 0xE2, 0x69, 0x90, 0x04, 0x0D}}, /* vpgatherdd */
        {X86_CODE32, {0x40}},                               /* inc eax: a REX prefix elsewhere */
        {X86_CODE32, {0x37}},                               /* aaa */
        {X86_CODE32, {0x82, 0xC0, 0x01}},                   /* add al, 1, by an opcode now gone */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct x86_insn insn;

        if (get(cases[i].size, cases[i].code, &insn))
            fail_msg("case %u (%s) became a thunk", i, ZydisMnemonicGetString(insn.z.mnemonic));
    }
}

/* One thunk per instruction, whatever its memory operand looks like. */
static void test_cache(void **unused)
{
    struct x86_insn insn;
    struct thunk_cache *cache = thunk_cache_create(NULL);
    thunk_fn *fn;

    assert_non_null(cache);
    fn = get(X86_CODE64, CODE(0x0F, 0x58, 0x00), &insn); /* addps xmm0, [rax] */
    assert_ptr_equal(fn, get(X86_CODE64, CODE(0x0F, 0x58, 0x00), &insn));
    assert_ptr_equal(fn, get(X86_CODE64, CODE(0x65, 0x43, 0x0F, 0x58, 0x44, 0x88, 1), &insn));
    assert_ptr_equal(fn, get(X86_CODE32, CODE(0x67, 0x0F, 0x58, 0x07), &insn));
    assert_ptr_not_equal(fn, get(X86_CODE64, CODE(0x0F, 0x58, 0x08), &insn));
    /* RSP's stand-in is not the register itself. */
    assert_ptr_not_equal(get(X86_CODE64, CODE(0x48, 0x0F, 0xCC), &insn),
                         get(X86_CODE64, CODE(0x48, 0x0F, 0xCE), &insn));

    for (unsigned i = 0; i < 3000; i++) { /* imul eax, ecx, I: more than the table's first size */
        assert_true(x86_decode(X86_CODE64, false, CODE(0x69, 0xC1, i & 0xFF, i >> 8), 15, &insn) >
                    0);
        assert_non_null(thunk_get(cache, &insn));
    }
    assert_false(thunk_cache_full(cache));
    fn = thunk_get(cache, &insn);
    assert_ptr_equal(fn, thunk_get(cache, &insn));
    thunk_cache_clear(cache);
    assert_ptr_not_equal(fn, thunk_get(cache, &insn)); /* the first in the memory, now */
    thunk_cache_destroy(cache);
}

/* Threads that fault at once, while other caches come and go. */
static void *fault_often(void *failed)
{
    struct x86_insn insn;
    thunk_fn *fn = get(X86_CODE64, CODE(0xF7, 0xF1), &insn); /* div ecx */
    struct state s = {0};
    const struct thunk_state state = {.gpr = s.gpr, .flags = &s.flags, .xsave = s.xsave};

    for (unsigned i = 0; i < 3000; i++) {
        s.gpr[X86_RAX] = 7;
        s.gpr[X86_RDX] = 0;
        s.gpr[X86_RCX] = i % 2;
        if (fn(&state, NULL) != (i % 2 ? 0 : 1 + X86_DE) || s.gpr[X86_RAX] != 7)
            *(bool *)failed = true;
    }
    return NULL;
}

static void test_threads(void **unused)
{
    pthread_t threads[3];
    bool failed[3] = {false};

    catch_signals();
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fault_often, &failed[i]), 0);
    for (unsigned i = 0; i < 100; i++) {
        struct thunk_cache *cache = thunk_cache_create(NULL);

        assert_non_null(cache);
        thunk_cache_destroy(cache);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++) {
        pthread_join(threads[i], NULL);
        assert_false(failed[i]);
    }
}

static int setup(void)
{
    static uint8_t stack[65536];
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct error err;

    sigaltstack(&alternate, NULL); /* native runs use the stack pointer for other things */
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &action, NULL);
    t.arena = mmap(NULL, sizeof(*t.arena), PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    t.cache = thunk_cache_create(&err);
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], NULL, &t.actions[i]);
    t.seed = 20;
    x86_model_default(&t.model, 1, 1000000000);
    if (t.arena == MAP_FAILED || !t.cache)
        return -1;
    random_state(&t.arena->state);
    return run_native((const uint8_t[]){0x90}, 1); /* and t.insn is known */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_thunks),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_other_code_sizes),
        cmocka_unit_test(test_environment_size),
        cmocka_unit_test(test_vzero),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_every_encoding),
    };
    int failed = setup() ? -1 : cmocka_run_group_tests(tests, NULL, NULL);

    thunk_cache_destroy(t.cache);
    return failed;
}
