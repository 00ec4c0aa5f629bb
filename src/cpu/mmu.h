/*
 * The memory management unit: page walk (SDM volume 3, chapter 4) and the software TLB.
 *
 * A software TLB entry maps a guest virtual page to host memory for one kind of access. Entries
 * carry the identifier of the address space that they were filled in, in the tag's low bits, so
 * that a change of CR3 needs no clearing and a return to a PCID finds its entries again. The
 * index is by virtual address alone, so one INVLPG reaches the entries of all address spaces.
 */
#ifndef DOPPEL_CPU_MMU_H
#define DOPPEL_CPU_MMU_H

#include "mem/mem.h"
#include "x86/cpu.h"

#include <stdbool.h>
#include <stdint.h>

#define MMU_TLB_BITS 11
#define MMU_TLB_SIZE (1u << MMU_TLB_BITS)
#define MMU_PCIDS    8

enum mmu_access { MMU_READ, MMU_WRITE, MMU_EXEC, MMU_ACCESSES };

/* Whose rights an access has. SUPER_AC: a supervisor access that SMAP does not hinder, because
 * CR4.SMAP is 0 or EFLAGS.AC is 1. */
enum mmu_context { MMU_SUPER, MMU_SUPER_AC, MMU_USER, MMU_CONTEXTS };

struct mmu_entry {
    uint64_t tag;     /* page | address space; no address space is 0, so 0 is an empty entry */
    uintptr_t addend; /* host address = guest virtual address + this */
};

struct mmu_space {
    uint64_t cr3; /* physical base and PCID */
    uint16_t id;  /* 1..4095, or 0: slot unused */
};

struct mmu {
    struct mmu_entry tlb[MMU_CONTEXTS][MMU_ACCESSES][MMU_TLB_SIZE];
    uint16_t space;      /* the current address space's identifier */
    uint16_t next_space; /* next identifier never used since the last clearing */
    uint32_t clears;     /* how often identifiers began anew */
    struct mmu_space spaces[MMU_PCIDS];
    unsigned next_slot;
    /* Which 2 MiB regions, and which 1 GiB regions, may have entries out of a larger page; hashed.
     */
    uint64_t large_filter, huge_filter;
    uint64_t misses;
};

/* Where a page walk ended. */
struct mmu_page {
    uint64_t gpa;       /* of the byte at the virtual address */
    unsigned page_bits; /* 12, 21, 22 or 30: size of the page */
};

/* Translates VA as an access of this kind and context under CPU's paging mode, setting accessed
 * and dirty bits. 0, or -1 with *ERROR a page-fault error code. VA has been checked for canonical
 * form or cut to 32 bits by the caller. */
int mmu_walk(struct mem *mem, const struct x86_cpu *cpu, uint64_t va, enum mmu_access access,
             enum mmu_context context, struct mmu_page *page, uint32_t *error);

/* The same without setting bits or faulting, for debuggers and messages: -1 if not mapped. */
int mmu_peek(struct mem *mem, const struct x86_cpu *cpu, uint64_t va, uint64_t *gpa);

/* Loads the four PAE PDPTE registers from the table that CR3 names (SDM volume 3, 4.4.1). -1: a
 * reserved bit is set (#GP); PDPTE unchanged. */
int mmu_load_pdptes(struct mem *mem, const struct x86_cpu *cpu, uint64_t cr3, uint64_t pdpte[4]);

/* The context of data accesses in CPU's current state, and of implicit supervisor accesses. */
enum mmu_context mmu_context(const struct x86_cpu *cpu);

void mmu_init(struct mmu *mmu);
/* Address-space changes. NEW_CR3: after CR3 was loaded; KEEP: bit 63 was set with CR4.PCIDE. */
void mmu_new_cr3(struct mmu *mmu, const struct x86_cpu *cpu, bool keep);
void mmu_flush_all(struct mmu *mmu, const struct x86_cpu *cpu);
/* Returns whether the page may be a part of a larger one, which is flushed whole. */
bool mmu_flush_page(struct mmu *mmu, const struct x86_cpu *cpu, uint64_t va);
/* Flushes one PCID that need not be the current one (INVPCID type 1). */
void mmu_flush_pcid(struct mmu *mmu, const struct x86_cpu *cpu, unsigned pcid);
/* Drops every entry that leads to the host page at HOST; with WRITES_ONLY, those for writing. */
void mmu_drop_host_page(struct mmu *mmu, const void *host, bool writes_only);

static inline struct mmu_entry *mmu_entry(struct mmu *mmu, enum mmu_context context,
                                          enum mmu_access access, uint64_t va)
{
    return &mmu->tlb[context][access][(va >> MEM_PAGE_SHIFT) & (MMU_TLB_SIZE - 1)];
}

static inline uint64_t mmu_tag(const struct mmu *mmu, uint64_t va)
{
    return (va & ~(uint64_t)(MEM_PAGE_SIZE - 1)) | mmu->space;
}

/* Enters a translation; HOST is the machine page. */
void mmu_fill(struct mmu *mmu, enum mmu_context context, enum mmu_access access, uint64_t va,
              void *host, unsigned page_bits);

#endif
