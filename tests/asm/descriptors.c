/*
 * The instructions that ask about descriptors, LAR, LSL, VERR, VERW, ARPL; those that store the
 * tables' registers, with and without UMIP; and the privilege of system instructions (SDM volume 2;
 * volume 3, 5.9, 5.10). Built for 32-bit and 64-bit mode.
 */
#include "rt/rt.h"

enum {
    ABSENT = SPARE,
    CONFORMING = SPARE + 8,
    UNREADABLE = SPARE + 16,
    READ_ONLY = SPARE + 24,
    CALL_GATE = SPARE + 32, /* two slots */
    INT_GATE = SPARE + 48,  /* two slots */
    LDT = SPARE + 64,       /* two slots */
    PAGES = SPARE + 80,
    BEYOND = GDT_SLOTS * 8,
};

#ifdef __x86_64__
#define BX "rbx"
#else
#define BX "ebx"
#endif

struct answer {
    bool ok;
    u32 value;
};

#define ASK(text)                                                                                  \
    ({                                                                                             \
        struct answer a = {.value = 0xDEAD};                                                       \
        word v = a.value;                                                                          \
        asm volatile(text "\nsetz %0" : "=qm"(a.ok), "+r"(v) : "r"((word)selector) : "cc");        \
        a.value = (u32)v;                                                                          \
        a;                                                                                         \
    })

static struct answer lar(unsigned selector)
{
    return ASK("lar %2, %1");
}

static struct answer lsl(unsigned selector)
{
    return ASK("lsl %2, %1");
}

static struct answer verr(unsigned selector)
{
    return ASK("verr %w2");
}

static struct answer verw(unsigned selector)
{
    return ASK("verw %w2");
}

static void yes(struct answer a, u32 value, const char *name)
{
    check(a.ok, "%s: ZF", name);
    equal(a.value, value, "%s", name);
}

static void no(struct answer a, const char *name)
{
    check(!a.ok && a.value == 0xDEAD, "%s: ZF clear, nothing loaded", name);
}

static u32 access_bytes(unsigned selector)
{
    return (u32)(rt_gdt[selector / 8] >> 32) & 0x00F0FF00;
}

static void lar_lsl(void)
{
    yes(lar(KDATA), access_bytes(KDATA), "LAR of data");
    yes(lar(ABSENT), access_bytes(ABSENT), "LAR of data not present");
    yes(lar(TSS), access_bytes(TSS), "LAR of a TSS");
    yes(lar(CALL_GATE), access_bytes(CALL_GATE), "LAR of a call gate");
    yes(lar(LDT), access_bytes(LDT), "LAR of an LDT");
    no(lar(INT_GATE), "LAR of an interrupt gate");
    no(lar(0), "LAR of null");
    no(lar(3), "LAR of null with RPL 3");
    no(lar(BEYOND), "LAR beyond the GDT");
    no(lar(KDATA | 3), "LAR with RPL 3 of DPL 0");
    yes(lar(CONFORMING | 3), access_bytes(CONFORMING), "LAR with RPL 3 of conforming code");
    yes(lsl(KDATA), 0xFFFFFFFF, "LSL of 4G");
    yes(lsl(PAGES), 0x12FFF, "LSL counts in bytes");
    yes(lsl(CODE16), 0xFFFF, "LSL of 64K");
    yes(lsl(TSS), sizeof(struct tss) - 1, "LSL of a TSS");
    yes(lsl(LDT), 0x77, "LSL of an LDT");
    no(lsl(CALL_GATE), "LSL of a call gate");
    no(lsl(0), "LSL of null");
    no(lsl(3), "LSL of null with RPL 3");
    no(lsl(KDATA | 3), "LSL with RPL 3 of DPL 0");
}

static void verify(void)
{
    check(verr(KDATA).ok && verw(KDATA).ok, "VERR, VERW of data");
    check(verr(READ_ONLY).ok && !verw(READ_ONLY).ok, "VERR, VERW of read-only data");
    check(verr(KCODE).ok && !verw(KCODE).ok, "VERR, VERW of code");
    check(!verr(UNREADABLE).ok, "VERR of code that cannot be read");
    check(!verr(KDATA | 3).ok && !verw(KDATA | 3).ok, "VERR, VERW with RPL 3 of DPL 0");
    check(verr(CONFORMING | 3).ok, "VERR with RPL 3 of conforming code");
    check(!verr(TSS).ok && !verw(LDT).ok, "VERR, VERW of system segments");
    check(!verr(0).ok && !verw(BEYOND).ok, "VERR of null, VERW beyond the GDT");
    check(!verr(3).ok && !verw(2).ok, "VERR and VERW of null with an RPL");
    check(verr(ABSENT).ok, "VERR of data not present"); /* P is not among what is tested */
#ifndef __x86_64__
    u16 selector = KDATA;
    bool changed;
    asm volatile("arpl %w2, %0; setz %1" : "+r"(selector), "=qm"(changed) : "r"(3) : "cc");
    check(changed && selector == (KDATA | 3), "ARPL raises the RPL");
    asm volatile("arpl %w2, %0; setz %1" : "+r"(selector), "=qm"(changed) : "r"(2) : "cc");
    check(!changed && selector == (KDATA | 3), "ARPL does not lower it");
#endif
}

USER_DATA static struct dtr stored = {0, 0};
USER_CODE static word u_sgdt(word arg)
{
    asm volatile(USER_AT "sgdt %0" : "=m"(stored));
    return stored.limit;
}

USER_CODE static word u_sidt(word arg)
{
    asm volatile(USER_AT "sidt %0" : "=m"(stored));
    return stored.limit;
}

USER_INSN(u_sldt, "sldt %0")
USER_INSN(u_str, "str %0")
USER_INSN(u_smsw, "smsw %0")
USER_INSN(u_lgdt, "lgdt (%1)")
USER_INSN(u_lidt, "lidt (%1)")
USER_INSN(u_lldt, "lldt %w0")
USER_INSN(u_ltr, "ltr %w0")
USER_INSN(u_lmsw, "lmsw %w0")
USER_INSN(u_clts, "clts")
USER_INSN(u_invlpg, "invlpg (%1)")
USER_INSN(u_invd, "invd")
USER_INSN(u_wbinvd, "wbinvd")
USER_INSN(u_rdmsr, "rdmsr")
USER_INSN(u_wrmsr, "wrmsr")
USER_INSN(u_from_cr0, "mov %%cr0, %0")
USER_INSN(u_to_cr3, "mov %0, %%cr3")
USER_INSN(u_from_dr7, "mov %%dr7, %0")
USER_INSN(u_to_dr0, "mov %0, %%dr0")
USER_INSN(u_lar, "lar %0, %0")
USER_INSN(u_cpuid, "push %%" BX "; cpuid; pop %%" BX)
USER_INSN(u_rdtsc, "rdtsc")
USER_INSN(u_rdpmc, "rdpmc")
USER_INSN(u_monitor, "monitor")
USER_INSN(u_xsetbv, "xsetbv")

static void stores(void)
{
    user_runs(u_sgdt, 0, "SGDT in user mode");
    equal(stored.base, (word)rt_gdt, "SGDT: base");
    equal(stored.limit, sizeof(rt_gdt) - 1, "SGDT: limit");
    user_runs(u_sidt, 0, "SIDT in user mode");
    equal(stored.base, (word)rt_idt, "SIDT: base");
    equal(user(u_str, 0)->f.ax & 0xFFFF, TSS, "STR in user mode");
    equal(user(u_sldt, 0)->f.ax & 0xFFFF, 0, "SLDT in user mode");
    equal(user(u_smsw, 0)->f.ax & 0xFFFF, read_cr0() & 0xFFFF, "SMSW in user mode");
    if (!has(F_UMIP)) {
        skip("no UMIP", "UMIP");
        return;
    }
    write_cr4(read_cr4() | CR4_UMIP);
    user_faults(GP, 0, u_sgdt, 0, "SGDT with UMIP");
    user_faults(GP, 0, u_sidt, 0, "SIDT with UMIP");
    user_faults(GP, 0, u_str, 0, "STR with UMIP");
    user_faults(GP, 0, u_sldt, 0, "SLDT with UMIP");
    user_faults(GP, 0, u_smsw, 0, "SMSW with UMIP");
    runs(asm volatile("sgdt %0" : "=m"(stored)), "SGDT at level 0 with UMIP");
    write_cr4(read_cr4() & ~CR4_UMIP);
}

static void privileged(void)
{
    user_faults(GP, 0, u_lgdt, &rt_gdtr, "LGDT in user mode");
    user_faults(GP, 0, u_lidt, &rt_idtr, "LIDT in user mode");
    user_faults(GP, 0, u_lldt, 0, "LLDT in user mode");
    user_faults(GP, 0, u_ltr, TSS, "LTR in user mode");
    user_faults(GP, 0, u_lmsw, 1, "LMSW in user mode");
    user_faults(GP, 0, u_clts, 0, "CLTS in user mode");
    user_faults(GP, 0, u_invlpg, 0, "INVLPG in user mode");
    user_faults(GP, 0, u_invd, 0, "INVD in user mode");
    user_faults(GP, 0, u_wbinvd, 0, "WBINVD in user mode");
    user_faults(GP, 0, u_rdmsr, MSR_EFER, "RDMSR in user mode");
    user_faults(GP, 0, u_wrmsr, MSR_EFER, "WRMSR in user mode");
    user_faults(GP, 0, u_from_cr0, 0, "MOV from CR0 in user mode");
    user_faults(GP, 0, u_to_cr3, 0, "MOV to CR3 in user mode");
    user_faults(GP, 0, u_from_dr7, 0, "MOV from DR7 in user mode");
    user_faults(GP, 0, u_to_dr0, 0, "MOV to DR0 in user mode");
    tcg_differs("the privilege is looked at first");
    if (has(F_XSAVE))
        user_faults(UD, 0, u_xsetbv, 0, "XSETBV without CR4.OSXSAVE");
    user_runs(u_lar, KDATA, "LAR in user mode");
    user_runs(u_cpuid, 0, "CPUID in user mode");
    user_runs(u_rdtsc, 0, "RDTSC in user mode");
    write_cr4(read_cr4() | CR4_TSD);
    user_faults(GP, 0, u_rdtsc, 0, "RDTSC in user mode with CR4.TSD");
    runs((void)rdtsc(), "RDTSC at level 0 with CR4.TSD");
    write_cr4(read_cr4() & ~CR4_TSD);
    tcg_differs("RDPMC is #UD");
    user_faults(GP, 0, u_rdpmc, 0, "RDPMC in user mode");
    user_faults(UD, 0, u_monitor, 0, "MONITOR in user mode");
    word cr0 = read_cr0();
    asm volatile("lmsw %w0" : : "r"((cr0 | CR0_TS) & ~CR0_PE));
    equal(read_cr0(), cr0 | CR0_TS, "LMSW sets TS and cannot clear PE");
    write_cr0(cr0);
}

void test(void)
{
    u32 big = SEG_BIG | SEG_PAGES;
    rt_gdt[ABSENT / 8] = descriptor(0, 0xFFFFF, (SEG_DATA & ~SEG_P) | big);
    rt_gdt[CONFORMING / 8] = descriptor(0, 0xFFFFF, SEG_CODE | 4 | big);
    rt_gdt[UNREADABLE / 8] = descriptor(0, 0xFFFFF, (SEG_CODE & ~2u) | big);
    rt_gdt[READ_ONLY / 8] = descriptor(0, 0xFFFFF, (SEG_DATA & ~2u) | big);
    rt_gdt[PAGES / 8] = descriptor(0, 0x12, SEG_DATA | big);
    rt_gdt[LDT / 8] = descriptor(0, 0x77, SYS_LDT);
    rt_gdt[CALL_GATE / 8] = descriptor(0, 0, GATE_CALL);
    rt_gdt[INT_GATE / 8] = descriptor(0, 0, GATE_INTR);
    lar_lsl();
    verify();
    stores();
    privileged();
}
