/*
 * Hardware task switches: by JMP, CALL, IRET and task gates; what is saved and loaded, busy flags,
 * NT, links, CR0.TS, and the faults on both sides of the point of no return (SDM volume 3, 7).
 */
#include "rt/rt.h"

enum {
    TSS_B = SPARE,
    TSS_ABSENT = SPARE + 8,
    TSS_SHORT = SPARE + 16,
    TASK_GATE = SPARE + 24,
    TASK_GATE_ABSENT = SPARE + 32,
    TSS_BUSY = SPARE + 40,
    LDT_B = SPARE + 48,
    CODE_ABSENT = SPARE + 56,
    TSS_TS = SPARE + 64,
    TSS_NP = SPARE + 72,
    BEYOND = GDT_SLOTS * 8,
};

static struct tss task_b;
static u8 stack_b[4096] __attribute__((aligned(16)));
static u64 ldt_b[2];

/* What task B saw when it ran. */
static volatile struct {
    word runs, flags, tr, cr0, sp, error, ax, fs, ldt;
} b;

/* Task B, entered by CALL, INT or an exception: notes what it sees, and returns by IRET; entered
 * again, it goes on after it. */
asm("task_b_nested:\n"
    "    mov %esp, b + 16\n"
    "    pushf; popl b + 4\n"
    "    mov %eax, b + 24\n"
    "    mov %cr0, %ecx; mov %ecx, b + 12; clts\n"
    "    str %cx; movzwl %cx, %ecx; mov %ecx, b + 8\n"
    "    sldt %cx; movzwl %cx, %ecx; mov %ecx, b + 32\n"
    "    mov %fs, %ecx; mov %ecx, b + 28\n"
    "    incl b\n"
    "    iret\n"
    "    jmp task_b_nested\n"
    /* With an error code on its stack. */
    "task_b_error:\n"
    "    popl b + 20\n"
    "    incl b\n"
    "    addl $2, rt_tss + 32\n" /* EIP of the old task: over a two-byte instruction */
    "    iret\n"
    "    jmp task_b_error\n"
    /* Entered by JMP: jumps back. */
    "task_b_jumps:\n"
    "    pushf; popl b + 4\n"
    "    incl b\n"
    "    ljmp $0x50, $0\n"
    "    jmp task_b_jumps\n");
extern u8 task_b_nested[], task_b_error[], task_b_jumps[];

static unsigned type_of(unsigned selector)
{
    return rt_gdt[selector / 8] >> 40 & 0xF;
}

static void fill(struct tss *task, u8 *code, u8 *stack_top)
{
    memset(task, 0, sizeof(*task));
    task->eip = (u32)code;
    task->esp = (u32)stack_top;
    task->eflags = 2 | FL_CF;
    task->eax = 0x1234;
    task->cs = KCODE;
    task->ss = task->ds = task->es = KDATA;
    task->iomap = offsetof(struct tss, io_bits);
}

/* Task B is to start at CODE. */
static void prepare(u8 *code)
{
    fill(&task_b, code, stack_b + sizeof(stack_b));
    task_b.fs = 0xF;
    task_b.ldt = LDT_B;
    rt_gdt[TSS_B / 8] = descriptor((u32)&task_b, sizeof(task_b) - 1, SYS_TSS);
    memset((void *)&b, 0, sizeof(b));
}

#define CALL_TASK(selector)                                                                        \
    asm volatile(AT "lcall %0, $0" : : "i"(selector) : "eax", "ecx", "memory", "cc")
#define JUMP_TASK(selector)                                                                        \
    asm volatile(AT "ljmp %0, $0" : : "i"(selector) : "eax", "ecx", "memory", "cc")

/* After a fault that came in the new task's context: back to the usual one. */
static void restore_task(void)
{
    write_flags(2);
    asm volatile("clts; lldt %w0" : : "r"(0));
    load_tss();
}

static void switches(void)
{
    prepare(task_b_nested);
    runs(CALL_TASK(TSS_B), "CALL to a TSS and IRET back");
    equal(b.runs, 1, "the task ran");
    equal(b.flags & (FL_NT | FL_CF), FL_NT | FL_CF, "EFLAGS loaded, NT set");
    equal(b.tr, TSS_B, "TR");
    check(b.cr0 & CR0_TS, "CR0.TS set");
    equal(b.sp, (word)(stack_b + sizeof(stack_b)), "ESP loaded");
    equal(b.ax, 0x1234, "EAX loaded");
    equal(b.ldt, LDT_B, "LDTR loaded");
    equal(b.fs, 0xF, "FS loaded from the new LDT");
    equal(task_b.link, TSS, "the link names the old task");
    equal(type_of(TSS_B), 9, "IRET leaves it available");
    equal(type_of(TSS), 11, "the old task is busy");
    check(!(task_b.eflags & FL_NT), "IRET saves EFLAGS with NT clear");
    check(read_cr0() & CR0_TS, "CR0.TS is set by the way back");
    asm volatile("clts");
    equal(read_flags() & FL_NT, 0, "NT clear back in the old task");

    runs(CALL_TASK(TSS_B), "CALL again goes on after its IRET");
    equal(b.runs, 2, "the task ran again");

    word bx = 0x5A5A, di = 0;
    prepare(task_b_nested);
    asm volatile("lcall %2, $0"
                 : "+b"(bx), "=D"(di)
                 : "i"(TSS_B), "D"(0x1D1D)
                 : "eax", "ecx", "memory", "cc");
    check(bx == 0x5A5A && di == 0x1D1D, "the old task's registers come back");
    equal(rt_tss.ebx, 0x5A5A, "and were saved in its TSS");

    prepare(task_b_jumps);
    runs(JUMP_TASK(TSS_B), "JMP to a TSS and JMP back");
    equal(b.runs, 1, "the task ran");
    equal(b.flags & FL_NT, 0, "JMP does not set NT");
    equal(type_of(TSS_B), 9, "JMP leaves the old one available");
    equal(task_b.link, 0, "JMP writes no link");

    prepare(task_b_nested);
    runs(CALL_TASK(TASK_GATE), "CALL to a task gate");
    equal(b.runs, 1, "the task ran");
    rt_idt[0x60] = gate(NULL, TSS_B, GATE_TASK);
    prepare(task_b_nested);
    runs(asm volatile("int $0x60" : : : "eax", "ecx", "memory"), "INT n through a task gate");
    equal(b.runs, 1, "the task ran");
    asm volatile("clts");
}

static void exception_task(void)
{
    prepare(task_b_error);
    rt_idt[GP] = gate(NULL, TSS_B, GATE_TASK);
    const struct trap *t = TRAP(asm volatile("mov %0, %%eax\n"
                                             "mov %%eax, %%gs" /* two bytes, which B steps over */
                                             : : "i"(BEYOND) : "eax"));
    reset_gate(GP, GATE_INTR, 0);
    rt_trapped(t, NO_TRAP, 0, "an exception through a task gate");
    equal(b.error, BEYOND, "the error code is on the new task's stack");
    asm volatile("clts");
}

/* Found before the switch: the old task faults. */
static void refused(void)
{
    prepare(task_b_nested);
    faults(NP, TSS_ABSENT, CALL_TASK(TSS_ABSENT), "TSS not present");
    faults(TS, TSS_SHORT, CALL_TASK(TSS_SHORT), "TSS too short");
    faults(GP, TSS_BUSY, CALL_TASK(TSS_BUSY), "CALL to a busy TSS");
    faults(GP, TSS_BUSY, JUMP_TASK(TSS_BUSY), "JMP to a busy TSS");
    faults(NP, TASK_GATE_ABSENT, CALL_TASK(TASK_GATE_ABSENT), "task gate not present");
    write_flags(2);
    rt_tss.link = TSS_B;
    faults(TS, TSS_B, write_flags(2 | FL_NT); asm volatile(AT "iret"), "IRET to a task not busy");
    rt_tss.link = 0;
    write_flags(2);
    faults(TS, 0, write_flags(2 | FL_NT); asm volatile(AT "iret"), "IRET to a null link");
    rt_tss.link = KDATA;
    write_flags(2);
    faults(TS, KDATA, write_flags(2 | FL_NT);
           asm volatile(AT "iret"), "IRET to a link that is data");
    rt_tss.link = 0;
    write_flags(2);
    faults(NP, TSS_ABSENT, asm volatile("ltr %w0" : : "r"(TSS_ABSENT)), "LTR, not present");
    faults(GP, TSS, asm volatile("ltr %w0" : : "r"(TSS)), "LTR, busy");
    tcg_differs("LTR takes null");
    faults(GP, 0, asm volatile("ltr %w0" : : "r"(0)), "LTR, null");
    load_tss();
    faults(GP, KDATA, asm volatile("ltr %w0" : : "r"(KDATA)), "LTR, data");
}

/*
 * Found while the new task's state is loaded: the new task faults, before its first instruction.
 * Its stack may not be usable, so handlers must be tasks themselves (SDM volume 3, 6.15, interrupt
 * 10).
 */
static struct tss handler_tss[2];
static u8 handler_stack[4096] __attribute__((aligned(16)));

asm("ts_task: call ts_handler\n" /* the error code becomes its argument */
    "np_task: call np_handler\n");
extern u8 ts_task[], np_task[];
void ts_handler(word error);
void np_handler(word error);

static void load_faulted(word vector, word error, const struct tss *handler)
{
    write_flags(2);
    rt_last.f.vector = vector;
    rt_last.f.error = error;
    rt_last.f.cs = handler->link; /* who faulted */
    rt_unwind();
}

void ts_handler(word error)
{
    load_faulted(TS, error, &handler_tss[0]);
}

void np_handler(word error)
{
    load_faulted(NP, error, &handler_tss[1]);
}

static void handle_by_task(unsigned vector, unsigned selector, struct tss *task, u8 *code)
{
    fill(task, code, handler_stack + sizeof(handler_stack));
    rt_gdt[selector / 8] = descriptor((u32)task, sizeof(*task) - 1, SYS_TSS);
    rt_idt[vector] = gate(NULL, (u16)selector, GATE_TASK);
}

static void new_task_fault(word vector, word error, const char *name)
{
    handle_by_task(TS, TSS_TS, &handler_tss[0], ts_task);
    handle_by_task(NP, TSS_NP, &handler_tss[1], np_task);
    const struct trap *t = TRAP(CALL_TASK(TSS_B));
    write_flags(2);
    asm volatile("clts; lldt %w0" : : "r"(0));
    load_tss();
    reset_gate(TS, GATE_INTR, 0);
    reset_gate(NP, GATE_INTR, 0);
    if (rt_trapped(t, vector, error, "%s", name))
        check(t->f.cs == TSS_B && b.runs == 0, "%s, in the new task", name);
}

static void new_task_faults(void)
{
    prepare(task_b_nested);
    task_b.ldt = BEYOND;
    new_task_fault(TS, BEYOND, "LDT beyond the GDT");
    prepare(task_b_nested);
    task_b.ldt = KDATA;
    new_task_fault(TS, KDATA, "LDT of data");
    prepare(task_b_nested);
    task_b.cs = BEYOND;
    new_task_fault(TS, BEYOND, "CS beyond the GDT");
    prepare(task_b_nested);
    task_b.cs = KDATA;
    new_task_fault(TS, KDATA, "CS of data");
    prepare(task_b_nested);
    task_b.cs = UCODE;
    new_task_fault(TS, UCODE, "CS of DPL 3 with RPL 0");
    prepare(task_b_nested);
    task_b.cs = CODE_ABSENT;
    new_task_fault(NP, CODE_ABSENT, "CS not present");
    prepare(task_b_nested);
    task_b.ss = UDATA;
    new_task_fault(TS, UDATA, "SS of DPL 3");
    prepare(task_b_nested);
    task_b.ss = 0;
    new_task_fault(TS, 0, "SS null");
    prepare(task_b_nested);
    task_b.ss = KCODE;
    new_task_fault(TS, KCODE, "SS of code");
    prepare(task_b_nested);
    task_b.ds = BEYOND;
    new_task_fault(TS, BEYOND, "DS beyond the GDT");
    prepare(task_b_nested);
    task_b.ds = LDT_B;
    new_task_fault(TS, LDT_B, "DS of an LDT");
}

/* A 16-bit TSS, to code in the lowest 64 KiB. */
static void narrow_task(void)
{
    static struct {
        u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di;
        u16 es, cs, ss, ds, ldt;
    } tss16;
    enum { TSS_16 = SPARE + 80, SYS_TSS16 = 0x81 };
    u8 *const low = (u8 *)0x7000;
    static const u8 code[] = {0x89, 0xD8,                   /* mov %ebx, %eax */
                              0xBB, 0x78, 0x56, 0x34, 0x12, /* mov $0x12345678, %ebx */
                              0xCF,                         /* iret */
                              0xEB, 0xF6};                  /* and again */
    memcpy(low, code, sizeof(code));
    tss16.ip = 0x7000;
    tss16.flags = 2;
    tss16.bx = 0xBEEF;
    tss16.sp = 0x6F00;
    tss16.cs = KCODE;
    tss16.ss = tss16.ds = tss16.es = KDATA;
    rt_gdt[TSS_16 / 8] = descriptor((u32)&tss16, sizeof(tss16) - 1, SYS_TSS16);
    word bx = 0x55AA55AA;
    runs(asm volatile("lcall %1, $0" : "+b"(bx) : "i"(TSS_16) : "memory"), "CALL to a 16-bit TSS");
    equal(bx, 0x55AA55AA, "32-bit registers come back");
    equal(tss16.link, TSS, "its link");
    equal(tss16.ax, 0xBEEF, "registers were loaded");
    equal(tss16.bx, 0x5678, "and saved, 16 bits of them");
    equal(tss16.ip, 0x7008, "and the instruction pointer");
    equal(type_of(TSS_16), 1, "IRET leaves it available");
    rt_gdt[TSS_16 / 8] = descriptor((u32)&tss16, 0x2A, SYS_TSS16);
    faults(TS, TSS_16, CALL_TASK(TSS_16), "a 16-bit TSS too short");
    asm volatile("clts");
}

/* A task in virtual-8086 mode. */
static void v86_task(void)
{
    static u8 stack[1024];
    u8 *const low = (u8 *)0x20000;
    low[0] = 0x40; /* inc %ax */
    low[1] = 0xF4; /* hlt */
    prepare(NULL);
    task_b.eflags = 2 | FL_VM;
    task_b.cs = task_b.ss = task_b.ds = task_b.es = task_b.fs = 0x2000;
    task_b.esp = 0xFF00;
    task_b.ldt = 0;
    task_b.ss0 = KDATA;
    task_b.esp0 = (u32)(stack + sizeof(stack));
    const struct trap *t = TRAP(CALL_TASK(TSS_B));
    restore_task();
    check(t->f.vector == GP && t->f.flags & FL_VM && t->f.ip == 1,
          "a task in virtual-8086 mode runs up to its HLT");
    equal(t->f.ax & 0xFFFF, 0x1235, "its INC");
    equal(t->f.v86_ds, 0x2000, "its DS");
}

static void debug_trap(void)
{
    prepare(task_b_nested);
    task_b.debug_trap = 1;
    write_dr6(0xFFFF0FF0);
    const struct trap *t = TRAP(CALL_TASK(TSS_B));
    restore_task();
    tcg_differs("the T flag is ignored");
    rt_trapped(t, DB, 0, "the T flag of the TSS");
    tcg_differs("the T flag is ignored");
    equal(read_dr6() & 0x8000, 0x8000, "DR6.BT");
    tcg_differs("the T flag is ignored");
    equal(t->f.ip, (word)task_b_nested, "before the task's first instruction");
    write_dr6(0xFFFF0FF0);
}

void test(void)
{
    rt_gdt[LDT_B / 8] = descriptor((u32)ldt_b, sizeof(ldt_b) - 1, SYS_LDT);
    ldt_b[1] = descriptor(0, 0xFFFFF, SEG_DATA | SEG_DPL3 | SEG_BIG | SEG_PAGES);
    rt_gdt[TSS_ABSENT / 8] = descriptor((u32)&task_b, sizeof(task_b) - 1, SYS_TSS & ~SEG_P);
    rt_gdt[TSS_SHORT / 8] = descriptor((u32)&task_b, 0x66, SYS_TSS);
    rt_gdt[TSS_BUSY / 8] = descriptor((u32)&task_b, sizeof(task_b) - 1, SYS_TSS | 2);
    rt_gdt[CODE_ABSENT / 8] = descriptor(0, 0xFFFFF, (SEG_CODE & ~SEG_P) | SEG_BIG | SEG_PAGES);
    struct gate g = gate(NULL, TSS_B, GATE_TASK);
    memcpy(&rt_gdt[TASK_GATE / 8], &g, sizeof(g));
    g.attr &= (u8)~SEG_P;
    memcpy(&rt_gdt[TASK_GATE_ABSENT / 8], &g, sizeof(g));
    switches();
    exception_task();
    refused();
    new_task_faults();
    narrow_task();
    v86_task();
    debug_trap();
}
