/*
 * The memory management unit: page walk (SDM volume 3, chapter 4) and the software TLB.
 *
 *     virtual address
 *        |   first level: a table for each context and address space
 *        |       hit ----> host address
 *        v miss
 *        second level: data only, one for all tables
 *        |       hit ----> is entered into the table
 *        v miss
 *        page walk ------> mmu_fill enters the page into both levels
 *
 * A software TLB entry maps a guest virtual page to host memory for one kind of access. There is a
 * table of entries for each context, and for each of a few address spaces: a load of CR3 changes
 * the tables, and a return to a PCID finds its own again. What a supervisor accesses without the
 * right to user pages (MMU_SUPER) is mapped globally by all usual kernels, so one table serves all
 * address spaces there. If pages that are not global get into that table, it loses them when the
 * address space changes: it is told which they are (mmu.private), or is emptied if they are many.
 * Linux has some: those that it rewrites its code by, and those that once held a module.
 *
 * An entry holds minus its page's address. An access hits if its address plus that is at most the
 * page's size minus the access's. So one comparison finds out both whether the page is another one
 * and whether the access crosses into the next.
 *
 * The second level is an array of pages, and an array of pieces of 2 MiB of larger pages. An entry
 * there has a key, made of its address and the identifier of the table that it belongs to
 * (second_id). A table that is emptied gets another identifier. For writing, the second level may
 * have pages with code: whoever takes a translation for writing from there asks whether the page
 * holds code before it enters the page into a table.
 */
#ifndef DOPPEL_CPU_MMU_H
#define DOPPEL_CPU_MMU_H

#include "mem/mem.h"
#include "x86/cpu.h"

#include <stdbool.h>
#include <stdint.h>

#define MMU_TLB_BITS 12
#define MMU_TLB_SIZE (1u << MMU_TLB_BITS)
#define MMU_PCIDS    8
#define MMU_PRIVATES 64u

#define MMU_SECOND_BITS 15
#define MMU_SECOND_SIZE (1u << MMU_SECOND_BITS)
#define MMU_LARGE_BITS  10
#define MMU_LARGE_SIZE  (1u << MMU_LARGE_BITS)
#define MMU_LARGE_SHIFT 21

enum mmu_access { MMU_READ, MMU_WRITE, MMU_EXEC, MMU_ACCESSES };

/* Whose rights an access has. SUPER_AC: a supervisor's access that may reach user pages, because
 * CR4.SMAP is 0 or EFLAGS.AC is 1. */
enum mmu_context { MMU_SUPER, MMU_SUPER_AC, MMU_USER, MMU_CONTEXTS };

struct mmu_entry {
    uint64_t tag;     /* minus the page's address; see mmu_hit */
    uintptr_t addend; /* host address = guest virtual address + this */
};

struct mmu_table {
    struct mmu_entry entry[MMU_ACCESSES][MMU_TLB_SIZE];
    uint64_t touched[MMU_ACCESSES]; /* 64 parts of the entries: which are in use */
    uint64_t second_id;             /* part of the keys of its entries there; see mmu.c */
    uint64_t bias;                  /* added to their addresses to find their places there */
    bool in_second;                 /* some may be there under this identifier */
};

/* An entry of the second level. */
struct mmu_second_entry {
    uint64_t key;     /* 0: empty */
    uintptr_t addend; /* as in mmu_entry; and MMU_WRITABLE if it was entered for writing */
};
#define MMU_WRITABLE 1u

struct mmu_second {
    uint32_t page_mask, large_mask; /* the last place that is used */
    uint16_t last_id; /* the last one that a table got, without its shift; see mmu.c */
    struct mmu_second_entry page[MMU_SECOND_SIZE], large[MMU_LARGE_SIZE];
};

/* For which pieces of the address space there may be entries of a larger page, by a hash of the
 * piece and the address space. An invalidation of one page must drop the whole larger page if the
 * filter has its piece, which takes long. */
#define MMU_FILTER_BITS 15
struct mmu_filter {
    uint64_t word[(1u << MMU_FILTER_BITS) / 64]; /* a bit for each hash */
    unsigned count;                              /* of the bits that are set */
};

struct mmu_space {
    struct mmu_table user, super_ac;
    uint64_t cr3; /* physical base and PCID */
    uint16_t id;  /* 1..4095, or 0: slot unused */
};

struct mmu {
    struct mmu_table *table[MMU_CONTEXTS]; /* the current ones */
    struct mmu_table super, empty;
    struct mmu_space spaces[MMU_PCIDS];
    uint16_t space;      /* identifies the current address space until CLEARS changes */
    uint16_t next_space; /* the identifier of the next new address space */
    uint32_t clears;     /* how often everything was dropped; identifiers then begin anew */
    unsigned next_slot;
    /* Where SUPER has entries of pages that are not global: the place, and << MMU_TLB_BITS the
     * access. PRIVATES may be MMU_PRIVATES + 1: there are more than noted, and the second level may
     * have some. */
    uint16_t private[MMU_PRIVATES];
    unsigned privates;
    bool private_code; /* supervisors may have executed code that is not mapped globally */
    bool global_low;   /* there are entries of global pages in the lower half */
    struct mmu_filter large, huge; /* pieces of 2 MiB and of 1 GiB */
    struct mmu_second second;
};

/* Where a page walk ended. */
struct mmu_page {
    uint64_t gpa;       /* of the byte at the virtual address */
    unsigned page_bits; /* 12, 21, 22 or 30: size of the page */
    bool global;        /* in every address space, until invalidated by name */
    /* For mmu_fill, set by its caller: in the 2 MiB piece of a larger page that the address lies
     * in, each page may be entered into the software TLB (except, if it has code, for writing). */
    bool whole;
    /* For mmu_fill, too: the machine page is the one that belongs to its GPN (mem_is_own). */
    bool own;
};

/* Where a page walk stopped because a page of the page tables is not present. */
struct mmu_absent {
    uint64_t gpn;
    enum mem_access access;
};

/* How a walk of page tables ends. */
enum mmu_result {
    MMU_DONE,
    MMU_FAULT,
    MMU_ABSENT, /* a page table is not present: call mem_fault, then walk again */
};

/* Translates VA for an access of this kind and context under CPU's paging mode, and sets accessed
 * and dirty bits. VA has been checked for canonical form, or cut to 32 bits. MMU_FAULT: *ERROR is a
 * page-fault error code. MMU_ABSENT: *ABSENT says which page is not present. */
enum mmu_result mmu_walk(struct mem *mem, const struct x86_cpu *cpu, uint64_t va,
                         enum mmu_access access, enum mmu_context context, struct mmu_page *page,
                         uint32_t *error, struct mmu_absent *absent);

/* Translates VA without setting bits, for debuggers and messages. Returns -1 if VA is not mapped,
 * or a page table is not present. */
int mmu_peek(struct mem *mem, const struct x86_cpu *cpu, uint64_t va, uint64_t *gpa);

/* Loads the four PAE PDPTE registers from the table that CR3 names (SDM volume 3, 4.4.1).
 * MMU_FAULT: a reserved bit is set (#GP). Unless MMU_DONE, PDPTE is unchanged. */
enum mmu_result mmu_load_pdptes(struct mem *mem, const struct x86_cpu *cpu, uint64_t cr3,
                                uint64_t pdpte[4], struct mmu_absent *absent);

/* Returns the context of data accesses in CPU's present state. */
enum mmu_context mmu_context(const struct x86_cpu *cpu);

/* Initializes MMU, which is zeroed. */
void mmu_init(struct mmu *mmu);
/* Changes the address space after CR3 was loaded. KEEP: the guest wants what the PCID has cached to
 * stay (bit 63, with CR4.PCIDE). */
void mmu_new_cr3(struct mmu *mmu, const struct x86_cpu *cpu, bool keep);
/* Drops everything. */
void mmu_flush_all(struct mmu *mmu, const struct x86_cpu *cpu);
/* Drops the page at VA from PCID's address space (without CR4.PCIDE: bits 11:0 of CR3), and from
 * all if it is global. Returns whether it may be a part of a larger page, which is then dropped as
 * a whole. */
bool mmu_flush_page(struct mmu *mmu, const struct x86_cpu *cpu, uint64_t va, unsigned pcid);
/* Drops everything of PCID, which need not be the current one (INVPCID type 1). */
void mmu_flush_pcid(struct mmu *mmu, const struct x86_cpu *cpu, unsigned pcid);
/* Drops every entry for writing to the host page at HOST. */
void mmu_drop_writable(struct mmu *mmu, const void *host);
/* A piece of the host's memory: from FIRST to LAST, both included. */
struct mmu_host {
    uintptr_t first, last;
};
/* Drops every entry for data that leads to one of the COUNT pieces; WRITE_ONLY: only those for
 * writing. The pieces are disjoint and sorted. */
void mmu_drop_host(struct mmu *mmu, const struct mmu_host *pieces, unsigned count, bool write_only);
/* Drops the page at VA from all address spaces. */
void mmu_drop_page(struct mmu *mmu, uint64_t va);
/* Empties one table. */
void mmu_table_clear(struct mmu_table *table);

/* The tag of the empty entry with this INDEX: that of a page which belongs to another index. */
#define MMU_NEVER(INDEX) ((INDEX) == 0 ? -(uint64_t)MEM_PAGE_SIZE : 0)

static inline const struct mmu_entry *mmu_entry(const struct mmu_table *table,
                                                enum mmu_access access, uint64_t va)
{
    return &table->entry[access][(va >> MEM_PAGE_SHIFT) & (MMU_TLB_SIZE - 1)];
}

static inline bool mmu_hit(const struct mmu_entry *entry, uint64_t va, unsigned size)
{
    return va + entry->tag <= MEM_PAGE_SIZE - size;
}

/* Returns what tells apart the code of the present address space: its identifier; or, for a
 * supervisor, 0 as long as all code that supervisors have executed is mapped globally, because it
 * is then the same in all address spaces. */
static inline uint64_t mmu_code_space(const struct mmu *mmu, bool user)
{
    return user || mmu->private_code ? mmu->space : 0;
}

/* Finds VA in the second level, for the current table of CONTEXT. Stores the host address minus VA.
 * A page that is found for writing may hold code. */
bool mmu_second_find(const struct mmu *mmu, enum mmu_context context, enum mmu_access access,
                     uint64_t va, uintptr_t *addend);

/* Enters the translation of VA to PAGE into the current table of CONTEXT. HOST is the machine page.
 * Data is entered into the second level, too, except for writing to a page that is not its GPN's
 * own. The caller has made sure that nothing keeps the page out of the software TLB. */
void mmu_fill(struct mmu *mmu, enum mmu_context context, enum mmu_access access, uint64_t va,
              void *host, const struct mmu_page *page);

#endif
