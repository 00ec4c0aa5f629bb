/*
 * MSRs, CPUID against what the processor does, the time-stamp counter, RDTSCP and RDPID
 * (SDM volume 2; volume 3, 17.17; volume 4). 64-bit.
 */
#include "rt/paging.h"
#include "rt/rt.h"

#define MSR_TSC        0x10
#define MSR_TSC_ADJUST 0x3B
#define MSR_PAT        0x277

USER_INSN(u_rdtscp, "rdtscp; xor %0, %0")
USER_INSN(u_rdpid, "rdpid %%rax")

static void msrs(void)
{
    tcg_differs("unknown MSRs read as 0");
    faults(GP, 0, (void)rdmsr(0x12345678), "RDMSR of an MSR that is not there");
    tcg_differs("writes to unknown MSRs are ignored");
    faults(GP, 0, wrmsr(0x12345678, 0), "WRMSR of an MSR that is not there");
    static const u32 kept[] = {MSR_LSTAR, MSR_CSTAR, MSR_STAR, MSR_SYSENTER_ESP,
                               MSR_KERNEL_GS_BASE};
    for (unsigned i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
        wrmsr(kept[i], 0x00007ABCDEF01234);
        equal(rdmsr(kept[i]), 0x00007ABCDEF01234, "MSR %x keeps its value", kept[i]);
        wrmsr(kept[i], 0);
    }
    asm volatile("wrmsr" : : "c"(MSR_LSTAR), "a"(0xFFFFFFFF00000001), "d"(0xFFFFFFFF00000000));
    equal(rdmsr(MSR_LSTAR), 1, "WRMSR uses EDX:EAX");
    word a = -1ul, d = -1ul;
    asm volatile("rdmsr" : "+a"(a), "+d"(d) : "c"(MSR_LSTAR));
    check(a == 1 && d == 0, "RDMSR clears the upper halves of RAX and RDX");
    equal(rdmsr(MSR_EFER), EFER_LME | EFER_LMA | EFER_NXE, "EFER");
    u64 pat = rdmsr(MSR_PAT);
    equal(pat, 0x0007040600070406, "PAT after reset");
    tcg_differs("any memory type is taken");
    faults(GP, 0, wrmsr(MSR_PAT, 2), "PAT with a reserved memory type");
    wrmsr(MSR_PAT, pat);
    equal(rdmsr(MSR_APIC_BASE) & ~0xFFull, 0xFEE00900, "APIC base: enabled, bootstrap processor");
}

/* A register of an Intel processor and the bits of CPUID that announce it: it exists if one of them
 * there if the hypervisor's name says so. */
enum { A, B, C, D };
struct announced_msr {
    const char *name;
    u32 msr;
    struct {
        u32 leaf, subleaf;
        u8 reg, bit;
    } by[3];
    u64 value; /* to write where it cannot be read */
};
#define KVM 0x40000001
static const struct announced_msr announced_msrs[] = {
    {"IA32_FEATURE_CONTROL", 0x3A, {{1, 0, C, 5}, {1, 0, C, 6}, {7, 0, B, 2}}, 0},
    {"IA32_TSC_ADJUST", 0x3B, {{7, 0, B, 1}}, 0},
    {"IA32_SPEC_CTRL", 0x48, {{7, 0, D, 26}, {7, 0, D, 27}, {7, 0, D, 31}}, 0},
    {"IA32_CORE_CAPABILITIES", 0xCF, {{7, 0, D, 30}}, 0},
    {"IA32_MTRRCAP", 0xFE, {{1, 0, D, 12}}, 0},
    {"MTRRphysMask7", 0x20F, {{1, 0, D, 12}}, 0},
    {"MTRRfix4K_F8000", 0x26F, {{1, 0, D, 12}}, 0},
    {"IA32_MTRR_DEF_TYPE", 0x2FF, {{1, 0, D, 12}}, 0},
    {"IA32_ARCH_CAPABILITIES", 0x10A, {{7, 0, D, 29}}, 0},
    {"IA32_SYSENTER_EIP", 0x176, {{1, 0, D, 11}}, 0},
    {"IA32_MCG_CAP", 0x179, {{1, 0, D, 14}}, 0},
    {"IA32_XFD", 0x1C4, {{13, 1, A, 4}}, 0},
    {"IA32_PAT", 0x277, {{1, 0, D, 16}}, 0},
    {"IA32_PERF_CAPABILITIES", 0x345, {{1, 0, C, 15}}, 0},
    {"IA32_U_CET", 0x6A0, {{7, 0, C, 7}, {7, 0, D, 20}}, 0},
    {"IA32_TSC_DEADLINE", 0x6E0, {{1, 0, C, 24}}, 0},
    {"IA32_PKRS", 0x6E1, {{7, 0, C, 31}}, 0},
    {"IA32_PM_ENABLE", 0x770, {{6, 0, A, 7}}, 0},
    {"IA32_XSS", 0xDA0, {{13, 1, A, 3}}, 0},
    {"LSTAR", MSR_LSTAR, {{0x80000001, 0, D, 29}}, 0},
    {"IA32_TSC_AUX", MSR_TSC_AUX, {{0x80000001, 0, D, 27}, {7, 0, C, 22}}, 0},
    {"KVM's first clock", 0x12, {{KVM, 0, A, 0}}, 0},
    {"KVM's clock", 0x4B564D01, {{KVM, 0, A, 3}}, 0},
    {"KVM's page faults", 0x4B564D02, {{KVM, 0, A, 4}}, 0},
    {"KVM's steal time", 0x4B564D03, {{KVM, 0, A, 5}}, 0},
    {"KVM's end of interrupt", 0x4B564D04, {{KVM, 0, A, 6}}, 0},
};
static const struct announced_msr commands[] = {
    {"IA32_PRED_CMD", 0x49, {{7, 0, D, 26}}, 1},
    {"IA32_FLUSH_CMD", 0x10B, {{7, 0, D, 28}}, 1},
};

static bool cpuid_bit(u32 leaf, u32 subleaf, u8 reg, u8 bit)
{
    struct cpuid top = cpuid(leaf & 0xF0000000, 0), r = cpuid(leaf, subleaf);
    if (leaf > top.a || (leaf == KVM && top.b != 0x4B4D564B)) /* "KVMK" */
        return false;
    return (reg == A ? r.a : reg == B ? r.b : reg == C ? r.c : r.d) >> bit & 1;
}

static bool is_announced(const struct announced_msr *m)
{
    for (unsigned i = 0; i < 3; i++)
        if (m->by[i].leaf && cpuid_bit(m->by[i].leaf, m->by[i].subleaf, m->by[i].reg, m->by[i].bit))
            return true;
    return false;
}

static bool taken(u32 msr, u64 value)
{
    return TRAP(wrmsr(msr, value))->f.vector == NO_TRAP;
}

/* Every register is there if it is announced, and only then; so are the bits of IA32_SPEC_CTRL. */
static void announced_registers(void)
{
    if (on_tcg()) {
        skip("it takes any register", "MSRs as announced");
        return;
    }
    for (unsigned i = 0; i < sizeof(announced_msrs) / sizeof(*announced_msrs); i++) {
        const struct announced_msr *m = &announced_msrs[i];
        bool there = TRAP((void)rdmsr(m->msr))->f.vector == NO_TRAP;
        equal(there, is_announced(m), "RDMSR of %s is as announced", m->name);
        if (!there)
            equal(taken(m->msr, 0), false, "WRMSR of %s fails, too", m->name);
    }
    for (unsigned i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        const struct announced_msr *m = &commands[i];
        faults(GP, 0, (void)rdmsr(m->msr), "%s cannot be read", m->name);
        equal(taken(m->msr, m->value), is_announced(m), "WRMSR of %s is as announced", m->name);
        equal(taken(m->msr, 1ull << 40), false, "reserved bits of %s", m->name);
    }
    struct {
        u8 bit;
        bool yes;
    } controls[] = {{0, cpuid_bit(7, 0, D, 26)},
                    {1, cpuid_bit(7, 0, D, 27)},
                    {2, cpuid_bit(7, 0, D, 31)},
                    {3, cpuid_bit(7, 2, D, 1)},
                    {5, cpuid_bit(7, 2, D, 2)},
                    {8, cpuid_bit(7, 2, D, 3)},
                    {10, cpuid_bit(7, 2, D, 4)},
                    {11, false},
                    {63, false}};
    for (unsigned i = 0; i < sizeof(controls) / sizeof(*controls); i++)
        equal(taken(0x48, 1ull << controls[i].bit), controls[i].yes,
              "bit %u of IA32_SPEC_CTRL is as announced", controls[i].bit);
    if (cpuid_bit(7, 0, D, 26))
        wrmsr(0x48, 0);
    static const u32 read_only[] = {0xFE, 0x10A, 0x179};
    for (unsigned i = 0; i < sizeof(read_only) / sizeof(*read_only); i++)
        equal(taken(read_only[i], 0), false, "MSR %x is read-only", read_only[i]);
    equal(taken(0x1A0, rdmsr(0x1A0)), true, "IA32_MISC_ENABLE takes what it holds");
    equal(taken(0x1A0, 1ull << 63), false, "and no reserved bit");
}

static void counters(void)
{
    u64 one = rdtsc(), two = rdtsc();
    check(two > one, "RDTSC counts");
    wrmsr(MSR_TSC, 0x123456789ABC);
    u64 after = rdtsc();
    tcg_differs("it cannot be set");
    check(after >= 0x123456789ABC && after < 0x123456789ABC + (1ull << 36), "WRMSR sets the TSC");
    tcg_differs("it reads as 0");
    check(rdmsr(MSR_TSC) >= after, "RDMSR of it");
    if (cpuid(7, 0).b & 2) {
        u64 adjust = rdmsr(MSR_TSC_ADJUST);
        one = rdtsc();
        wrmsr(MSR_TSC_ADJUST, adjust + (1ull << 40));
        two = rdtsc();
        tcg_differs("it is not connected");
        check(two - one >= 1ull << 40 && two - one < (1ull << 40) + (1ull << 36),
              "IA32_TSC_ADJUST moves the TSC");
        wrmsr(MSR_TSC_ADJUST, adjust);
    } else {
        skip("no TSC_ADJUST", "IA32_TSC_ADJUST");
    }
    if (!has(F_RDTSCP)) {
        skip("no RDTSCP", "RDTSCP");
        return;
    }
    wrmsr(MSR_TSC_AUX, 0x4321);
    word lo, hi, aux = -1ul;
    asm volatile("rdtscp" : "=a"(lo), "=d"(hi), "+c"(aux));
    equal(aux, 0x4321, "RDTSCP gives IA32_TSC_AUX");
    check(lo >> 32 == 0 && hi >> 32 == 0, "RDTSCP clears upper halves");
    user_runs(u_rdtscp, 0, "RDTSCP in user mode");
    write_cr4(read_cr4() | CR4_TSD);
    user_faults(GP, 0, u_rdtscp, 0, "RDTSCP in user mode with CR4.TSD");
    write_cr4(read_cr4() & ~CR4_TSD);
    tcg_differs("any value is taken");
    faults(GP, 0, wrmsr(MSR_TSC_AUX, 1ull << 32), "IA32_TSC_AUX has 32 bits");
    if (has(F_RDPID))
        equal(user(u_rdpid, 0)->f.ax, 0x4321, "RDPID in user mode");
    else
        skip("no RDPID", "RDPID");
}

/* What CPUID does not announce raises #UD, what it announces does not. */
static void announced(bool yes, const struct trap *t, const char *name)
{
    equal(t->f.vector != UD, yes, "%s is as announced", name);
}

static void features(void)
{
    write_cr4(read_cr4() | CR4_OSFXSR);
    struct cpuid one = cpuid(1, 0), seven = cpuid(7, 0), ext = cpuid(0x80000001, 0);
    check(cpuid(0, 0).a >= 13, "CPUID: leaves to at least 0Dh");
    check(cpuid(0x80000000, 0).a >= 0x80000008, "CPUID: leaves to at least 80000008h");
    announced(one.c >> 23 & 1, TRAP(asm volatile("popcnt %%eax, %%eax" : : : "eax")), "POPCNT");
    announced(one.c >> 22 & 1, TRAP(asm volatile("movbe %%eax, %0" : "=m"(rt_at) : : "eax")),
              "MOVBE");
    announced(one.c >> 25 & 1, TRAP(asm volatile("aesenc %xmm0, %xmm0")), "AESENC");
    announced(one.c >> 1 & 1, TRAP(asm volatile("pclmulqdq $0, %xmm0, %xmm0")), "PCLMULQDQ");
    announced(one.c >> 20 & 1, TRAP(asm volatile("crc32b %%al, %%eax" : : : "eax")), "CRC32");
    announced(one.c >> 30 & 1, TRAP(asm volatile("rdrand %%eax" : : : "eax", "cc")), "RDRAND");
    tcg_differs("it is there unannounced");
    announced(seven.b >> 18 & 1, TRAP(asm volatile("rdseed %%eax" : : : "eax", "cc")), "RDSEED");
    announced(seven.b >> 19 & 1, TRAP(asm volatile("adcx %%eax, %%eax" : : : "eax", "cc")), "ADCX");
    announced(seven.b >> 29 & 1, TRAP(asm volatile("sha1msg1 %xmm0, %xmm0")), "SHA1MSG1");
    announced(seven.b >> 20 & 1, TRAP(asm volatile("stac; clac")), "STAC");
    announced(seven.b >> 23 & 1, TRAP(asm volatile("clflushopt %0" : : "m"(rt_at))), "CLFLUSHOPT");
    announced(seven.b >> 24 & 1, TRAP(asm volatile("clwb %0" : : "m"(rt_at))), "CLWB");
    announced(seven.c >> 22 & 1, TRAP(asm volatile("rdpid %%rax" : : : "rax")), "RDPID");
    announced(ext.d >> 27 & 1, TRAP(asm volatile("rdtscp" : : : "eax", "ecx", "edx")), "RDTSCP");
    announced(one.c >> 13 & 1,
              TRAP(asm volatile("cmpxchg16b (%0)" : : "r"(rt_idt) : "rax", "rdx", "cc", "memory")),
              "CMPXCHG16B");
    announced(seven.b >> 3 & 1, TRAP(asm volatile("andn %%eax, %%eax, %%eax" : : : "eax", "cc")),
              "ANDN");
    announced(seven.b >> 8 & 1, TRAP(asm volatile("rorx $1, %%eax, %%eax" : : : "eax")), "RORX");
    announced(one.c >> 5 & 1, TRAP(asm volatile("vmxoff")), "VMXOFF");
    announced(one.c >> 3 & 1,
              TRAP(asm volatile("xor %%ecx, %%ecx; monitor" : : "a"(rt_idt) : "ecx")), "MONITOR");
    if (on_tcg()) {
        skip("it takes any bit", "CR4");
        return;
    }
    struct {
        const char *name;
        word bit;
        bool yes;
    } controls[] = {{"SMEP", CR4_SMEP, has(F_SMEP)},
                    {"UMIP", CR4_UMIP, has(F_UMIP)},
                    {"FSGSBASE", CR4_FSGSBASE, has(F_FSGSBASE)},
                    {"PCIDE", CR4_PCIDE, has(F_PCID)},
                    {"OSXSAVE", CR4_OSXSAVE, has(F_XSAVE)},
                    {"VMXE", 1ul << 13, one.c >> 5 & 1},
                    {"PKE", 1ul << 22, seven.c >> 3 & 1}};
    struct space space; /* with SMEP, the kernel may not be user's as it is to begin with */
    space_init(&space, PAGING_4LEVEL);
    space_enter(&space);
    word cr4 = read_cr4();
    for (unsigned i = 0; i < sizeof(controls) / sizeof(*controls); i++) {
        bool taken = TRAP(write_cr4(cr4 | controls[i].bit))->f.vector == NO_TRAP;
        write_cr4(cr4);
        equal(taken, controls[i].yes, "CR4.%s is as announced", controls[i].name);
    }
}

void test(void)
{
    msrs();
    announced_registers();
    counters();
    features();
}
