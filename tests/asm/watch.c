/*
 * Breakpoints beside code that runs often: each must be met as soon as it is armed and never after,
 * in whatever way the access or the jump to it comes, and whatever was remembered about its page
 * while it was not (SDM volume 3, 18.2). Where debug.c asks what one breakpoint does, this one asks
 * whether any way leads past it.
 */
#include "rt/paging.h"
#include "rt/rt.h"

#define DR6_FIXED 0xFFFF0FF0ul
#define DR7_FIXED 0x400ul
#define OFTEN     200 /* until code has been translated, and then some */

enum { EXECUTE, WRITES, IO, READ_WRITES };
/* Register 0. LENGTH 0, 1, 3, 2 for 1, 2, 4, 8 bytes. */
#define ARMED(type, length) (DR7_FIXED | 1 | (word)(type | length << 2) << 16)

static volatile unsigned hits;
static volatile word hit_ip, hit_cx, hit_dr6;
static bool resume_flag;

static void note(struct frame *f)
{
    hits++;
    hit_ip = f->ip;
    hit_cx = f->cx;
    hit_dr6 = read_dr6();
    write_dr6(DR6_FIXED);
    if (resume_flag)
        f->flags |= FL_RF;
}

static void arm(const volatile void *at, word dr7)
{
    hits = 0;
    write_dr0((word)at);
    write_dr7(dr7);
}

static void disarm(void)
{
    write_dr7(DR7_FIXED);
}

/* Two pages, mapped a second time in another place. */
#define ALIAS   0x40000000ul
#define ALIAS_P ((volatile u32 *)ALIAS)
static volatile u32 *data;
#define WORDS (PAGE / 4)

/* --- Data ------------------------------------------------------------------------------------ */

/* Writes LAST, LAST - 1, ... 1 to P[LAST], ... P[1]. */
__attribute__((noinline)) static void write_down(volatile u32 *p, word last)
{
    asm volatile("1: mov %k1, (%0, %1, 4)\n"
                 "watch_after: dec %1\n"
                 "jnz 1b"
                 : "+r"(p), "+c"(last)
                 :
                 : "memory", "cc");
}
extern u8 watch_after[];

/* Three accesses that lie close together, of which the last is a read of P[2]. */
__attribute__((noinline, noclone)) static u32 close_together(volatile u32 *p)
{
    u32 value;
    asm volatile("mov %k1, (%1); mov %k1, 4(%1); mov 8(%1), %0" : "=&r"(value) : "r"(p) : "memory");
    return value;
}

static void accesses(void)
{
    for (unsigned i = 0; i < OFTEN; i++)
        write_down(data, 100);
    arm(&data[40], ARMED(WRITES, 3));
    write_down(data, 100);
    equal(hits, 1, "a write in a loop");
    equal(hit_ip, (word)watch_after, "#DB comes after it");
    equal(hit_cx, 40, "in the iteration that writes there");
    equal(hit_dr6, DR6_FIXED | 1, "DR6");
    for (unsigned i = 0; i < OFTEN; i++)
        write_down(data, 100);
    equal(hits, 1 + OFTEN, "each time");
    hits = 0;
    for (unsigned i = 0; i < OFTEN; i++)
        write_down(data + WORDS, 100);
    equal(hits, 0, "not in the next page");
    for (unsigned i = 0; i < OFTEN; i++)
        write_down(data + 40, 100);
    equal(hits, 0, "nor beside it");
    write_down(ALIAS_P, 100);
    equal(hits, 0, "nor where the page is mapped, too");
    disarm();
    write_down(data, 100);
    equal(hits, 0, "not when disarmed");
    for (unsigned i = 0; i < OFTEN; i++) {
        arm(&data[i % 100 + 1], ARMED(WRITES, 3));
        write_down(data, 100);
        if (hits != 1 || hit_cx != i % 100 + 1)
            break;
        disarm();
        write_down(data, 100);
    }
    equal(hits, 1, "armed and disarmed in turn");
    disarm();
    arm(&ALIAS_P[7], ARMED(READ_WRITES, 3));
    write_down(data, 100);
    equal(hits, 0, "by another address of the page");
    write_down(ALIAS_P, 100);
    equal(hits, 1, "by its own");
    disarm();
}

static void access_kinds(void)
{
    for (unsigned i = 0; i < OFTEN; i++)
        (void)close_together(data + 20);
    arm(&data[22], ARMED(READ_WRITES, 3));
    for (unsigned i = 0; i < OFTEN; i++)
        (void)close_together(data + 20);
    equal(hits, OFTEN, "the last of accesses that share a check");
    for (unsigned i = hits = 0; i < OFTEN; i++)
        (void)close_together(data + 22);
    equal(hits, OFTEN, "the first of them");
    for (unsigned i = hits = 0; i < OFTEN; i++)
        (void)close_together(data + 24);
    equal(hits, 0, "none of them");
    disarm();

    word n, di = 0;
    for (unsigned i = 0; i < OFTEN + 1; i++) {
        if (i == OFTEN)
            arm(&data[WORDS + 5], ARMED(WRITES, 3));
        n = WORDS + 100;
        di = (word)data;
        asm volatile("rep stosl\n watch_stos: nop" : "+c"(n), "+D"(di) : "a"(5) : "memory");
    }
    extern u8 watch_stos[];
    equal(hits, 1, "REP STOS over two pages");
    check(n == 0 && di == (word)(data + WORDS + 100), "goes on");
    check(hit_ip != (word)watch_stos && hit_cx == 94, "#DB comes in the middle: %lu left", hit_cx);
    disarm();

    volatile u32 *stack = data + 2 * WORDS - 8;
    for (unsigned i = 0; i < OFTEN + 1; i++) {
        if (i == OFTEN)
            arm(stack - sizeof(word) / 4, ARMED(WRITES, 3));
        asm volatile("mov %%esp, %%edx; mov %0, %%esp; call 1f; jmp 2f; 1: ret\n"
                     "2: mov %%edx, %%esp"
                     :
                     : "r"((u32)(word)stack)
                     : "edx", "memory");
    }
    equal(hits, 1, "CALL pushes there");
    disarm();
    u8 *across = (u8 *)(data + WORDS) - 2;
    for (unsigned i = 0; i < OFTEN + 1; i++) {
        if (i == OFTEN)
            arm(across + 2, ARMED(WRITES, 0));
        asm volatile("lock incl %0" : "+m"(*(volatile u16 *)across) : : "cc");
    }
    equal(hits, 1, "a locked access across pages, whose second half is watched");
    disarm();
}

/* --- Code ------------------------------------------------------------------------------------ */

/* A page of code: a loop that is left for `coded_end` by a jump within the page, and a function. */
asm(".pushsection .text\n"
    ".balign 4096\n"
    "coded: jmp 1f\n"
    "1: nop\n"
    "coded_loop: dec %ecx\n"
    "coded_inside: nop\n"
    "    jnz coded_loop\n"
    "    jmp coded_end\n"
    "    ud2\n"
    "coded_end: nop\n"
    "    ret\n"
    ".balign 4096\n"
    "coded_beyond: jmp coded_end\n"
    ".balign 4096\n"
    ".popsection");
extern u8 coded[], coded_loop[], coded_inside[], coded_end[], coded_beyond[];

static void run_coded(void *entry, word n)
{
    asm volatile("call *%1" : "+c"(n) : "r"(entry) : "memory", "cc");
}

static void code(void)
{
    static u8 *const place[] = {coded, coded_loop, coded_inside, coded_end};
    static const u8 wanted[] = {1, 5, 5, 1};

    resume_flag = true;
    for (unsigned i = 0; i < OFTEN; i++)
        run_coded(coded, 5);
    for (unsigned i = 0; i < 4; i++) {
        arm(place[i], ARMED(EXECUTE, 0));
        run_coded(coded, 5);
        equal(hits, wanted[i], "breakpoint %u in code that has run often", i);
        equal(hit_ip, (word)place[i], "where it is");
        for (unsigned j = hits = 0; j < OFTEN; j++)
            run_coded(coded, 5);
        equal(hits, OFTEN * wanted[i], "each time");
        disarm();
        for (unsigned j = hits = 0; j < OFTEN; j++)
            run_coded(coded, 5);
        equal(hits, 0, "and not when disarmed");
    }
    arm(coded_end, ARMED(EXECUTE, 0));
    for (unsigned i = 0; i < OFTEN; i++)
        run_coded(coded_beyond, 5);
    equal(hits, OFTEN, "a jump out of another page");
    arm(coded_end + 0x1000, ARMED(EXECUTE, 0));
    run_coded(coded, 5);
    equal(hits, 0, "nothing at another address");
    disarm();

    /* Code that arms a breakpoint in front of itself. */
    for (unsigned i = 0; i < OFTEN; i++) {
        extern u8 watch_self[];
        hits = 0;
        write_dr0((word)watch_self);
        asm volatile("mov %0, %%dr7; jmp 1f; 1: nop; watch_self: nop; mov %1, %%dr7"
                     :
                     : "r"(i % 2 ? ARMED(EXECUTE, 0) : DR7_FIXED), "r"(DR7_FIXED));
        if (hits != i % 2)
            break;
    }
    equal(hits, 1, "code that arms a breakpoint in its own page");
    resume_flag = false;
}

/* The page of `coded` by another address. */
static void code_elsewhere(void)
{
    resume_flag = true;
    void *other = (void *)(ALIAS + 2 * PAGE);
    for (unsigned i = 0; i < OFTEN; i++) {
        run_coded(coded, 5);
        run_coded(other, 5);
    }
    arm((u8 *)other + (coded_inside - coded), ARMED(EXECUTE, 0));
    for (unsigned i = 0; i < OFTEN; i++)
        run_coded(coded, 5);
    equal(hits, 0, "code by one address, breakpoint by another");
    for (unsigned i = 0; i < OFTEN; i++)
        run_coded(other, 5);
    equal(hits, 5 * OFTEN, "and by that");
    disarm();
    resume_flag = false;
}

/* --- Level 3 --------------------------------------------------------------------------------- */

USER_DATA static volatile u32 user_data[64] = {0};
USER_CODE static word u_loop(word n)
{
    word sum = 0;
    for (word i = 0; i < n; i++) {
        user_data[i % 64] = (u32)i;
        asm volatile("" : : : "memory");
        sum += user_data[i % 64];
    }
    return sum;
}

USER_CODE static word u_nothing(word arg)
{
    asm volatile("nop; nop");
    return arg;
}

/* The kernel handles the trap, and returns to level 3 with IRET, RF set where the handler says so.
 */
static void level_3(void)
{
    (void)user(u_loop, 640);
    arm(&user_data[9], ARMED(WRITES, 3));
    for (unsigned i = 0; i < 20; i++)
        (void)user(u_loop, 640);
    equal(hits, 200, "a data breakpoint at level 3");
    arm((void *)u_nothing, ARMED(EXECUTE, 0));
    resume_flag = true;
    for (unsigned i = 0; i < OFTEN; i++)
        (void)user(u_nothing, 0);
    equal(hits, OFTEN, "an instruction breakpoint at level 3, resumed by RF");
    resume_flag = false;
    disarm();
}

static void ports(void)
{
    u8 buffer[4];
    write_cr4(read_cr4() | CR4_DE);
    for (unsigned i = 0; i < OFTEN; i++)
        outb(0x80, 1);
    arm((void *)0x80, ARMED(IO, 0));
    for (unsigned i = 0; i < OFTEN; i++) {
        outb(0x80, 1);
        outb(0x81, 1);
        (void)inb(0x80);
        (void)inb(0x82);
    }
    equal(hits, 2 * OFTEN, "ports");
    word n = 4, to = (word)buffer;
    hits = 0;
    asm volatile("rep insb" : "+c"(n), "+D"(to) : "d"(0x80) : "memory");
    check(hits == 4 && !n, "REP INS: %u hits", hits);
    disarm();
    write_cr4(read_cr4() & ~CR4_DE);
}

void test(void)
{
    static struct space s;
#ifdef __x86_64__
    space_init(&s, PAGING_4LEVEL);
#else
    space_init(&s, PAGING_32);
#endif
    data = alloc_pages(2, PAGE);
    for (unsigned i = 0; i < 2; i++)
        map(&s, ALIAS + i * PAGE, (word)data + i * PAGE, 1, PT_P | PT_W);
    map(&s, ALIAS + 2 * PAGE, (word)coded, 1, PT_P | PT_W);
    space_enter(&s);
    rt_handler[DB] = note;
    write_dr6(DR6_FIXED);
    accesses();
    access_kinds();
    code();
    code_elsewhere();
    level_3();
    ports();
    space_leave();
}
