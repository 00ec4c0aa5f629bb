/*
 * Paging: for every paging form and page size, every combination of rights in the entry and the one
 * above it, of control bits, and of kind of access: whether it faults, with which error code, and
 * which accessed and dirty flags it leaves (SDM volume 3, 4.6, 4.7, 4.8); then reserved bits. Built
 * for 32-bit mode (32-bit and PAE paging) and 64-bit mode (4-level paging).
 */
#include "rt/paging.h"
#include "rt/rt.h"

/* Where pages are tried; it shares no entry with the guest itself. */
#ifdef __x86_64__
#define BASE 0x8040000000ul
#else
#define BASE 0x40000000ul
#endif

enum access { READ, WRITE, EXEC, USER_READ, USER_WRITE, USER_EXEC, ACCESSES };
static const char *const access_name[] = {"read",      "write",      "fetch",
                                          "user read", "user write", "user fetch"};

/* The control bits that matter to access rights. */
struct control {
    bool wp, nxe, smep, smap, ac;
};

static u8 *page; /* holds RET */

USER_CODE static word u_read(word va)
{
    return *(volatile u32 *)va;
}

USER_CODE static word u_write(word va)
{
    *(volatile u32 *)va = 0xC3;
    return 0;
}

USER_CODE static word u_exec(word va)
{
    ((void (*)(void))va)();
    return 0;
}

static struct trap *attempt(enum access access, word va)
{
    switch (access) {
    case READ: return TRAP((void)*(volatile u32 *)va);
    case WRITE: return TRAP(*(volatile u32 *)va = 0xC3);
    case EXEC: return TRAP(((void (*)(void))va)());
    case USER_READ: return user(u_read, va);
    case USER_WRITE: return user(u_write, va);
    default: return user(u_exec, va);
    }
}

/* What the manual says: -1 for no fault, else the error code. The entries come from the top. */
static int model(enum paging form, const struct control *c, const u64 *entries, unsigned n,
                 enum access access)
{
    bool by_user = access >= USER_READ;
    bool write = access == WRITE || access == USER_WRITE;
    bool fetch = access == EXEC || access == USER_EXEC;
    bool nx_works = c->nxe && form != PAGING_32;
    unsigned error =
        (write ? PFE_W : 0) | (by_user ? PFE_U : 0) | (fetch && (nx_works || c->smep) ? PFE_I : 0);
    bool u = true, w = true, x = true;
    for (unsigned i = 0; i < n; i++) {
        if (!(entries[i] & PT_P))
            return (int)error;
        if (entries[i] & PT_NX && !c->nxe)
            return (int)(error | PFE_P | PFE_RSVD);
        u = u && entries[i] & PT_U;
        w = w && entries[i] & PT_W;
        x = x && !(entries[i] & PT_NX);
    }
    bool fault;
    if (by_user)
        fault = !u || (write && !w) || (fetch && !x);
    else if (fetch)
        fault = !x || (u && c->smep);
    else
        fault = (u && c->smap && !c->ac) || (write && !w && c->wp);
    return fault ? (int)(error | PFE_P) : -1;
}

/* P is always set along with RSVD; QEMU's translator leaves it out. */
static word error_of(const struct trap *t)
{
    return t->f.error & PFE_RSVD && on_tcg() ? t->f.error | PFE_P : t->f.error;
}

static bool as_modelled(const struct trap *t, int wanted, word va)
{
    if (wanted < 0)
        return t->f.vector == NO_TRAP || t->f.vector == VECTOR_DONE;
    return t->f.vector == PF && error_of(t) == (word)wanted && t->cr2 == va;
}

static bool used(u64 entry)
{
    return entry & PT_A;
}

/* Which accessed and dirty flags ACCESS left in the entry for VA and the one ABOVE it. */
static bool flags_right(u64 leaf, u64 above, enum access access, int wanted)
{
    bool write = access == WRITE || access == USER_WRITE;
    if (wanted >= 0)
        return !(leaf & PT_D);
    return used(leaf) && used(above) && !(leaf & PT_D) == !write && !(above & PT_D);
}

/* One set of rights, all accesses. Returns how many came out wrong and describes the first. */
static unsigned try_rights(const struct space *s, const struct control *c, unsigned level, u64 leaf,
                           u64 above, bool quiet)
{
    unsigned wrong = 0, top = paging_levels(s->form);
    bool above_has_rights = level + 1 < top || (level + 1 == top && s->form != PAGING_PAE);
    word size = 1ul << paging_shift(s->form, level);
    word va = BASE + ((word)page & (size - 1));
    for (enum access access = READ; access < ACCESSES; access++) {
        u64 table = above_has_rights ? entry_read(s, BASE, level + 1) & PT_ADDRESS : 0;
        u64 entries[2] = {above_has_rights ? above : PT_P | PT_W | PT_U, leaf};
        entry_write(s, BASE, level, leaf);
        if (above_has_rights)
            entry_write(s, BASE, level + 1, table | above);
        invlpg((void *)va);
        int wanted = model(s->form, c, entries, 2, access);
        const struct trap *t = attempt(access, va);
        u64 after = entry_read(s, BASE, level);
        u64 after_above = above_has_rights ? entry_read(s, BASE, level + 1) : PT_A;
        if (above_has_rights)
            entry_write(s, BASE, level + 1, table | PT_P | PT_W | PT_U);
        if (as_modelled(t, wanted, va) && flags_right(after, after_above, access, wanted))
            continue;
        if (!wrong++ && !quiet)
            print("# %s, entry %llx -> %llx below %llx -> %llx: vector %ld error %lx cr2 %lx, "
                  "wanted %d\n",
                  access_name[access], leaf, after, above, after_above, t->f.vector, t->f.error,
                  t->cr2, wanted);
    }
    return wrong;
}

static u64 rights(unsigned bits, enum paging form)
{
    return (bits & 1 ? 0 : PT_P) | (bits & 2 ? 0 : PT_W) | (bits & 4 ? 0 : PT_U) |
           (bits & 8 && form != PAGING_32 ? PT_NX : 0);
}

static void set_control(const struct control *c)
{
    if (has(F_NX))
        wrmsr(MSR_EFER, (rdmsr(MSR_EFER) & ~(u64)EFER_NXE) | (c->nxe ? EFER_NXE : 0));
    word cr0 = read_cr0() & ~CR0_WP;
    write_cr0(cr0 | (c->wp ? CR0_WP : 0));
    word cr4 = read_cr4() & ~(CR4_SMEP | CR4_SMAP);
    write_cr4(cr4 | (c->smep ? CR4_SMEP : 0) | (c->smap ? CR4_SMAP : 0));
    write_flags(2 | (c->ac ? FL_AC : 0));
}

static void matrix(const struct space *s, unsigned level, const char *name)
{
    static const struct control calm = {.wp = true, .nxe = true};
    word size = 1ul << paging_shift(s->form, level);
    for (unsigned setting = 0; setting < 32; setting++) {
        struct control c = {.wp = setting & 1,
                            .nxe = setting & 2,
                            .smep = setting & 4,
                            .smap = setting & 8,
                            .ac = setting & 16};
        if ((c.smep && !has(F_SMEP)) || (c.smap && !has(F_SMAP)) || (c.nxe && !has(F_NX)))
            continue;
        set_control(&c);
        entry_read(s, BASE, level); /* makes the tables above */
        unsigned wrong = 0;
        u64 frame = ((word)page & -size) | (level > 1 ? PT_PS : 0);
        for (unsigned above = 0; above < 16; above += 2)
            for (unsigned leaf = 0; leaf < 16; leaf++)
                wrong += try_rights(s, &c, level, frame | rights(leaf, s->form),
                                    rights(above, s->form), wrong);
        set_control(&calm);
        check(!wrong, "%s: rights with WP=%d NXE=%d SMEP=%d SMAP=%d AC=%d", name, c.wp, c.nxe,
              c.smep, c.smap, c.ac);
    }
}

/* Reserved bits of the entry at LEVEL (a leaf's, or a table's), one at a time. */
static void reserved(const struct space *s, unsigned level, bool leaf, u64 bits, const char *name)
{
    unsigned wrong = 0;
    entry_read(s, BASE, leaf ? level : level - 1); /* makes the tables above */
    u64 good = entry_read(s, BASE, level);
    u64 base = leaf ? PT_P | PT_W | PT_U | (level > 1 ? PT_PS : 0) : good;
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(bits >> bit & 1))
            continue;
        entry_write(s, BASE, level, base | 1ull << bit);
        invlpg((void *)BASE);
        const struct trap *t = attempt(READ, BASE);
        if (t->f.vector != PF || error_of(t) != (PFE_P | PFE_RSVD)) {
            wrong++;
            print("# bit %u: vector %ld error %lx\n", bit, t->f.vector, t->f.error);
        }
    }
    entry_write(s, BASE, level, leaf ? 0 : good);
    invlpg((void *)BASE);
    check(!wrong, "%s: reserved bits", name);
}

static u64 bits_between(unsigned low, unsigned high)
{
    return ((2ull << high) - 1) & ~((1ull << low) - 1);
}

static unsigned physical_bits(void)
{
    return cpuid(0x80000000, 0).a >= 0x80000008 ? cpuid(0x80000008, 0).a & 0xFF : 36;
}

#ifdef __x86_64__
static void run_4level(void)
{
    struct space s;
    space_init(&s, PAGING_4LEVEL);
    space_enter(&s);
    u64 high = physical_bits() < 52 ? bits_between(physical_bits(), 51) : 0;
    matrix(&s, 1, "4-level, 4K");
    reserved(&s, 1, true, high, "4-level PTE");
    reserved(&s, 2, false, high, "4-level PDE");
    reserved(&s, 3, false, high, "4-level PDPTE");
    reserved(&s, 4, false, high | PT_PS, "PML4E");
    entry_write(&s, BASE, 2, 0);
    matrix(&s, 2, "4-level, 2M");
    reserved(&s, 2, true, high | bits_between(13, 20), "4-level 2M PDE");
    if (has(F_1G)) {
        entry_write(&s, BASE, 3, 0);
        matrix(&s, 3, "4-level, 1G");
        reserved(&s, 3, true, high | bits_between(13, 29), "1G PDPTE");
    } else {
        skip("no 1G pages", "4-level, 1G");
        reserved(&s, 3, false, PT_PS, "PDPTE without 1G pages");
    }
    space_leave();
}
#else
/* The four entries that CR3 points to are checked when it is loaded. */
static void pdptes(const struct space *s)
{
    u64 *table = (u64 *)s->root, good = table[1];
    u64 bits = bits_between(1, 2) | bits_between(5, 8) | bits_between(physical_bits(), 63);
    unsigned wrong = 0;
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(bits >> bit & 1))
            continue;
        table[1] = good | 1ull << bit;
        if (TRAP(write_cr3(s->root))->f.vector != GP) {
            print("# bit %u\n", bit);
            wrong++;
        }
        table[1] = bits & ~PT_P;
        if (TRAP(write_cr3(s->root))->f.vector != NO_TRAP)
            wrong++;
    }
    tcg_differs("PDPTEs are read at each walk");
    check(!wrong, "PAE: MOV CR3 checks reserved bits of present PDPTEs, raises #GP(0)");
    table[1] = good;
    write_cr3(s->root);
    map(s, BASE, (word)page, 1, PT_P | PT_W);
    table[1] = 0;
    invlpg((void *)BASE);
    tcg_differs("PDPTEs are read at each walk");
    runs((void)*(volatile u32 *)BASE, "PAE: a PDPTE changed in memory is not seen before MOV CR3");
    write_cr3(s->root);
    page_faults(BASE, 0, (void)*(volatile u32 *)BASE, "PAE: and is seen after it");
    table[1] = good;
    write_cr3(s->root);
}

static void run_32(void)
{
    struct space s;
    space_init(&s, PAGING_32);
    space_enter(&s);
    matrix(&s, 1, "32-bit, 4K");
    entry_write(&s, BASE, 2, 0);
    matrix(&s, 2, "32-bit, 4M");
    reserved(&s, 2, true, bits_between(21, 21), "4M PDE");
    /* Without CR4.PSE the bit is ignored. */
    entry_write(&s, BASE, 2, 0);
    map(&s, BASE, (word)page, 1, PT_P | PT_W);
    entry_write(&s, BASE, 2, entry_read(&s, BASE, 2) | PT_PS);
    write_cr4(read_cr4() & ~CR4_PSE);
    page[64] = 0x5A;
    equal(((volatile u8 *)BASE)[64], 0x5A, "32-bit: PS is ignored without CR4.PSE");
    space_leave();
}

static void run_pae(void)
{
    struct space s;
    space_init(&s, PAGING_PAE);
    space_enter(&s);
    u64 high = bits_between(physical_bits(), 62);
    matrix(&s, 1, "PAE, 4K");
    reserved(&s, 1, true, high, "PAE PTE");
    reserved(&s, 2, false, high, "PAE PDE");
    entry_write(&s, BASE, 2, 0);
    matrix(&s, 2, "PAE, 2M");
    reserved(&s, 2, true, high | bits_between(13, 20), "PAE 2M PDE");
    entry_write(&s, BASE, 2, 0);
    pdptes(&s);
    space_leave();
}
#endif

void test(void)
{
    page = alloc_pages(1024, 4ul << 20);
    page[0] = 0xC3;
#ifdef __x86_64__
    run_4level();
#else
    run_32();
    if (has(F_NX))
        wrmsr(MSR_EFER, EFER_NXE);
    run_pae();
#endif
}
