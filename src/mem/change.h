/*
 * Taking pages of RAM away from the guest, which gets them back when it touches them.
 *
 *     not touched   reads as zero, takes no memory
 *     private       the guest's own
 *     shared        one machine page for all that hold the same; read-only, copied on write
 *     ballooned     given back by the guest, takes no memory; reads as zero when it is touched
 *     swapped out   in the pager's hands
 *
 * Pages are taken in batches on the thread of the memory manager. Each vCPU passes one instruction
 * boundary for a batch, whatever its size; none stands still. A page that is pinned, or kept for an
 * instruction, is skipped. A page comes back by mem_fault without anything of the kind, but for
 * writing to a shared page: then the other vCPUs drop what they have of it for reading.
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
    /* Out: 0; -EBUSY: skipped, as it is pinned or in use; -EFAULT: not RAM; -EALREADY: nothing to
     * do; or the pager's error. */
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

/* Any thread, with or without locks. 0, or a negative errno: the thread cannot be started. */
int mem_change_post(struct mem *mem, struct mem_batch *batch);

/* Who keeps the bytes of pages that are swapped out. SLOT is a number below 2^28 that the pager has
 * chosen. All may block, and are called without locks; 0 or a negative errno. */
struct mem_pager {
    int (*out)(void *opaque, uint64_t gpn, const void *page, uint32_t *slot);
    int (*in)(void *opaque, uint64_t gpn, uint32_t slot, void *page);
    /* The slot's bytes are no longer needed. May be NULL. */
    void (*drop)(void *opaque, uint32_t slot);
    /* The page, which was protected, is about to be written to, by whomever; it stays protected if
     * this fails. May be NULL. */
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
