/*
 * The control bits of x87, SSE and AVX state, and the images that FXSAVE and XSAVE make
 * (SDM volume 1, 10.5, 13; volume 2, FXSAVE, XSAVE, XRSTOR, LDMXCSR). 64-bit.
 */
#include "rt/rt.h"

#define XCR0_X87 1u
#define XCR0_SSE 2u
#define XCR0_AVX 4u

static u8 area[1024] __attribute__((aligned(64)));

static u16 at16(unsigned offset)
{
    return *(volatile u16 *)(area + offset);
}

static u32 at32(unsigned offset)
{
    return *(volatile u32 *)(area + offset);
}

static u64 at64(unsigned offset)
{
    return *(volatile u64 *)(area + offset);
}

static void xsetbv(u32 index, u64 value)
{
    asm volatile("xsetbv" : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)));
}

static u64 xgetbv(u32 index)
{
    u32 lo, hi;
    asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
    return lo | (u64)hi << 32;
}

static void xsave(u64 mask)
{
    asm volatile("xsave (%0)" : : "r"(area), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
}

static void xrstor(u64 mask)
{
    asm volatile("xrstor (%0)" : : "r"(area), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
}

static void switches(void)
{
    word cr0 = read_cr0(), cr4 = read_cr4();
    faults(UD, 0, asm volatile(AT "movaps %xmm0, %xmm1"), "SSE without CR4.OSFXSR");
    faults(UD, 0, asm volatile(AT "ldmxcsr %0" : : "m"(area)), "LDMXCSR without CR4.OSFXSR");
    runs(asm volatile("fxsave (%0)" : : "r"(area) : "memory"), "FXSAVE without CR4.OSFXSR");
    write_cr4(cr4 | CR4_OSFXSR);
    runs(asm volatile("movaps %xmm0, %xmm1"), "SSE with CR4.OSFXSR");
    write_cr0(cr0 | CR0_TS);
    faults(NM, 0, asm volatile(AT "movaps %xmm0, %xmm1"), "SSE with CR0.TS");
    faults(NM, 0, asm volatile(AT "cvttsd2si (%0), %%eax" : : "r"(area) : "eax"),
           "a conversion from memory with CR0.TS");
    faults(NM, 0, asm volatile(AT "fxsave (%0)" : : "r"(area) : "memory"), "FXSAVE with CR0.TS");
    faults(NM, 0, asm volatile(AT "movq %mm0, %mm1"), "MMX with CR0.TS");
    faults(NM, 0, asm volatile(AT "fld1"), "x87 with CR0.TS");
    runs(asm volatile("sfence; prefetchnta (%0)" : : "r"(area)), "SFENCE and PREFETCH with CR0.TS");
    write_cr0((cr0 & ~CR0_MP) | CR0_EM);
    faults(UD, 0, asm volatile(AT "movaps %xmm0, %xmm1"), "SSE with CR0.EM");
    faults(UD, 0, asm volatile(AT "movq %mm0, %mm1"), "MMX with CR0.EM");
    faults(NM, 0, asm volatile(AT "fld1"), "x87 with CR0.EM");
    write_cr0(cr0);
    static const u32 reserved = 0x10000;
    tcg_differs("reserved bits are ignored");
    faults(GP, 0, asm volatile(AT "ldmxcsr %0" : : "m"(reserved)), "LDMXCSR of a reserved bit");
}

static void fxsave(void)
{
    static const u32 mxcsr = 0x1F85;
    static const u16 control = 0x27F;
    memset(area, 0xEE, sizeof(area));
    asm volatile("fninit; fldcw %0; fld1; fldz; fldpi" : : "m"(control));
    asm volatile("ldmxcsr %0; movq %1, %%xmm3; movq %2, %%xmm15"
                 :
                 : "m"(mxcsr), "r"(0x1122334455667788ul), "r"(0xAABBCCDDEEFF0011ul));
    asm volatile("rex.w fxsave (%0)" : : "r"(area) : "memory");
    equal(at16(0), control, "FXSAVE: FCW");
    equal(at16(2) & 0x3800, 5 << 11, "FXSAVE: TOP in FSW");
    equal(area[4], 0xE0, "FXSAVE: abridged FTW");
    equal(at32(24), mxcsr, "FXSAVE: MXCSR");
    equal(at64(160 + 16 * 3), 0x1122334455667788, "FXSAVE: XMM3");
    equal(at64(160 + 16 * 15), 0xAABBCCDDEEFF0011, "FXSAVE: XMM15");
    equal(at64(32 + 32), 0x8000000000000000, "FXSAVE: ST2 is 1.0");
    equal(at16(32 + 40), 0x3FFF, "FXSAVE: its exponent");
    check(area[464] == 0xEE && area[511] == 0xEE, "FXSAVE leaves bytes 464 to 511");
    asm volatile("fninit; xorps %%xmm3, %%xmm3" : :);
    asm volatile("rex.w fxrstor (%0)" : : "r"(area));
    u64 x;
    asm volatile("movq %%xmm3, %0" : "=r"(x));
    equal(x, 0x1122334455667788, "FXRSTOR: XMM3");
    u16 status;
    asm volatile("fnstsw %0" : "=m"(status));
    equal(status & 0x3800, 5 << 11, "FXRSTOR: TOP");
    *(u32 *)(area + 24) |= 0x80000000;
    tcg_differs("reserved bits are ignored");
    faults(GP, 0, asm volatile(AT "fxrstor (%0)" : : "r"(area)), "FXRSTOR of a reserved MXCSR bit");
    asm volatile("fninit");
}

static void xcr0(void)
{
    faults(UD, 0, (void)xgetbv(0), "XGETBV without CR4.OSXSAVE");
    faults(UD, 0, xsave(1), "XSAVE without CR4.OSXSAVE");
    equal(cpuid(1, 0).c >> 27 & 1, 0, "CPUID.OSXSAVE clear");
    write_cr4(read_cr4() | CR4_OSXSAVE);
    equal(cpuid(1, 0).c >> 27 & 1, 1, "CPUID.OSXSAVE set");
    equal(xgetbv(0), XCR0_X87, "XCR0 after reset");
    equal(cpuid(13, 0).b, 576, "CPUID.0Dh: size for x87");
    runs(xsetbv(0, XCR0_X87 | XCR0_SSE), "XSETBV x87 SSE");
    faults(GP, 0, xsetbv(0, XCR0_SSE), "XSETBV without x87");
    faults(GP, 0, xsetbv(0, 0), "XSETBV of 0");
    faults(GP, 0, xsetbv(0, XCR0_X87 | XCR0_AVX), "XSETBV AVX without SSE");
    faults(GP, 0, xsetbv(0, XCR0_X87 | 1ull << 62), "XSETBV of a reserved bit");
    faults(GP, 0, xsetbv(1, 1), "XSETBV of XCR1");
    tcg_differs("XCR1 is taken for XINUSE, as XGETBV1 says, or not at all");
    faults(GP, 0, (void)xgetbv(2), "XGETBV of XCR2");
}

/* --- Registers that an engine may keep where the guest does not see them -----------------------
 */

static volatile unsigned lent;

/* As systems do that load the registers when they are first used. */
static void lend(struct frame *f)
{
    lent++;
    asm volatile("clts");
}

/* A loop with vectors and x87 whose registers are taken away in each round, after a use of both. */
static void lazy(void)
{
    u64 sum = 0, rounds = 1000, x87 = 0;
    lent = 0;
    rt_handler[NM] = lend;
    asm volatile("fninit; fldz; pxor %%xmm0, %%xmm0\n"
                 "1: movq %q2, %%xmm1; paddq %%xmm1, %%xmm0\n"
                 "fld1; faddp\n"
                 "mov %%cr0, %%rax; or $8, %%rax; mov %%rax, %%cr0\n"
                 "test $1, %b2; jz 2f\n"
                 "fld1; faddp; jmp 3f\n"
                 "2: paddq %%xmm1, %%xmm0\n"
                 "3: dec %2; jnz 1b\n"
                 "clts; fistpq %1; movq %%xmm0, %0"
                 : "=r"(sum), "=m"(x87), "+r"(rounds)
                 :
                 : "rax", "memory", "cc");
    rt_handler[NM] = 0;
    equal(lent, 1000, "#NM once for each time that CR0.TS was set");
    /* 1 to 1000, the even ones twice. */
    equal(sum, 500500 + 250500, "the sum in a vector register");
    equal(x87, 1500, "the sum in an x87 register");
}

/* An exception is unmasked in the middle of a loop whose instructions then raise it. That of the
 * x87 is pending by then. */
static void unmasked(void)
{
    static const u32 masked = 0x1F80, open = 0x1D80; /* division by zero */
    static const u16 x87_masked = 0x37F, x87_open = 0x37B;
    static volatile u64 rounds;
    for (unsigned i = 0; i < 3; i++) {
        faults(
            XM, 0,
            asm volatile("ldmxcsr %1; pcmpeqd %%xmm1, %%xmm1; psrld $25, %%xmm1\n"
                         "cvtdq2ps %%xmm1, %%xmm1; xorps %%xmm0, %%xmm0; mov $200, %%ecx\n"
                         "1: mov %%rcx, %0; movaps %%xmm1, %%xmm2\n"
                         "cmp $100, %%ecx; jne 2f; ldmxcsr %2\n"
                         "2: movl $3f, rt_at\n"
                         "3: divps %%xmm0, %%xmm2; dec %%ecx; jnz 1b" : "=m"(rounds) : "m"(masked),
                         "m"(open) : "rcx", "memory", "cc"),
            "an SSE exception that is unmasked in a loop");
        equal(rounds, 100, "in the round that unmasks it");
        asm volatile("ldmxcsr %0" : : "m"(masked));
        faults(
            MF, 0,
            asm volatile("fninit; fldcw %1; mov $200, %%ecx\n"
                         "1: mov %%rcx, %0; fld1; fldz\n"
                         "cmp $100, %%ecx; jne 2f; fldcw %2\n"
                         "2: movl $3f, rt_at\n"
                         "3: fdivrp; fstp %%st; dec %%ecx; jnz 1b" : "=m"(rounds) : "m"(x87_masked),
                         "m"(x87_open) : "rcx", "memory", "cc"),
            "an x87 exception that is unmasked in a loop");
        equal(rounds, 100, "in the round that unmasks it");
        asm volatile("fnclex; fninit");
    }
    static volatile u32 mxcsr;
    asm volatile("ldmxcsr %1; divps %%xmm0, %%xmm1; fld1; fldz; fdivrp; fstp %%st; stmxcsr %0"
                 : "=m"(mxcsr)
                 : "m"(masked)
                 : "memory");
    check(mxcsr & 4, "a masked one leaves its flag");
}

/* Vectors, their upper halves, x87 and MMX in turn, with an instruction in each round that no
 * engine can leave to the processor, and pages that are touched for the first time. */
static void mixed(void)
{
    static u8 pages[64 * 4096] __attribute__((aligned(4096)));
    u8 *page = pages;
    static volatile u64 high, low, x87;
    asm volatile("vpxor %%xmm0, %%xmm0, %%xmm0; vpcmpeqd %%ymm1, %%ymm1, %%ymm1; fninit; fldz\n"
                 "mov $64, %%ecx\n"
                 "1: vpsubq %%ymm1, %%ymm0, %%ymm0; fld1; faddp\n"
                 "vmovdqu %%ymm0, (%3); mov %%cr0, %%rax; paddq %%xmm1, %%xmm0\n"
                 "test $7, %%cl; jnz 2f\n"
                 "fistpq 64(%3); movq 64(%3), %%mm3; movq2dq %%mm3, %%xmm3\n"
                 "emms; movdqu %%xmm3, 64(%3); fildq 64(%3)\n"
                 "2: vpsubq %%ymm1, %%ymm0, %%ymm0; vmovdqu %%ymm0, %%ymm8; mov %%cr0, %%rax\n"
                 "vzeroupper; vmovdqa %%ymm8, %%ymm9; vmovdqu (%3), %%ymm2\n"
                 "vextracti128 $1, %%ymm9, %%xmm9; vptest %%ymm9, %%ymm9; jnz 3f\n"
                 "vpcmpeqd %%ymm1, %%ymm1, %%ymm1; vextracti128 $1, %%ymm2, %%xmm2\n"
                 "vpsubq %%xmm1, %%xmm2, %%xmm2; vinserti128 $1, %%xmm2, %%ymm0, %%ymm0\n"
                 "add $4096, %3; dec %%ecx; jnz 1b\n"
                 "3: vmovq %%xmm0, %0; vextracti128 $1, %%ymm0, %%xmm0; vmovq %%xmm0, %1\n"
                 "fistpq %2; vzeroall"
                 : "=m"(low), "=m"(high), "=m"(x87), "+r"(page)
                 :
                 : "rax", "rcx", "memory", "cc");
    equal(low, 64, "lower halves");
    equal(high, 128, "upper halves");
    equal(x87, 64, "x87 registers");
}

static void xsave_images(void)
{
    if (!has(F_AVX)) {
        skip("no AVX", "XSAVE with AVX");
        return;
    }
    faults(UD, 0, asm volatile(AT "vmovaps %ymm0, %ymm1"), "AVX without XCR0.AVX");
    xsetbv(0, XCR0_X87 | XCR0_SSE | XCR0_AVX);
    equal(cpuid(13, 0).b, 832, "CPUID.0Dh: size for x87, SSE, AVX");
    struct cpuid avx = cpuid(13, 2);
    check(avx.a == 256 && avx.b == 576, "CPUID.0Dh.2: AVX at 576, 256 bytes");
    runs(asm volatile("vzeroall"), "AVX with XCR0.AVX");
    memset(area, 0, sizeof(area));
    asm volatile("fninit; vzeroall; movq %0, %%xmm4; vinsertf128 $1, %%xmm4, %%ymm5, %%ymm5"
                 :
                 : "r"(0x5555666677778888ul));
    xsave(7);
    equal(at64(512) & 6, 6, "XSAVE: XSTATE_BV has SSE and AVX");
    equal(at64(576 + 16 * 5), 0x5555666677778888, "XSAVE: the upper half of YMM5");
    equal(at64(160 + 16 * 4), 0x5555666677778888, "XSAVE: XMM4");
    *(u64 *)(area + 512) = XCR0_SSE;
    xrstor(7);
    u64 x;
    asm volatile("vextractf128 $1, %%ymm5, %%xmm6; movq %%xmm6, %0" : "=r"(x));
    equal(x, 0, "XRSTOR: what XSTATE_BV lacks is initialized");
    asm volatile("movq %%xmm4, %0" : "=r"(x));
    equal(x, 0x5555666677778888, "XRSTOR: what it has is loaded");
    memset(area, 0, sizeof(area));
    xsave(XCR0_X87);
    equal(at64(512) & ~1ull, 0, "XSAVE of x87 alone leaves XSTATE_BV's other bits");
    *(u64 *)(area + 512) = 8;
    faults(GP, 0, xrstor(7), "XRSTOR: a bit of XSTATE_BV that XCR0 lacks");
    *(u64 *)(area + 512) = 0;
    *(u64 *)(area + 528) = 1;
    faults(GP, 0, xrstor(7), "XRSTOR: a reserved byte of the header");
    *(u64 *)(area + 528) = 0;
    *(u64 *)(area + 512) = XCR0_SSE;
    *(u32 *)(area + 24) = 0x10000;
    tcg_differs("reserved bits are ignored");
    faults(GP, 0, xrstor(7), "XRSTOR: a reserved bit of MXCSR");
    faults(GP, 0, asm volatile(AT "xsave 8(%0)" : : "r"(area), "a"(7), "d"(0) : "memory"),
           "XSAVE, not aligned to 64");
    write_cr0(read_cr0() | CR0_TS);
    tcg_differs("TS is ignored");
    faults(NM, 0, xsave(7), "XSAVE with CR0.TS");
    faults(NM, 0, asm volatile(AT "vmovaps %ymm0, %ymm1"), "AVX with CR0.TS");
    write_cr0(read_cr0() & ~CR0_TS);
    mixed();
    write_cr4(read_cr4() & ~CR4_OSXSAVE);
    faults(UD, 0, asm volatile(AT "vmovaps %ymm0, %ymm1"), "AVX without CR4.OSXSAVE");
}

/* Where the x87's last instruction was, and operand and opcode of the last one with an unmasked
 * exception (SDM volume 1, 8.1.8, 8.1.9), as FNSTENV, FXSAVE and FNSAVE show them; every engine
 * keeps them exactly. Of FCS and FDS CPUID says that they are 0. */
static u32 environment[28], number = 0x40400000;

static void pointers(void)
{
    u64 ip;

    tcg_differs("pointers are not kept");
    for (unsigned i = 0; i < 40; i++) /* at first interpreted, then translated */
        asm volatile("fninit; lea 1f(%%rip), %0; 1: fldz; fnstenv %1; fninit"
                     : "=&r"(ip), "=m"(environment));
    equal(environment[3], (u32)ip, "FNSTENV: FIP of FLDZ");
    equal(environment[4], 0, "FNSTENV: no opcode without an exception, and FCS is 0");
    for (unsigned i = 0; i < 40; i++)
        asm volatile("fninit; lea 1f(%%rip), %0; 1: fadds %2; mov $3, %%ecx; 2: dec %%ecx; jnz 2b;"
                     "fnstcw -8(%%rsp); fnstenv %1; fninit"
                     : "=&r"(ip), "=m"(environment)
                     : "m"(number)
                     : "ecx", "memory");
    equal(environment[3], (u32)ip, "FNSTENV: FIP of FADD, much later");
    equal(environment[5], 0, "FNSTENV: no FDP without an exception");
    equal(cpuid(7, 0).b >> 6 & 1, 1, "CPUID says so");
    equal(environment[6], 0xFFFF0000, "FNSTENV: FDS");
    for (unsigned i = 0; i < 40; i++)
        asm volatile("fninit; flds (%2,%3,4); lea 1f(%%rip), %0; 1: fchs; rex.w fxsave (%1)"
                     : "=&r"(ip)
                     : "r"(area), "r"(&number - 8), "r"(8ul)
                     : "memory");
    equal(at64(8), ip, "FXSAVE64: FIP of FCHS");
    asm volatile("fxsave (%0)" : : "r"(area) : "memory");
    equal(at64(8), (u32)ip, "FXSAVE: FIP has 32 bits, FCS is 0");
    asm volatile("fnsave %0; fnstenv %1" : "=m"(area), "=m"(environment));
    equal(at32(12), (u32)ip, "FNSAVE: FIP");
    check(environment[3] == 0 && environment[4] == 0 && environment[5] == 0,
          "after FNSAVE they are 0");
    asm volatile("frstor %1; fnstenv %0" : "=m"(environment) : "m"(area));
    equal(environment[3], (u32)ip, "FRSTOR: FIP");
    static const u16 divide = 0x37B;
    static const float zero = 0;
    asm volatile("fninit; fldcw %2; fld1; lea 1f(%%rip), %0; 1: fdivs %3; rex.w fxsave (%1); fninit"
                 : "=&r"(ip)
                 : "r"(area), "m"(divide), "m"(zero)
                 : "memory");
    equal(at64(8), ip, "an exception is pending: FIP");
    equal(at64(16), (u64)&zero, "an exception is pending: FDP");
    equal(at16(6) & 0x738, 0x030, "an exception is pending: FOP, but for the addressing");
}

void test(void)
{
    switches();
    pointers();
    fxsave();
    lazy();
    write_cr4(read_cr4() | CR4_OSXMMEXCPT);
    unmasked();
    if (has(F_XSAVE)) {
        xcr0();
        xsave_images();
    } else {
        skip("no XSAVE", "XSAVE");
    }
}
