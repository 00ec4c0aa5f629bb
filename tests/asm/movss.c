/*
 * The trap that MOV SS holds back: a data breakpoint is met by the MOV or POP that loads SS, and
 * the trap comes after the next instruction, whatever that does (SDM volume 3, 6.8.3). How many
 * #DBs come, where and in what order with other traps. Built for 32-bit and 64-bit mode.
 */
#include "rt/rt.h"

#define DR6_FIXED 0xFFFF0FF0ul
#define DR6_BS    0x4000ul
#define DR6_BD    0x2000ul
#define DR7_FIXED 0x400ul
#define DR7_GD    0x2000ul
/* Register 0: two bytes, reads and writes; register 1: one byte, writes. */
#define WATCH_SELECTOR (1ul | 7ul << 16)
#define WATCH_BYTE     (4ul | 1ul << 20)

#define COUNTED 0x70 /* a vector for INT n */

static volatile u16 selector;
static volatile u8 byte;
static u8 stored[8];
static u8 far_target[8]; /* an offset of four bytes and a selector */

/* What came: vectors in their order, as letters. */
static char came[16];
static unsigned count;
static word debug_ip, debug_dr6, debug_cs;

static void note(char letter)
{
    if (count < sizeof(came) - 1)
        came[count++] = letter;
}

static void on_debug(struct frame *f)
{
    note('D');
    debug_ip = f->ip;
    debug_cs = f->cs;
    debug_dr6 = read_dr6();
    write_dr6(DR6_FIXED);
}

static void on_breakpoint(struct frame *f)
{
    note('B');
}

static void on_overflow(struct frame *f)
{
    note('O');
}

static void on_int(struct frame *f)
{
    note('I');
}

static void on_undefined(struct frame *f)
{
    note('U');
    f->ip += 2; /* UD2 */
}

static void on_protection(struct frame *f)
{
    note('G');
    f->ip += 2; /* MOV to SS */
}

static void start(void)
{
    memset(came, 0, sizeof(came));
    count = 0;
    debug_ip = debug_dr6 = 0;
    write_dr6(DR6_FIXED);
}

static bool came_is(const char *wanted)
{
    unsigned n = 0;

    while (wanted[n] && wanted[n] == came[n])
        n++;
    return wanted[n] == came[n];
}

/* MOV SS that meets the breakpoint, then TEXT, then a NOP at held_end. */
#define HELD(text, ...)                                                                            \
    start();                                                                                       \
    asm volatile("movl $7f, rt_at\nmov %[selector], %%ss\n" text "\n7: nop"                        \
                 :                                                                                 \
                 : [selector] "m"(selector), __VA_ARGS__                                           \
                 : "eax", "ecx", "edx", "edi", "memory", "cc")

static void expect(const char *wanted, word ip, word dr6, const char *name)
{
    check(came_is(wanted), "%s: %s came, %s is right", name, came, wanted);
    if (!ip)
        return;
    equal(debug_ip, ip, "%s: where #DB comes", name);
    equal(debug_dr6, DR6_FIXED | dr6, "%s: DR6", name);
}

static word handler_of(unsigned vector)
{
    const struct gate *g = &rt_idt[vector];

    return g->offset_low | (word)g->offset_high << 16;
}

static void next_goes_on(void)
{
    HELD("nop", "i"(0));
    expect("D", rt_at, 1, "NOP");
    HELD("sti; cli", "i"(0));
    check(came_is("D"), "STI: one #DB");
    HELD("mov %[other], %%ss; nop", [other] "r"(KDATA));
    check(came_is("D"), "another MOV SS: one #DB");
    HELD("movb $1, %[byte]", [byte] "m"(byte));
    expect("D", rt_at, 1 | 2, "an instruction that meets a breakpoint itself");
    HELD("jmp 6f; ud2; 6:", "i"(0));
    expect("D", rt_at, 1, "JMP");
    HELD("hlt", "i"(0));
    expect("D", rt_at, 1, "HLT, which it ends");
    start();
    word n = 3;
    u8 *to = stored;
    asm volatile("mov %[selector], %%ss; rep stosb; nop"
                 : "+D"(to), "+c"(n)
                 : [selector] "m"(selector), "a"(0)
                 : "memory");
    check(came_is("D") && n == 0, "REP STOSB: one #DB, and it goes on");
    start();
    asm volatile(
        "movl $7f, %0; movw %2, 4 + %0; movl $7f, rt_at\nmov %1, %%ss; ljmp *%0; ud2\n7: nop"
        : "+m"(far_target)
        : "m"(selector), "i"(KCODE)
        : "memory");
    expect("D", rt_at, 1, "far JMP");
}

/* A transfer by a gate is done before the trap comes: at the handler's first instruction. */
static void next_is_an_interrupt(void)
{
    HELD("int3", "i"(0));
    expect("DB", handler_of(BP), 1, "INT3");
    HELD(".byte 0xCD, 3", "i"(0));
    expect("DB", handler_of(BP), 1, "INT 3");
    HELD("int $0x70", "i"(0));
    expect("DI", handler_of(COUNTED), 1, "INT n");
#ifndef __x86_64__
    HELD("into", "i"(0)); /* OF is 0 */
    expect("D", rt_at, 1, "INTO without overflow");
    start();
    asm volatile("mov $0x7F, %%al; inc %%al; mov %0, %%ss; into" : : "m"(selector) : "eax", "cc");
    expect("DO", handler_of(OF), 1, "INTO");
#endif
    /* INT1 is a debug exception itself, and the one #DB is for both. Whether DR6 shows the
     * breakpoint is left to the processor. */
    HELD(".byte 0xF1", "i"(0));
    check(came_is("D"), "INT1: one #DB, %s came", came);
    equal(debug_ip, rt_at, "INT1: the address after it");
    HELD("nop", "i"(0));
    expect("D", rt_at, 1, "and nothing is left of it");
    HELD(".byte 0xCD, 1", "i"(0)); /* the same vector, but no debug exception */
    check(came_is("DD"), "INT 1: its handler, and #DB in front of it: %s", came);
}

/* A fault drops the trap. */
static void next_faults(void)
{
    HELD("ud2", "i"(0));
    expect("U", 0, 0, "UD2");
    HELD("mov %w[bad], %%ss", [bad] "r"(KCODE));
    expect("G", 0, 0, "a MOV SS that faults");
    HELD("nop", "i"(0));
    expect("D", rt_at, 1, "after a fault");
}

static void other_causes(void)
{
    start();
    asm volatile("push $0x102; popf; mov %0, %%ss; nop; push $2; popf" : : "m"(selector) : "cc");
    check(came_is("DDD"), "TF: no trap for MOV SS itself: %s", came);
    start();
    write_dr7(DR7_FIXED | WATCH_SELECTOR | DR7_GD);
#ifdef __x86_64__
    asm volatile("mov %0, %%ss; mov %%dr0, %%rax; nop" : : "m"(selector) : "rax");
#else
    asm volatile("mov %0, %%ss; mov %%dr0, %%eax; nop" : : "m"(selector) : "eax");
#endif
    check(came_is("D"), "general detect: one #DB");
    check(debug_dr6 & DR6_BD, "with DR6.BD");
    write_dr7(DR7_FIXED | WATCH_SELECTOR | WATCH_BYTE);
#ifndef __x86_64__
    extern word pushed[];
    write_dr0((word)pushed);
    start();
    asm volatile(".pushsection .bss; .balign 16; pushed: .skip 16; .popsection\n"
                 "mov %%esp, %%edx; mov $pushed, %%esp; movl %0, pushed; movl $7f, rt_at\n"
                 "pop %%ss; mov %%edx, %%esp; 7: nop"
                 :
                 : "i"(KDATA)
                 : "edx", "memory");
    check(came_is("DD"), "POP SS, and the MOV that meets it before: %s", came);
    equal(debug_ip, rt_at, "POP SS: after the next instruction");
    write_dr0((word)&selector);
#endif
}

#ifdef __x86_64__
extern u8 system_call[];
asm("system_call: mov $0x99, %eax; jmp *%rcx");

USER_DATA static volatile u16 user_selector = UDATA | 3;
USER_CODE static word u_int1(word arg)
{
    asm volatile("mov %0, %%ss; .byte 0xF1" : : "m"(user_selector));
    return 0;
}

USER_CODE static word u_nop(word arg)
{
    asm volatile("mov %0, %%ss; nop" : : "m"(user_selector));
    return 0;
}

/* From level 3, with an interrupt stack for #DB: a second one would overwrite the first's frame. */
static void from_level_3(void)
{
    static u8 stack[4096] __attribute__((aligned(16)));
    rt_tss.ist[0] = (word)(stack + sizeof(stack));
    reset_gate(DB, GATE_INTR, 1);
    write_dr0((word)&user_selector);
    start();
    user_runs(u_nop, 0, "MOV SS and NOP at level 3");
    check(came_is("D") && debug_cs == (UCODE | 3), "one #DB, at level 3");
    start();
    user_runs(u_int1, 0, "MOV SS and INT1 at level 3");
    check(came_is("D") && debug_cs == (UCODE | 3), "one #DB, from level 3");
    reset_gate(DB, GATE_INTR, 0);
    write_dr0((word)&selector);
}

/* The trap comes at the first instruction of the system call, with its stack not yet changed. */
static void next_is_a_system_call(void)
{
    wrmsr(MSR_STAR, (u64)(UCODE32 | 3) << 48 | (u64)KCODE << 32);
    wrmsr(MSR_LSTAR, (word)system_call);
    wrmsr(MSR_SFMASK, FL_IF);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    start();
    asm volatile("mov %0, %%ss; syscall" : : "m"(selector) : "rax", "rcx", "r11", "memory");
    expect("D", (word)system_call, 1, "SYSCALL");
}
#endif

void test(void)
{
    selector = KDATA;
    rt_handler[DB] = on_debug;
    rt_handler[BP] = on_breakpoint;
    rt_handler[OF] = on_overflow;
    rt_handler[UD] = on_undefined;
    rt_handler[GP] = on_protection;
    rt_handler[COUNTED] = on_int;
    write_dr0((word)&selector);
    write_dr1((word)&byte);
    write_dr7(DR7_FIXED | WATCH_SELECTOR | WATCH_BYTE);
    next_goes_on();
    next_is_an_interrupt();
    next_faults();
    other_causes();
#ifdef __x86_64__
    from_level_3();
    next_is_a_system_call();
#endif
    write_dr7(DR7_FIXED);
}
