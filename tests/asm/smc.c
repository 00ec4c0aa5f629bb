/*
 * Code that is written: by itself, through another address, across pages, by page tables, and the
 * instruction right after the store (SDM volume 3, 8.1.3, 11.6). 64-bit.
 */
#include "rt/paging.h"
#include "rt/rt.h"

#define BASE  0x40000000ul
#define ALIAS 0x50000000ul

static struct space space;
static u8 *page[2];

typedef u32 function(void);

/* MOV EAX, value; RET at P. */
static void put(u8 *p, u32 value)
{
    p[0] = 0xB8;
    memcpy(p + 1, &value, 4);
    p[5] = 0xC3;
    asm volatile("" : : : "memory");
}

static u32 call(word va)
{
    return ((function *)va)();
}

static void direct(void)
{
    u8 *p = page[0] + 16;
    unsigned wrong = 0;
    for (u32 i = 0; i < 200; i++) {
        put(p, i);
        wrong += call((word)p) != i;
    }
    check(!wrong, "code rewritten before each call");
    put(p, 1);
    (void)call((word)p);
    for (u32 i = 0; i < 200; i++) {
        p[1] = (u8)i;
        wrong += call((word)p) != i;
    }
    check(!wrong, "one byte of an immediate rewritten");
    p = page[0] + 64;
    for (u32 i = 0; i < 2000; i++) /* long enough to be translated, if that is what happens */
        (void)call((word)page[0] + 16);
    put(page[0] + 16, 77);
    equal(call((word)page[0] + 16), 77, "code that has run often");
    memset(page[1], 0x90, PAGE);
    put(page[1] + 1000, 0);
    for (u32 i = 0; i < 100; i++) {
        memcpy(page[1] + 1001, &i, 4); /* a write in the middle of a long straight block */
        wrong += call((word)page[1]) != i;
    }
    check(!wrong, "the end of a long run of code");
    asm volatile("rep stosb" : : "D"(page[1] + 500), "c"(4ul), "a"(0x90) : "memory");
    equal(call((word)page[1]), 99, "written by a string instruction, to the same");
}

/* The store and what it changes are in one straight run: the change counts at once. */
static void next_instruction(void)
{
    static const u8 code[] = {
        0xC6, 0x05, 1, 0, 0, 0, 7, /* movb $7, 1(%rip): the immediate of the next */
        0xB8, 1,    0, 0, 0,       /* mov $1, %eax */
        0xC3,
    };
    u8 *p = page[0] + 256;
    memcpy(p, code, sizeof(code));
    equal(call((word)p), 7, "a store to the next instruction");
    memcpy(p, code, sizeof(code));
    equal(call((word)p), 7, "and again, with the code known");
    /* A loop that counts by changing its own increment: add $imm8, %eax. */
    static const u8 loop[] = {
        0x31, 0xC0,                         /* xor %eax, %eax */
        0xB9, 10,   0,    0,    0,          /* mov $10, %ecx */
        0x83, 0xC0, 0,                      /* 1: add $0, %eax */
        0xFE, 0x05, 0xF9, 0xFF, 0xFF, 0xFF, /* incb -7(%rip): that 0 */
        0xFF, 0xC9,                         /* dec %ecx */
        0x75, 0xF3,                         /* jnz 1b */
        0xC3,
    };
    memcpy(p, loop, sizeof(loop));
    equal(call((word)p), 45, "a loop that changes its own body");
    /* REP MOVSB over itself: what it overwrites runs as overwritten. */
    static const u8 copier[] = {
        0xF3, 0xA4,          /* rep movsb */
        0xB8, 1,    0, 0, 0, /* mov $1, %eax */
        0xC3,
    };
    static const u8 replacement[] = {0xB8, 9, 0, 0, 0};
    memcpy(p, copier, sizeof(copier));
    u32 result;
    word di = (word)p + 2, si = (word)replacement, count = sizeof(replacement);
    asm volatile("call *%4" : "=a"(result), "+D"(di), "+S"(si), "+c"(count) : "r"(p) : "memory");
    equal(result, 9, "REP MOVSB onto the instruction after it");
}

static void aliases(void)
{
    put(page[0], 1);
    equal(call(BASE), 1, "through the first mapping");
    put((u8 *)ALIAS, 2);
    equal(call(BASE), 2, "written through the second");
    put((u8 *)BASE, 3);
    equal(call(ALIAS), 3, "written through the first, run through the second");
    *(volatile u8 *)(ALIAS + 1) = 4;
    equal(call(BASE), 4, "one byte");
    put(page[1], 5);
    map(&space, BASE, (word)page[1], 1, PT_P | PT_W);
    invlpg((void *)BASE);
    equal(call(BASE), 5, "another page put in its place");
    map(&space, BASE, (word)page[0], 1, PT_P | PT_W);
    write_cr3(read_cr3());
    equal(call(BASE), 4, "and back, with CR3");
}

static void crossing(void)
{
    map(&space, BASE + PAGE, (word)page[1], 1, PT_P | PT_W);
    invlpg((void *)(BASE + PAGE));
    word edge = BASE + PAGE;
    u8 *code = (u8 *)(edge - 3); /* MOV EAX, imm32 with three bytes here and the rest there */
    put(code, 0x11223344);
    equal(call(edge - 3), 0x11223344, "an instruction across two pages");
    page[1][0] = 0x99;
    equal(call(edge - 3), 0x11993344, "its second page written");
    page[0][PAGE - 2] = 0x88;
    equal(call(edge - 3), 0x11993388, "its first page written");
    u8 *other = alloc_pages(1, PAGE);
    memcpy(other, page[1], 16);
    other[0] = 0x55;
    map(&space, edge, (word)other, 1, PT_P | PT_W);
    invlpg((void *)edge);
    equal(call(edge - 3), 0x11553388, "its second page replaced");
    map(&space, edge, 0, 1, 0);
    invlpg((void *)edge);
    page_faults(edge, PFE_I, (void)call(edge - 3), "its second page taken away");
}

/* Code that runs with the store's page read-only for it must still be noticed when written with WP
 * off; and by a store that crosses into it. */
static void odd_writers(void)
{
    put(page[0], 1);
    (void)call(BASE);
    map(&space, ALIAS, (word)page[0], 1, PT_P);
    invlpg((void *)ALIAS);
    word cr0 = read_cr0();
    write_cr0(cr0 & ~CR0_WP);
    *(volatile u8 *)(ALIAS + 1) = 2;
    write_cr0(cr0);
    equal(call(BASE), 2, "written through a read-only mapping without WP");
    u8 *before = alloc_pages(1, PAGE);
    map(&space, ALIAS - PAGE, (word)before, 1, PT_P | PT_W);
    map(&space, ALIAS, (word)page[0], 1, PT_P | PT_W);
    invlpg((void *)ALIAS);
    put(page[0], 3);
    (void)call(BASE);
    *(volatile u64 *)(ALIAS - 6) = 0x04B8000000000000; /* its last two bytes land on the code */
    equal(call(BASE), 4, "written by a store from the page before");
    put(page[0], 5);
    (void)call(BASE);
    asm volatile("lock xaddb %0, %1" : : "q"((u8)1), "m"(*(u8 *)(ALIAS + 1)) : "memory");
    equal(call(BASE), 6, "written by a locked instruction");
    write_cr4(read_cr4() | CR4_OSFXSR);
    u8 block[16] = {0xB8, 7, 0, 0, 0, 0xC3};
    asm volatile("movups %0, %%xmm0; movups %%xmm0, (%1)" : : "m"(block), "r"(ALIAS) : "memory");
    equal(call(BASE), 7, "written by a vector store");
    put(page[0], 8);
    (void)call(BASE);
    word sp;
    asm volatile("mov %%rsp, %0; lea 8(%1), %%rsp; push %2; mov %0, %%rsp"
                 : "=&r"(sp)
                 : "r"(ALIAS), "r"(0xC300000009B8ul)
                 : "memory");
    equal(call(BASE), 9, "written by PUSH");
}

void test(void)
{
    page[0] = alloc_pages(1, PAGE);
    (void)alloc_pages(1, PAGE);
    page[1] = alloc_pages(1, PAGE);
    space_init(&space, PAGING_4LEVEL);
    map(&space, BASE, (word)page[0], 1, PT_P | PT_W);
    map(&space, ALIAS, (word)page[0], 1, PT_P | PT_W);
    space_enter(&space);
    direct();
    next_instruction();
    aliases();
    crossing();
    map(&space, BASE, (word)page[0], 1, PT_P | PT_W);
    invlpg((void *)BASE);
    odd_writers();
    space_leave();
}
