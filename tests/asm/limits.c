/*
 * Segment limits in 32-bit protected mode: for every access size, up and down, data, stack and code
 * (SDM volume 3, 5.3). QEMU's translator does not check limits, so only what runs is checked there.
 */
#include "rt/rt.h"

enum {
    UP = SPARE,              /* limit 0FFFh */
    UP_PAGES = SPARE + 8,    /* limit 1 page: 0FFFh */
    DOWN_BIG = SPARE + 16,   /* 1000h to FFFFFFFFh */
    DOWN_SMALL = SPARE + 24, /* 1000h to FFFFh */
    BYTE = SPARE + 32,       /* limit 0 */
    CODE_SHORT = SPARE + 40,
    STACK = SPARE + 48,
    STACK_DOWN = SPARE + 56,
};

static u8 *memory; /* 128 KiB, the base of all the segments */

/* Reads or writes SIZE bytes (1, 2, 4, 8 or 10) at FS:OFFSET. */
static void touch(unsigned selector, word offset, unsigned size, bool write)
{
    LOAD_SEGMENT("fs", selector);
    if (size == 1 && !write)
        asm volatile(AT "movb %%fs:(%0), %%al" : : "r"(offset) : "eax");
    else if (size == 1)
        asm volatile(AT "movb %%al, %%fs:(%0)" : : "r"(offset) : "memory");
    else if (size == 2 && !write)
        asm volatile(AT "movw %%fs:(%0), %%ax" : : "r"(offset) : "eax");
    else if (size == 2)
        asm volatile(AT "movw %%ax, %%fs:(%0)" : : "r"(offset) : "memory");
    else if (size == 4 && !write)
        asm volatile(AT "movl %%fs:(%0), %%eax" : : "r"(offset) : "eax");
    else if (size == 4)
        asm volatile(AT "movl %%eax, %%fs:(%0)" : : "r"(offset) : "memory");
    else if (size == 8)
        asm volatile("fninit; fld1\n" AT "fstpl %%fs:(%0)" : : "r"(offset) : "memory");
    else
        asm volatile("fninit; fld1\n" AT "fstpt %%fs:(%0)" : : "r"(offset) : "memory");
}

/* Whether an access of SIZE bytes at OFFSET lies in the segment from FIRST to LAST. */
static void around(unsigned selector, const char *name, word first, word last)
{
    static const u8 sizes[] = {1, 2, 4, 8, 10};
    word edges[2] = {first, last};
    unsigned wrong = 0;
    for (unsigned i = 0; i < sizeof(sizes) * 2 * 2 * 24; i++) {
        unsigned size = sizes[i % 5];
        bool write = i / 5 % 2;
        word offset = edges[i / 10 % 2] + i / 20 - 12;
        u64 end = (u64)offset + size - 1;
        if (end > 0x1FFFF || offset > 0x1FFFF)
            continue;
        bool inside = offset >= first && offset <= last && end <= last;
        const struct trap *t = TRAP(touch(selector, offset, size, write));
        if (inside ? t->f.vector == NO_TRAP : on_tcg() || (t->f.vector == GP && !t->f.error))
            continue;
        if (!wrong++)
            print("# offset %lx size %u: vector %ld error %lx\n", offset, size, t->f.vector,
                  t->f.error);
    }
    check(!wrong, "%s: %lx to %lx", name, first, last);
}

static void data(void)
{
    around(UP, "byte granular", 0, 0xFFF);
    around(UP_PAGES, "page granular", 0, 0x1FFF);
    around(BYTE, "one byte", 0, 0);
    around(DOWN_BIG, "expand-down, big", 0x1000, 0xFFFFFFFF);
    around(DOWN_SMALL, "expand-down, 64K", 0x1000, 0xFFFF);
}

/* The stack: at level 3, so that the handler has a good one. */
#define ON_STACK(name, selector, sp, text)                                                         \
    USER_CODE static word name(word arg)                                                           \
    {                                                                                              \
        asm volatile("mov %%esp, %%edi; mov %w0, %%ss; mov %1, %%esp\n" USER_AT text               \
                     "\nmov %w2, %%ss; mov %%edi, %%esp"                                           \
                     :                                                                             \
                     : "r"((selector) | 3), "r"(sp), "r"(UDATA | 3)                                \
                     : "eax", "ecx", "edi", "memory");                                             \
        return 0;                                                                                  \
    }
ON_STACK(push_end, STACK, 0x1002, "push %%eax")
ON_STACK(push_zero, STACK, 2, "push %%eax")
ON_STACK(pop_end, STACK, 0xFFE, "pop %%eax")
ON_STACK(call_end, STACK, 0x1004, "call 2f; 2:")
ON_STACK(ret_end, STACK, 0xFFD, "ret")
ON_STACK(pusha_zero, STACK, 0x10, "pusha")
ON_STACK(load_end, STACK, 0xFF0, "movl 16(%%esp), %%eax")
ON_STACK(push_down, STACK_DOWN, 0x1002, "push %%eax")
ON_STACK(push_last, STACK, 0x1000, "push %%eax")
ON_STACK(push_first, STACK, 4, "push %%eax")
ON_STACK(push_down_first, STACK_DOWN, 0x1004, "push %%eax")

static void stack(void)
{
    user_runs(push_last, 0, "PUSH just below the limit");
    user_runs(push_first, 0, "PUSH to offset 0");
    user_runs(push_down_first, 0, "PUSH just above an expand-down limit");
    if (on_tcg()) {
        skip("no limits", "stack limits");
        return;
    }
    user_faults(SS, 0, push_end, 0, "PUSH across the limit");
    user_faults(SS, 0, push_zero, 0, "PUSH across zero");
    user_faults(SS, 0, pop_end, 0, "POP across the limit");
    user_faults(SS, 0, call_end, 0, "CALL across the limit");
    user_faults(SS, 0, ret_end, 0, "RET across the limit");
    user_faults(SS, 0, pusha_zero, 0, "PUSHA across zero");
    user_faults(SS, 0, load_end, 0, "load by ESP");
    user_faults(SS, 0, push_down, 0, "PUSH below an expand-down stack");
}

/* Code copied to where a segment ends: NOPs up to the limit. */
static void code(void)
{
    struct {
        u32 offset;
        u16 selector;
    } __attribute__((packed)) target = {0xFF0, CODE_SHORT};
    memset(memory, 0x90, 0x2000);
    struct trap *t;
    if (on_tcg()) {
        skip("no limits", "code");
        return;
    }
    t = TRAP(asm volatile("ljmp *%0" : : "m"(target)));
    rt_trapped(t, GP, 0, "running past the limit");
    check(t->f.cs == CODE_SHORT && t->f.ip == 0x1000, "at the first byte outside");
    memory[0xFFE] = 0xB8; /* MOV EAX, imm32 */
    t = TRAP(asm volatile("ljmp *%0" : : "m"(target)));
    rt_trapped(t, GP, 0, "an instruction across the limit");
    equal(t->f.ip, 0xFFE, "at its first byte");
    static const u8 jump[] = {0xE9, 0x0B, 0, 0, 0}; /* to FF0h + 5 + 11 */
    memcpy(memory + 0xFF0, jump, sizeof(jump));
    t = TRAP(asm volatile("ljmp *%0" : : "m"(target)));
    rt_trapped(t, GP, 0, "JMP to just beyond the limit");
    equal(t->f.ip, 0xFF0, "at the JMP");
    memory[0xFF0] = 0xE8;
    t = TRAP(asm volatile("ljmp *%0" : : "m"(target)));
    rt_trapped(t, GP, 0, "CALL to just beyond the limit");
    equal(t->f.ip, 0xFF0, "at the CALL");
}

void test(void)
{
    memory = alloc_pages(32, PAGE);
    u32 base = (u32)memory, big = SEG_BIG;
    rt_gdt[UP / 8] = descriptor(base, 0xFFF, SEG_DATA | big);
    rt_gdt[UP_PAGES / 8] = descriptor(base, 1, SEG_DATA | big | SEG_PAGES);
    rt_gdt[DOWN_BIG / 8] = descriptor(base, 0, SEG_DATA | 4 | big | SEG_PAGES);
    rt_gdt[DOWN_SMALL / 8] = descriptor(base, 0xFFF, SEG_DATA | 4);
    rt_gdt[BYTE / 8] = descriptor(base, 0, SEG_DATA | big);
    rt_gdt[CODE_SHORT / 8] = descriptor(base, 0xFFF, SEG_CODE | big);
    rt_gdt[STACK / 8] = descriptor(base, 0xFFF, SEG_DATA | SEG_DPL3 | big);
    rt_gdt[STACK_DOWN / 8] = descriptor(base, 0xFFF, SEG_DATA | SEG_DPL3 | 4 | big);
    data();
    stack();
    code();
}
