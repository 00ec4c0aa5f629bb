/*
 * The page walk in every mode, and the software TLB's rules about what outlives which change.
 */
#include "test.h"

#include "base/util.h"
#include "cpu/mmu.h"

#include <string.h>

#define RAM   0x400000ULL
#define ROOT  0x1000ULL
#define P     1ULL
#define W     2ULL
#define U     4ULL
#define A     0x20ULL
#define D     0x40ULL
#define PS    0x80ULL
#define NX    (1ULL << 63)
#define LARGE 0x200000ULL

static struct mem *mem;
static struct x86_cpu cpu;
static struct mmu mmu;

static int setup(void **state)
{
    struct error err;

    mem = mem_create(RAM, &err);
    return mem ? 0 : -1;
}

static int teardown(void **state)
{
    mem_destroy(mem);
    return 0;
}

static void put(uint64_t gpa, uint64_t value, unsigned size)
{
    assert_int_equal(mem_write(mem, gpa, &value, size), 0);
}

static uint64_t get(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    assert_int_equal(mem_read(mem, gpa, &value, size), 0);
    return value;
}

/* Tables that map VA 0 through the entries at ROOT, ROOT + 1000h, ... */
static void mode_none(void)
{
    memset(&cpu, 0, sizeof(cpu));
    cpu.physical_bits = 40;
    cpu.cr0 = X86_CR0_PE | X86_CR0_WP;
    mem_fill(mem, 0, 0, MEM_VGA_START);
}

static void mode_32(void)
{
    mode_none();
    cpu.cr0 |= X86_CR0_PG;
    cpu.cr3 = ROOT;
    put(ROOT, (ROOT + 0x1000) | P | W | U, 4);
    put(ROOT + 0x1000, 0x5000 | P | W | U, 4);
}

static void mode_pae(void)
{
    mode_none();
    cpu.cr0 |= X86_CR0_PG;
    cpu.cr4 |= X86_CR4_PAE;
    cpu.efer |= X86_EFER_NXE;
    cpu.cr3 = ROOT;
    cpu.pdpte[0] = (ROOT + 0x1000) | P;
    put(ROOT + 0x1000, (ROOT + 0x2000) | P | W | U, 8);
    put(ROOT + 0x2000, 0x5000 | P | W | U, 8);
}

static void mode_long(void)
{
    mode_pae();
    cpu.efer |= X86_EFER_LME | X86_EFER_LMA;
    for (unsigned i = 0; i < 3; i++)
        put(ROOT + i * 0x1000, (ROOT + (i + 1) * 0x1000) | P | W | U, 8);
    put(ROOT + 0x3000, 0x5000 | P | W | U, 8);
}

/* The page-fault error code, or -1: there is a translation, in PAGE. */
static struct mmu_page page;
static int walk(uint64_t va, enum mmu_access access, enum mmu_context context)
{
    struct mmu_absent absent;
    uint32_t error = 0;

    if (mmu_walk(mem, &cpu, va, access, context, &page, &error, &absent) == MMU_DONE)
        return -1;
    return (int)error;
}

static void test_no_paging(void **unused)
{
    mode_none();
    assert_int_equal(walk(0x12345678, MMU_WRITE, MMU_USER), -1);
    assert_int_equal(page.gpa, 0x12345678);
}

static void test_translations(void **unused)
{
    mode_32();
    assert_int_equal(walk(0x123, MMU_READ, MMU_USER), -1);
    assert_int_equal(page.gpa, 0x5123);
    assert_int_equal(page.page_bits, 12);
    put(ROOT + 4, 0x3000 | PS | P | W | U, 4);                 /* an empty table */
    assert_int_equal(walk(0x400000, MMU_READ, MMU_USER), 0x4); /* not without CR4.PSE */
    cpu.cr4 |= X86_CR4_PSE;
    put(ROOT + 4, 1u << 20 | 0x00C00000 | PS | P | W | U, 4); /* bit 20 is address bit 39 */
    assert_int_equal(walk(0x400123, MMU_READ, MMU_USER), -1);
    assert_int_equal(page.gpa, 0x8000C00123);
    assert_int_equal(page.page_bits, 22);

    mode_pae();
    assert_int_equal(walk(0xFFF, MMU_READ, MMU_USER), -1);
    assert_int_equal(page.gpa, 0x5FFF);
    assert_int_equal(walk(0x40000000, MMU_READ, MMU_USER), 0x4); /* no second PDPTE */
    put(ROOT + 0x1008, 0xABC00000 | PS | P | W | U, 8);
    assert_int_equal(walk(0x3FFFFF, MMU_READ, MMU_USER), -1);
    assert_int_equal(page.gpa, 0xABDFFFFF);
    assert_int_equal(page.page_bits, 21);

    mode_long();
    assert_int_equal(walk(0x10, MMU_READ, MMU_USER), -1);
    assert_int_equal(page.gpa, 0x5010);
    put(ROOT + 0x1008, 0x80000000 | PS | P | W | U, 8);
    assert_int_equal(walk(0x7FFFFFFF, MMU_READ, MMU_USER), -1);
    assert_int_equal(page.gpa, 0xBFFFFFFF);
    assert_int_equal(page.page_bits, 30);
    put(ROOT + 0xFF8, (ROOT + 0x1000) | P | W | U, 8);
    assert_int_equal(walk(0xFFFFFF8000000020, MMU_READ, MMU_USER), -1);
    assert_int_equal(page.gpa, 0x5020);
}

/* SDM volume 3, 4.6.1: who may do what to a user's or a supervisor's page. */
static void test_rights(void **unused)
{
    static const struct {
        uint64_t flags; /* of the leaf */
        enum mmu_access access;
        enum mmu_context context;
        uint64_t cr0, cr4; /* WP; SMEP, SMAP is in the context */
        int error;
    } cases[] = {
        {P | W | U, MMU_WRITE, MMU_USER, 0, 0, -1},
        {P | U, MMU_WRITE, MMU_USER, 0, 0, 7},
        {P | U, MMU_READ, MMU_USER, 0, 0, -1},
        {P | W, MMU_READ, MMU_USER, 0, 0, 5},
        {P | W, MMU_EXEC, MMU_USER, 0, 0, 0x15},
        {P | U | NX, MMU_EXEC, MMU_USER, 0, 0, 0x15},
        {P | U | NX, MMU_READ, MMU_USER, 0, 0, -1},
        {P, MMU_WRITE, MMU_SUPER, 0, 0, -1},
        {P, MMU_WRITE, MMU_SUPER, X86_CR0_WP, 0, 3},
        {P | W, MMU_WRITE, MMU_SUPER, X86_CR0_WP, 0, -1},
        {P | W | U, MMU_READ, MMU_SUPER, 0, 0, 1}, /* SMAP */
        {P | W | U, MMU_WRITE, MMU_SUPER, 0, 0, 3},
        {P | W | U, MMU_WRITE, MMU_SUPER_AC, 0, 0, -1},
        {P | U, MMU_WRITE, MMU_SUPER_AC, X86_CR0_WP, 0, 3},
        {P | U, MMU_EXEC, MMU_SUPER, 0, 0, -1},
        {P | U, MMU_EXEC, MMU_SUPER, 0, X86_CR4_SMEP, 0x11},
        {P, MMU_EXEC, MMU_SUPER, 0, X86_CR4_SMEP, -1},
        {P | NX, MMU_EXEC, MMU_SUPER, 0, 0, 0x11},
        {0, MMU_READ, MMU_SUPER, 0, 0, 0},
        {0, MMU_WRITE, MMU_USER, 0, 0, 6},
        {0, MMU_EXEC, MMU_USER, 0, 0, 0x14},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        mode_long();
        cpu.cr0 = (cpu.cr0 & ~(uint64_t)X86_CR0_WP) | cases[i].cr0;
        cpu.cr4 |= cases[i].cr4;
        put(ROOT + 0x3000, 0x5000 | cases[i].flags, 8);
        assert_int_equal(walk(0, cases[i].access, cases[i].context), cases[i].error);
    }
    /* Every level has its say. */
    for (unsigned level = 0; level < 4; level++) {
        mode_long();
        put(ROOT + level * 0x1000, get(ROOT + level * 0x1000, 8) & ~W, 8);
        assert_int_equal(walk(0, MMU_WRITE, MMU_USER), 7);
        mode_long();
        put(ROOT + level * 0x1000, get(ROOT + level * 0x1000, 8) & ~U, 8);
        assert_int_equal(walk(0, MMU_READ, MMU_USER), 5);
        mode_long();
        put(ROOT + level * 0x1000, get(ROOT + level * 0x1000, 8) | NX, 8);
        assert_int_equal(walk(0, MMU_EXEC, MMU_SUPER_AC), 1 | 0x10);
    }
    /* Without NX and SMEP no fault says that it was for fetching. */
    mode_32();
    put(ROOT + 0x1000, 0, 4);
    assert_int_equal(walk(0, MMU_EXEC, MMU_USER), 4);
    cpu.cr4 |= X86_CR4_SMEP;
    assert_int_equal(walk(0, MMU_EXEC, MMU_USER), 0x14);
}

static void test_reserved_bits(void **unused)
{
    static const struct {
        unsigned level; /* of the entry, 4 is the root */
        uint64_t bits;
        bool nxe;
        bool wrong;
    } cases[] = {
        {1, 1ULL << 40, true, true},   {1, 1ULL << 51, true, true},
        {1, 1ULL << 52, true, false}, /* ignored */
        {1, NX, true, false},          {1, NX, false, true},
        {2, NX, false, true},          {4, PS, true, true},
        {2, PS | 1 << 13, true, true}, {3, PS | 1 << 13, true, true},
        {3, PS | 1 << 29, true, true}, {4, 1ULL << 45, true, true},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t at = ROOT + (4 - cases[i].level) * 0x1000;

        mode_long();
        if (cases[i].bits & PS)
            put(at, P | W | U | cases[i].bits, 8);
        else
            put(at, get(at, 8) | cases[i].bits, 8);
        if (!cases[i].nxe)
            cpu.efer &= ~(uint64_t)X86_EFER_NXE;
        assert_int_equal(walk(0, MMU_READ, MMU_USER), cases[i].wrong ? 0xD : -1);
        /* Reserved bits come before rights. */
        assert_int_equal(walk(0, MMU_WRITE, MMU_SUPER), cases[i].wrong ? 0xB : 3);
    }
    mode_pae();
    put(ROOT + 0x2000, 0x5000 | P | U | 1ULL << 52, 8); /* here it is not ignored */
    assert_int_equal(walk(0, MMU_READ, MMU_USER), 0xD);
    mode_32();
    cpu.cr4 |= X86_CR4_PSE;
    put(ROOT, 1u << 21 | PS | P | U, 4);
    assert_int_equal(walk(0, MMU_READ, MMU_USER), 0xD);
    /* A table that is not in memory reads as all ones. */
    mode_long();
    put(ROOT, 0x80000000 | P | W | U, 8);
    assert_int_equal(walk(0, MMU_READ, MMU_USER), 0xD);
}

static void test_accessed_and_dirty(void **unused)
{
    uint64_t gpa;

    mode_long();
    assert_int_equal(mmu_peek(mem, &cpu, 0x77, &gpa), 0);
    assert_int_equal(gpa, 0x5077);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(get(ROOT + i * 0x1000, 8) & (A | D), 0);
    walk(0, MMU_READ, MMU_USER);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(get(ROOT + i * 0x1000, 8) & (A | D), A);
    walk(0, MMU_WRITE, MMU_USER);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(get(ROOT + i * 0x1000, 8) & (A | D), i == 3 ? A | D : A);
    /* Not by what is not permitted. */
    mode_long();
    put(ROOT + 0x3000, 0x5000 | P | U, 8);
    walk(0, MMU_WRITE, MMU_USER);
    assert_int_equal(get(ROOT + 0x3000, 8) & (A | D), 0);
    mode_32();
    walk(0, MMU_WRITE, MMU_SUPER_AC);
    assert_int_equal(get(ROOT, 4) & (A | D), A);
    assert_int_equal(get(ROOT + 0x1000, 8), 0x5000 | P | W | U | A | D); /* 4 bytes, no more */
}

static void test_pdptes(void **unused)
{
    uint64_t pdpte[4] = {9, 9, 9, 9};
    struct mmu_absent absent;

    mode_pae();
    put(0x2020, 0x3000 | P, 8);
    put(0x2028, 0, 8);
    put(0x2030, 0x1E6, 8); /* reserved, but not present */
    put(0x2038, 0x4000 | P | 0x18, 8);
    assert_int_equal(mmu_load_pdptes(mem, &cpu, 0x2020, pdpte, &absent), MMU_DONE);
    assert_int_equal(pdpte[0], 0x3000 | P);
    assert_int_equal(pdpte[3], 0x4000 | P | 0x18);
    for (unsigned bit = 1; bit < 64; bit += bit == 1 ? 1 : bit == 2 ? 3 : bit == 8 ? 32 : 1) {
        put(0x2028, P | 1ULL << bit, 8);
        pdpte[0] = 9;
        assert_int_equal(mmu_load_pdptes(mem, &cpu, 0x2020, pdpte, &absent), MMU_FAULT);
        assert_int_equal(pdpte[0], 9);
    }
}

static void test_contexts(void **unused)
{
    mode_long();
    assert_int_equal(mmu_context(&cpu), MMU_SUPER_AC);
    cpu.cr4 |= X86_CR4_SMAP;
    assert_int_equal(mmu_context(&cpu), MMU_SUPER);
    cpu.rflags |= X86_FLAG_AC;
    assert_int_equal(mmu_context(&cpu), MMU_SUPER_AC);
    cpu.seg[X86_SS].attr |= X86_ATTR_DPL;
    assert_int_equal(mmu_context(&cpu), MMU_USER);
}

/* --- The software TLB --- */

static uint8_t hosts[4][MEM_PAGE_SIZE];

static void fill_as(enum mmu_context context, enum mmu_access access, uint64_t va, unsigned host,
                    unsigned bits, bool global)
{
    struct mmu_page to = {.page_bits = bits, .global = global, .own = true};

    mmu_fill(&mmu, context, access, va, hosts[host], &to);
}

static void fill(uint64_t va, unsigned host, unsigned bits)
{
    fill_as(MMU_USER, MMU_READ, va, host, bits, false);
}

/* Which host page VA leads to, or -1. */
static int lookup_as(enum mmu_context context, enum mmu_access access, uint64_t va)
{
    const struct mmu_entry *e = mmu_entry(mmu.table[context], access, va);

    return mmu_hit(e, va, 1) ? (int)((uint8_t(*)[MEM_PAGE_SIZE])(va + e->addend) - hosts) : -1;
}

static int lookup(uint64_t va)
{
    return lookup_as(MMU_USER, MMU_READ, va);
}

static void load_cr3(uint64_t cr3, bool keep)
{
    cpu.cr3 = cr3;
    mmu_new_cr3(&mmu, &cpu, keep);
}

static void test_address_spaces(void **unused)
{
    mode_long();
    mmu_init(&mmu);
    load_cr3(0x1000, false);
    fill(0x123000, 1, 12);
    assert_int_equal(lookup(0x123000), 1);
    assert_int_equal(lookup(0x923000), -1); /* the same entry, another page */
    load_cr3(0x1000, false);
    assert_int_equal(lookup(0x123000), -1);
    /* PCIDs 1 and 2 in turn, kept. */
    load_cr3(0x1001, false);
    fill(0x124000, 1, 12);
    load_cr3(0x2002, true);
    assert_int_equal(lookup(0x124000), -1);
    fill(0x125000, 2, 12);
    load_cr3(0x1001, true);
    assert_int_equal(lookup(0x124000), 1);
    assert_int_equal(lookup(0x125000), -1);
    /* Flushing one leaves the other. */
    mmu_flush_pcid(&mmu, &cpu, 2);
    assert_int_equal(lookup(0x124000), 1);
    load_cr3(0x2002, true);
    assert_int_equal(lookup(0x125000), -1);
    fill(0x125000, 2, 12);
    mmu_flush_pcid(&mmu, &cpu, 2); /* the current one */
    assert_int_equal(lookup(0x125000), -1);
    load_cr3(0x1001, true);
    assert_int_equal(lookup(0x124000), 1);
    /* Without bit 63 the PCID's translations go. */
    load_cr3(0x1001, false);
    assert_int_equal(lookup(0x124000), -1);
    fill(0x124000, 3, 12);
    load_cr3(0x2002, true);
    mmu_flush_all(&mmu, &cpu);
    load_cr3(0x1001, true);
    assert_int_equal(lookup(0x124000), -1);
}

/* More address spaces than identifiers: none is taken for another. */
static void test_many_spaces(void **unused)
{
    mode_long();
    mmu_init(&mmu);
    for (unsigned i = 0; i < 10000; i++) {
        load_cr3(0x1000, false);
        assert_int_equal(lookup(0x123000), -1);
        fill(0x123000, 1, 12);
        assert_int_equal(lookup(0x123000), 1);
    }
    assert_true(mmu.clears > 1);
    /* And more PCIDs than are remembered. */
    for (unsigned round = 0; round < 2; round++)
        for (uint64_t pcid = 1; pcid < 3 * MMU_PCIDS; pcid++) {
            load_cr3(pcid << 12 | pcid, round > 0);
            if (lookup(pcid << 12) >= 0)
                assert_int_equal(lookup(pcid << 12), pcid % 4);
            fill(pcid << 12, pcid % 4, 12);
        }
}

static void test_flush_page(void **unused)
{
    mode_long();
    mmu_init(&mmu);
    load_cr3(0x1001, false);
    fill(0x40123000, 1, 12);
    fill(0x40124000, 2, 12);
    assert_false(mmu_flush_page(&mmu, &cpu, 0x40123FFF, 1));
    assert_int_equal(lookup(0x40123000), -1);
    assert_int_equal(lookup(0x40124000), 2);
    /* Of another PCID. */
    fill(0x40123000, 1, 12);
    load_cr3(0x2002, true);
    fill(0x40123000, 2, 12);
    mmu_flush_page(&mmu, &cpu, 0x40123000, 1);
    assert_int_equal(lookup(0x40123000), 2);
    load_cr3(0x1001, true);
    assert_int_equal(lookup(0x40123000), -1);
    /* A large page goes whole, and nothing else of its table entry's neighbours. */
    for (unsigned i = 0; i < 512; i += 100)
        fill(LARGE * 9 + i * MEM_PAGE_SIZE, 1, 21);
    fill(LARGE * 10, 2, 12);
    assert_true(mmu_flush_page(&mmu, &cpu, LARGE * 9 + 0x7000, 1));
    for (unsigned i = 0; i < 512; i += 100)
        assert_int_equal(lookup(LARGE * 9 + i * MEM_PAGE_SIZE), -1);
    assert_int_equal(lookup(LARGE * 10), 2);
    /* 4 MiB without PAE. */
    cpu.cr4 &= ~(uint64_t)X86_CR4_PAE;
    fill(LARGE * 20, 1, 22);
    fill(LARGE * 21, 1, 22);
    assert_true(mmu_flush_page(&mmu, &cpu, LARGE * 21, 1));
    assert_int_equal(lookup(LARGE * 20), -1);
    assert_int_equal(lookup(LARGE * 21), -1);
    /* 1 GiB. */
    cpu.cr4 |= X86_CR4_PAE;
    fill(0x80000000, 1, 30);
    fill(0xBFFFF000, 2, 30);
    assert_true(mmu_flush_page(&mmu, &cpu, 0x90000000, 1));
    assert_int_equal(lookup(0x80000000), -1);
    assert_int_equal(lookup(0xBFFFF000), -1);
}

/* An invalidation is dear only where a larger page may be: neither elsewhere nor in another address
 * space that uses the same addresses. */
static void test_flush_elsewhere(void **unused)
{
    mode_long();
    mmu_init(&mmu);
    load_cr3(0x1001, false);
    fill(LARGE * 9, 1, 21);
    for (uint64_t i = 10; i < 300; i++)
        assert_false(mmu_flush_page(&mmu, &cpu, LARGE * i, 1));
    load_cr3(0x2002, false);
    assert_false(mmu_flush_page(&mmu, &cpu, LARGE * 9, 2));
    assert_true(mmu_flush_page(&mmu, &cpu, LARGE * 9, 1));
    /* More larger pages than the filter can tell apart: it begins anew with an address space. */
    for (uint64_t i = 0; i < 1u << MMU_FILTER_BITS; i++)
        fill(LARGE * (1000 + i), 1, 21);
    load_cr3(0x3003, false);
    assert_false(mmu_flush_page(&mmu, &cpu, LARGE * 1000, 2));
    assert_int_equal(mmu.large.count, 0);
}

/* A page that is global is in every address space, and INVLPG takes it from all of them. */
static void test_global(void **unused)
{
    const uint64_t kernel = 0xFFFFFFFF81000000, low = 0x40123000;

    mode_long();
    mmu_init(&mmu);
    load_cr3(0x1001, false);
    fill_as(MMU_SUPER, MMU_WRITE, kernel, 1, 12, true);
    fill_as(MMU_SUPER_AC, MMU_READ, kernel, 1, 12, true);
    fill_as(MMU_USER, MMU_READ, low, 2, 12, true);
    load_cr3(0x2002, true);
    assert_int_equal(lookup_as(MMU_SUPER, MMU_WRITE, kernel), 1);
    mmu_flush_page(&mmu, &cpu, kernel, 2);
    assert_int_equal(lookup_as(MMU_SUPER, MMU_WRITE, kernel), -1);
    mmu_flush_page(&mmu, &cpu, low, 2);
    load_cr3(0x1001, true);
    assert_int_equal(lookup_as(MMU_SUPER_AC, MMU_READ, kernel), -1);
    assert_int_equal(lookup(low), -1);
    /* What is not is gone with the address space. */
    fill_as(MMU_SUPER, MMU_READ, kernel, 3, 12, false);
    assert_int_equal(lookup_as(MMU_SUPER, MMU_READ, kernel), 3);
    load_cr3(0x2002, true);
    assert_int_equal(lookup_as(MMU_SUPER, MMU_READ, kernel), -1);
    fill_as(MMU_SUPER, MMU_READ, kernel, 3, 12, true);
    mmu_flush_all(&mmu, &cpu);
    assert_int_equal(lookup_as(MMU_SUPER, MMU_READ, kernel), -1);
}

/* Supervisors' pages that are not global are gone with the address space, however many they are,
 * and so is the mark of such code; what is global stays while they are few. */
static void test_private(void **unused)
{
    const uint64_t kernel = 0xFFFFFFFF81800000, first = 0xFFFF888000000000;
    const unsigned counts[] = {1, MMU_PRIVATES, MMU_PRIVATES + 1, 3 * MMU_PRIVATES};

    mode_long();
    mmu_init(&mmu);
    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        load_cr3(0x1001, true);
        fill_as(MMU_SUPER, MMU_READ, kernel, 1, 12, true);
        for (unsigned n = 0; n < counts[i]; n++)
            fill_as(MMU_SUPER, n % MMU_ACCESSES, first + n * MEM_PAGE_SIZE, 2, 12, false);
        assert_true(mmu.private_code == (counts[i] > MMU_EXEC));
        assert_int_equal(lookup_as(MMU_SUPER, MMU_READ, first), 2);
        load_cr3(0x2002, true);
        assert_false(mmu.private_code);
        for (unsigned n = 0; n < counts[i]; n++)
            assert_int_equal(lookup_as(MMU_SUPER, n % MMU_ACCESSES, first + n * MEM_PAGE_SIZE), -1);
        if (counts[i] <= MMU_PRIVATES)
            assert_int_equal(lookup_as(MMU_SUPER, MMU_READ, kernel), 1);
    }
}

/* Empty entries serve no address, not even page 0, nor one that is not canonical. */
static void test_empty(void **unused)
{
    static const uint64_t ends[] = {
        0, 0xFFF, 0x1000, 0x7FFFFFFFF000, 0x800000000000, 0xFFFF7FFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF};

    mode_long();
    mmu_init(&mmu);
    for (unsigned context = 0; context < MMU_CONTEXTS; context++)
        for (unsigned i = 0; i < ARRAY_SIZE(ends); i++)
            assert_int_equal(lookup_as(context, MMU_READ, ends[i]), -1);
    fill(0, 1, 12);
    fill(0x1000, 2, 12);
    assert_int_equal(lookup(0xFFF), 1);
    mmu_flush_page(&mmu, &cpu, 0, 0);
    assert_int_equal(lookup(0), -1);
    assert_int_equal(lookup(0x1000), 2);
    mmu_flush_all(&mmu, &cpu);
    assert_int_equal(lookup(0), -1);
    /* An access that leaves the page. */
    fill(0x1000, 2, 12);
    assert_true(mmu_hit(mmu_entry(mmu.table[MMU_USER], MMU_READ, 0x1000), 0x1FF8, 8));
    assert_false(mmu_hit(mmu_entry(mmu.table[MMU_USER], MMU_READ, 0x1000), 0x1FF9, 8));
}

static void test_drop_writable(void **unused)
{
    mode_long();
    mmu_init(&mmu);
    fill(0x1000, 1, 12);
    fill_as(MMU_USER, MMU_WRITE, 0x2000, 2, 12, false);
    fill_as(MMU_USER, MMU_WRITE, 0x5000, 1, 12, false);
    fill_as(MMU_SUPER, MMU_WRITE, 0x3000, 1, 12, true);
    mmu_drop_writable(&mmu, hosts[1]);
    assert_int_equal(lookup(0x1000), 1);
    assert_int_equal(lookup_as(MMU_USER, MMU_WRITE, 0x2000), 2);
    assert_int_equal(lookup_as(MMU_USER, MMU_WRITE, 0x5000), -1);
    assert_int_equal(lookup_as(MMU_SUPER, MMU_WRITE, 0x3000), -1);
}

/* --- Both levels against a model --- */

#define WALK_SPACES 11u
#define WALK_PLACES 24u
#define WALK_STEPS  200000u

/* What may be translated: places 0 to 15 are pages, which share entries of the first level with
 * others; the rest lie in two large pages. The last four of each kind are global. */
/* Whether the second level has VA, for the current address space's users. */
static bool second_has(uint64_t va, enum mmu_access access)
{
    uintptr_t addend;

    return mmu_second_find(&mmu, MMU_USER, access, va, &addend);
}

/* By machine page, entries go from both levels, whatever the address space, and no others do. */
static void test_drop_host(void **unused)
{
    const uint64_t low = 0x40123000, high = 0xFFFF900000456000, other = 0x7FFF00001000;
    const struct mmu_page large = {.page_bits = 21, .whole = true, .own = true};
    struct mmu_host pieces[2] = {{(uintptr_t)hosts[0], (uintptr_t)hosts[0] + 9},
                                 {(uintptr_t)hosts[2], (uintptr_t)hosts[2] + 9}};
    static uint8_t two_mib[2 * 0x200000];

    mode_long();
    mmu_init(&mmu);
    load_cr3(0x1001, false);
    for (unsigned access = MMU_READ; access <= MMU_WRITE; access++) {
        fill_as(MMU_USER, access, low, 2, 12, false);
        fill_as(MMU_USER, access, high, 0, 12, false);
        fill_as(MMU_USER, access, other, 1, 12, false);
        mmu_fill(&mmu, MMU_USER, access, LARGE * 5, two_mib, &large);
    }
    load_cr3(0x2002, true);
    mmu_drop_host(&mmu, pieces, 2, true);
    load_cr3(0x1001, true);
    assert_int_equal(lookup_as(MMU_USER, MMU_WRITE, low), -1);
    assert_int_equal(lookup_as(MMU_USER, MMU_WRITE, high), -1);
    assert_int_equal(lookup(low), 2);
    assert_int_equal(lookup(high), 0);
    assert_int_equal(lookup_as(MMU_USER, MMU_WRITE, other), 1);
    assert_false(second_has(low, MMU_WRITE));
    assert_false(second_has(high, MMU_WRITE));
    assert_true(second_has(other, MMU_WRITE));
    mmu_drop_host(&mmu, pieces + 1, 1, false);
    assert_int_equal(lookup(low), -1);
    assert_int_equal(lookup(high), 0);
    assert_false(second_has(low, MMU_READ));
    assert_int_equal(lookup_as(MMU_USER, MMU_WRITE, other), 1);
    assert_true(second_has(LARGE * 5, MMU_WRITE));
    pieces[0] = (struct mmu_host){(uintptr_t)two_mib + 0x1FF000, (uintptr_t)two_mib + 0x1FFFFF};
    mmu_drop_host(&mmu, pieces, 1, true);
    assert_false(second_has(LARGE * 5, MMU_READ)); /* all of the large page */
    assert_true(second_has(other, MMU_WRITE));
    /* A page that is not its GPN's own is not in the second level for writing. */
    mmu_fill(&mmu, MMU_USER, MMU_WRITE, low, hosts[3], &(struct mmu_page){.page_bits = 12});
    assert_int_equal(lookup_as(MMU_USER, MMU_WRITE, low), 3);
    assert_false(second_has(low, MMU_WRITE));
}

static const uint64_t walk_half[] = {0, 0xFFFF800000000000};
static uint32_t walk_version[WALK_SPACES]
                            [WALK_PLACES]; /* of a place's translation; see walk_host */
static bool walk_written[WALK_SPACES][WALK_PLACES][MMU_CONTEXTS];
static unsigned walk_space;

static unsigned walk_random(unsigned limit)
{
    static uint64_t random = 1972;

    random = random * 6364136223846793005 + 1442695040888963407;
    return (unsigned)(random >> 33) % limit;
}

static bool walk_is_large(unsigned place)
{
    return place >= 16;
}

static bool walk_is_global(unsigned place)
{
    return place % 16 >= 12 || place >= 20;
}

static uint64_t walk_address(unsigned place)
{
    uint64_t half = walk_half[walk_is_global(place)];

    if (walk_is_large(place))
        return half + LARGE * (place < 20 ? 9 : 300) + place % 4 * 37 * MEM_PAGE_SIZE;
    return half + 0x40000000 + place % 4 * MEM_PAGE_SIZE + (uint64_t)(place / 4) * (16 << 20);
}

/* A large page's parts lie in one piece in the host, too. */
static uint64_t walk_host(unsigned place)
{
    unsigned first = walk_is_large(place) ? place / 4 * 4 : place;
    uint32_t version = walk_version[walk_is_global(place) ? 0 : walk_space][first];
    uint64_t own = walk_is_global(place) ? 100 : walk_space;

    return own << 56 | (uint64_t)first << 48 | ((uint64_t)version + 1) << 22 |
           (walk_is_large(place) ? walk_address(place) % LARGE : 0);
}

static bool *walk_mark(unsigned place, enum mmu_context context)
{
    return &walk_written[walk_is_global(place) ? 0 : walk_space][place][context];
}

/* The translations of PLACE in space S are no longer valid. */
static void walk_end(unsigned s, unsigned place)
{
    unsigned first = walk_is_large(place) ? place / 4 * 4 : place, last = place;

    if (walk_is_large(place))
        last = first + 3;
    for (unsigned i = first; i <= last; i++) {
        walk_version[walk_is_global(place) ? 0 : s][i]++;
        memset(walk_written[walk_is_global(place) ? 0 : s][i], 0, MMU_CONTEXTS * sizeof(bool));
    }
}

static void walk_end_all(unsigned s, bool global)
{
    for (unsigned place = 0; place < WALK_PLACES; place++)
        if (global || !walk_is_global(place))
            walk_end(s, place);
}

/* Whatever either level knows of PLACE is what is valid now. */
static void walk_check(unsigned place)
{
    uint64_t va = walk_address(place), host = walk_host(place);

    for (enum mmu_context context = 0; context < MMU_CONTEXTS; context++) {
        for (enum mmu_access access = MMU_READ; access <= MMU_WRITE; access++) {
            const struct mmu_entry *entry = mmu_entry(mmu.table[context], access, va);
            uintptr_t addend;

            if (mmu_hit(entry, va, 1)) {
                assert_true(va + entry->addend == host);
                assert_true(access == MMU_READ || *walk_mark(place, context));
            }
            if (mmu_second_find(&mmu, context, access, va, &addend)) {
                assert_true(va + addend == host);
                assert_true(access == MMU_READ || *walk_mark(place, context));
            }
        }
    }
}

static void walk_fill(unsigned place)
{
    enum mmu_context context = walk_random(MMU_CONTEXTS);
    enum mmu_access access = walk_random(2) ? MMU_WRITE : MMU_READ;
    const struct mmu_page to = {.own = true,
                                .page_bits = walk_is_large(place) ? 21 : 12,
                                .global = walk_is_global(place),
                                .whole = walk_random(4) > 0};
    uint64_t va = walk_address(place);
    uintptr_t addend = 0;

    if (access == MMU_WRITE) /* a large page's parts have one entry */
        for (unsigned i = 0; i < (walk_is_large(place) ? 4 : 1); i++)
            *walk_mark(walk_is_large(place) ? place / 4 * 4 + i : place, context) = true;
    mmu_fill(&mmu, context, access, va, (void *)(uintptr_t)walk_host(place), &to);
    assert_true(mmu_hit(mmu_entry(mmu.table[context], access, va), va, 1));
    /* Of pages that are not global, the second level has no supervisor's while they are few. */
    if ((!walk_is_large(place) || to.whole) && (to.global || context != MMU_SUPER))
        assert_true(mmu_second_find(&mmu, context, access, va, &addend) &&
                    va + addend == walk_host(place));
}

static void walk_flush(unsigned place)
{
    unsigned s = walk_random(3) ? walk_space : walk_random(WALK_SPACES);

    switch (walk_random(12)) {
    case 0:
        mmu_flush_all(&mmu, &cpu);
        for (unsigned i = 0; i < WALK_SPACES; i++)
            walk_end_all(i, true);
        break;
    case 1:
        mmu_flush_pcid(&mmu, &cpu, s + 1);
        walk_end_all(s, false);
        break;
    default: mmu_flush_page(&mmu, &cpu, walk_address(place), s + 1); walk_end(s, place);
    }
}

static void walk_step(void)
{
    unsigned place = walk_random(WALK_PLACES);

    switch (walk_random(16)) {
    case 0:
        walk_space = walk_random(WALK_SPACES);
        load_cr3(0x100000 * (uint64_t)walk_space | (walk_space + 1), true);
        break;
    case 1:
        load_cr3(cpu.cr3, false);
        walk_end_all(walk_space, false);
        break;
    case 2:
    case 3: walk_flush(place); break;
    default: walk_fill(place);
    }
    walk_check(walk_random(WALK_PLACES));
}

static void walk_from(uint32_t places)
{
    mode_long();
    mmu_init(&mmu);
    mmu.second.page_mask = MIN(places, MMU_SECOND_SIZE) - 1;
    mmu.second.large_mask = MIN(places, MMU_LARGE_SIZE) - 1;
    walk_space = 0;
    load_cr3(1, false);
    for (unsigned i = 0; i < WALK_SPACES; i++)
        walk_end_all(i, true);
    for (unsigned i = 0; i < WALK_STEPS; i++)
        walk_step();
}

/* With levels of their size and with tiny ones, in which everything meets everything. */
static void test_walk(void **unused)
{
    walk_from(MMU_SECOND_SIZE);
    walk_from(8);
    walk_from(1);
}

/* Numbers of keys run out without anything being found again. */
static void test_keys_begin_anew(void **unused)
{
    uintptr_t addend;

    mode_long();
    mmu_init(&mmu);
    load_cr3(0x1001, false);
    fill(0x123000, 1, 12);
    load_cr3(0x2002, true);
    for (unsigned i = 0; i < 70000; i++) {
        load_cr3(0x2002, false);
        assert_false(mmu_second_find(&mmu, MMU_USER, MMU_READ, 0x123000, &addend));
        fill(0x123000, 2, 12);
    }
    load_cr3(0x1001, true);
    if (mmu_second_find(&mmu, MMU_USER, MMU_READ, 0x123000, &addend))
        assert_ptr_equal((void *)(0x123000 + addend), hosts[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_paging),
        cmocka_unit_test(test_translations),
        cmocka_unit_test(test_rights),
        cmocka_unit_test(test_reserved_bits),
        cmocka_unit_test(test_accessed_and_dirty),
        cmocka_unit_test(test_pdptes),
        cmocka_unit_test(test_contexts),
        cmocka_unit_test(test_address_spaces),
        cmocka_unit_test(test_many_spaces),
        cmocka_unit_test(test_flush_page),
        cmocka_unit_test(test_flush_elsewhere),
        cmocka_unit_test(test_global),
        cmocka_unit_test(test_private),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_drop_writable),
        cmocka_unit_test(test_drop_host),
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_keys_begin_anew),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
