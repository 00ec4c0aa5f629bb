/*
 * String instructions: registers after a fault in the middle, direction, widths of operands and
 * addresses, overlaps, page-crossing, and I/O strings (SDM volume 1, 7.3.9; volume 2, REP). Built
 * for 32-bit and 64-bit mode.
 */
#include "rt/paging.h"
#include "rt/rt.h"

#define BASE 0x40000000ul
#define EDGE (BASE + PAGE)

static struct space space;
static u8 *first, *second;

#ifdef __x86_64__
#define SI "rsi"
#define DI "rdi"
#else
#define SI "esi"
#define DI "edi"
#endif

struct regs {
    word c, si, di, ax;
};

static struct regs r; /* in and out */

/* Runs one string instruction on `r`, which holds the registers at the trap if there is one. */
#define STRING(text)                                                                               \
    ({                                                                                             \
        const struct trap *t = TRAP(asm volatile(text : "+c"(r.c), "+S"(r.si), "+D"(r.di),         \
                                                 "+a"(r.ax) : : "edx", "memory", "cc"));           \
        if (t->f.vector != NO_TRAP)                                                                \
            r = (struct regs){t->f.cx, t->f.si, t->f.di, t->f.ax};                                 \
        asm volatile("cld");                                                                       \
        t;                                                                                         \
    })

static void set(word c, word si, word di, word ax)
{
    r = (struct regs){c, si, di, ax};
}

static void is(word c, word si, word di, const char *name)
{
    check(r.c == c && r.si == si && r.di == di, "%s: CX %lx SI %lx DI %lx", name, r.c, r.si, r.di);
}

static void second_page(u64 bits)
{
    entry_write(&space, EDGE, 1, (word)second | bits);
    invlpg((void *)EDGE);
}

static void fill(void)
{
    for (unsigned i = 0; i < PAGE; i++) {
        first[i] = (u8)i;
        second[i] = (u8)(i * 7);
    }
}

static void restartable(void)
{
    static u8 other[256];
    fill();
    second_page(0);
    set(100, (word)other, EDGE - 40, 0);
    rt_page_faulted(STRING(AT "rep movsb"), EDGE, PFE_W, "REP MOVSB into a missing page");
    is(60, (word)other + 40, EDGE, "registers at the fault");
    check(first[PAGE - 1] == 0 && first[PAGE - 41] != 0, "what came before was stored");
    second_page(PT_P | PT_W);
    STRING(AT "rep movsb");
    is(0, (word)other + 100, EDGE + 60, "registers after it was resumed");

    fill();
    second_page(0);
    set(100, EDGE - 42, (word)other, 0);
    rt_page_faulted(STRING(AT "rep movsl"), EDGE, 0, "REP MOVSD out of a missing page");
    is(90, EDGE - 2, (word)other + 40, "stops before the element that crosses");
    set(100, 0, EDGE - 10, 0x5555);
    rt_page_faulted(STRING(AT "rep stosw"), EDGE, PFE_W, "REP STOSW into a missing page");
    is(95, 0, EDGE, "registers at the fault");
    fill();
    set(100, EDGE - 10, 0, 0);
    rt_page_faulted(STRING(AT "rep lodsb"), EDGE, 0, "REP LODSB out of a missing page");
    is(90, EDGE, 0, "registers at the fault");
    equal(r.ax & 0xFF, (u8)(PAGE - 1), "AL holds the last byte");
    set(100, 0, EDGE - 10, 0x77);
    rt_page_faulted(STRING(AT "repne scasb"), EDGE, 0, "REPNE SCASB into a missing page");
    is(90, 0, EDGE, "registers at the fault");
    memcpy(other, first + PAGE - 10, 10);
    set(100, (word)other, EDGE - 10, 0);
    rt_page_faulted(STRING(AT "repe cmpsb"), EDGE, 0, "REPE CMPSB into a missing page");
    is(90, (word)other + 10, EDGE, "registers at the fault");
    second_page(PT_P);
    set(8, EDGE - 8, EDGE - 4, 0);
    rt_page_faulted(STRING(AT "rep movsb"), EDGE, PFE_P | PFE_W, "REP MOVSB into a read-only page");
    is(4, EDGE - 4, EDGE, "registers at the fault");
    second_page(0);
    set(0, EDGE, EDGE, 0);
    rt_trapped(STRING(AT "rep movsb"), NO_TRAP, 0, "a count of 0 touches nothing");
    is(0, EDGE, EDGE, "and changes nothing");
    set(100, (word)other, EDGE - 2, 0);
    rt_page_faulted(STRING(AT "movsl"), EDGE, PFE_W, "MOVSD across the edge");
    is(100, (word)other, EDGE - 2, "changes nothing");
    second_page(PT_P | PT_W);
}

static void backwards(void)
{
    fill();
    entry_write(&space, BASE, 1, 0);
    invlpg((void *)BASE);
    set(20, EDGE + 100, EDGE + 9, 0x1234);
    rt_page_faulted(STRING("std\n" AT "rep stosb"), EDGE - 1, PFE_W,
                    "STD: REP STOSB into a missing page");
    is(10, EDGE + 100, EDGE - 1, "registers at the fault");
    check(second[0] == 0x34 && second[9] == 0x34 && second[10] == 70, "what was stored");
    entry_write(&space, BASE, 1, (word)first | PT_P | PT_W);
    fill();
    set(4, EDGE + 100, EDGE + 50, 0);
    STRING("std\n" AT "rep movsl");
    is(0, EDGE + 84, EDGE + 34, "STD: REP MOVSD");
    check(!memcmp(second + 88, second + 38, 16), "copies downwards");
}

static void set_fs_base(u32 base)
{
    rt_gdt[SPARE / 8 + 1] = descriptor(base, 0xFFFFF, SEG_DATA | SEG_BIG | SEG_PAGES);
    LOAD_SEGMENT("fs", base ? SPARE + 8 : 0);
}

static void semantics(void)
{
    u8 *p = first;
    fill();
    set(15, (word)p, (word)p + 1, 0);
    STRING(AT "rep movsb");
    bool same = true;
    for (unsigned i = 0; i < 16; i++)
        same = same && p[i] == p[0];
    check(same, "an overlapping REP MOVSB replicates its first byte");
    fill();
    set(7, (word)p, (word)p + 2, 0);
    STRING(AT "rep movsl");
    check(p[2] == 0 && p[5] == 3 && p[6] == 2 && p[9] == 7 && p[10] == 6,
          "an overlapping REP MOVSD, two bytes apart");
    fill();
    set(100, 0, (word)p, 20);
    STRING(AT "repne scasb");
    is(79, 0, (word)p + 21, "REPNE SCASB stops after the match");
    set(100, (word)p, (word)p, 0);
    p[50] = 0;
    u8 copy[100];
    memcpy(copy, p, sizeof(copy));
    copy[37]++;
    set(100, (word)copy, (word)p, 0);
    STRING(AT "repe cmpsb");
    is(62, (word)copy + 38, (word)p + 38, "REPE CMPSB stops after the difference");
    bool zero, carry;
    set(0, (word)p, (word)p, 0);
    asm volatile(
        "cmp %%eax, %%eax; stc; sbb %%edx, %%edx; cmp %%eax, %%eax; repe cmpsb; setz %0; setc %1"
        : "=qm"(zero), "=qm"(carry), "+c"(r.c), "+S"(r.si), "+D"(r.di)
        :
        : "edx", "cc");
    check(zero && !carry, "REPE CMPSB of nothing leaves the flags");
    set(3, 0, (word)p, 0x11223344);
    STRING(AT "rep stosw");
    check(p[4] == 0x44 && p[5] == 0x33 && p[6] == 6, "REP STOSW");
    /* Segment overrides work on the source only. */
    fill();
    set_fs_base(16);
    set(2, (word)p, (word)p + 64, 0);
    STRING(AT "rep movsb %%fs:(%%" SI "), %%es:(%%" DI ")");
    check(p[64] == 16 && p[65] == 17, "FS overrides the source");
    set_fs_base(0);
}

#ifdef __x86_64__
static void widths(void)
{
    fill();
    set(0xFFFFFFFF00000003, 0xFFFFFFFF00000000 | (word)first, 0xFFFFFFFF00000000 | (word)second, 0);
    STRING(AT "addr32 rep movsb");
    is(0, (word)first + 3, (word)second + 3, "67h: ECX, ESI, EDI, and the upper halves become 0");
    set(0xFFFFFFFF00000000, 5, 6, 0);
    STRING(AT "addr32 rep movsb");
    equal((u32)r.c, 0, "67h: a count of 0 in ECX");
    set(2, 0, (word)first, 0x1122334455667788);
    STRING(AT "rep stosq");
    equal(*(u64 *)(first + 8), 0x1122334455667788, "REP STOSQ");
    set(1, (word)first, 0, -1ul);
    STRING(AT "lodsl");
    equal(r.ax, 0x55667788, "LODSD clears the upper half");
    set(1, (word)first, 0, -1ul);
    STRING(AT "lodsw");
    equal(r.ax, 0xFFFFFFFFFFFF7788, "LODSW leaves the rest");
}
#else
/* 16-bit addresses wrap SI and DI at 64K and leave their upper halves. */
static void widths(void)
{
    u8 *low = (u8 *)0x20000;
    for (unsigned i = 0; i < 0x10000; i++)
        low[i] = (u8)(i + (i >> 8));
    rt_gdt[SPARE / 8] = descriptor(0x20000, 0xFFFFF, SEG_DATA | SEG_BIG | SEG_PAGES);
    set(0x50004, 0x7FFFE, 0x90100, 0);
    asm volatile("mov %w3, %%es; mov %w3, %%ds; addr16 rep movsb; mov %w4, %%es; mov %w4, %%ds"
                 : "+c"(r.c), "+S"(r.si), "+D"(r.di)
                 : "r"(SPARE), "r"(KDATA)
                 : "memory");
    is(0x50000, 0x70002, 0x90104, "67h: CX, SI, DI count");
    check(low[0x101] == low[0xFFFF] && low[0x102] == low[0], "and SI wraps");
}
#endif

static void ports(void)
{
    fill();
    second_page(0);
    set(8, 0, EDGE - 4, 0);
    rt_page_faulted(STRING("mov $0x80, %%edx\n" AT "rep insb"), EDGE, PFE_W,
                    "REP INSB into a missing page");
    is(4, 0, EDGE, "registers at the fault");
    set(8, EDGE - 4, 0, 0);
    rt_page_faulted(STRING("mov $0x80, %%edx\n" AT "rep outsb"), EDGE, 0,
                    "REP OUTSB out of a missing page");
    is(4, EDGE, 0, "registers at the fault");
    second_page(PT_P | PT_W);
    set(3, EDGE - 1, 0, 0);
    STRING("mov $0x80, %%edx\n" AT "rep outsl");
    is(0, EDGE + 11, 0, "REP OUTSD across the edge");
}

void test(void)
{
    first = alloc_pages(1, PAGE);
    (void)alloc_pages(1, PAGE);
    second = alloc_pages(1, PAGE);
#ifdef __x86_64__
    space_init(&space, PAGING_4LEVEL);
#else
    space_init(&space, PAGING_32);
#endif
    map(&space, BASE, (word)first, 1, PT_P | PT_W);
    map(&space, EDGE, (word)second, 1, PT_P | PT_W);
    space_enter(&space);
    write_cr0(read_cr0() | CR0_WP);
    restartable();
    backwards();
    semantics();
    widths();
    ports();
    space_leave();
}
