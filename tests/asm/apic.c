/*
 * The local APIC of one processor: its timer in three modes, priorities, EOI, self-interrupts, NMI,
 * errors, and x2APIC mode (SDM volume 3, chapter 10). 64-bit.
 */
#include "rt/apic.h"
#include "rt/rt.h"

#define X2_MSR(r) (0x800 + (r) / 16)

static volatile unsigned count[MAX_VECTORS];
static volatile u8 order[16];
static volatile unsigned taken;
static bool x2;

static void eoi(void)
{
    if (x2)
        wrmsr(X2_MSR(APIC_EOI), 0);
    else
        apic_eoi();
}

static void on_interrupt(struct frame *f)
{
    count[f->vector]++;
    if (taken < 16)
        order[taken++] = (u8)f->vector;
    eoi();
}

static void on_nmi(struct frame *f)
{
    count[NMI]++;
}

static void watch(unsigned vector)
{
    rt_handler[vector] = on_interrupt;
    count[vector] = 0;
}

/* Waits with interrupts on until VECTOR has come TIMES times, or PATIENCE_MS have passed. */
static bool wait_for(unsigned vector, unsigned times)
{
    asm volatile("sti");
    for (unsigned i = 0; i < PATIENCE_MS * 10 && count[vector] < times; i++)
        delay_us(100);
    asm volatile("cli");
    return count[vector] >= times;
}

static void identity(void)
{
    check(rdmsr(MSR_APIC_BASE) & 0x800, "enabled after reset");
    check(rdmsr(MSR_APIC_BASE) & 0x100, "the bootstrap processor");
    equal(apic_read(APIC_ID) >> 24, cpuid(1, 0).b >> 24, "ID as CPUID says");
    equal(apic_read(APIC_VERSION) & 0xF0, 0x10, "an integrated APIC");
    check((apic_read(APIC_VERSION) >> 16 & 0xFF) >= 5, "six local vectors or more");
    apic_write(APIC_TPR, 0x35);
    equal(apic_read(APIC_TPR), 0x35, "TPR");
    equal(read_cr8(), 3, "CR8 is its upper half");
    write_cr8(0);
    equal(apic_read(APIC_TPR), 0, "and writes it");
    tcg_differs("other bits are ignored");
    faults(GP, 0, write_cr8(16), "CR8 has four bits");
    apic_write(APIC_LVT_TIMER, LVT_MASKED | 0x20);
    apic_write(APIC_SVR, 0xFF);
    check(apic_read(APIC_LVT_TIMER) & LVT_MASKED, "software-disabled: vectors are masked");
    apic_write(APIC_LVT_TIMER, 0x20);
    tcg_differs("they can be unmasked");
    check(apic_read(APIC_LVT_TIMER) & LVT_MASKED, "and cannot be unmasked");
    apic_enable();
}

/* The timer's counts in 2^20 cycles of the TSC. The host may take the processor away at any moment,
 * so that a measurement has two limits; what is true lies between them. */
struct rate {
    u64 least, most;
};

static struct rate rate(u32 divide)
{
    apic_write(APIC_TIMER_DIVIDE, divide);
    u64 before_start = rdtsc();
    apic_write(APIC_TIMER_INITIAL, 0xFFFFFFFF);
    u64 after_start = rdtsc();
    delay_us(10000);
    u64 before_end = rdtsc();
    u64 counts = 0xFFFFFFFF - apic_read(APIC_TIMER_CURRENT);
    u64 after_end = rdtsc();
    return (struct rate){(counts << 20) / (after_end - before_start),
                         ((counts + 1) << 20) / (before_end - after_start)};
}

/* Whether counts are 16 times as slow if divided by 16. Tried again, as the timer stands still
 * while the machine is paused, and the TSC does not. */
static bool divides(void)
{
    for (unsigned i = 0; i < 20; i++) {
        struct rate by_1 = rate(0xB), by_16 = rate(0x3);
        if (by_16.least * 15 <= by_1.most && by_1.least <= by_16.most * 17)
            return true;
    }
    return false;
}

static void timer(void)
{
    watch(0x40);
    apic_write(APIC_TIMER_DIVIDE, 0xB); /* by 1 */
    apic_write(APIC_LVT_TIMER, 0x40);
    apic_write(APIC_TIMER_INITIAL, 0xFFFFFFFF);
    u32 first = apic_read(APIC_TIMER_CURRENT);
    delay_us(100);
    check(apic_read(APIC_TIMER_CURRENT) < first, "the count runs");
    apic_write(APIC_TIMER_INITIAL, 1000000);
    check(wait_for(0x40, 1), "one-shot: it fires");
    delay_us(20000);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x40], 1, "once");
    equal(apic_read(APIC_TIMER_CURRENT), 0, "and the count is 0");

    watch(0x41);
    apic_write(APIC_LVT_TIMER, 0x41 | LVT_PERIODIC);
    apic_write(APIC_TIMER_INITIAL, 1000000);
    check(wait_for(0x41, 5), "periodic: it fires again and again");
    apic_write(APIC_TIMER_INITIAL, 0);
    asm volatile("sti; nop; nop; cli");
    unsigned before = count[0x41];
    delay_us(20000);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x41], before, "an initial count of 0 stops it");

    watch(0x42);
    apic_write(APIC_LVT_TIMER, 0x42 | LVT_MASKED);
    apic_write(APIC_TIMER_INITIAL, 1000);
    delay_us(5000);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x42], 0, "masked: it does not fire");

    apic_write(APIC_LVT_TIMER, LVT_MASKED | 0x42);
    check(divides(), "the divider divides");
    apic_write(APIC_TIMER_INITIAL, 0);
}

#define NEAR_CYCLES 20000000ull      /* milliseconds */
#define FAR_CYCLES  1000000000000ull /* minutes, in which even a busy host goes on */

/* Whether a deadline that is taken back does not fire. Tried again when the host was away for so
 * long that it may have fired before. */
static bool disarmed(void)
{
    for (unsigned i = 0; i < 100; i++) {
        u64 when = rdtsc() + NEAR_CYCLES;
        wrmsr(MSR_TSC_DEADLINE, when);
        wrmsr(MSR_TSC_DEADLINE, 0);
        bool in_time = rdtsc() < when;
        asm volatile("sti; nop; nop; cli"); /* takes what came too early */
        unsigned before = count[0x43];
        delay_us(30000);
        asm volatile("sti; nop; nop; cli");
        if (in_time)
            return count[0x43] == before;
    }
    return false;
}

static void deadline(void)
{
    if (!has(F_TSC_DEADLINE)) {
        skip("no TSC-deadline timer", "TSC-deadline");
        return;
    }
    watch(0x43);
    apic_write(APIC_LVT_TIMER, 0x43 | LVT_DEADLINE);
    asm volatile("mfence");
    u64 when = rdtsc() + FAR_CYCLES;
    wrmsr(MSR_TSC_DEADLINE, when);
    equal(rdmsr(MSR_TSC_DEADLINE), when, "the deadline reads back while armed");
    equal(apic_read(APIC_TIMER_CURRENT), 0, "the count is not used");
    when = rdtsc() + NEAR_CYCLES;
    wrmsr(MSR_TSC_DEADLINE, when);
    bool fired = wait_for(0x43, 1);
    check(fired && rdtsc() >= when, "it fires, and not early");
    equal(rdmsr(MSR_TSC_DEADLINE), 0, "and is 0 then");
    wrmsr(MSR_TSC_DEADLINE, 1);
    check(wait_for(0x43, 2), "a deadline in the past fires at once");
    check(disarmed(), "0 disarms it");
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

static void priorities(void)
{
    static const u8 vectors[] = {0x45, 0x91, 0x62, 0x93};
    for (unsigned i = 0; i < 4; i++) {
        watch(vectors[i]);
        apic_send(ICR_SELF | ICR_ASSERT | vectors[i], 0);
    }
    delay_us(100);
    check(apic_read(APIC_IRR + 0x10 * (0x93 / 32)) >> 0x93 % 32 & 1, "IRR has what waits");
    taken = 0;
    asm volatile("sti; nop; nop; nop; cli");
    check(taken == 4 && order[0] == 0x93 && order[1] == 0x91 && order[2] == 0x62 &&
              order[3] == 0x45,
          "the highest vector comes first");
    write_cr8(9);
    apic_send(ICR_SELF | ICR_ASSERT | 0x91, 0);
    apic_send(ICR_SELF | ICR_ASSERT | 0x45, 0);
    delay_us(100);
    taken = 0;
    asm volatile("sti; nop; nop; cli");
    equal(taken, 0, "TPR holds off its class and those below");
    equal(apic_read(APIC_PPR), 0x90, "PPR");
    apic_send(ICR_SELF | ICR_ASSERT | 0xA1, 0);
    watch(0xA1);
    asm volatile("sti; nop; nop; cli");
    check(taken == 1 && order[0] == 0xA1, "a higher class passes");
    asm volatile("sti");
    write_cr8(8);
    asm volatile("nop; cli");
    check(taken == 2 && order[1] == 0x91, "lowering CR8 lets the next in at once");
    asm volatile("sti");
    write_cr8(0);
    asm volatile("nop; cli");
    equal(taken, 3, "and the last");
}

static volatile unsigned depth, deepest;

static void on_nested(struct frame *f)
{
    depth++;
    if (depth > deepest)
        deepest = depth;
    count[f->vector]++;
    if (f->vector == 0x50) {
        apic_send(ICR_SELF | ICR_ASSERT | 0x58, 0); /* same class: waits */
        apic_send(ICR_SELF | ICR_ASSERT | 0x60, 0); /* higher: comes at once */
        asm volatile("sti; nop; nop; nop; cli");
        check(apic_read(APIC_ISR + 0x10 * (0x50 / 32)) >> 0x50 % 32 & 1, "ISR has what runs");
        check(count[0x60] == 1 && count[0x58] == 0, "only a higher class interrupts a handler");
    }
    depth--;
    eoi();
}

static void nesting(void)
{
    rt_handler[0x50] = rt_handler[0x58] = rt_handler[0x60] = on_nested;
    apic_send(ICR_SELF | ICR_ASSERT | 0x50, 0);
    asm volatile("sti; nop; nop; cli");
    check(count[0x58] == 1 && deepest == 2, "EOI lets the waiting one in");
}

static void on_nested_nmi(struct frame *f)
{
    depth++;
    if (depth > deepest)
        deepest = depth;
    if (count[NMI]++ == 0) {
        apic_send(ICR_NMI | ICR_ASSERT, apic_read(APIC_ID) >> 24);
        delay_us(100);
    }
    depth--;
}

static void non_maskable(void)
{
    rt_handler[NMI] = on_nmi;
    count[NMI] = 0;
    apic_send(ICR_NMI | ICR_ASSERT, apic_read(APIC_ID) >> 24);
    delay_us(100);
    equal(count[NMI], 1, "NMI comes with IF clear");
    rt_handler[NMI] = on_nested_nmi;
    count[NMI] = deepest = 0;
    apic_send(ICR_NMI | ICR_ASSERT, apic_read(APIC_ID) >> 24);
    delay_us(100);
    check(count[NMI] == 2 && deepest == 1, "an NMI in the NMI's handler waits for its IRET");
    rt_handler[NMI] = NULL;
}

/* Errors, logical destinations, spurious interrupts. */
static void odds(void)
{
    apic_write(APIC_ESR, 0);
    apic_write(APIC_ESR, 0);
    equal(apic_read(APIC_ESR), 0, "no errors");
    watch(0x4E);
    apic_write(APIC_LVT_ERROR, 0x4E);
    if (!on_tcg()) { /* which sends it */
        apic_send(ICR_SELF | ICR_ASSERT | 5, 0);
        asm volatile("sti; nop; nop; cli");
        equal(count[0x4E], 1, "an illegal vector is an error, and interrupts as one");
        apic_write(APIC_ESR, 0);
        check(apic_read(APIC_ESR) & 0x60, "ESR says so");
    }
    apic_write(APIC_LVT_ERROR, LVT_MASKED);

    watch(0x72);
    apic_write(APIC_DFR, 0xFFFFFFFF);
    apic_write(APIC_LDR, 0x04000000);
    apic_send(ICR_ASSERT | ICR_LOGICAL | 0x72, 0x06);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x72], 1, "flat logical destination, a bit in common");
    apic_send(ICR_ASSERT | ICR_LOGICAL | 0x72, 0x0B);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x72], 1, "none in common");
    apic_write(APIC_DFR, 0x0FFFFFFF);
    apic_write(APIC_LDR, 0x24000000);
    apic_send(ICR_ASSERT | ICR_LOGICAL | 0x72, 0x26);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x72], 2, "cluster logical destination");
    apic_send(ICR_ASSERT | ICR_LOGICAL | 0x72, 0x16);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x72], 2, "another cluster");
    apic_write(APIC_DFR, 0xFFFFFFFF);
    apic_write(APIC_LDR, 0);
    apic_send(ICR_ASSERT | ICR_ALL | 0x72, 0);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x72], 3, "all, with self");
    apic_send(ICR_ASSERT | ICR_OTHERS | 0x72, 0);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x72], 3, "all but self");
    apic_send(ICR_ASSERT | 0x72, 0xFF);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x72], 4, "physical broadcast");
    apic_send(ICR_ASSERT | 0x72, 0x7E);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x72], 4, "nobody's ID");
    apic_send(ICR_SELF | ICR_ASSERT | 0x72, 0);
    apic_send(ICR_SELF | ICR_ASSERT | 0x72, 0);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x72], 5, "the same vector twice is one interrupt");
}

/* Uses all kinds of registers for a while. */
static u64 compute(void)
{
    u64 sum = 1, rounds = 1000000;
    asm volatile("fninit; fld1; pxor %%xmm0, %%xmm0\n"
                 "1: imul $0x5DEECE65, %0, %0\n"
                 "add %1, %0; rol $7, %0; adc %0, %0\n"
                 "movq %0, %%xmm1; paddq %%xmm1, %%xmm0\n"
                 "push %0; fildq (%%rsp); faddp; pop %0\n"
                 "dec %1; jnz 1b\n"
                 "movq %%xmm0, %%rax; xor %%rax, %0\n"
                 "sub $8, %%rsp; fstpl (%%rsp); pop %%rax; xor %%rax, %0"
                 : "+r"(sum), "+r"(rounds)
                 :
                 : "rax", "memory", "cc");
    return sum;
}

/* Interrupts at a high rate must not disturb what they interrupt. */
static void storm(void)
{
    write_cr4(read_cr4() | CR4_OSFXSR);
    u64 undisturbed = compute();
    bool same = true;
    watch(0x73);
    apic_write(APIC_LVT_TIMER, 0x73 | LVT_PERIODIC);
    apic_write(APIC_TIMER_DIVIDE, 0xB);
    apic_write(APIC_TIMER_INITIAL, 20000);
    asm volatile("sti");
    /* A busy host's timers are late. */
    for (unsigned i = 0; i < 100 && count[0x73] <= 5; i++)
        same &= compute() == undisturbed;
    asm volatile("cli");
    apic_write(APIC_TIMER_INITIAL, 0);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    check(same, "a computation under interrupts gives the same");
    check(count[0x73] > 5, "%u interrupts", count[0x73]);
}

static void x2apic(void)
{
    if (!has(F_X2APIC)) {
        skip("no x2APIC", "x2APIC mode");
        return;
    }
    faults(GP, 0, (void)rdmsr(X2_MSR(APIC_ID)), "x2APIC registers in xAPIC mode");
    u64 base = rdmsr(MSR_APIC_BASE);
    u32 id = apic_read(APIC_ID) >> 24;
    wrmsr(MSR_APIC_BASE, base | APIC_X2_ENABLE);
    x2 = true;
    equal(rdmsr(X2_MSR(APIC_ID)), id, "ID of 32 bits");
    equal(rdmsr(X2_MSR(APIC_LDR)), (id & ~15u) << 12 | 1u << (id & 15), "LDR follows from it");
    faults(GP, 0, wrmsr(X2_MSR(APIC_ID), 0), "ID is read-only");
    faults(GP, 0, (void)rdmsr(X2_MSR(APIC_EOI)), "EOI is write-only");
    faults(GP, 0, wrmsr(X2_MSR(APIC_EOI), 1), "EOI takes 0 only");
    faults(GP, 0, (void)rdmsr(X2_MSR(APIC_DFR)), "DFR is gone");
    faults(GP, 0, (void)rdmsr(X2_MSR(APIC_ICR_HIGH)), "ICR's upper half is gone");
    faults(GP, 0, wrmsr(X2_MSR(APIC_TPR), 0x100), "TPR has eight bits");
    faults(GP, 0, wrmsr(MSR_APIC_BASE, base), "x2APIC to xAPIC directly");
    watch(0x70);
    wrmsr(X2_MSR(APIC_ICR), (u64)id << 32 | ICR_ASSERT | 0x70);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x70], 1, "an interrupt through the 64-bit ICR");
    watch(0x71);
    wrmsr(0x83F, 0x71);
    asm volatile("sti; nop; nop; cli");
    equal(count[0x71], 1, "SELF IPI");
    wrmsr(MSR_APIC_BASE, base & ~(u64)0xC00);
    equal(cpuid(1, 0).d >> 9 & 1, 0, "CPUID: no APIC when disabled");
    wrmsr(MSR_APIC_BASE, base);
    x2 = false;
    equal(apic_read(APIC_ID) >> 24, id, "and back through disabled");
}

void test(void)
{
    identity();
    timer();
    deadline();
    priorities();
    nesting();
    non_maskable();
    odds();
    storm();
    x2apic();
}
