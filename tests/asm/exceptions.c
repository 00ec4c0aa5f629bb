/*
 * Every exception and its error code, with the saved instruction pointer where the manual puts it:
 * at the instruction for a fault, after it for a trap (SDM volume 3, chapter 6). Built for 32-bit
 * and 64-bit mode.
 */
#include "rt/rt.h"

USER_INSN(u_hlt, "hlt")
USER_INSN(u_int3, "int3")
USER_INSN(u_int_40, "int $0x40")
USER_INSN(u_int_41, "int $0x41")
USER_INSN(u_unaligned_4, "movl %%eax, 1(%1)")
USER_INSN(u_unaligned_2, "movw %%ax, 1(%1)")
USER_INSN(u_aligned_4, "movl %%eax, 4(%1)")
USER_INSN(u_byte, "movb %%al, 3(%1)")
USER_INSN(u_load_unaligned, "addl 2(%1), %k0")

/* The error code that names gate N of the IDT. */
static word idt_error(unsigned n)
{
#ifdef __x86_64__
    tcg_differs("the index in the error code is doubled");
#endif
    return n * 8 + 2;
}

static void divide(void)
{
    faults(DE, 0, asm volatile(AT "divl %0" : : "r"(0), "a"(1), "d"(0)), "DIV by zero");
    faults(DE, 0, asm volatile(AT "divl %0" : : "r"(1), "a"(0), "d"(1)), "DIV overflow");
    faults(DE, 0, asm volatile(AT "idivl %0" : : "r"(-1), "a"(0x80000000), "d"(-1)),
           "IDIV of the most negative number by -1");
    faults(DE, 0, asm volatile(AT "divb %b0" : : "q"(1), "a"(0x1FF)), "8-bit DIV overflow");
    runs(asm volatile("divl %0" : : "r"(2), "a"(0), "d"(1)), "DIV that just fits");
#ifdef __x86_64__
    faults(DE, 0, asm volatile(AT "divq %0" : : "r"(1ul), "a"(0ul), "d"(1ul)),
           "64-bit DIV overflow");
#else
    faults(DE, 0, asm volatile(AT ".byte 0xD4, 0"), "AAM with base zero");
#endif
}

static void software(void)
{
    struct trap *t = TRAP(asm volatile("movl $1f, rt_at; int3; 1:"));
    rt_trapped(t, BP, 0, "INT3");
    equal(t->f.ip, rt_at, "INT3 saves the address after it");
    t = TRAP(asm volatile("movl $1f, rt_at; .byte 0xCD, 3; 1:"));
    rt_trapped(t, BP, 0, "INT 3, two bytes");
    equal(t->f.ip, rt_at, "INT 3 saves the address after it");
    t = TRAP(asm volatile("movl $1f, rt_at; int $0x77; 1:"));
    rt_trapped(t, 0x77, 0, "INT 77h");
    equal(t->f.ip, rt_at, "INT n saves the address after it");
    t = TRAP(asm volatile("int $13"));
    equal(t->f.vector == GP, 1, "INT 13 goes to vector 13");
#ifndef __x86_64__
    t = TRAP(asm volatile("movl $1f, rt_at; addb %0, %0; into; 1:" : : "q"((u8)0x40) : "cc"));
    rt_trapped(t, OF, 0, "INTO with OF");
    equal(t->f.ip, rt_at, "INTO saves the address after it");
    runs(asm volatile("xor %%eax, %%eax; into" : : : "eax", "cc"), "INTO without OF");
    static const u32 bounds[2] = {5, 10};
    runs(asm volatile("bound %0, %1" : : "r"(5), "m"(bounds)), "BOUND at the lower bound");
    runs(asm volatile("bound %0, %1" : : "r"(10), "m"(bounds)), "BOUND at the upper bound");
    faults(BR, 0, asm volatile(AT "bound %0, %1" : : "r"(4), "m"(bounds)), "BOUND below");
    faults(BR, 0, asm volatile(AT "bound %0, %1" : : "r"(11), "m"(bounds)), "BOUND above");
#else
    faults(UD, 0, asm volatile(AT ".byte 0xCE"), "INTO does not exist in 64-bit mode");
    faults(UD, 0, asm volatile(AT ".byte 0x06"), "PUSH ES does not exist in 64-bit mode");
    faults(UD, 0, asm volatile(AT ".byte 0x60"), "PUSHA does not exist in 64-bit mode");
    faults(UD, 0, asm volatile(AT ".byte 0x27"), "DAA does not exist in 64-bit mode");
    faults(UD, 0, asm volatile(AT ".byte 0xD4, 10"), "AAM does not exist in 64-bit mode");
    faults(UD, 0, asm volatile(AT ".byte 0x9A, 0, 0, 0, 0, 8, 0"),
           "far CALL with an immediate does not exist in 64-bit mode");
    faults(UD, 0, asm volatile(AT ".byte 0x82, 0xC0, 0"), "opcode 82h in 64-bit mode");
#endif
    user_faults(GP, idt_error(0x40), u_int_40, 0, "INT 40h from user mode, DPL 0");
    reset_gate(0x41, GATE_INTR | SEG_DPL3, 0);
    rt_trapped(user(u_int_41, 0), 0x41, 0, "INT 41h from user mode, DPL 3");
    user_faults(GP, idt_error(BP), u_int3, 0, "INT3 from user mode, DPL 0");
    user_faults(GP, 0, u_hlt, 0, "HLT in user mode");
}

static void undefined(void)
{
    faults(UD, 0, asm volatile(AT "ud2"), "UD2");
    faults(UD, 0, asm volatile(AT "ud1 %eax, %eax"), "UD1");
    faults(UD, 0, asm volatile(AT ".byte 0xF0, 0x90"), "LOCK NOP");
    faults(UD, 0, asm volatile(AT ".byte 0xF0; addl %%eax, %%ebx" : : : "ebx"),
           "LOCK with a register destination");
    tcg_differs("LOCK is not refused everywhere");
    faults(UD, 0, asm volatile(AT ".byte 0xF0, 0x8B, 0x00"), "LOCK MOV");
    tcg_differs("LOCK is not refused everywhere");
    faults(UD, 0, asm volatile(AT ".byte 0xF0, 0x03, 0x00"), "LOCK ADD to a register");
    faults(UD, 0, asm volatile(AT ".byte 0x8E, 0xC8"), "MOV to CS");
    faults(UD, 0, asm volatile(AT ".byte 0x8E, 0xF0"), "MOV to segment register 6");
    faults(UD, 0, asm volatile(AT ".byte 0x8D, 0xC0"), "LEA of a register");
    faults(UD, 0, asm volatile(AT ".byte 0x0F, 0x20, 0xC8"), "MOV from CR1");
    faults(UD, 0, asm volatile(AT ".byte 0x0F, 0x22, 0xE8"), "MOV to CR5");
    faults(UD, 0, asm volatile(AT ".byte 0x0F, 0x01, 0xF8 + 7"), "0F 01 FF");
    faults(UD, 0, asm volatile(AT ".byte 0xFF, 0xF8"), "FF /7");
    faults(UD, 0, asm volatile(AT ".byte 0x0F, 0xC7, 0xC8"), "CMPXCHG8B of a register");
    faults(UD, 0, asm volatile(AT ".byte 0x0F, 0xA6, 0xC0"), "0F A6");
    static u8 too_long[16] = {[0 ... 14] = 0x66, [15] = 0x90};
    faults(GP, 0, asm volatile("movl %k0, rt_at; jmp *%0" : : "r"(too_long)),
           "an instruction of 16 bytes");
    runs(asm volatile(".fill 14, 1, 0x66; nop"), "an instruction of 15 bytes");
}

static void fpu(void)
{
    word cr0 = read_cr0();
    asm volatile("fninit");
    write_cr0(cr0 | CR0_TS);
    faults(NM, 0, asm volatile(AT "fld1"), "x87 with CR0.TS");
    faults(NM, 0, asm volatile(AT "fwait"), "FWAIT with CR0.TS and MP");
    write_cr0((cr0 | CR0_TS) & ~CR0_MP);
    runs(asm volatile("fwait"), "FWAIT with CR0.TS, without MP");
    write_cr0((cr0 & ~CR0_MP) | CR0_EM);
    faults(NM, 0, asm volatile(AT "fninit"), "x87 with CR0.EM");
    runs(asm volatile("fwait"), "FWAIT with CR0.EM");
    write_cr0(cr0 | CR0_TS);
    asm volatile("clts");
    equal(read_cr0(), cr0, "CLTS clears CR0.TS and nothing else");

    static const u16 unmasked = 0x37B; /* all masked but zero-divide */
    asm volatile("fninit; fldcw %0; fld1; fldz" : : "m"(unmasked));
    runs(asm volatile("fdivr %%st(1), %%st" ::), "the dividing instruction itself does not fault");
    faults(MF, 0, asm volatile(AT "fwait"), "FWAIT with an exception pending");
    tcg_differs("only FWAIT looks for pending exceptions");
    faults(MF, 0, asm volatile(AT "fld1"), "FLD1 with an exception pending");
    runs(asm volatile("fnstsw %%ax; fnclex" : : : "eax"), "FNSTSW and FNCLEX do not wait");
    runs(asm volatile("fwait"), "FWAIT after FNCLEX");

    word cr4 = read_cr4();
    static const u32 divide_unmasked = 0x1D80;
    write_cr4(cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT);
    asm volatile("ldmxcsr %0; xorps %%xmm0, %%xmm0" : : "m"(divide_unmasked));
    asm volatile("movd %0, %%xmm1" : : "r"(0x3F800000));
    tcg_differs("no unmasked SIMD exceptions");
    faults(XM, 0, asm volatile(AT "divss %xmm0, %xmm1"), "SIMD divide by zero");
    write_cr4(cr4 | CR4_OSFXSR);
    tcg_differs("no unmasked SIMD exceptions");
    faults(UD, 0, asm volatile(AT "divss %xmm0, %xmm1"), "the same without CR4.OSXMMEXCPT");
    write_cr4(cr4);
    faults(UD, 0, asm volatile(AT "addps %xmm0, %xmm0"), "SSE without CR4.OSFXSR");
}

static void segments(void)
{
    faults(GP, 0x3F8, LOAD_SEGMENT("ds", 0x3F8), "selector beyond the GDT");
}

static void alignment(void)
{
    USER_DATA static u32 buffer[4] = {0};
    word cr0 = read_cr0();
    write_cr0(cr0 | CR0_AM);
    rt_user_flags = 2 | FL_AC;
    tcg_differs("no alignment checks");
    user_faults(AC, 0, u_unaligned_4, buffer, "unaligned dword");
    tcg_differs("no alignment checks");
    user_faults(AC, 0, u_unaligned_2, buffer, "unaligned word");
    tcg_differs("no alignment checks");
    user_faults(AC, 0, u_load_unaligned, buffer, "unaligned load");
    user_runs(u_aligned_4, buffer, "aligned dword");
    user_runs(u_byte, buffer, "byte");
    rt_user_flags = 2;
    user_runs(u_unaligned_4, buffer, "unaligned dword without EFLAGS.AC");
    write_cr0(cr0);
    rt_user_flags = 2 | FL_AC;
    user_runs(u_unaligned_4, buffer, "unaligned dword without CR0.AM");
    rt_user_flags = 2;
    write_cr0(cr0 | CR0_AM);
    write_flags(2 | FL_AC);
    runs(asm volatile("movl %0, 1(%1)" : : "r"(0), "r"(buffer) : "memory"),
         "unaligned dword at privilege level 0");
    write_flags(2);
    write_cr0(cr0);
}

/* The IDT's limit: a vector beyond it is #GP with the vector in the error code. */
static void table_limits(void)
{
    struct dtr small = {sizeof(struct gate) * 0x80 - 1, (word)rt_idt};
    lidt(&small);
    struct trap *t = TRAP(asm volatile(AT "int $0x80"));
    lidt(&rt_idtr);
    rt_trapped(t, GP, idt_error(0x80), "INT n beyond the IDT's limit");
    rt_idt[0x42].attr &= 0x7F;
    faults(NP, idt_error(0x42), asm volatile(AT "int $0x42"), "INT n to a gate not present");
    rt_idt[0x42].attr = 0x82;
    faults(GP, idt_error(0x42), asm volatile(AT "int $0x42"), "INT n to an LDT descriptor");
    reset_gate(0x42, GATE_INTR, 0);
    rt_idt[0x42].selector = 0;
    faults(GP, 0, asm volatile(AT "int $0x42"), "INT n to a null code selector");
    rt_idt[0x42].selector = KDATA;
    faults(GP, KDATA, asm volatile(AT "int $0x42"), "INT n to a data segment");
    rt_idt[0x42].selector = 0x1F0 * 8;
    faults(GP, 0x1F0 * 8, asm volatile(AT "int $0x42"), "INT n to a selector beyond the GDT");
    rt_gdt[SPARE / 8] = rt_gdt[KCODE / 8] & ~(1ull << 47);
    rt_idt[0x42].selector = SPARE;
    faults(NP, SPARE, asm volatile(AT "int $0x42"), "INT n to a code segment not present");
    reset_gate(0x42, GATE_INTR, 0);
}

void test(void)
{
    divide();
    software();
    undefined();
    fpu();
    segments();
    alignment();
    table_limits();
}
