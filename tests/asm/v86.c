/*
 * Virtual-8086 mode under a monitor: what traps and what does not, with and without IOPL 3, how it
 * is entered and left, and the redirection of INT n by VME (SDM volume 3, 20.2, 20.3).
 */
#include "rt/rt.h"

#define LOW     0x20000
#define LOW_SEG 0x2000

/* Snippets of 16-bit code, each ended by HLT, which traps. */
#define SNIPPET(name, text)                                                                        \
    extern u8 name[], name##_end[];                                                                \
    asm(".pushsection .rodata; .code16\n" #name ": " text "\n" #name                               \
        "_end: hlt\n.code32; .popsection")

SNIPPET(s_nothing, "");
SNIPPET(s_arithmetic, "mov $0x1234, %ax; add $1, %ax; mov %ax, 0x100; mov %cs, %bx; mov %ds, %cx");
SNIPPET(s_cli, "cli");
SNIPPET(s_sti, "sti");
SNIPPET(s_pushf, "pushf");
SNIPPET(s_pushfl, "pushfl; pop %eax");
SNIPPET(s_popf, "push $0x3202; popf");
SNIPPET(s_iret, "iret");
SNIPPET(s_int, "int $0x21");
SNIPPET(s_int3, "int3");
SNIPPET(s_in, "inb $0x80, %al");
SNIPPET(s_out, "outb %al, $0x80");
SNIPPET(s_lgdt, "lgdtl 0x100");
SNIPPET(s_lldt, "lldt %ax");
SNIPPET(s_arpl, ".byte 0x63, 0xC0");
SNIPPET(s_cr0, "mov %cr0, %eax");
SNIPPET(s_smsw, "smsw %ax");
SNIPPET(s_ud, "ud2");
SNIPPET(s_segment, "mov $0x1234, %ax; mov %ax, %es; mov %es, %bx; mov $0, %ax; mov %ax, %ss");

/* Runs a snippet with FLAGS; the trap that ended it is in rt_last. */
static struct trap *run(u8 *code, u8 *end, word flags)
{
    memcpy((void *)LOW, code, (size_t)(end - code) + 1);
    return TRAP(asm volatile("push %0; push %0; push %0; push %0; push %0; push $0xFFF0\n"
                             "push %1; push %0; push $0; iret" : : "r"(LOW_SEG),
                             "r"(flags | FL_VM | 2) : "memory"));
}
#define RUN(name, flags) run(name, name##_end, flags)

/* Stopped by its own HLT: everything before was executed. */
static bool finished(const struct trap *t, u8 *code, u8 *end)
{
    return t->f.vector == GP && t->f.error == 0 && t->f.ip == (word)(end - code);
}
#define finishes(name, flags, what) check(finished(RUN(name, flags), name, name##_end), what)
/* Stopped at its first instruction. */
static void stops(const struct trap *t, word vector, word ip, const char *name)
{
    if (rt_trapped(t, vector, 0, "%s", name))
        equal(t->f.ip, ip, "%s: EIP", name);
}

static void entering(void)
{
    const struct trap *t = RUN(s_arithmetic, 0);
    check(finished(t, s_arithmetic, s_arithmetic_end), "ordinary instructions run");
    equal(t->f.ax & 0xFFFF, 0x1235, "and compute");
    equal(*(volatile u16 *)(LOW + 0x100), 0x1235, "and store in their segment");
    equal(t->f.bx & 0xFFFF, LOW_SEG, "CS is a segment");
    equal(t->f.cx & 0xFFFF, LOW_SEG, "DS is a segment");
    check(t->f.flags & FL_VM, "VM in the saved EFLAGS");
    equal(t->f.cs, LOW_SEG, "CS saved");
    equal(t->f.ss, LOW_SEG, "SS saved");
    check(t->f.v86_es == LOW_SEG && t->f.v86_ds == LOW_SEG && t->f.v86_gs == LOW_SEG,
          "ES, DS and GS saved");
    check(t->f.ds == 0 && t->f.es == 0, "and null in the handler");
    t = RUN(s_segment, 0);
    check(finished(t, s_segment, s_segment_end), "segment loads check nothing");
    equal(t->f.v86_es, 0x1234, "ES");
    equal(t->f.ss, 0, "SS of 0");
}

static void sensitive(void)
{
    static const char *const with[] = {"IOPL 0", "IOPL 3"};
    for (unsigned i = 0; i < 2; i++) {
        word flags = i ? FL_IOPL : 0;
        print("# %s\n", with[i]);
        if (i) {
            finishes(s_cli, flags, "CLI runs");
            finishes(s_sti, flags, "STI runs");
            finishes(s_pushf, flags, "PUSHF runs");
            const struct trap *t = RUN(s_pushfl, flags);
            equal(t->f.ax & (FL_VM | FL_RF), 0, "PUSHFD pushes VM and RF clear");
            t = RUN(s_popf, flags);
            check(finished(t, s_popf, s_popf_end), "POPF runs");
            equal(t->f.flags & (FL_IF | FL_IOPL | FL_VM), FL_IF | FL_IOPL | FL_VM,
                  "POPF sets IF and leaves VM");
            t = RUN(s_int, flags);
            check(t->f.vector == GP && t->f.error == 0x21 * 8 + 2, "INT n by a gate of DPL 0");
            reset_gate(0x21, GATE_INTR | SEG_DPL3, 0);
            t = RUN(s_int, flags);
            rt_trapped(t, 0x21, 0, "INT n by a gate of DPL 3");
            equal(t->f.ip, 2, "saves the address after it");
            reset_gate(0x21, GATE_INTR, 0);
        } else {
            stops(RUN(s_cli, flags), GP, 0, "CLI");
            stops(RUN(s_sti, flags), GP, 0, "STI");
            stops(RUN(s_pushf, flags), GP, 0, "PUSHF");
            stops(RUN(s_popf, flags), GP, s_popf_end - s_popf - 1, "POPF");
            stops(RUN(s_iret, flags), GP, 0, "IRET");
            reset_gate(0x21, GATE_INTR | SEG_DPL3, 0);
            stops(RUN(s_int, flags), GP, 0, "INT n");
            reset_gate(0x21, GATE_INTR, 0);
        }
        stops(RUN(s_in, flags), GP, 0, "IN, bit set");
        stops(RUN(s_out, flags), GP, 0, "OUT, bit set");
        rt_tss.io_bits[0x80 / 8] &= 0xFE;
        finishes(s_in, flags, "IN, bit clear");
        finishes(s_out, flags, "OUT, bit clear");
        rt_tss.io_bits[0x80 / 8] |= 1;
        stops(RUN(s_nothing, flags), GP, 0, "HLT");
        stops(RUN(s_lgdt, flags), GP, 0, "LGDT");
        stops(RUN(s_cr0, flags), GP, 0, "MOV from CR0");
        stops(RUN(s_lldt, flags), UD, 0, "LLDT");
        stops(RUN(s_arpl, flags), UD, 0, "ARPL");
        stops(RUN(s_ud, flags), UD, 0, "UD2");
        finishes(s_smsw, flags, "SMSW runs");
    }
    reset_gate(BP, GATE_INTR | SEG_DPL3, 0);
    const struct trap *t = RUN(s_int3, 0);
    rt_trapped(t, BP, 0, "INT3 at IOPL 0 does not depend on it");
    reset_gate(BP, GATE_INTR, 0);
}

/* VME: INT n goes to the real-mode handler when its bit in the TSS is clear, and CLI, STI work on
 * VIF. */
static void enhancements(void)
{
    if (!has(F_VME)) {
        skip("no VME", "virtual-8086 mode extensions");
        tcg_differs("it is taken");
        faults(GP, 0, write_cr4(read_cr4() | CR4_VME), "and CR4.VME is reserved");
        return;
    }
    write_cr4(read_cr4() | CR4_VME);
    finishes(s_cli, 0, "VME: CLI runs");
    const struct trap *t = RUN(s_sti, 0);
    check(finished(t, s_sti, s_sti_end) && t->f.flags & (1 << 19), "VME: STI sets VIF");
    write_cr4(read_cr4() & ~CR4_VME);
}

void test(void)
{
    entering();
    sensitive();
    enhancements();
}
