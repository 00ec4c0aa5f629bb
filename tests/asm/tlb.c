/*
 * When a changed page-table entry must take effect: INVLPG, CR3, CR4.PGE, PCIDs and INVPCID, and
 * the accessed and dirty flags of a translation already in use (SDM volume 3, 4.8, 4.10). A
 * processor may always forget a translation, so the tests ask only for what it must not remember.
 */
#include "rt/paging.h"
#include "rt/rt.h"

#define BASE        0x40000000ul
#define BIG         0x50000000ul
#define HUGE        0x8000000000ul
#define APART       (16ul << 20) /* these pages share a place in a first level of 4096 */
#define CROWD       8u
#define WATCH_WRITE 0x10401ul /* DR7: breakpoint 0, writes to one byte */

static struct space space;
static u8 *page[2]; /* each filled with its number + 1 */

static u8 seen(word va)
{
    return *(volatile u8 *)va;
}

static void point_to(word va, unsigned n, u64 bits)
{
    entry_write(&space, va, 1, (word)page[n] | PT_P | PT_W | bits);
}

/* The translation of VA is to page 0 and in use. */
static void use_first(word va, u64 bits)
{
    point_to(va, 0, bits);
    invlpg((void *)va);
    (void)seen(va);
}

static void single(void)
{
    use_first(BASE, 0);
    point_to(BASE, 1, 0);
    invlpg((void *)(BASE + 123));
    equal(seen(BASE), 2, "INVLPG anywhere in the page");

    use_first(BASE, 0);
    point_to(BASE, 1, 0);
    write_cr3(read_cr3());
    equal(seen(BASE), 2, "MOV to CR3");

    word cr4 = read_cr4();
    write_cr4(cr4 | CR4_PGE);
    use_first(BASE, PT_G);
    point_to(BASE, 1, PT_G);
    invlpg((void *)BASE);
    equal(seen(BASE), 2, "INVLPG of a global page");
    use_first(BASE, PT_G);
    point_to(BASE, 1, PT_G);
    write_cr4(cr4);
    equal(seen(BASE), 2, "clearing CR4.PGE drops global pages");
    use_first(BASE, PT_G);
    point_to(BASE, 1, PT_G);
    write_cr3(read_cr3());
    equal(seen(BASE), 2, "G means nothing without CR4.PGE");

    use_first(BASE, 0);
    entry_write(&space, BASE, 1, 0);
    invlpg((void *)BASE);
    page_faults(BASE, 0, (void)seen(BASE), "a page taken away");
    point_to(BASE, 1, 0);
    equal(seen(BASE), 2, "a page given back needs no INVLPG");

    runs(invlpg((void *)0x800000000000), "INVLPG of a non-canonical address does nothing");
}

/* Upper levels: a table swapped for another, and a large page split and joined. */
static void upper(void)
{
    u64 *other = alloc_pages(1, PAGE);
    other[0] = (word)page[1] | PT_P | PT_W;
    use_first(BASE, 0);
    u64 old = entry_read(&space, BASE, 2);
    entry_write(&space, BASE, 2, (word)other | PT_P | PT_W);
    invlpg((void *)BASE);
    equal(seen(BASE), 2, "INVLPG after the page table was swapped");
    entry_write(&space, BASE, 2, old);
    write_cr3(read_cr3());
    equal(seen(BASE), 1, "CR3 after it was swapped back");

    word offset = (word)page[1] & 0x1FFFFF, base = (word)page[1] - offset;
    entry_write(&space, BIG, 2, base | PT_P | PT_W | PT_PS);
    equal(seen(BIG + offset), 2, "through a 2M page");
    map(&space, BIG + offset, (word)page[0], 1, PT_P | PT_W);
    invlpg((void *)BIG);
    equal(seen(BIG + offset), 1, "INVLPG anywhere in a 2M page that was split");
    entry_write(&space, BIG, 2, base | PT_P | PT_W | PT_PS);
    invlpg((void *)(BIG + offset));
    equal(seen(BIG + offset), 2, "INVLPG after it was joined");
}

/* The same with a page of 1 GiB, at the start of memory. */
static void huge(u64 bits)
{
    const word va = HUGE + (word)page[0];
    if (!has(F_1G)) {
        skip("no 1G pages", "a 1G page split and joined");
        return;
    }
    entry_write(&space, HUGE, 3, bits | PT_P | PT_W | PT_PS);
    equal(seen(va), 1, "through a 1G page");
    *(volatile u8 *)(va + 9) = 77;
    equal(page[0][9], 77, "and written");
    map(&space, va, (word)page[1], 1, bits | PT_P | PT_W); /* in new tables */
    invlpg((void *)(HUGE + 0x12345678));
    equal(seen(va), 2, "INVLPG anywhere in a 1G page that was split");
    page_faults(va + PAGE, 0, (void)seen(va + PAGE), "where the rest is gone");
    entry_write(&space, HUGE, 3, bits | PT_P | PT_W | PT_PS);
    invlpg((void *)va);
    equal(seen(va), 1, "INVLPG after it was joined");
    entry_write(&space, HUGE, 3, bits | PT_P | PT_PS);
    invlpg((void *)(HUGE + 0x23456789));
    page_faults(va, PFE_P | PFE_W, *(volatile u8 *)va = 1, "a 1G page that has become read-only");
    entry_write(&space, HUGE, 3, 0);
    invlpg((void *)HUGE);
    page_faults(va, 0, (void)seen(va), "a 1G page taken away");
    page[0][9] = 1;
}

static void clear_flags(u64 bits)
{
    entry_write(&space, BASE, 1, entry_read(&space, BASE, 1) & ~bits);
    invlpg((void *)BASE);
}

static void accessed_dirty(void)
{
    u64 ad = PT_A | PT_D;
    use_first(BASE, 0);
    equal(entry_read(&space, BASE, 1) & ad, PT_A, "a read sets A");
    *(volatile u8 *)BASE = 1;
    equal(entry_read(&space, BASE, 1) & ad, ad, "a write through a translation read before sets D");
    clear_flags(PT_D);
    (void)seen(BASE);
    equal(entry_read(&space, BASE, 1) & ad, PT_A, "a read leaves D clear");
    asm volatile("lock orb $0, (%0)" : : "r"(BASE) : "memory");
    equal(entry_read(&space, BASE, 1) & ad, ad, "a locked OR of nothing sets D");
    clear_flags(ad);
    u8 expected = 99;
    asm volatile("lock cmpxchgb %2, (%1)" : "+a"(expected) : "r"(BASE), "q"((u8)7) : "memory");
    tcg_differs("D is set only when something is stored");
    equal(entry_read(&space, BASE, 1) & ad, ad, "a CMPXCHG that fails still writes, and sets D");
    clear_flags(ad);
    (void)seen(BASE);
    u64 above = entry_read(&space, BASE, 2);
    check(above & PT_A && !(above & PT_D), "an entry that names a table has A, and D is ignored");
    clear_flags(ad);
    asm volatile("prefetcht0 (%0); clflush (%0)" : : "r"(BASE) : "memory");
    equal(entry_read(&space, BASE, 1) & PT_D, 0, "PREFETCH and CLFLUSH do not set D");

    /* A right added in memory: the stale translation may cause one more fault, not two. */
    entry_write(&space, BASE, 1, (word)page[0] | PT_P);
    invlpg((void *)BASE);
    (void)seen(BASE);
    page_faults(BASE, PFE_P | PFE_W, *(volatile u8 *)BASE = 1, "a write to a read-only page");
    entry_write(&space, BASE, 1, (word)page[0] | PT_P | PT_W);
    (void)TRAP(*(volatile u8 *)BASE = 1);
    runs(*(volatile u8 *)BASE = 1, "a fault drops the translation that caused it");
}

static word tagged(const struct space *s, unsigned pcid, bool keep)
{
    return s->root | pcid | (keep ? 1ul << 63 : 0);
}

static void invpcid(word type, u64 pcid, u64 address)
{
    u64 operand[2] = {pcid, address};
    asm volatile("invpcid %1, %0" : : "r"(type), "m"(operand) : "memory");
}

USER_INSN(u_invpcid, "invpcid (%%rsp), %0")

/* In PCID 1 and then PCID 2, page 0 is in use at BASE; then the entry changes. Ends in PCID 2. */
static void use_in_both(u64 bits)
{
    point_to(BASE, 0, bits);
    for (unsigned pcid = 1; pcid <= 2; pcid++) {
        write_cr3(tagged(&space, pcid, false));
        invlpg((void *)BASE);
        (void)seen(BASE);
    }
    point_to(BASE, 1, bits);
}

static u8 seen_in(unsigned pcid)
{
    write_cr3(tagged(&space, pcid, true));
    return seen(BASE);
}

static void pcids(void)
{
    word cr4 = read_cr4();
    if (on_tcg())
        skip("it takes any CR3", "CR3 bit 63 without CR4.PCIDE");
    else
        faults(GP, 0, write_cr3(read_cr3() | 1ul << 63), "CR3 bit 63 without CR4.PCIDE");
    if (!has(F_PCID)) {
        skip("no PCID", "PCIDs");
        return;
    }
    write_cr3(space.root | 8);
    faults(GP, 0, write_cr4(cr4 | CR4_PCIDE), "setting CR4.PCIDE with CR3[11:0] not 0");
    write_cr3(space.root);
    write_cr4(cr4 | CR4_PCIDE | CR4_PGE);
    use_in_both(0);
    equal((write_cr3(tagged(&space, 2, false)), seen(BASE)), 2,
          "CR3 with bit 63 clear drops its PCID");
    equal(read_cr3(), tagged(&space, 2, false), "CR3 reads back with its PCID");
    write_cr3(tagged(&space, 2, true));
    equal(read_cr3(), tagged(&space, 2, false), "CR3 bit 63 reads as 0");
    use_in_both(0);
    invlpg((void *)BASE);
    equal(seen(BASE), 2, "INVLPG in the current PCID");
    use_in_both(PT_G);
    invlpg((void *)BASE);
    equal(seen_in(1), 2, "INVLPG of a global page, seen from another PCID");
    if (!has(F_INVPCID)) {
        skip("no INVPCID", "INVPCID");
    } else {
        use_in_both(0);
        invpcid(0, 1, BASE);
        equal(seen_in(1), 2, "INVPCID type 0: one address of another PCID");
        use_in_both(0);
        invpcid(1, 1, 0);
        equal(seen_in(1), 2, "INVPCID type 1: another PCID whole");
        use_in_both(PT_G);
        invpcid(2, 0, 0);
        equal(seen_in(1), 2, "INVPCID type 2: everything, with global pages");
        use_in_both(0);
        invpcid(3, 0, 0);
        equal(seen_in(1), 2, "INVPCID type 3: everything but global pages");
        equal(seen_in(2), 2, "INVPCID type 3: in every PCID");
        faults(GP, 0, invpcid(4, 0, 0), "INVPCID type 4");
        faults(GP, 0, invpcid(0, 0x1000, 0), "INVPCID with a PCID of over 12 bits");
        faults(GP, 0, invpcid(0, 0, 0x800000000000), "INVPCID of a non-canonical address");
        runs(invpcid(1, 0, 0x800000000000), "INVPCID type 1 ignores the address");
        user_faults(GP, 0, u_invpcid, 0, "INVPCID in user mode");
    }
    use_in_both(0);
    write_cr3(space.root);
    write_cr4(cr4);
    equal(seen(BASE), 2, "clearing CR4.PCIDE drops everything");
    if (has(F_INVPCID))
        faults(GP, 0, invpcid(0, 1, 0), "INVPCID of a PCID other than 0 without CR4.PCIDE");
}

/* Pages that take BASE's place in a first level are read and written. */
static void crowd_out(void)
{
    for (unsigned i = 1; i <= CROWD; i++)
        *(volatile u8 *)(BASE + i * APART + 100) += 1;
}

static void put_function(word va, u32 value)
{
    volatile u8 *p = (volatile u8 *)va;
    p[0] = 0xB8; /* mov eax, value; ret */
    *(volatile u32 *)(va + 1) = value;
    p[5] = 0xC3;
}

/* A translation that has left the first level for a larger one is dropped like any other, has D
 * set by its first write, and leads to code that is noticed when it is written to. LEVEL: of the
 * entry that maps VA. */
static void far_away(word va, unsigned level, const char *what)
{
    const u64 entry = entry_read(&space, va, level) & ~(PT_A | PT_D);
    const word other = level == 1 ? va : va + PAGE;     /* mapped by the same entry, */
    const word third = level == 1 ? va : va + 2 * PAGE; /* as this */
    unsigned dirty = 0, old = 0, missed = 0, writable = 0, stale = 0;
    for (u32 i = 1; i <= 40; i++) {
        entry_write(&space, va, level, entry);
        invlpg((void *)va);
        (void)seen(va);
        crowd_out();
        dirty += entry_read(&space, va, level) & PT_D ? 1 : 0;
        *(volatile u8 *)(other + 9) = 1;
        dirty += entry_read(&space, va, level) & PT_D ? 0 : 1;
        crowd_out();
        put_function(va + 0x200, i);
        crowd_out();
        old += ((u32(*)(void))(va + 0x200))() != i;
        crowd_out();
        put_function(va + 0x200, i + 1000);
        old += ((u32(*)(void))(va + 0x200))() != i + 1000;
        crowd_out();
        write_dr0(other + 0x300);
        write_dr7(WATCH_WRITE);
        *(volatile u8 *)(third + 9) = 1;
        missed += TRAP(*(volatile u8 *)(other + 0x300) = 1)->f.vector != DB;
        missed += TRAP(*(volatile u8 *)(other + 0x301) = 1)->f.vector != NO_TRAP;
        write_dr7(0x400);
        entry_write(&space, va, level, entry & ~PT_W);
        invlpg((void *)va);
        (void)seen(va);
        crowd_out();
        writable += TRAP(*(volatile u8 *)va = 1)->f.vector != PF;
        entry_write(&space, va, level, 0);
        invlpg((void *)va);
        crowd_out();
        stale += TRAP((void)seen(va))->f.vector != PF;
    }
    check(!dirty, "%s: D is set by the first write, long after a read", what);
    check(!old, "%s: a write to code is noticed, long after the last one", what);
    check(!missed, "%s: a breakpoint is met, long after the last write", what);
    check(!writable, "%s: made read-only long after it was written", what);
    check(!stale, "%s: taken away long after it was read", what);
}

static void crowded(void)
{
    u8 *crowd = alloc_pages(CROWD, PAGE), *own = alloc_pages(3, 0x200000);
    for (unsigned i = 1; i <= CROWD; i++)
        map(&space, BASE + i * APART, (word)crowd + (i - 1) * PAGE, 1, PT_P | PT_W);
    map(&space, BASE, (word)own, 1, PT_P | PT_W);
    far_away(BASE, 1, "a 4K page");
    map(&space, BIG, (word)own, 2, PT_P | PT_W | PT_PS);
    far_away(BIG, 2, "a 2M page");
}

/* Control bits that change rights act at once. */
static void controls(void)
{
    word cr0 = read_cr0(), cr4 = read_cr4();
    entry_write(&space, BASE, 1, (word)page[0] | PT_P);
    invlpg((void *)BASE);
    write_cr0(cr0 & ~CR0_WP);
    runs(*(volatile u8 *)BASE = 1, "a read-only page is writable without WP");
    write_cr0(cr0 | CR0_WP);
    page_faults(BASE, PFE_P | PFE_W, *(volatile u8 *)BASE = 1, "and no longer with it");
    if (!has(F_SMAP)) {
        skip("no SMAP", "SMAP");
        return;
    }
    entry_write(&space, BASE, 1, (word)page[0] | PT_P | PT_W | PT_U);
    invlpg((void *)BASE);
    (void)seen(BASE);
    write_cr4(cr4 | CR4_SMAP);
    page_faults(BASE, PFE_P, (void)seen(BASE), "CR4.SMAP takes effect at once");
    runs(asm volatile("stac"); (void)seen(BASE), "STAC opens user pages");
    page_faults(BASE, PFE_P, asm volatile("clac"); (void)seen(BASE), "CLAC closes them");
    write_cr4(cr4);
    if (has(F_SMEP)) {
        page[0][8] = 0xC3;
        void (*code)(void) = (void (*)(void))(BASE + 8);
        runs(code(), "a user page's code at privilege level 0");
        write_cr4(cr4 | CR4_SMEP);
        page_faults(BASE + 8, PFE_P | PFE_I, code(), "CR4.SMEP takes effect at once");
        write_cr4(cr4);
    }
}

void test(void)
{
    for (unsigned n = 0; n < 2; n++) {
        page[n] = alloc_pages(1, PAGE);
        memset(page[n], (int)n + 1, PAGE);
    }
    space_init(&space, PAGING_4LEVEL);
    space_enter(&space);
    single();
    upper();
    huge(0);
    write_cr4(read_cr4() | CR4_PGE);
    huge(PT_G);
    write_cr4(read_cr4() & ~CR4_PGE);
    accessed_dirty();
    pcids();
    crowded();
    controls();
    space_leave();
}
