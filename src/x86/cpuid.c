/*
 * CPUID (SDM volume 2, CPUID; leaves from 40000000h: Linux, Documentation/virt/kvm/x86/cpuid.rst).
 */
#include "x86/cpuid.h"

#include "base/util.h"

#include <cpuid.h>
#include <string.h>

enum { EAX, EBX, ECX, EDX };

#define PHYSICAL_BITS_MIN 36u
#define PHYSICAL_BITS_MAX 46u

#define LEAF_BASIC_MAX    0x16u
#define LEAF_KVM          0x40000000u
#define LEAF_KVM_MAX      0x40000010u
#define LEAF_EXTENDED     0x80000000u
#define LEAF_EXTENDED_MAX 0x80000008u

/* Which bit announces a feature. X86_FEAT_BASE stands for what every model has: those bits gate no
 * instruction, or none that could be missing. */
struct feature_bit {
    uint32_t leaf;
    uint8_t reg, bit, feature;
};

static const struct feature_bit feature_bits[] = {
    {0x1, ECX, 0, X86_FEAT_SSE3},
    {0x1, ECX, 1, X86_FEAT_PCLMUL},
    {0x1, ECX, 3, X86_FEAT_MONITOR},
    {0x1, ECX, 9, X86_FEAT_SSSE3},
    {0x1, ECX, 12, X86_FEAT_FMA},
    {0x1, ECX, 13, X86_FEAT_CX16},
    {0x1, ECX, 17, X86_FEAT_PCID},
    {0x1, ECX, 19, X86_FEAT_SSE41},
    {0x1, ECX, 20, X86_FEAT_SSE42},
    {0x1, ECX, 21, X86_FEAT_BASE}, /* x2APIC */
    {0x1, ECX, 22, X86_FEAT_MOVBE},
    {0x1, ECX, 23, X86_FEAT_POPCNT},
    {0x1, ECX, 24, X86_FEAT_BASE}, /* TSC deadline */
    {0x1, ECX, 25, X86_FEAT_AES},
    {0x1, ECX, 26, X86_FEAT_XSAVE},
    {0x1, ECX, 28, X86_FEAT_AVX},
    {0x1, ECX, 29, X86_FEAT_F16C},
    {0x1, ECX, 30, X86_FEAT_RDRAND},
    {0x1, ECX, 31, X86_FEAT_BASE}, /* hypervisor present */
    {0x1, EDX, 0, X86_FEAT_FPU},
    {0x1, EDX, 2, X86_FEAT_BASE}, /* DE */
    {0x1, EDX, 3, X86_FEAT_BASE}, /* PSE */
    {0x1, EDX, 4, X86_FEAT_TSC},
    {0x1, EDX, 5, X86_FEAT_MSR},
    {0x1, EDX, 6, X86_FEAT_BASE}, /* PAE */
    {0x1, EDX, 7, X86_FEAT_BASE}, /* MCE */
    {0x1, EDX, 8, X86_FEAT_CX8},
    {0x1, EDX, 9, X86_FEAT_BASE}, /* APIC */
    {0x1, EDX, 11, X86_FEAT_SYSENTER},
    {0x1, EDX, 12, X86_FEAT_BASE}, /* MTRR */
    {0x1, EDX, 13, X86_FEAT_BASE}, /* PGE */
    {0x1, EDX, 14, X86_FEAT_BASE}, /* MCA */
    {0x1, EDX, 15, X86_FEAT_CMOV},
    {0x1, EDX, 16, X86_FEAT_BASE}, /* PAT */
    {0x1, EDX, 17, X86_FEAT_BASE}, /* PSE-36 */
    {0x1, EDX, 19, X86_FEAT_CLFLUSH},
    {0x1, EDX, 23, X86_FEAT_MMX},
    {0x1, EDX, 24, X86_FEAT_FXSR},
    {0x1, EDX, 25, X86_FEAT_SSE},
    {0x1, EDX, 26, X86_FEAT_SSE2},
    {0x1, EDX, 27, X86_FEAT_BASE}, /* self-snoop */
    {0x6, EAX, 2, X86_FEAT_BASE},  /* the APIC timer always runs */
    {0x7, EBX, 0, X86_FEAT_FSGSBASE},
    {0x7, EBX, 1, X86_FEAT_BASE}, /* IA32_TSC_ADJUST */
    {0x7, EBX, 3, X86_FEAT_BMI1},
    {0x7, EBX, 5, X86_FEAT_AVX2},
    {0x7, EBX, 6, X86_FEAT_BASE}, /* FDP is kept for unmasked x87 exceptions only */
    {0x7, EBX, 7, X86_FEAT_SMEP},
    {0x7, EBX, 8, X86_FEAT_BMI2},
    {0x7, EBX, 9, X86_FEAT_BASE}, /* enhanced REP MOVSB and STOSB */
    {0x7, EBX, 10, X86_FEAT_INVPCID},
    {0x7, EBX, 13, X86_FEAT_BASE}, /* FCS and FDS are always 0 */
    {0x7, EBX, 18, X86_FEAT_RDSEED},
    {0x7, EBX, 19, X86_FEAT_ADX},
    {0x7, EBX, 20, X86_FEAT_SMAP},
    {0x7, EBX, 23, X86_FEAT_CLFLUSHOPT},
    {0x7, EBX, 24, X86_FEAT_CLWB},
    {0x7, EBX, 29, X86_FEAT_SHA},
    {0x7, ECX, 2, X86_FEAT_BASE}, /* UMIP */
    {0x7, ECX, 8, X86_FEAT_GFNI},
    {0x7, ECX, 9, X86_FEAT_VAES},
    {0x7, ECX, 10, X86_FEAT_VPCLMUL},
    {0x7, ECX, 22, X86_FEAT_RDPID},
    {0x7, EDX, 4, X86_FEAT_BASE}, /* fast short REP MOVSB */
    {0x7, EDX, 10, X86_FEAT_MD_CLEAR},
    {0x7, EDX, 26, X86_FEAT_BASE}, /* IBRS and IBPB */
    {0x7, EDX, 27, X86_FEAT_BASE}, /* STIBP */
    {0x7, EDX, 29, X86_FEAT_BASE}, /* IA32_ARCH_CAPABILITIES */
    {0x7, EDX, 31, X86_FEAT_BASE}, /* SSBD */
    {0x80000001, ECX, 0, X86_FEAT_LAHF64},
    {0x80000001, ECX, 5, X86_FEAT_LZCNT},
    {0x80000001, ECX, 8, X86_FEAT_PREFETCHW},
    {0x80000001, EDX, 11, X86_FEAT_SYSCALL},
    {0x80000001, EDX, 20, X86_FEAT_BASE}, /* NX */
    {0x80000001, EDX, 26, X86_FEAT_PAGES_1G},
    {0x80000001, EDX, 27, X86_FEAT_RDTSCP},
    {0x80000001, EDX, 29, X86_FEAT_LM},
    {0x80000007, EDX, 8, X86_FEAT_BASE}, /* invariant TSC */
};
/* Subleaf 1 of leaf Dh; kept apart because the table above is for subleaf 0. */
static const struct feature_bit xsave_bits[] = {
    {0xD, EAX, 0, X86_FEAT_XSAVEOPT},
    {0xD, EAX, 1, X86_FEAT_XSAVEC},
    {0xD, EAX, 2, X86_FEAT_XSAVE}, /* XGETBV with ECX = 1 */
};

static void set_bits(const struct feature_bit *bits, unsigned count, const struct x86_model *model,
                     uint32_t leaf, uint32_t r[4])
{
    for (unsigned i = 0; i < count; i++)
        if (bits[i].leaf == leaf && model->feature[bits[i].feature])
            r[bits[i].reg] |= 1u << bits[i].bit;
}

static void set_features(const struct x86_model *model, uint32_t leaf, uint32_t r[4])
{
    set_bits(feature_bits, ARRAY_SIZE(feature_bits), model, leaf, r);
}

/* Bits needed to number N things. */
static unsigned id_bits(unsigned n)
{
    return n > 1 ? 32 - __builtin_clz(n - 1) : 0;
}

static void leaf_version(const struct x86_model *model, const struct x86_cpu *cpu, unsigned id,
                         uint32_t r[4])
{
    unsigned logical = MIN(1u << id_bits(model->cpus), 255);

    r[EAX] = X86_CPU_SIGNATURE;
    r[EBX] = 64 / 8 << 8 | logical << 16 | (id & 0xFF) << 24; /* CLFLUSH line, CPUs, APIC ID */
    if (model->cpus > 1)
        r[EDX] |= 1u << 28; /* HTT: more than one logical processor in the package */
    if (model->feature[X86_FEAT_XSAVE] && (cpu->cr4 & X86_CR4_OSXSAVE))
        r[ECX] |= 1u << 27;
}

/* The caches of a small desktop part: all that counts is that they are plausible. */
static void leaf_caches(const struct x86_model *model, uint32_t subleaf, uint32_t r[4])
{
    static const struct {
        uint8_t type, level, ways;
        uint16_t sets;
        bool shared;
    } caches[] = {
        {1, 1, 8, 64, false},   /* 32 KiB data */
        {2, 1, 8, 64, false},   /* 32 KiB instructions */
        {3, 2, 8, 512, false},  /* 256 KiB */
        {3, 3, 16, 8192, true}, /* 8 MiB */
    };
    const uint32_t self_initializing = 1u << 8, inclusive = 1u << 1;
    uint32_t ids = (1u << id_bits(model->cpus)) - 1;

    if (subleaf >= ARRAY_SIZE(caches))
        return;
    r[EAX] = caches[subleaf].type | caches[subleaf].level << 5 | self_initializing |
             (caches[subleaf].shared ? MIN(ids, 0xFFF) << 14 : 0) | MIN(ids, 0x3F) << 26;
    r[EBX] = (64 - 1) | (caches[subleaf].ways - 1u) << 22;
    r[ECX] = caches[subleaf].sets - 1;
    r[EDX] = caches[subleaf].shared ? inclusive : 0;
}

/* All vCPUs are cores of one package, one thread each. */
static void leaf_topology(const struct x86_model *model, unsigned id, uint32_t subleaf,
                          uint32_t r[4])
{
    enum { LEVEL_SMT = 1 << 8, LEVEL_CORE = 2 << 8 };

    r[ECX] = subleaf & 0xFF;
    r[EDX] = id;
    if (subleaf == 0) {
        r[EBX] = 1;
        r[ECX] |= LEVEL_SMT;
    } else if (subleaf == 1) {
        r[EAX] = id_bits(model->cpus);
        r[EBX] = model->cpus;
        r[ECX] |= LEVEL_CORE;
    }
}

uint64_t x86_xcr0_bits(const struct x86_model *model)
{
    return X86_XCR0_X87 | X86_XCR0_SSE | (model->feature[X86_FEAT_AVX] ? X86_XCR0_AVX : 0);
}

uint64_t x86_cr4_bits(const struct x86_model *model)
{
    const bool *feature = model->feature;
    uint64_t bits = X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE |
                    X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_UMIP;

    if (feature[X86_FEAT_FSGSBASE])
        bits |= X86_CR4_FSGSBASE;
    if (feature[X86_FEAT_PCID])
        bits |= X86_CR4_PCIDE;
    if (feature[X86_FEAT_SMEP])
        bits |= X86_CR4_SMEP;
    if (feature[X86_FEAT_XSAVE])
        bits |= X86_CR4_OSXSAVE;
    if (feature[X86_FEAT_SMAP])
        bits |= X86_CR4_SMAP;
    return bits;
}

/* The standard and the compacted form are alike, since AVX is the only component beyond SSE. */
static uint32_t xsave_size(uint64_t xcr0)
{
    return xcr0 & X86_XCR0_AVX ? X86_XSAVE_SIZE : X86_XSAVE_YMMH;
}

static void leaf_xsave(const struct x86_model *model, const struct x86_cpu *cpu, uint32_t subleaf,
                       uint32_t r[4])
{
    uint32_t supported = (uint32_t)x86_xcr0_bits(model);

    if (!model->feature[X86_FEAT_XSAVE])
        return;
    if (subleaf == 0) {
        r[EAX] = supported;
        r[EBX] = xsave_size(cpu->xcr0);
        r[ECX] = xsave_size(supported);
    } else if (subleaf == 1) {
        set_bits(xsave_bits, ARRAY_SIZE(xsave_bits), model, 0xD, r);
        if (model->feature[X86_FEAT_XSAVEC])
            r[EBX] = xsave_size(cpu->xcr0);
    } else if (subleaf == 2 && (supported & X86_XCR0_AVX)) {
        r[EAX] = X86_XSAVE_SIZE - X86_XSAVE_YMMH;
        r[EBX] = X86_XSAVE_YMMH;
    }
}

/* The TSC's frequency as a ratio to that of the APIC timer's clock. Linux multiplies the clock in
 * kHz by the numerator in 32 bits, so the best ratio of small numbers is wanted (within 100 ppm);
 * leaf 40000010h has it exactly. */
static void leaf_tsc(const struct x86_model *model, uint32_t r[4])
{
    const uint64_t khz = X86_APIC_TIMER_HZ / 1000;
    uint64_t least = UINT64_MAX;

    for (uint64_t denominator = 1; denominator <= 4000; denominator++) {
        uint64_t numerator =
            (model->tsc_hz * denominator + X86_APIC_TIMER_HZ / 2) / X86_APIC_TIMER_HZ;
        uint64_t hz = X86_APIC_TIMER_HZ * numerator / denominator;
        uint64_t error = hz > model->tsc_hz ? hz - model->tsc_hz : model->tsc_hz - hz;

        if (khz * numerator > UINT32_MAX)
            break;
        if (error < least) {
            least = error;
            r[EAX] = denominator;
            r[EBX] = numerator;
        }
    }
    r[ECX] = X86_APIC_TIMER_HZ;
}

static void leaf_brand(uint32_t leaf, uint32_t r[4])
{
    static const char brand[48] = "doppel virtual processor";

    memcpy(r, brand + (leaf - 0x80000002) * 16, 16);
}

static void leaf_kvm(const struct x86_model *model, uint32_t leaf, uint32_t r[4])
{
    switch (leaf) {
    case LEAF_KVM:
        r[EAX] = LEAF_KVM_MAX;
        memcpy(&r[EBX], "KVMKVMKVM\0\0\0", 12);
        break;
    case LEAF_KVM + 1: r[EAX] = X86_KVM_FEATURES; break;
    case LEAF_KVM + 0x10:
        r[EAX] = model->tsc_hz / 1000;
        r[EBX] = X86_APIC_TIMER_HZ / 1000;
        break;
    default: break;
    }
}

static void leaf_extended(const struct x86_model *model, const struct x86_cpu *cpu, uint32_t leaf,
                          uint32_t r[4])
{
    bool code64 = (cpu->efer & X86_EFER_LMA) && (cpu->seg[X86_CS].attr & X86_ATTR_L);

    switch (leaf) {
    case LEAF_EXTENDED: r[EAX] = LEAF_EXTENDED_MAX; break;
    case 0x80000001:
        /* On Intel's processors SYSCALL exists in 64-bit code only, and so does its bit. */
        if (!code64)
            r[EDX] &= ~(1u << 11);
        break;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004: leaf_brand(leaf, r); break;
    case 0x80000006: r[ECX] = 256 << 16 | 6 << 12 | 64; break; /* L2: KiB, 8 ways, line */
    case 0x80000008: r[EAX] = model->physical_bits | 48 << 8; break;
    default: break;
    }
}

/* Leaf 7 beyond the features of subleaf 0. BHI_CTRL lets Linux turn branch history injection off by
 * IA32_SPEC_CTRL instead of by a loop in every system call, whatever BHI_NO says. */
static void leaf_features(uint32_t subleaf, uint32_t r[4])
{
    enum { BHI_CTRL = 1 << 4, MCDT_NO = 1 << 5 };

    if (subleaf == 0)
        r[EAX] = 2; /* the last subleaf */
    else if (subleaf == 2)
        r[EDX] = BHI_CTRL | MCDT_NO;
}

static void leaf_basic(const struct x86_model *model, const struct x86_cpu *cpu, unsigned id,
                       uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
    switch (leaf) {
    case 0x0:
        r[EAX] = LEAF_BASIC_MAX;
        memcpy(&r[EBX], "Genu", 4);
        memcpy(&r[EDX], "ineI", 4);
        memcpy(&r[ECX], "ntel", 4);
        break;
    case 0x1: leaf_version(model, cpu, id, r); break;
    case 0x2: r[EAX] = 0x00FEFF01; break; /* see leaves 4 and 18h instead */
    case 0x4: leaf_caches(model, subleaf, r); break;
    case 0x7: leaf_features(subleaf, r); break;
    case 0xB: leaf_topology(model, id, subleaf, r); break;
    case 0xD: leaf_xsave(model, cpu, subleaf, r); break;
    case 0x15: leaf_tsc(model, r); break;
    case 0x16:
        r[EAX] = r[EBX] = (model->tsc_hz + 500000) / 1000000;
        r[ECX] = 100;
        break;
    default: break;
    }
}

struct x86_cpuid_regs x86_cpuid(const struct x86_model *model, const struct x86_cpu *cpu,
                                unsigned id, uint32_t leaf, uint32_t subleaf)
{
    uint32_t r[4] = {0};

    /* Out of range: what the highest basic leaf gives, as Intel's processors do. */
    if ((leaf > LEAF_BASIC_MAX && leaf < LEAF_KVM) || leaf > LEAF_EXTENDED_MAX)
        leaf = LEAF_BASIC_MAX;
    if (leaf != 7 || subleaf == 0)
        set_features(model, leaf, r);
    if (leaf >= LEAF_EXTENDED)
        leaf_extended(model, cpu, leaf, r);
    else if (leaf >= LEAF_KVM)
        leaf_kvm(model, leaf, r);
    else
        leaf_basic(model, cpu, id, leaf, subleaf, r);
    return (struct x86_cpuid_regs){r[EAX], r[EBX], r[ECX], r[EDX]};
}

/* Whether the host announces what this bit announces. */
static bool host_has(const struct feature_bit *bit)
{
    uint32_t r[4];

    if (!__get_cpuid_count(bit->leaf, 0, &r[EAX], &r[EBX], &r[ECX], &r[EDX]))
        return false;
    return r[bit->reg] >> bit->bit & 1;
}

/* Whether the host's kernel lets AVX state exist (SDM volume 1, 14.3). */
static bool host_enables_avx(void)
{
    const uint32_t ymm = X86_XCR0_SSE | X86_XCR0_AVX;
    const struct feature_bit osxsave = {0x1, ECX, 27, 0};
    uint32_t eax, edx;

    if (!host_has(&osxsave))
        return false;
    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return (eax & ymm) == ymm;
}

/* Whether an instruction that the feature gates may be executed by the host's processor. */
static bool needs_host(enum x86_feature feature)
{
    unsigned count;
    const struct x86_insn_info *table = x86_insn_table(&count);

    for (unsigned i = 0; i < count; i++)
        if (table[i].feature == feature &&
            (table[i].class == X86_CLASS_NATIVE || table[i].class == X86_CLASS_X87 ||
             table[i].class == X86_CLASS_INTEGER))
            return true;
    return false;
}

static unsigned host_physical_bits(void)
{
    uint32_t eax, ebx, ecx, edx;

    if (!__get_cpuid(0x80000008, &eax, &ebx, &ecx, &edx))
        return 40;
    return MAX(PHYSICAL_BITS_MIN, MIN(eax & 0xFF, PHYSICAL_BITS_MAX));
}

/* Turns off the features of MODEL that need another one which is off. */
static void drop_dependent(struct x86_model *model)
{
    if (!model->feature[X86_FEAT_XSAVE])
        model->feature[X86_FEAT_AVX] = model->feature[X86_FEAT_XSAVEOPT] =
            model->feature[X86_FEAT_XSAVEC] = false;
    if (!model->feature[X86_FEAT_PCID])
        model->feature[X86_FEAT_INVPCID] = false;
    if (!model->feature[X86_FEAT_AVX])
        model->feature[X86_FEAT_AVX2] = model->feature[X86_FEAT_FMA] =
            model->feature[X86_FEAT_F16C] = false;
}

void x86_model_default(struct x86_model *model, unsigned cpus, uint64_t tsc_hz)
{
    /* In the table because the host may have them, but not part of the model. */
    static const uint8_t left_out[] = {X86_FEAT_MONITOR, X86_FEAT_VAES, X86_FEAT_VPCLMUL,
                                       X86_FEAT_GFNI};
    bool *feature = model->feature;

    *model = (struct x86_model){.cpus = cpus,
                                .tsc_hz = tsc_hz,
                                .physical_bits = host_physical_bits(),
                                .arch_capabilities = X86_ARCH_CAPABILITIES};
    for (unsigned i = 0; i < X86_FEAT_COUNT; i++)
        feature[i] = true;
    for (unsigned i = 0; i < ARRAY_SIZE(left_out); i++)
        feature[left_out[i]] = false;
    for (unsigned i = 0; i < ARRAY_SIZE(feature_bits); i++) {
        const struct feature_bit *bit = &feature_bits[i];

        if (bit->feature != X86_FEAT_BASE && needs_host(bit->feature) && !host_has(bit))
            feature[bit->feature] = false;
    }
    if (!host_enables_avx())
        feature[X86_FEAT_AVX] = false;
    drop_dependent(model);
}

/* ---- Models that other hypervisors can give ---- */

static void drop_unsupported(const struct feature_bit *bits, unsigned count, uint32_t subleaf,
                             struct x86_model *model, x86_cpuid_fn *supported, const void *opaque)
{
    for (unsigned i = 0; i < count; i++) {
        struct x86_cpuid_regs r = supported(opaque, bits[i].leaf, subleaf);
        const uint32_t reg[] = {r.eax, r.ebx, r.ecx, r.edx};

        if (bits[i].feature != X86_FEAT_BASE && !(reg[bits[i].reg] >> bits[i].bit & 1))
            model->feature[bits[i].feature] = false;
    }
}

void x86_model_restrict(struct x86_model *model, x86_cpuid_fn *supported, const void *opaque)
{
    drop_unsupported(feature_bits, ARRAY_SIZE(feature_bits), 0, model, supported, opaque);
    drop_unsupported(xsave_bits, ARRAY_SIZE(xsave_bits), 1, model, supported, opaque);
    drop_dependent(model);
}

bool x86_model_within(const struct x86_model *part, const struct x86_model *whole)
{
    for (unsigned i = 0; i < X86_FEAT_COUNT; i++)
        if (part->feature[i] && !whole->feature[i])
            return false;
    return !(part->arch_capabilities & ~whole->arch_capabilities);
}

/* ---- Models of saved machines ---- */

/* The leaves with features, as (leaf, subleaf). */
static const struct {
    uint32_t leaf, subleaf;
} saved_leaves[] = {{0x1, 0}, {0x6, 0}, {0x7, 0}, {0xD, 1}, {0x80000001, 0}, {0x80000007, 0}};

#define SAVED_LEAVES ARRAY_SIZE(saved_leaves)

/* The registers with the features of saved leaf N alone. */
static void saved_leaf(const struct x86_model *model, unsigned n, uint32_t r[4])
{
    memset(r, 0, 4 * sizeof(r[0]));
    if (saved_leaves[n].subleaf)
        set_bits(xsave_bits, ARRAY_SIZE(xsave_bits), model, saved_leaves[n].leaf, r);
    else
        set_features(model, saved_leaves[n].leaf, r);
}

/* Turns off the features of MODEL that the saved leaf N, R, does not announce. */
static void drop_features(struct x86_model *model, unsigned n, const uint32_t r[4])
{
    bool subleaf = saved_leaves[n].subleaf;
    const struct feature_bit *bits = subleaf ? xsave_bits : feature_bits;
    unsigned count = subleaf ? ARRAY_SIZE(xsave_bits) : ARRAY_SIZE(feature_bits);

    for (unsigned i = 0; i < count; i++)
        if (bits[i].leaf == saved_leaves[n].leaf && bits[i].feature != X86_FEAT_BASE &&
            !(r[bits[i].reg] >> bits[i].bit & 1))
            model->feature[bits[i].feature] = false;
}

static void check_leaf(struct state *s, unsigned n, const uint32_t saved[4], const uint32_t here[4])
{
    static const char *const name[] = {"EAX", "EBX", "ECX", "EDX"};

    for (unsigned i = 0; i < 4; i++) {
        uint32_t differ = saved[i] ^ here[i];
        unsigned bit = differ ? (unsigned)__builtin_ctz(differ) : 0;

        if (differ)
            state_fail(s,
                       "cpuid: bit %u of %s in leaf %Xh is %u in the saved processor and %u here",
                       bit, name[i], saved_leaves[n].leaf, saved[i] >> bit & 1, here[i] >> bit & 1);
    }
}

void x86_model_state(struct x86_model *model, struct state *s)
{
    uint32_t cpuid[SAVED_LEAVES][4], here[4];
    uint32_t physical_bits = model->physical_bits, version;

    for (unsigned n = 0; n < SAVED_LEAVES; n++)
        saved_leaf(model, n, cpuid[n]);
    version = state_section(s, "model", 0, 2);
    state_field(s, cpuid);
    state_field(s, physical_bits);
    state_field(s, model->tsc_hz);
    if (version >= 2)
        state_field(s, model->arch_capabilities);
    if (state_saving(s) || state_error(s))
        return;
    for (unsigned n = 0; n < SAVED_LEAVES; n++)
        drop_features(model, n, cpuid[n]);
    drop_dependent(model); /* a saved model that has one without the other is refused below */
    for (unsigned n = 0; n < SAVED_LEAVES; n++) {
        saved_leaf(model, n, here);
        check_leaf(s, n, cpuid[n], here);
    }
    if (physical_bits < PHYSICAL_BITS_MIN || physical_bits > PHYSICAL_BITS_MAX)
        state_fail(s, "physical_bits %u: must be %u to %u", physical_bits, PHYSICAL_BITS_MIN,
                   PHYSICAL_BITS_MAX);
    else if (model->arch_capabilities & ~X86_ARCH_CAPABILITIES)
        state_fail(s, "arch_capabilities: bits %#llx are not known",
                   (unsigned long long)(model->arch_capabilities & ~X86_ARCH_CAPABILITIES));
    else
        model->physical_bits = physical_bits;
}
