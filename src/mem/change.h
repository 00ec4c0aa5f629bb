/*
 * Taking pages of RAM away from the guest, which gets them back when it touches them.
 *
 *     not touched   reads as zero, takes no memory
 *     private       the guest's own
 *     shared        one machine page for all that hold the same; read-only, copied on write
 *     ballooned     given back by the guest, takes no memory; reads as zero when it is touched
 *     swapped out   in the pager's hands
 *
 * The memory manager's thread takes pages in batches. It waits once for a batch, whatever the size
 * of that, until each vCPU has been between two instructions; no vCPU is stopped. It skips pages
 * that are pinned or kept for an instruction.
 *
 * mem_fault brings a page back. It waits for vCPUs only if a shared page is written to: each other
 * vCPU must first forget where it reads that page.
 */
#ifndef DOPPEL_MEM_CHANGE_H
#define DOPPEL_MEM_CHANGE_H

#include "mem/mem.h"

/* What happens to a page. */
enum mem_change_kind {
    MEM_SHARE,    /* joins it with the others that hold the same; one of zeroes is not touched */
    MEM_BALLOON,  /* gives its memory to the host; its bytes are lost */
    MEM_SWAP_OUT, /* has the pager keep its bytes and gives its memory to the host */
    MEM_PROTECT,  /* the pager's `unprotected` is called before it is written to */
};

struct mem_change {
    enum mem_change_kind kind;
    uint64_t gpn;
    /* Out: 0; -EBUSY: skipped, as the page is pinned, in use, or in a state in which this cannot be
     * done (MEM_BALLOON: protected; the others: any but private); -EPERM: RAM is exported
     * (foreign.h) or kept (map.h), and this is not MEM_BALLOON; -EFAULT: not RAM; -EALREADY:
     * nothing to do; or the pager's error. */
    int status;
};

#define MEM_BATCH_MAX 1024

/* Makes COUNT changes, at most MEM_BATCH_MAX. May block. On the memory manager's thread, or one
 * that stands in for it: a thread at a time. Returns how many have status 0. */
unsigned mem_change(struct mem *mem, struct mem_change *changes, unsigned count);

/* A batch for the memory manager's thread, which starts with the first. DONE is called there when
 * the changes have been made; it may post the batch again. */
struct mem_batch {
    struct mem_change *changes;
    unsigned count;
    void (*done)(struct mem_batch *batch);
    void *opaque;           /* the caller's */
    struct mem_batch *next; /* mem's */
};

/* Any thread, with or without locks. 0, or a negative errno, and DONE is not called: the thread
 * cannot be started, or mem_change_end has been called (-ESHUTDOWN). */
int mem_change_post(struct mem *mem, struct mem_batch *batch);
/* Makes the changes that have been posted and ends the thread. From then on nothing can be posted.
 * Before the listeners, and whatever a DONE uses, are destroyed; mem_destroy does it otherwise. May
 * block. May be called again, by the same thread. */
void mem_change_end(struct mem *mem);
/* For asking where the manager's thread is (base/where.h). Any thread, no lock. */
struct where;
struct where *mem_where(struct mem *mem);

/* Who keeps the bytes of pages that are swapped out. SLOT is a number below 2^28 that the pager has
 * chosen. All may block, and are called without locks; 0 or a negative errno. */
struct mem_pager {
    int (*out)(void *opaque, uint64_t gpn, const void *page, uint32_t *slot);
    int (*in)(void *opaque, uint64_t gpn, uint32_t slot, void *page);
    /* The slot's bytes are no longer needed. May be NULL. */
    void (*drop)(void *opaque, uint32_t slot);
    /* The page, which was protected, is about to be written to, by a vCPU, a device or the monitor;
     * it stays protected if this fails. Not called when mem_clear clears the page, or its region is
     * removed: that ends the protection, and who wants the old bytes must read them before. May be
     * NULL. */
    int (*unprotected)(void *opaque, uint64_t gpn, const void *page);
};

/* While nothing is swapped out or protected. PAGER must outlive MEM; NULL: nothing can be. */
void mem_set_pager(struct mem *mem, const struct mem_pager *pager, void *opaque);

enum mem_page_state {
    MEM_STATE_NONE, /* no RAM */
    MEM_STATE_UNTOUCHED,
    MEM_STATE_PRIVATE,
    MEM_STATE_SHARED,
    MEM_STATE_BALLOONED,
    MEM_STATE_SWAPPED,
    MEM_STATE_BUSY, /* between two of them */
};

/* The state of GPN, and of how many pages from there on at least: those behind them may have the
 * same. MEM_STATE_NONE: *PAGES leads to the next RAM, or is 0 if there is none. What is untouched
 * is what the host says has no memory. */
enum mem_page_state mem_page_state(const struct mem *mem, uint64_t gpn, uint64_t *pages);

/* How many pages are in each state; the first three and the last are 0. */
struct mem_counts {
    uint64_t shared, shared_machine_pages, ballooned, swapped;
};
void mem_count(struct mem *mem, struct mem_counts *counts);

#endif
