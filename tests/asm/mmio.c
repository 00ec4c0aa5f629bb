/*
 * Accesses that are not to RAM, by every kind of instruction: the local APIC's page, and addresses
 * where nothing is, as data, code, stack, descriptor and page tables. Nothing there reads as all
 * ones, as on a PC. 64-bit.
 */
#include "rt/apic.h"
#include "rt/paging.h"
#include "rt/rt.h"

#define NOTHING 0xD0000000ul /* in the device hole of a PC with 64 MiB */
#define TPR     (APIC_BASE + APIC_TPR)

static volatile u32 *const tpr = (volatile u32 *)TPR;

static void device(void)
{
    u32 v;
    asm volatile("movl $0x20, (%0)" : : "r"(TPR) : "memory");
    equal(*tpr, 0x20, "MOV immediate to a register");
    asm volatile("orl $0x10, (%0)" : : "r"(TPR) : "memory", "cc");
    equal(*tpr, 0x30, "OR reads and writes");
    asm volatile("addl $0x10, (%0)" : : "r"(TPR) : "memory", "cc");
    equal(*tpr, 0x40, "ADD");
    asm volatile("lock orl $0x10, (%0)" : : "r"(TPR) : "memory", "cc");
    equal(*tpr, 0x50, "LOCK OR");
    v = 0x60;
    asm volatile("xchgl %0, (%1)" : "+r"(v) : "r"(TPR) : "memory");
    check(v == 0x50 && *tpr == 0x60, "XCHG");
    v = 0x60;
    asm volatile("lock cmpxchgl %2, (%1)" : "+a"(v) : "r"(TPR), "r"(0x70) : "memory", "cc");
    equal(*tpr, 0x70, "CMPXCHG");
    v = 0x10;
    asm volatile("xaddl %0, (%1)" : "+r"(v) : "r"(TPR) : "memory", "cc");
    check(v == 0x70 && *tpr == 0x80, "XADD");
    asm volatile("btrl $7, (%0)" : : "r"(TPR) : "memory", "cc");
    equal(*tpr, 0, "BTR");
    u32 from = 0x90, to = 0;
    const u32 *s = &from;
    u32 *d = (u32 *)TPR;
    asm volatile("movsl" : "+S"(s), "+D"(d) : : "memory");
    equal(*tpr, 0x90, "MOVSD to a register");
    s = (u32 *)TPR;
    d = &to;
    asm volatile("movsl" : "+S"(s), "+D"(d) : : "memory");
    equal(to, 0x90, "MOVSD from a register");
    d = (u32 *)TPR;
    asm volatile("stosl" : "+D"(d) : "a"(0xA0) : "memory");
    equal(*tpr, 0xA0, "STOSD");
    asm volatile("movd %1, %%xmm0; movd %%xmm0, (%0)" : : "r"(TPR), "r"(0xB0) : "memory");
    equal(*tpr, 0xB0, "MOVD from a vector register");
    asm volatile("cmpl $0xB0, (%1); sete %b0" : "=q"(v) : "r"(TPR) : "cc");
    equal(v & 1, 1, "CMP");
    asm volatile("testl $0x40, (%1); sete %b0" : "=q"(v) : "r"(TPR) : "cc");
    equal(v & 1, 1, "TEST");
    *tpr = 0;
}

static void nothing_there(void)
{
    u64 v;
    equal(*(volatile u8 *)NOTHING, 0xFF, "a byte of nothing");
    equal(*(volatile u16 *)(NOTHING + 1), 0xFFFF, "a word, not aligned");
    equal(*(volatile u32 *)NOTHING, 0xFFFFFFFF, "a dword");
    equal(*(volatile u64 *)(NOTHING + PAGE - 3), -1ull, "a qword across pages");
    *(volatile u64 *)NOTHING = 0;
    equal(*(volatile u64 *)NOTHING, -1ull, "writes are lost");
    asm volatile("lock incq (%0)" : : "r"(NOTHING) : "memory", "cc");
    equal(*(volatile u64 *)NOTHING, -1ull, "and locked ones");
    asm volatile("movups (%1), %%xmm1; movq %%xmm1, %0" : "=r"(v) : "r"(NOTHING + 5));
    equal(v, -1ull, "MOVUPS");
    asm volatile("movups %%xmm0, (%0); movaps %%xmm0, (%0)" : : "r"(NOTHING) : "memory");
    asm volatile("fninit; fldl (%0); fstpl (%0)" : : "r"(NOTHING) : "memory");
    asm volatile("fxsave (%0)" : : "r"(NOTHING) : "memory");
    u64 lo = -1ull, hi = -1ull;
    bool same;
    asm volatile("lock cmpxchg16b (%3); setz %0"
                 : "=qm"(same), "+a"(lo), "+d"(hi)
                 : "r"(NOTHING), "b"(0ul), "c"(0ul)
                 : "memory", "cc");
    check(same, "CMPXCHG16B compares with all ones");
    static u8 buffer[2 * PAGE];
    u8 *d = buffer;
    const u8 *s = (u8 *)NOTHING - 100;
    word n = PAGE + 200;
    asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
    check(buffer[0] == 0xFF && buffer[PAGE + 199] == 0xFF && buffer[PAGE + 200] == 0,
          "REP MOVSB out of nothing");
    d = (u8 *)NOTHING;
    n = 3 * PAGE;
    asm volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(0) : "memory");
    equal(n, 0, "REP STOSQ into nothing");
    asm volatile("clflush (%0); prefetcht0 (%0)" : : "r"(NOTHING));
}

static void strange_places(void)
{
    faults(UD, 0, ((void (*)(void))NOTHING)(), "code of nothing: FF FF is no instruction");
    word pushed;
    asm volatile("mov %%rsp, %%rbx; mov %1, %%rsp; push $5; pop %0; mov %%rbx, %%rsp"
                 : "=r"(pushed)
                 : "r"(NOTHING + 64)
                 : "rbx", "memory");
    equal(pushed, -1ul, "a stack of nothing");
    struct dtr gdt = {0xFFFF, NOTHING};
    lgdt(&gdt);
    u32 rights = 0;
    bool ok;
    asm volatile("lar %2, %1; setz %0" : "=qm"(ok), "+r"(rights) : "r"(KDATA) : "cc");
    lgdt(&rt_gdtr);
    check(ok && (rights & 0x00F0FF00) == 0x00F0FF00,
          "a GDT of nothing: all ones are conforming code, level 3");

    struct space s;
    space_init(&s, PAGING_4LEVEL);
    space_enter(&s);
    word va = 0x40000000;
    entry_read(&s, va, 2);
    entry_write(&s, va, 2, NOTHING | PT_P | PT_W);
    const struct trap *t = TRAP((void)*(volatile u8 *)va);
    check(t->f.vector == PF && t->f.error & PFE_RSVD && t->cr2 == va,
          "a page table of nothing: reserved bits are set");
    entry_write(&s, va, 2, 0);
    map(&s, va, NOTHING, 1, PT_P | PT_W);
    invlpg((void *)va);
    equal(*(volatile u32 *)va, 0xFFFFFFFF, "a page of nothing, mapped");
    map(&s, va, 0x3FFFFFF000, 1, PT_P | PT_W);
    invlpg((void *)va);
    equal(*(volatile u32 *)va, 0xFFFFFFFF, "a page beyond RAM");
    map(&s, va, APIC_BASE, 1, PT_P | PT_W);
    invlpg((void *)va);
    equal(*(volatile u32 *)(va + APIC_VERSION) & 0xF0, 0x10, "the APIC at another address");
    space_leave();
}

void test(void)
{
    write_cr4(read_cr4() | CR4_OSFXSR);
    apic_enable();
    device();
    if (on_tcg()) {
        skip("reads as zero there", "addresses of nothing");
        return;
    }
    nothing_there();
    strange_places();
}
