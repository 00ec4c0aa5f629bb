/*
 * Page walk in every paging mode, and the software TLB (SDM volume 3, chapter 4).
 */
#include "cpu/mmu.h"

#include "base/util.h"

#include <stdatomic.h>
#include <string.h>

#define PTE_P         (1ULL << 0)
#define PTE_W         (1ULL << 1)
#define PTE_U         (1ULL << 2)
#define PTE_A         (1ULL << 5)
#define PTE_D         (1ULL << 6)
#define PTE_PS        (1ULL << 7)
#define PTE_G         (1ULL << 8)
#define PTE_PAT_LARGE (1ULL << 12)
#define PTE_NX        (1ULL << 63)
#define PTE_ADDRESS   0x000FFFFFFFFFF000ULL

#define PHYSICAL_BITS_MAX 52
#define SPACE_LIMIT       4096
#define SECOND_ID_SHIFT   48
#define SECOND_ID_LIMIT   0x8000u

/* How one paging mode is laid out. */
struct walk_mode {
    unsigned levels;     /* below the root */
    unsigned index_bits; /* per level */
    unsigned entry_size; /* 4 or 8 */
};

static struct walk_mode walk_mode(const struct x86_cpu *cpu)
{
    if (!(cpu->cr4 & X86_CR4_PAE))
        return (struct walk_mode){2, 10, 4};
    if (cpu->efer & X86_EFER_LMA)
        return (struct walk_mode){4, 9, 8};
    return (struct walk_mode){2, 9, 8}; /* PAE: the PDPTEs are registers */
}

/* Finds a guest page-table entry in host memory. */
static enum mem_answer entry_find(struct mem *mem, uint64_t gpa, enum mem_access access,
                                  void **host, struct mmu_absent *absent)
{
    enum mem_answer answer = mem_page(mem, gpa >> MEM_PAGE_SHIFT, access, host);

    if (answer == MEM_OK)
        *host = (uint8_t *)*host + (gpa & (MEM_PAGE_SIZE - 1));
    else if (answer == MEM_ABSENT)
        *absent = (struct mmu_absent){gpa >> MEM_PAGE_SHIFT, access};
    return answer;
}

static uint64_t entry_load(const void *host, unsigned size)
{
    if (size == 4)
        return atomic_load_explicit((const _Atomic uint32_t *)host, memory_order_relaxed);
    return atomic_load_explicit((const _Atomic uint64_t *)host, memory_order_relaxed);
}

/* Replaces the entry's value OLD by NEW. Returns false if another processor has changed it
 * meanwhile. */
static bool entry_replace(void *host, unsigned size, uint64_t old, uint64_t new)
{
    if (size == 4) {
        uint32_t expected = (uint32_t)old;

        return atomic_compare_exchange_strong((_Atomic uint32_t *)host, &expected, (uint32_t)new);
    }
    return atomic_compare_exchange_strong((_Atomic uint64_t *)host, &old, new);
}

/* The walk must begin again, because an entry changed under it. */
#define WALK_AGAIN ((enum mmu_result) - 1)

/* Sets BITS in the entry at GPA, which was read as OLD. Does nothing in ROM. */
static enum mmu_result entry_set(struct mem *mem, uint64_t gpa, unsigned size, uint64_t old,
                                 uint64_t bits, struct mmu_absent *absent)
{
    void *host;

    switch (entry_find(mem, gpa, MEM_WRITE, &host, absent)) {
    case MEM_ABSENT: return MMU_ABSENT;
    case MEM_NOT_RAM: return MMU_DONE;
    default: return entry_replace(host, size, old, old | bits) ? MMU_DONE : WALK_AGAIN;
    }
}

/* Returns the bits that must be 0 in an entry. */
static uint64_t reserved_bits(const struct x86_cpu *cpu, const struct walk_mode *mode,
                              unsigned level, bool leaf)
{
    uint64_t reserved = 0;

    if (mode->entry_size == 4)
        return leaf && level == 2 ? 1u << 21 : 0;
    reserved = (1ULL << PHYSICAL_BITS_MAX) - (1ULL << cpu->physical_bits);
    if (!(cpu->efer & X86_EFER_NXE))
        reserved |= PTE_NX;
    if (mode->levels == 2) /* PAE: bits 62:52 too */
        reserved |= 0x7FF0000000000000ULL;
    if (leaf && level == 2)
        reserved |= 0x1FE000;
    if (leaf && level == 3)
        reserved |= 0x3FFFE000;
    if (level == 4)
        reserved |= PTE_PS;
    return reserved;
}

static bool entry_is_leaf(const struct x86_cpu *cpu, const struct walk_mode *mode, unsigned level,
                          uint64_t entry)
{
    if (level == 1)
        return true;
    if (!(entry & PTE_PS) || level == 4)
        return false;
    return mode->entry_size == 8 || (cpu->cr4 & X86_CR4_PSE);
}

/* Whether the rights gathered along the walk permit the access (SDM volume 3, 4.6.1). */
static bool permitted(const struct x86_cpu *cpu, uint64_t rights, bool nx, enum mmu_access access,
                      enum mmu_context context)
{
    bool user_page = rights & PTE_U;

    if (context == MMU_USER) {
        if (!user_page)
            return false;
        if (access == MMU_WRITE)
            return rights & PTE_W;
        return access != MMU_EXEC || !nx;
    }
    if (access == MMU_EXEC)
        return !nx && !(user_page && (cpu->cr4 & X86_CR4_SMEP));
    if (user_page && context == MMU_SUPER)
        return false;
    return access != MMU_WRITE || (rights & PTE_W) || !(cpu->cr0 & X86_CR0_WP);
}

/* Returns the error code of a page fault, without P and RSVD. */
static uint32_t fault_code(const struct x86_cpu *cpu, enum mmu_access access,
                           enum mmu_context context)
{
    uint32_t code = context == MMU_USER ? X86_PF_U : 0;

    if (access == MMU_WRITE)
        code |= X86_PF_W;
    if (access == MMU_EXEC &&
        (((cpu->cr4 & X86_CR4_PAE) && (cpu->efer & X86_EFER_NXE)) || (cpu->cr4 & X86_CR4_SMEP)))
        code |= X86_PF_I;
    return code;
}

/* Returns the physical address that a leaf maps VA to. */
static uint64_t leaf_address(const struct walk_mode *mode, uint64_t entry, unsigned bits,
                             uint64_t va)
{
    uint64_t offset_mask = (1ULL << bits) - 1;
    uint64_t base = entry & PTE_ADDRESS & ~offset_mask;

    if (mode->entry_size == 4 && bits == 22) /* PSE-36: bits 20:13 are address bits 39:32 */
        base = (entry & 0xFFC00000) | ((entry >> 13 & 0xFF) << 32);
    return base | (va & offset_mask);
}

/* Stores where the walk of VA begins. Returns false if the PDPTE is not present. */
static bool walk_root(const struct x86_cpu *cpu, const struct walk_mode *mode, uint64_t va,
                      uint64_t *table)
{
    *table = cpu->cr3 & PTE_ADDRESS;
    if (mode->entry_size == 4)
        *table &= 0xFFFFF000;
    if (mode->entry_size == 8 && mode->levels == 2) {
        uint64_t pdpte = cpu->pdpte[va >> 30 & 3];

        *table = pdpte & PTE_ADDRESS;
        return pdpte & PTE_P;
    }
    return true;
}

/* Walks once. PEEK: checks no rights and sets no bits. May return WALK_AGAIN. */
static enum mmu_result walk_once(struct mem *mem, const struct x86_cpu *cpu, uint64_t va,
                                 enum mmu_access access, enum mmu_context context, bool peek,
                                 struct mmu_page *page, uint32_t *error, struct mmu_absent *absent)
{
    const struct walk_mode mode = walk_mode(cpu);
    uint64_t table, rights = PTE_W | PTE_U;
    bool nx = false;

    *error = fault_code(cpu, access, context);
    if (!walk_root(cpu, &mode, va, &table))
        return MMU_FAULT;
    for (unsigned level = mode.levels;; level--) {
        unsigned bits = MEM_PAGE_SHIFT + mode.index_bits * (level - 1);
        uint64_t at = table + (va >> bits & ((1u << mode.index_bits) - 1)) * mode.entry_size;
        void *host;
        enum mem_answer answer = entry_find(mem, at, MEM_READ, &host, absent);
        uint64_t entry = answer == MEM_OK ? entry_load(host, mode.entry_size)
                                          : ~0ULL; /* as a bus where nothing answers */
        bool leaf = entry_is_leaf(cpu, &mode, level, entry);
        uint64_t set = PTE_A | (leaf && access == MMU_WRITE ? PTE_D : 0);

        if (answer == MEM_ABSENT)
            return MMU_ABSENT;
        if (!(entry & PTE_P))
            return MMU_FAULT;
        if (answer == MEM_NOT_RAM || (entry & reserved_bits(cpu, &mode, level, leaf))) {
            *error |= X86_PF_P | X86_PF_RSVD;
            return MMU_FAULT;
        }
        rights &= entry;
        nx |= mode.entry_size == 8 && (entry & PTE_NX);
        if (leaf && !peek && !permitted(cpu, rights, nx, access, context)) {
            *error |= X86_PF_P;
            return MMU_FAULT;
        }
        if (!peek && (entry & set) != set) {
            enum mmu_result result = entry_set(mem, at, mode.entry_size, entry, set, absent);

            if (result != MMU_DONE)
                return result;
        }
        if (leaf) {
            page->gpa = leaf_address(&mode, entry, bits, va);
            page->page_bits = bits;
            page->global = (entry & PTE_G) && (cpu->cr4 & X86_CR4_PGE);
            return MMU_DONE;
        }
        table = entry & PTE_ADDRESS;
    }
}

enum mmu_result mmu_walk(struct mem *mem, const struct x86_cpu *cpu, uint64_t va,
                         enum mmu_access access, enum mmu_context context, struct mmu_page *page,
                         uint32_t *error, struct mmu_absent *absent)
{
    enum mmu_result result;

    if (!(cpu->cr0 & X86_CR0_PG)) {
        page->gpa = va;
        page->page_bits = MEM_PAGE_SHIFT;
        page->global = false;
        return MMU_DONE;
    }
    do
        result = walk_once(mem, cpu, va, access, context, false, page, error, absent);
    while (result == WALK_AGAIN);
    return result;
}

int mmu_peek(struct mem *mem, const struct x86_cpu *cpu, uint64_t va, uint64_t *gpa)
{
    struct mmu_absent absent;
    struct mmu_page page;
    uint32_t error;

    if (!(cpu->cr0 & X86_CR0_PG)) {
        *gpa = va;
        return 0;
    }
    if (walk_once(mem, cpu, va, MMU_READ, MMU_SUPER_AC, true, &page, &error, &absent) != MMU_DONE)
        return -1;
    *gpa = page.gpa;
    return 0;
}

enum mmu_result mmu_load_pdptes(struct mem *mem, const struct x86_cpu *cpu, uint64_t cr3,
                                uint64_t pdpte[4], struct mmu_absent *absent)
{
    /* Bits 2:1, 8:5 and those above MAXPHYADDR (SDM volume 3, table 4-8). */
    uint64_t reserved = 0x1E6 | ~((1ULL << cpu->physical_bits) - 1);
    uint64_t loaded[4];

    for (unsigned i = 0; i < 4; i++) {
        void *host;
        enum mem_answer answer =
            entry_find(mem, (cr3 & 0xFFFFFFE0) + i * 8, MEM_READ, &host, absent);

        if (answer == MEM_ABSENT)
            return MMU_ABSENT;
        loaded[i] = answer == MEM_OK ? entry_load(host, 8) : ~0ULL;
        if ((loaded[i] & PTE_P) && (loaded[i] & reserved))
            return MMU_FAULT;
    }
    memcpy(pdpte, loaded, sizeof(loaded));
    return MMU_DONE;
}

enum mmu_context mmu_context(const struct x86_cpu *cpu)
{
    if (x86_cpl(cpu) == 3)
        return MMU_USER;
    if (!(cpu->cr4 & X86_CR4_SMAP) || (cpu->rflags & X86_FLAG_AC))
        return MMU_SUPER_AC;
    return MMU_SUPER;
}

/* --- The software TLB ------------------------------------------------------------------------ */

#define GROUP_BITS (MMU_TLB_BITS - 6) /* log2 of the entries that a bit of TOUCHED stands for */

/* Empties group number GROUP of TABLE's entries for ACCESS. */
static void group_clear(struct mmu_table *table, unsigned access, unsigned group)
{
    struct mmu_entry *first = &table->entry[access][group << GROUP_BITS];

    memset(first, 0, sizeof(*first) << GROUP_BITS);
    if (group == 0)
        first->tag = MMU_NEVER(0);
}

void mmu_table_clear(struct mmu_table *table)
{
    for (unsigned access = 0; access < MMU_ACCESSES; access++) {
        for (uint64_t left = table->touched[access]; left; left &= left - 1)
            group_clear(table, access, (unsigned)__builtin_ctzll(left));
        table->touched[access] = 0;
    }
}

static void table_init(struct mmu_table *table)
{
    for (unsigned access = 0; access < MMU_ACCESSES; access++)
        group_clear(table, access, 0);
}

/* --- Its second level --- */

/* Gives TABLE a new identifier: a number from 1 to 7FFFh, in the bits of a canonical address that
 * only repeat its sign. So two keys are equal only if both the tables and the pages are the same,
 * and no key is 0. */
static void second_identify(struct mmu *mmu, struct mmu_table *table)
{
    uint64_t id = ++mmu->second.last_id;

    table->second_id = id << SECOND_ID_SHIFT;
    table->bias =
        (uint32_t)id *
        0x9E3779B9u; /* the same address has different places in different address spaces */
    table->in_second = false;
}

/* Clears the second level and gives every table a new identifier. For when the numbers are used up.
 * */
static void second_begin(struct mmu *mmu)
{
    memset(mmu->second.page, 0, sizeof(mmu->second.page));
    memset(mmu->second.large, 0, sizeof(mmu->second.large));
    mmu->second.last_id = 0;
    second_identify(mmu, &mmu->super);
    second_identify(mmu, &mmu->empty); /* nothing is ever entered for it */
    for (unsigned i = 0; i < MMU_PCIDS; i++) {
        second_identify(mmu, &mmu->spaces[i].user);
        second_identify(mmu, &mmu->spaces[i].super_ac);
    }
}

/* Drops what the second level has of TABLE. */
static void second_forget(struct mmu *mmu, struct mmu_table *table)
{
    if (!table->in_second)
        return;
    if (mmu->second.last_id == SECOND_ID_LIMIT - 1)
        second_begin(mmu);
    else
        second_identify(mmu, table);
}

/* Returns the index of the place for VA, in an array of pages of 2^SHIFT bytes. */
static unsigned second_place(const struct mmu_table *table, uint64_t va, unsigned shift,
                             uint32_t mask)
{
    return ((uint32_t)(va >> shift) + (uint32_t)table->bias) & mask;
}

static struct mmu_second_entry *second_page(struct mmu_second *second,
                                            const struct mmu_table *table, uint64_t va)
{
    return &second->page[second_place(table, va, MEM_PAGE_SHIFT, second->page_mask)];
}

static struct mmu_second_entry *second_large(struct mmu_second *second,
                                             const struct mmu_table *table, uint64_t va)
{
    return &second->large[second_place(table, va, MMU_LARGE_SHIFT, second->large_mask)];
}

/* Returns the key of TABLE's page of 2^SHIFT bytes at VA. */
static uint64_t second_key(const struct mmu_table *table, uint64_t va, unsigned shift)
{
    return table->second_id ^ ALIGN_DOWN(va, 1ULL << shift);
}

bool mmu_second_find(const struct mmu *mmu, enum mmu_context context, enum mmu_access access,
                     uint64_t va, uintptr_t *addend)
{
    const struct mmu_second *second = &mmu->second;
    const struct mmu_table *table = mmu->table[context];
    const struct mmu_second_entry *entry =
        &second->large[second_place(table, va, MMU_LARGE_SHIFT, second->large_mask)];

    if (entry->key != second_key(table, va, MMU_LARGE_SHIFT)) {
        entry = &second->page[second_place(table, va, MEM_PAGE_SHIFT, second->page_mask)];
        if (entry->key != second_key(table, va, MEM_PAGE_SHIFT))
            return false;
    }
    *addend = entry->addend & ~(uintptr_t)MMU_WRITABLE;
    return access != MMU_WRITE || (entry->addend & MMU_WRITABLE);
}

static void second_fill(struct mmu *mmu, struct mmu_table *table, enum mmu_access access,
                        uint64_t va, uintptr_t addend, const struct mmu_page *page)
{
    bool large = page->page_bits > MEM_PAGE_SHIFT;
    struct mmu_second_entry *entry =
        large ? second_large(&mmu->second, table, va) : second_page(&mmu->second, table, va);
    uint64_t key = second_key(table, va, large ? MMU_LARGE_SHIFT : MEM_PAGE_SHIFT);

    if (large &&
        !page->whole) /* single pages of a larger one would not be found when that is dropped */
        return;
    if (access == MMU_WRITE &&
        !page->own) /* whoever takes it would look for code at the wrong page */
        return;
    /* A page that was entered for writing stays so when it is entered again for reading. */
    if (access == MMU_WRITE || (entry->key == key && entry->addend == (addend | MMU_WRITABLE)))
        addend |= MMU_WRITABLE;
    *entry = (struct mmu_second_entry){key, addend};
    table->in_second = true;
}

/* Drops what the second level has of TABLE's page of 2^BITS bytes at VA. */
static void second_drop(struct mmu *mmu, const struct mmu_table *table, uint64_t va, unsigned bits)
{
    struct mmu_second_entry *entry;

    if (!table->in_second)
        return;
    entry = second_page(&mmu->second, table, va);
    if (entry->key == second_key(table, va, MEM_PAGE_SHIFT))
        entry->key = 0;
    if (bits == MEM_PAGE_SHIFT)
        return;
    for (uint64_t piece = ALIGN_DOWN(va, 1ULL << bits), end = piece + (1ULL << bits); piece != end;
         piece += 1ULL << MMU_LARGE_SHIFT) {
        entry = second_large(&mmu->second, table, piece);
        if (entry->key == second_key(table, piece, MMU_LARGE_SHIFT))
            entry->key = 0;
    }
}

/* --- Which invalidations concern larger pages --- */

/* With more bits set than this, the filter would say "perhaps" too often, and everything is
 * dropped. */
#define FILTER_LIMIT (1u << (MMU_FILTER_BITS - 2))

static void filter_clear(struct mmu_filter *filter)
{
    memset(filter, 0, sizeof(*filter));
}

/* SPACE is the identifier of the page's address space, or 0 if the page is global. */
static unsigned filter_place(uint64_t va, unsigned shift, unsigned space)
{
    return (unsigned)(((va >> shift) + ((uint64_t)space << 48)) * 0x9E3779B97F4A7C15u >>
                      (64 - MMU_FILTER_BITS));
}

static void filter_add(struct mmu_filter *filter, uint64_t va, unsigned shift, unsigned space)
{
    unsigned place = filter_place(va, shift, space);

    filter->count += !(filter->word[place / 64] >> place % 64 & 1);
    filter->word[place / 64] |= 1ULL << place % 64;
}

static bool filter_has(const struct mmu_filter *filter, uint64_t va, unsigned shift, unsigned space)
{
    unsigned place = filter_place(va, shift, space);

    return filter->word[place / 64] >> place % 64 & 1;
}

/* Whether there may be entries of a larger page around VA, global or of PCID's address space. */
static bool may_be_larger(const struct mmu *mmu, const struct mmu_filter *filter, uint64_t va,
                          unsigned shift, unsigned pcid)
{
    if (filter->count == 0)
        return false;
    if (filter_has(filter, va, shift, 0))
        return true;
    for (unsigned i = 0; i < MMU_PCIDS; i++)
        if ((mmu->spaces[i].cr3 & 0xFFF) == pcid &&
            filter_has(filter, va, shift, mmu->spaces[i].id))
            return true;
    return false;
}

/* --- Both levels --- */

/* Empties TABLE, in the second level, too. */
static void table_forget(struct mmu *mmu, struct mmu_table *table)
{
    mmu_table_clear(table);
    second_forget(mmu, table);
}

static void space_clear(struct mmu *mmu, struct mmu_space *space)
{
    table_forget(mmu, &space->user);
    table_forget(mmu, &space->super_ac);
    space->id = 0;
}

/* Drops everything. The caller then enters an address space. */
static void drop_everything(struct mmu *mmu)
{
    table_forget(mmu, &mmu->super);
    for (unsigned i = 0; i < MMU_PCIDS; i++)
        space_clear(mmu, &mmu->spaces[i]);
    filter_clear(&mmu->large);
    filter_clear(&mmu->huge);
    mmu->privates = 0;
    mmu->private_code = mmu->global_low = false;
    mmu->clears++;
}

/* Gives SPACE, which is empty, to the address space of CR3, with an identifier that no address
 * space has had since CLEARS changed. */
static void assign_space(struct mmu *mmu, struct mmu_space *space, uint64_t cr3)
{
    if (mmu->next_space == SPACE_LIMIT || mmu->large.count > FILTER_LIMIT ||
        mmu->huge.count > FILTER_LIMIT) {
        drop_everything(mmu);
        mmu->next_space = 1;
    }
    space->cr3 = cr3;
    space->id = mmu->next_space++;
}

static void entry_drop(struct mmu_entry *entry, unsigned index)
{
    entry->tag = MMU_NEVER(index);
}

/* Notes that SUPER gets an entry at INDEX for a page that is not global. Returns whether the second
 * level may have the page, too. */
static bool note_private(struct mmu *mmu, enum mmu_access access, unsigned index)
{
    if (access == MMU_EXEC)
        mmu->private_code = true;
    if (mmu->privates < MMU_PRIVATES)
        mmu->private[mmu->privates] = (uint16_t)(index | (unsigned)access << MMU_TLB_BITS);
    if (mmu->privates <= MMU_PRIVATES)
        mmu->privates++;
    return mmu->privates > MMU_PRIVATES;
}

/* Takes from SUPER the pages that are not global. */
static void drop_private(struct mmu *mmu)
{
    if (mmu->privates > MMU_PRIVATES) {
        table_forget(mmu, &mmu->super);
    } else {
        for (unsigned i = 0; i < mmu->privates; i++) {
            unsigned index = mmu->private[i] % MMU_TLB_SIZE;

            entry_drop(&mmu->super.entry[mmu->private[i] >> MMU_TLB_BITS][index], index);
        }
    }
    mmu->privates = 0;
    mmu->private_code = false;
}

/* Makes SPACE the current address space. */
static void enter_space(struct mmu *mmu, struct mmu_space *space)
{
    drop_private(mmu);
    mmu->space = space->id;
    mmu->table[MMU_SUPER] = &mmu->super;
    mmu->table[MMU_SUPER_AC] = &space->super_ac;
    mmu->table[MMU_USER] = &space->user;
}

void mmu_init(struct mmu *mmu)
{
    mmu->second.page_mask = MMU_SECOND_SIZE - 1;
    mmu->second.large_mask = MMU_LARGE_SIZE - 1;
    second_begin(mmu);
    table_init(&mmu->super);
    table_init(&mmu->empty);
    for (unsigned i = 0; i < MMU_PCIDS; i++) {
        table_init(&mmu->spaces[i].user);
        table_init(&mmu->spaces[i].super_ac);
    }
    mmu->next_space = SPACE_LIMIT;
    assign_space(mmu, &mmu->spaces[0], 0);
    enter_space(mmu, &mmu->spaces[0]);
}

/* Makes an empty address space current, that of CR3. It takes the place of one with the same PCID,
 * or of any other. */
static void enter_new_space(struct mmu *mmu, uint64_t cr3)
{
    struct mmu_space *slot = NULL;

    for (unsigned i = 0; i < MMU_PCIDS && !slot; i++)
        if (mmu->spaces[i].id && ((mmu->spaces[i].cr3 ^ cr3) & 0xFFF) == 0)
            slot = &mmu->spaces[i];
    if (!slot)
        slot = &mmu->spaces[mmu->next_slot++ % MMU_PCIDS];
    space_clear(mmu, slot);
    assign_space(mmu, slot, cr3);
    enter_space(mmu, slot);
}

void mmu_new_cr3(struct mmu *mmu, const struct x86_cpu *cpu, bool keep)
{
    if (keep) {
        for (unsigned i = 0; i < MMU_PCIDS; i++) {
            /* The manual lets a PCID keep its translations when it is given other page tables,
             * until they are invalidated. Comparing all of CR3 is stricter and always allowed. */
            if (mmu->spaces[i].id && mmu->spaces[i].cr3 == cpu->cr3) {
                enter_space(mmu, &mmu->spaces[i]);
                return;
            }
        }
    }
    enter_new_space(mmu, cpu->cr3);
}

void mmu_flush_all(struct mmu *mmu, const struct x86_cpu *cpu)
{
    drop_everything(mmu);
    enter_new_space(mmu, cpu->cr3);
}

void mmu_flush_pcid(struct mmu *mmu, const struct x86_cpu *cpu, unsigned pcid)
{
    for (unsigned i = 0; i < MMU_PCIDS; i++)
        if ((mmu->spaces[i].cr3 & 0xFFF) == pcid)
            space_clear(mmu, &mmu->spaces[i]);
    if ((cpu->cr3 & 0xFFF) == pcid)
        enter_new_space(mmu, cpu->cr3);
}

/* Drops what TABLE has of the page of 2^BITS bytes at VA. */
static void table_drop(struct mmu *mmu, struct mmu_table *table, uint64_t va, unsigned bits)
{
    unsigned count = 1u << (bits - MEM_PAGE_SHIFT); /* at most as many as a table has */
    unsigned first = (va >> MEM_PAGE_SHIFT) & (MMU_TLB_SIZE - 1) & ~(count - 1);

    second_drop(mmu, table, va, bits);
    for (unsigned access = 0; access < MMU_ACCESSES; access++) {
        for (unsigned i = first; i < first + count; i++) {
            struct mmu_entry *entry = &table->entry[access][i];

            if (!(table->touched[access] >> (i >> GROUP_BITS) & 1))
                i |= (1u << GROUP_BITS) - 1;
            else if (!((-entry->tag ^ va) >> bits))
                entry_drop(entry, i);
        }
    }
}

bool mmu_flush_page(struct mmu *mmu, const struct x86_cpu *cpu, uint64_t va, unsigned pcid)
{
    bool large = may_be_larger(mmu, &mmu->large, va, 21, pcid);
    bool everywhere = va >> 63 || mmu->global_low;
    unsigned bits = !large ? MEM_PAGE_SHIFT : cpu->cr4 & X86_CR4_PAE ? 21 : 22;

    if (may_be_larger(mmu, &mmu->huge, va, 30, pcid)) {
        mmu_flush_all(mmu, cpu);
        return true;
    }
    table_drop(mmu, &mmu->super, va, bits);
    for (unsigned i = 0; i < MMU_PCIDS; i++) {
        struct mmu_space *space = &mmu->spaces[i];

        if (everywhere || (space->cr3 & 0xFFF) == pcid) {
            table_drop(mmu, &space->user, va, bits);
            table_drop(mmu, &space->super_ac, va, bits);
        }
    }
    return large;
}

/* Drops the page at VA from TABLE, and what the second level has of a larger page around it. */
static void table_drop_part(struct mmu *mmu, struct mmu_table *table, uint64_t va)
{
    table_drop(mmu, table, va, MEM_PAGE_SHIFT);
    second_drop(mmu, table, va, MMU_LARGE_SHIFT);
}

void mmu_drop_page(struct mmu *mmu, uint64_t va)
{
    table_drop_part(mmu, &mmu->super, va);
    for (unsigned i = 0; i < MMU_PCIDS; i++) {
        table_drop_part(mmu, &mmu->spaces[i].user, va);
        table_drop_part(mmu, &mmu->spaces[i].super_ac, va);
    }
}

static void table_drop_writable(struct mmu_table *table, const void *host)
{
    for (uint64_t left = table->touched[MMU_WRITE]; left; left &= left - 1) {
        unsigned first = (unsigned)__builtin_ctzll(left) << GROUP_BITS;

        for (unsigned i = first; i < first + (1u << GROUP_BITS); i++) {
            struct mmu_entry *entry = &table->entry[MMU_WRITE][i];

            if (entry->addend - entry->tag == (uintptr_t)host)
                entry_drop(entry, i);
        }
    }
}

void mmu_drop_writable(struct mmu *mmu, const void *host)
{
    table_drop_writable(&mmu->super, host);
    for (unsigned i = 0; i < MMU_PCIDS; i++) {
        table_drop_writable(&mmu->spaces[i].user, host);
        table_drop_writable(&mmu->spaces[i].super_ac, host);
    }
}

/* --- By host address --- */

/* Whether [HOST, HOST + SIZE) overlaps one of the pieces. */
static bool overlaps(const struct mmu_host *pieces, unsigned count, uintptr_t host, uintptr_t size)
{
    unsigned low = 0, high = count;

    while (low < high) { /* the first piece that ends at or behind HOST */
        unsigned middle = (low + high) / 2;

        if (pieces[middle].last < host)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && pieces[low].first <= host + size - 1;
}

static void table_drop_host(struct mmu_table *table, const struct mmu_host *pieces, unsigned count,
                            enum mmu_access access)
{
    for (uint64_t left = table->touched[access]; left; left &= left - 1) {
        unsigned first = (unsigned)__builtin_ctzll(left) << GROUP_BITS;

        for (unsigned i = first; i < first + (1u << GROUP_BITS); i++) {
            struct mmu_entry *entry = &table->entry[access][i];

            if (overlaps(pieces, count, entry->addend - entry->tag, MEM_PAGE_SIZE))
                entry_drop(entry, i);
        }
    }
}

/* Does the same in an array of the second level, whose entries stand for 2^SHIFT bytes each. The
 * lower 48 bits of a key are those of the virtual address, which is canonical. */
static void second_drop_host(struct mmu_second_entry *entries, unsigned size, unsigned shift,
                             const struct mmu_host *pieces, unsigned count, bool write_only)
{
    for (unsigned i = 0; i < size; i++) {
        struct mmu_second_entry *entry = &entries[i];
        uint64_t va = (uint64_t)((int64_t)(entry->key << 16) >> 16);

        if (entry->key && (!write_only || (entry->addend & MMU_WRITABLE)) &&
            overlaps(pieces, count, (entry->addend & ~(uintptr_t)MMU_WRITABLE) + va, 1ULL << shift))
            entry->key = 0;
    }
}

static void tables_drop_host(struct mmu *mmu, const struct mmu_host *pieces, unsigned count,
                             enum mmu_access access)
{
    table_drop_host(&mmu->super, pieces, count, access);
    for (unsigned i = 0; i < MMU_PCIDS; i++) {
        table_drop_host(&mmu->spaces[i].user, pieces, count, access);
        table_drop_host(&mmu->spaces[i].super_ac, pieces, count, access);
    }
}

void mmu_drop_host(struct mmu *mmu, const struct mmu_host *pieces, unsigned count, bool write_only)
{
    tables_drop_host(mmu, pieces, count, MMU_WRITE);
    if (!write_only)
        tables_drop_host(mmu, pieces, count, MMU_READ);
    second_drop_host(mmu->second.page, MMU_SECOND_SIZE, MEM_PAGE_SHIFT, pieces, count, write_only);
    second_drop_host(mmu->second.large, MMU_LARGE_SIZE, MMU_LARGE_SHIFT, pieces, count, write_only);
}

void mmu_fill(struct mmu *mmu, enum mmu_context context, enum mmu_access access, uint64_t va,
              void *host, const struct mmu_page *page)
{
    struct mmu_table *table = mmu->table[context];
    unsigned index = (va >> MEM_PAGE_SHIFT) & (MMU_TLB_SIZE - 1);
    struct mmu_entry *entry = &table->entry[access][index];

    entry->tag = -ALIGN_DOWN(va, MEM_PAGE_SIZE);
    entry->addend = (uintptr_t)host - ALIGN_DOWN(va, MEM_PAGE_SIZE);
    table->touched[access] |= 1ULL << (index >> GROUP_BITS);
    if ((page->global || context != MMU_SUPER || note_private(mmu, access, index)) &&
        access != MMU_EXEC)
        second_fill(mmu, table, access, va, entry->addend, page);
    if (page->global && !(va >> 63))
        mmu->global_low = true;
    if (page->page_bits > MEM_PAGE_SHIFT) {
        unsigned space = page->global ? 0 : mmu->space;

        filter_add(&mmu->large, va, 21, space);
        if (page->page_bits > 22)
            filter_add(&mmu->huge, va, 30, space);
        if (page->page_bits == 22) /* both 2 MiB halves */
            filter_add(&mmu->large, va ^ (1u << 21), 21, space);
    }
}
