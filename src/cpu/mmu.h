/*
 * The memory management unit: page walk (SDM volume 3, chapter 4) and the software TLB.
 *
 * A software TLB entry maps a guest virtual page to host memory for one kind of access. There is a
 * table of them for each context, and for each of a few address spaces: a change of CR3 changes
 * tables, and a return to a PCID finds its own again. What a supervisor sees without SMAP's consent
 * to user pages is, in all usual kernels, mapped globally, so one table serves all address spaces;
 * if anything else gets into it (mmu.private), it is cleared when the address space changes.
 *
 * An entry holds the page's negative address: an access hits when its address plus that is at most
 * the page's size less the access's. One comparison sees another page and a page crossing alike.
 *
 * Behind the tables is a second level for data, which all of them have in common: an array of pages
 * and one of large pages, in pieces of 2 MiB. A table's key tells its entries from other tables';
 * a table that is emptied gets another key. Code is not excluded from the second level: who takes a
 * translation for writing from there asks whether the page holds code before it enters the page
 * into a table.
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

#define MMU_SECOND_BITS 15
#define MMU_SECOND_SIZE (1u << MMU_SECOND_BITS)
#define MMU_LARGE_BITS  10
#define MMU_LARGE_SIZE  (1u << MMU_LARGE_BITS)
#define MMU_LARGE_SHIFT 21

enum mmu_access { MMU_READ, MMU_WRITE, MMU_EXEC, MMU_ACCESSES };

/* Whose rights an access has. SUPER_AC: a supervisor access that SMAP does not hinder, because
 * CR4.SMAP is 0 or EFLAGS.AC is 1. */
enum mmu_context { MMU_SUPER, MMU_SUPER_AC, MMU_USER, MMU_CONTEXTS };

struct mmu_entry {
    uint64_t tag;     /* minus the page's address; see mmu_hit */
    uintptr_t addend; /* host address = guest virtual address + this */
};

struct mmu_table {
    struct mmu_entry entry[MMU_ACCESSES][MMU_TLB_SIZE];
    uint64_t touched[MMU_ACCESSES]; /* 64 groups of entries: those that are not empty all */
    uint64_t key;                   /* of its entries in the second level; see mmu.c */
    uint64_t bias;                  /* of the places where they are */
    bool in_second;                 /* there may be some under this key */
};

/* Of the second level. */
struct mmu_second_entry {
    uint64_t key;
    uintptr_t addend; /* as in mmu_entry; and MMU_WRITABLE if it was entered for writing */
};
#define MMU_WRITABLE 1u

struct mmu_second {
    uint32_t page_mask, large_mask; /* of places that are used; less than all only in tests */
    uint16_t last_id;               /* that a table has got; see mmu.c */
    struct mmu_second_entry page[MMU_SECOND_SIZE], large[MMU_LARGE_SIZE];
};

/* Which pieces of the address space may have entries out of a larger page. An invalidation of one
 * page drops the whole larger page if the filter has its piece, and that is dear. */
#define MMU_FILTER_BITS 15
struct mmu_filter {
    uint64_t
        word[(1u << MMU_FILTER_BITS) / 64]; /* a bit for each hash of piece and address space */
    unsigned count;                         /* of the bits that are set */
};

struct mmu_space {
    struct mmu_table user, super_ac;
    uint64_t cr3; /* physical base and PCID */
    uint16_t id;  /* 1..4095, or 0: slot unused */
};

struct mmu {
    struct mmu_table *table[MMU_CONTEXTS]; /* the current address space's */
    struct mmu_table super, empty;
    struct mmu_space spaces[MMU_PCIDS];
    uint16_t space;      /* the current address space's identifier; no other has had it since */
    uint16_t next_space; /* CLEARS last changed; the next one */
    uint32_t clears;     /* how often all went, that of global pages and identifiers, too */
    unsigned next_slot;
    bool private;                  /* SUPER has entries that are not of global pages */
    bool global_low;               /* there are entries of global pages in the lower half */
    struct mmu_filter large, huge; /* pieces of 2 MiB and of 1 GiB */
    struct mmu_second second;
};

/* Where a page walk ended. */
struct mmu_page {
    uint64_t gpa;       /* of the byte at the virtual address */
    unsigned page_bits; /* 12, 21, 22 or 30: size of the page */
    bool global;        /* in every address space, until invalidated by name */
    /* The caller of mmu_fill says: in the 2 MiB piece of a larger page that the address lies in,
     * each page may be entered into the software TLB, but for writing to code. */
    bool whole;
    /* ... : the machine page is the one that belongs to its GPN (mem_is_own). */
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
    MMU_ABSENT, /* after mem_fault the walk is to begin anew */
};

/* Translates VA as an access of this kind and context under CPU's paging mode, setting accessed
 * and dirty bits. MMU_FAULT: *ERROR is a page-fault error code. VA has been checked for canonical
 * form or cut to 32 bits by the caller. */
enum mmu_result mmu_walk(struct mem *mem, const struct x86_cpu *cpu, uint64_t va,
                         enum mmu_access access, enum mmu_context context, struct mmu_page *page,
                         uint32_t *error, struct mmu_absent *absent);

/* The same without setting bits or faulting, for debuggers and messages: -1 if it is not mapped, or
 * a page table is not present. */
int mmu_peek(struct mem *mem, const struct x86_cpu *cpu, uint64_t va, uint64_t *gpa);

/* Loads the four PAE PDPTE registers from the table that CR3 names (SDM volume 3, 4.4.1).
 * MMU_FAULT: a reserved bit is set (#GP). Unless MMU_DONE, PDPTE is unchanged. */
enum mmu_result mmu_load_pdptes(struct mem *mem, const struct x86_cpu *cpu, uint64_t cr3,
                                uint64_t pdpte[4], struct mmu_absent *absent);

/* The context of data accesses in CPU's current state, and of implicit supervisor accesses. */
enum mmu_context mmu_context(const struct x86_cpu *cpu);

/* Of zeroed memory. */
void mmu_init(struct mmu *mmu);
/* Address-space changes. NEW_CR3: after CR3 was loaded; KEEP: bit 63 was set with CR4.PCIDE. */
void mmu_new_cr3(struct mmu *mmu, const struct x86_cpu *cpu, bool keep);
void mmu_flush_all(struct mmu *mmu, const struct x86_cpu *cpu);
/* One page of PCID (without CR4.PCIDE: bits 11:0 of CR3), and of all if it is global. Returns
 * whether it may be a part of a larger one, which is flushed whole. */
bool mmu_flush_page(struct mmu *mmu, const struct x86_cpu *cpu, uint64_t va, unsigned pcid);
/* Flushes one PCID that need not be the current one (INVPCID type 1). */
void mmu_flush_pcid(struct mmu *mmu, const struct x86_cpu *cpu, unsigned pcid);
/* Drops every entry for writing to the host page at HOST. */
void mmu_drop_writable(struct mmu *mmu, const void *host);
/* A piece of the host's memory: from FIRST to LAST, both included. */
struct mmu_host {
    uintptr_t first, last;
};
/* Drops every entry for data that leads to one of the COUNT pieces: those for writing only, or all.
 * The pieces are disjoint, and sorted. */
void mmu_drop_host(struct mmu *mmu, const struct mmu_host *pieces, unsigned count, bool write_only);
/* Drops the page at VA from all address spaces. */
void mmu_drop_page(struct mmu *mmu, uint64_t va);
/* Empties one table. */
void mmu_table_clear(struct mmu_table *table);

/* What an empty entry holds: the address of a page that it does not serve. */
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

/* Finds VA in the second level for the current table of CONTEXT: the host address less VA. What is
 * found for writing may hold code. */
bool mmu_second_find(const struct mmu *mmu, enum mmu_context context, enum mmu_access access,
                     uint64_t va, uintptr_t *addend);

/* Enters the translation of VA to PAGE into the current table of CONTEXT, and into the second level
 * if it is for data, and not for writing to a page that is not its GPN's own; HOST is the machine
 * page. The caller vouches for the page: everything that
 * keeps a page out of the software TLB is asked before. */
void mmu_fill(struct mmu *mmu, enum mmu_context context, enum mmu_access access, uint64_t va,
              void *host, const struct mmu_page *page);

#endif
