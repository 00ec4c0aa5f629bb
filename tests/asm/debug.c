/*
 * Debug exceptions: single step, breakpoints in the debug registers, DR6 and DR7, RF, general
 * detect, ICEBP (SDM volume 3, 17.2, 17.3). Built for 32-bit and 64-bit mode.
 */
#include "rt/rt.h"

#define DR6_FIXED 0xFFFF0FF0ul
#define DR6_BS    0x4000ul
#define DR6_BD    0x2000ul
#define DR7_FIXED 0x400ul
#define DR7_GD    0x2000ul

/* DR7 with register N enabled locally: LENGTH 0, 1, 3 for 1, 2, 4 bytes, 2 for 8. */
enum { EXECUTE, WRITES, IO, READ_WRITES };
static word enable(unsigned n, unsigned type, unsigned length)
{
    return DR7_FIXED | 1ul << 2 * n | (word)(type | length << 2) << (16 + 4 * n);
}

/* What the #DB handler saw. */
static volatile unsigned hits;
static volatile word hit_ip[64], hit_dr6[64], hit_flags, dr7_in_handler;
static bool resume_flag; /* the handler sets RF */

static void note(struct frame *f)
{
    if (hits < 64) {
        hit_ip[hits] = f->ip;
        hit_dr6[hits] = read_dr6();
    }
    if (!hits++)
        hit_flags = f->flags;
    dr7_in_handler = read_dr7();
    write_dr6(DR6_FIXED);
    if (resume_flag)
        f->flags |= FL_RF;
    if (hits >= 64)
        f->flags &= ~FL_TF;
}

static void start(void)
{
    hits = 0;
    write_dr6(DR6_FIXED);
}

#ifdef __x86_64__
#define AX "rax"
#else
#define AX "eax"
#endif

/* Steps through TEXT and the two instructions that end it, and returns the hits. */
#define stepped(text)                                                                              \
    ({                                                                                             \
        start();                                                                                   \
        asm volatile("push $0x102; popf\n" text "\npush $2; popf"                                  \
                     :                                                                             \
                     :                                                                             \
                     : "eax", "ebx", "ecx", "edx", "esi", "edi", "memory", "cc");                  \
        hits;                                                                                      \
    })

static __attribute__((used)) u8 buffer[16];

static volatile u64 watched[4] __attribute__((aligned(32)));

USER_CODE static word u_nothing(word arg)
{
    return 0;
}

static void single_step(void)
{
    /* POPF that sets TF is not itself followed by a trap; PUSH and POPF of STOP are. */
    unsigned base = stepped("");
    equal(base, 2, "PUSH and the POPF that clears TF each trap");
    equal(stepped("nop") - base, 1, "NOP");
    equal(hit_dr6[0], DR6_FIXED | DR6_BS, "DR6.BS");
    check(hit_flags & FL_TF, "TF is set in what is saved");
    equal(stepped("nop; nop; nop") - base, 3, "three NOPs");
    equal(stepped("jmp 1f; nop; 1:") - base, 1, "JMP");
    equal(stepped("mov $3, %%ecx; 1: dec %%ecx; jnz 1b") - base, 7, "a loop");
    equal(stepped("mov %%ss, %%eax; mov %%eax, %%ss; nop") - base, 2, "MOV SS holds the trap off");
#ifndef __x86_64__
    equal(stepped("push %%ss; pop %%ss; nop") - base, 2, "POP SS holds the trap off");
#endif
    tcg_differs("STI holds the trap off");
    equal(stepped("sti; cli") - base, 2, "STI does not");
    equal(stepped("mov $3, %%ecx; mov $buffer, %%esi; mov $buffer + 8, %%edi; rep movsb") - base, 6,
          "REP MOVSB traps after each element");
    equal(stepped("xor %%ecx, %%ecx; rep movsb") - base, 2, "REP with a count of 0 traps once");
    equal(stepped("xor %%eax, %%eax; cpuid") - base, 2, "CPUID");
    equal(stepped("rdtsc") - base, 1, "RDTSC");
    equal(stepped("mov %%cr0, %%" AX "; mov %%" AX ", %%cr0") - base, 2, "MOV to CR0");
    equal(stepped("inb $0x80, %%al") - base, 1, "IN");
    equal(stepped("mov $0xC0000080, %%ecx; rdmsr") - base, 2, "RDMSR");
    stepped("int $0x70; nop");
    equal(hits - base, 1, "INT n and its handler are not stepped, what follows is");
}

static void count_int(struct frame *f)
{
    hit_flags = read_flags();
}

/* Level 3 is stepped as level 0 is; TF and a breakpoint share one trap. */
USER_CODE static word u_three_nops(word arg)
{
    asm volatile("nop; nop; nop");
    return 0;
}

USER_CODE static word u_interrupt(word arg)
{
    asm volatile("int $0x71; nop");
    return 0;
}

static unsigned steps_of(word (*fn)(word))
{
    start();
    rt_user_flags = 2 | FL_TF;
    (void)user(fn, 0);
    rt_user_flags = 2;
    return hits;
}

static void stepping_user_code(void)
{
    unsigned base = steps_of(u_nothing);
    equal(steps_of(u_three_nops) - base, 3, "three NOPs at level 3");
    reset_gate(0x71, GATE_INTR | SEG_DPL3, 0);
    rt_handler[0x71] = count_int;
    equal(steps_of(u_interrupt) - base, 1, "INT n at level 3 and its handler are not stepped");
    check(!(hit_flags & FL_VM), "still at level 3");

    write_dr0((word)&watched[0]);
    write_dr7(enable(0, WRITES, 0));
    start();
    asm volatile("push $0x102; popf; movb $1, %0; push $2; popf" : "=m"(watched[0]) : : "cc");
    write_dr7(DR7_FIXED);
    tcg_differs("two traps");
    equal(hits, 3, "TF and a data breakpoint at one instruction make one trap");
    equal(hit_dr6[0], DR6_FIXED | DR6_BS | 1, "with both in DR6");

    /* A fault comes instead of the trap. */
    rt_handler[DB] = NULL;
    struct trap *t = TRAP(asm volatile("push $0x102; popf; ud2"));
    rt_trapped(t, UD, 0, "a fault comes before the single-step trap");
    check(t->f.flags & FL_TF, "and saves TF");
    rt_handler[DB] = note;
}

static void icebp(void)
{
    rt_handler[DB] = NULL;
    struct trap *t = TRAP(asm volatile("movl $1f, rt_at; .byte 0xF1; 1:"));
    tcg_differs("ICEBP is #UD");
    rt_trapped(t, DB, 0, "ICEBP");
    tcg_differs("ICEBP is #UD");
    equal(t->f.ip, rt_at, "saves the address after it");
    rt_handler[DB] = note;
}

/* Whether an access to offset OFFSET of `watched` hits. */
static bool touches(unsigned offset, unsigned size, bool write)
{
    start();
    u8 *p = (u8 *)watched + offset;
    if (size == 1 && write)
        *(volatile u8 *)p = 0;
    else if (size == 1)
        (void)*(volatile u8 *)p;
    else if (size == 2 && write)
        *(volatile u16 *)p = 0;
    else if (size == 2)
        (void)*(volatile u16 *)p;
    else if (write)
        *(volatile u32 *)p = 0;
    else
        (void)*(volatile u32 *)p;
    asm volatile("nop");
    return hits == 1;
}

static void data_breakpoints(void)
{
    static const struct {
        u8 code, bytes;
    } lengths[] = {{0, 1},
                   {1, 2},
                   {3, 4},
#ifdef __x86_64__
                   {2, 8}
#endif
    };
    write_dr0((word)&watched[1]);
    for (unsigned l = 0; l < sizeof(lengths) / sizeof(*lengths); l++) {
        for (unsigned type = WRITES; type <= READ_WRITES; type += 2) {
            unsigned wrong = 0;
            write_dr7(enable(0, type, lengths[l].code));
            for (unsigned size = 1; size <= 4; size *= 2)
                for (unsigned offset = 8 - 5; offset < 8 + 12; offset++)
                    for (unsigned write = 0; write < 2; write++) {
                        if (on_tcg() && offset % size)
                            continue; /* it looks at aligned neighbours */
                        bool overlaps = offset + size > 8 && offset < 8u + lengths[l].bytes;
                        bool wanted = overlaps && (write || type == READ_WRITES);
                        wrong += touches(offset, size, write) != wanted;
                    }
            write_dr7(DR7_FIXED);
            check(!wrong, "%s breakpoint of %u bytes", type == WRITES ? "write" : "read or write",
                  lengths[l].bytes);
        }
    }
    write_dr7(enable(0, WRITES, 0));
    start();
    asm volatile("movb $1, %0\n1: nop; movl $1b, rt_at" : "=m"(*(u8 *)&watched[1]));
    equal(hits, 1, "a data breakpoint is a trap");
    equal(hit_ip[0], rt_at, "after the instruction");
    equal(hit_dr6[0], DR6_FIXED | 1, "DR6.B0");
    check(!(hit_flags & FL_RF), "RF is clear in what is saved");
    write_dr7(DR7_FIXED);
    check(!touches(8, 1, true), "disabled, it does not hit");

    write_dr7(enable(0, WRITES, 0));
    start();
    asm volatile("push $1; pop %0" : "=m"(*(word *)&watched[1]));
    equal(hits, 1, "POP to memory");
    start();
    asm volatile("fninit; fld1; fstpl %0; nop" : "=m"(*(double *)&watched[1]));
    equal(hits, 1, "FSTP");
    start();
    asm volatile("lock incb %0; nop" : "+m"(*(u8 *)&watched[1]) : : "cc");
    equal(hits, 1, "LOCK INC");
    write_dr7(DR7_FIXED);

    write_dr3((word)&watched[2]);
    write_dr7(enable(3, WRITES, 0));
    start();
    *(volatile u8 *)&watched[2] = 1;
    asm volatile("nop");
    equal(hit_dr6[0], DR6_FIXED | 8, "DR6.B3 for DR3");
    /* Global enable works as local. */
    write_dr7(DR7_FIXED | 0x80 | (word)WRITES << 28);
    start();
    *(volatile u8 *)&watched[2] = 1;
    asm volatile("nop");
    equal(hits, 1, "G3 enables, too");
    write_dr7(enable(3, WRITES, 0));
    start();
    u8 *p = (u8 *)&watched[2] - 2;
    word n = 5;
    asm volatile("rep stosb; nop" : "+D"(p), "+c"(n) : "a"(0) : "memory");
    equal(hits, 1, "REP STOSB hits once");
    write_dr7(DR7_FIXED);
    equal(n, 0, "and goes on");
    write_dr7(enable(3, WRITES, 0));
    start();
    asm volatile("mov %%ss, %%eax; mov %%eax, %%ss; movb $0, %0; nop" : "=m"(watched[2]) : : "eax");
    equal(hits, 1, "a hit on the instruction after MOV SS");
    write_dr7(DR7_FIXED);

    /* A register that is not enabled, with its address in a page that another one watches. */
    write_dr7(enable(3, WRITES, 0) | WRITES << 16);
    *(volatile u8 *)&watched[1] = 1;
    stepped("nop");
    equal(hit_dr6[0], DR6_FIXED | DR6_BS,
          "a disabled breakpoint met before is not in DR6 of a step");
    write_cr4(read_cr4() | CR4_DE);
    write_dr0(0x80);
    write_dr7(DR7_FIXED | IO << 16);
    outb(0x80, 1);
    stepped("nop");
    equal(hit_dr6[0], DR6_FIXED | DR6_BS, "nor is one on a port");
    write_cr4(read_cr4() & ~CR4_DE);
    write_dr7(DR7_FIXED);
}

static void instruction_breakpoints(void)
{
    extern u8 here[];
    resume_flag = true;
    write_dr1((word)here);
    write_dr7(enable(1, EXECUTE, 0));
    start();
    unsigned ran = 0;
    asm volatile("jmp here; .globl here; here: inc %0; nop" : "+r"(ran));
    equal(hits, 1, "an instruction breakpoint hits once with RF set by the handler");
    equal(hit_ip[0], (word)here, "it is a fault");
    equal(hit_dr6[0], DR6_FIXED | 2, "DR6.B1");
    check(!(hit_flags & FL_RF), "RF is clear in what is saved");
    equal(ran, 1, "the instruction runs");
    equal(dr7_in_handler & 0x2000, 0, "DR7.GD is clear in the handler");
    resume_flag = false;
    write_dr7(DR7_FIXED);

    /* A fault saves RF set; a software interrupt saves it clear. */
    const struct trap *t = TRAP(asm volatile("ud2"));
    tcg_differs("RF is not set by faults");
    check(t->f.flags & FL_RF, "a fault saves RF set");
    t = TRAP(asm volatile("int $0x70"));
    check(!(t->f.flags & FL_RF), "INT n saves RF clear");
    equal(read_flags() & FL_RF, 0, "PUSHF pushes RF clear");
}

static void io_breakpoints(void)
{
    write_cr4(read_cr4() | CR4_DE);
    write_dr2(0x80);
    write_dr7(enable(2, IO, 0));
    start();
    outb(0x80, 1);
    asm volatile("nop");
    equal(hits, 1, "an I/O breakpoint on OUT");
    equal(hit_dr6[0], DR6_FIXED | 4, "DR6.B2");
    start();
    (void)inb(0x80);
    asm volatile("nop");
    equal(hits, 1, "and on IN");
    start();
    (void)inb(0x81);
    asm volatile("nop");
    equal(hits, 0, "not on the next port");
    write_dr7(DR7_FIXED);
    faults(UD, 0, asm volatile(AT "mov %%dr4, %%" AX : : : "eax"), "DR4 with CR4.DE");
    write_cr4(read_cr4() & ~CR4_DE);
    word dr4;
    asm volatile("mov %%dr4, %0" : "=r"(dr4));
    equal(dr4, read_dr6(), "DR4 is DR6 without CR4.DE");
}

static void registers(void)
{
    rt_handler[DB] = NULL;
    write_dr7(DR7_FIXED | DR7_GD);
    tcg_differs("no general detect");
    faults(DB, 0, asm volatile("mov %%dr0, %%" AX : : : "eax"), "DR7.GD: MOV from DR0");
    tcg_differs("no general detect");
    equal(read_dr6() & DR6_BD, DR6_BD, "DR6.BD, and GD is clear again");
    tcg_differs("no general detect");
    equal(read_dr7(), DR7_FIXED, "DR7 after it");
    write_dr6(0);
    equal(read_dr6(), DR6_FIXED, "DR6: fixed bits");
    write_dr6(0xFFFFFFFF);
    equal(read_dr6() & 0xFFFFEFFF, 0xFFFFEFFF, "DR6: all that can be set");
    write_dr6(DR6_FIXED);
    write_dr7(0);
    equal(read_dr7(), DR7_FIXED, "DR7: bit 10 is 1");
    write_dr0(0x12345678);
    equal(read_dr0(), 0x12345678, "DR0 keeps its value");
    write_dr0(0);
#ifdef __x86_64__
    tcg_differs("the upper half is ignored");
    faults(GP, 0, write_dr6(1ul << 32), "the upper half of DR6");
    tcg_differs("the upper half is ignored");
    faults(GP, 0, write_dr7(1ul << 32), "the upper half of DR7");
    runs(write_dr0(1ul << 63), "DR0 takes any value");
    write_dr0(0);
#endif
    rt_handler[DB] = note;
}

void test(void)
{
    rt_handler[DB] = note;
    rt_handler[0x70] = count_int;
    single_step();
    stepping_user_code();
    icebp();
    data_breakpoints();
    rt_handler[0x70] = NULL;
    instruction_breakpoints();
    io_breakpoints();
    registers();
}
