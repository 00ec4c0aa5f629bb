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
    announced(one.c >> 22 & 1,
              TRAP(asm volatile("movbe %%eax, %0"
                                : "=m"(rt_at)
                                :
                                : "eax")),
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
              TRAP(asm volatile("cmpxchg16b (%0)"
                                :
                                : "r"(rt_idt)
                                : "rax", "rdx", "cc", "memory")),
              "CMPXCHG16B");
    announced(seven.b >> 3 & 1,
              TRAP(asm volatile("andn %%eax, %%eax, %%eax"
                                :
                                :
                                : "eax", "cc")),
              "ANDN");
    announced(seven.b >> 8 & 1, TRAP(asm volatile("rorx $1, %%eax, %%eax" : : : "eax")), "RORX");
    announced(one.c >> 5 & 1, TRAP(asm volatile("vmxoff")), "VMXOFF");
    announced(one.c >> 3 & 1,
              TRAP(asm volatile("xor %%ecx, %%ecx; monitor"
                                :
                                : "a"(rt_idt)
                                : "ecx")),
              "MONITOR");
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
    counters();
    features();
}
