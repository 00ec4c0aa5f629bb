/*
 * Page tables of every form (SDM volume 3, chapter 4), built where physical and virtual addresses
 * are the same.
 */
#ifndef RT_PAGING_H
#define RT_PAGING_H

#include "x86.h"

enum paging { PAGING_32, PAGING_PAE, PAGING_4LEVEL };

struct space {
    enum paging form;
    word root; /* physical address of the top table */
};

#define PT_P  (1ull << 0)
#define PT_W  (1ull << 1)
#define PT_U  (1ull << 2)
#define PT_A  (1ull << 5)
#define PT_D  (1ull << 6)
#define PT_PS (1ull << 7)
#define PT_G  (1ull << 8)
#define PT_NX (1ull << 63)

#define PT_ADDRESS 0x000FFFFFFFFFF000ull

/* A space that maps the guest's first 16 MiB and the APIC for the kernel, and user code and data
 * for everyone. */
void space_init(struct space *s, enum paging form);
/* Loads CR3 and, in a guest without paging, turns it on. */
void space_enter(const struct space *s);
void space_leave(void);

/* The entry for VA at LEVEL: 1 is a page table's, 2 a page directory's, up to 4. Tables missing
 * above it are made, with all permissions. */
u64 entry_read(const struct space *s, word va, unsigned level);
void entry_write(const struct space *s, word va, unsigned level, u64 value);
/* Maps one page whose size LEVEL says. */
void map(const struct space *s, word va, u64 pa, unsigned level, u64 bits);
/* Number of levels, and log2 of what an entry of LEVEL covers. */
unsigned paging_levels(enum paging form);
unsigned paging_shift(enum paging form, unsigned level);

#endif
