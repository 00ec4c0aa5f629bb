/*
 * Double faults: which pairs of exceptions make one, and its error code and frame (SDM volume 3,
 * table 6-5). In 32-bit mode the handler is a task, as it must be when the stack is what is wrong;
 * in 64-bit mode it has an interrupt stack. Built for both.
 */
#include "rt/rt.h"

enum { TSS_DF = SPARE, BEYOND = GDT_SLOTS * 8 };

static void break_gate(unsigned vector)
{
    rt_idt[vector].attr &= (u8)~SEG_P;
}

static void mend_gate(unsigned vector)
{
    reset_gate(vector, GATE_INTR, 0);
}

#ifdef __x86_64__
static void set_up(void)
{
    static u8 stack[4096] __attribute__((aligned(16)));
    rt_tss.ist[0] = (word)(stack + sizeof(stack));
    reset_gate(DF, GATE_INTR, 1);
}

static void tear_down(void)
{
}
#else
static struct tss df_tss;
static u8 df_stack[4096];

asm("df_task: call df_handler\n"); /* the error code becomes its argument */
extern u8 df_task[];
void df_handler(word error);

void df_handler(word error)
{
    write_flags(2); /* NT, or IRET would go back */
    asm volatile("clts");
    rt_last.f.vector = DF;
    rt_last.f.error = error;
    rt_last.at = 0;
    rt_unwind();
}

static void set_up(void)
{
    memset(&df_tss, 0, sizeof(df_tss));
    df_tss.eip = (u32)df_task;
    df_tss.esp = (u32)(df_stack + sizeof(df_stack));
    df_tss.eflags = 2;
    df_tss.cs = KCODE;
    df_tss.ss = df_tss.ds = df_tss.es = KDATA;
    df_tss.cr3 = read_cr3();
    rt_gdt[TSS_DF / 8] = descriptor((u32)&df_tss, sizeof(df_tss) - 1, SYS_TSS);
    rt_idt[DF] = gate(NULL, TSS_DF, GATE_TASK);
}

static void tear_down(void)
{
    load_tss();
}
#endif

#define doubles(code, name)                                                                        \
    do {                                                                                           \
        set_up();                                                                                  \
        const struct trap *t = TRAP(code);                                                         \
        tear_down();                                                                               \
        rt_trapped(t, DF, 0, name);                                                                \
    } while (0)

static void contributory(void)
{
    break_gate(GP);
    doubles(LOAD_SEGMENT("ds", BEYOND), "#GP, and its gate is not there (#NP)");
    mend_gate(GP);
    break_gate(DE);
    doubles(asm volatile("divl %0" : : "r"(0), "a"(1), "d"(0)), "#DE, then #NP");
    mend_gate(DE);
    break_gate(NP);
    rt_gdt[SPARE / 8 + 4] = descriptor(0, 0xFFFFF, SEG_DATA & ~SEG_P);
    doubles(LOAD_SEGMENT("ds", SPARE + 32), "#NP, then #NP");
    mend_gate(NP);
    rt_idt[GP].selector = BEYOND;
    doubles(LOAD_SEGMENT("ds", BEYOND), "#GP, then #GP");
    mend_gate(GP);
}

static void benign(void)
{
    /* A benign first exception is handled one after the other. */
    break_gate(UD);
    tcg_differs("EXT stays clear, and 64-bit indexes are doubled");
    faults(NP, UD * 8 + 2 + 1, asm volatile("ud2"), "#UD, then #NP with EXT");
    mend_gate(UD);
    break_gate(BP);
    if (sizeof(word) == 8)
        tcg_differs("64-bit indexes are doubled");
    faults(NP, BP * 8 + 2, asm volatile("int3"), "INT3, then #NP without EXT");
    mend_gate(BP);
}

#ifdef __x86_64__
USER_INSN(u_int_77, "int $0x77")
USER_INSN(u_ud2, "ud2")

#define HOLE 0x0000800000000000ul

/* The stack is where a push fails; the double fault has one of its own. */
static void stacks(void)
{
    doubles(asm volatile("mov %0, %%rsp; ud2" : : "r"(HOLE)),
            "#UD with a bad stack: #SS, then #SS");
    doubles(asm volatile("mov %0, %%rsp; ud2" : : "r"(0x7FFFFFFFF000)),
            "#UD with a stack not mapped: #PF, then #PF");
    doubles(asm volatile("mov %0, %%rsp; movl $0, (%%rsp)" : : "r"(0x7FFFFFFFF000)),
            "#PF with a stack not mapped");
    const struct trap *t =
        TRAP(asm volatile("mov %0, %%rsp; movl $0, (%%rsp)" : : "r"(0x7FFFFFFFE000)));
    equal(t->cr2, 0x7FFFFFFFDFF8, "CR2 is of the second page fault");
    equal(t->f.sp, 0x7FFFFFFFE000, "RSP is the first's");
    word rsp0 = rt_tss.rsp[0];
    rt_tss.rsp[0] = 0x7FFFFFFFE000;
    reset_gate(PF, GATE_INTR, 1);
    page_faults(0x7FFFFFFFDFF8, PFE_W, user(u_int_77, 0), "INT n to a stack not mapped is one #PF");
    check((rt_last.f.cs & 3) == 3, "saved as of the INT");
    mend_gate(PF);
    doubles(user(u_ud2, 0), "#UD to a stack not mapped: #PF, then #PF");
    rt_tss.rsp[0] = rsp0;
    break_gate(PF);
    doubles((void)*(volatile u8 *)0x7FFFFFFFE000, "#PF, then #NP");
    mend_gate(PF);
}
#endif

void test(void)
{
    contributory();
    benign();
#ifdef __x86_64__
    stacks();
#endif
}
