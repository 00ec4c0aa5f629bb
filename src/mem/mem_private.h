/*
 * The inside of guest memory.
 *
 * A page of RAM has a word that says its state. The word of a page that is the guest's own, touched
 * or not, is 0, so that the array takes no memory before pages are taken away:
 *
 *     bits 2:0   enum word_state
 *     bit 3      WORD_PROTECTED
 *     bits 31:4  shared: slot in the pool; swapped out: the pager's slot
 *
 * Words change under mem.lock. The gate reads them without it, so a vCPU that is inside may still
 * go by an old word. Whoever changes a word therefore calls mem_settle before freeing the machine
 * page that the old word led to: when that returns, no vCPU uses the page.
 *
 * WORD_BUSY means that one thread is changing the page. Only that thread may set the word then; all
 * others wait for mem.changed.
 */
#ifndef DOPPEL_MEM_MEM_PRIVATE_H
#define DOPPEL_MEM_MEM_PRIVATE_H

#include "base/fifo.h"
#include "base/util.h"
#include "base/where.h"
#include "mem/change.h"
#include "mem/lost.h"
#include "mem/mem.h"

#include <pthread.h>
#include <stdatomic.h>

enum word_state { WORD_OWN, WORD_SHARED, WORD_BALLOONED, WORD_SWAPPED, WORD_BUSY };
#define WORD_STATE      7u
#define WORD_PROTECTED  8u
#define WORD_SLOT_SHIFT 4
#define WORD_SLOTS      (1u << 28)

#define PIECE_SHIFT 9 /* pages in 2 MiB */

struct mem_region {
    /* What the gate looks at. */
    uint8_t *host; /* of the first page */
    enum mem_kind kind;
    _Atomic uint64_t odd;          /* pages whose word is not 0 */
    _Atomic uint64_t *_Atomic log; /* mem/log.h: a bit for a page; or NULL */
    _Atomic uint64_t *own_log;     /* the region's own; or NULL */

    /* Of RAM, by page; all in one mapping. */
    _Atomic uint32_t *word;
    uint16_t *pins;
    _Atomic uint16_t *odd_in; /* by 2 MiB of GPA: those of ODD */
    uint64_t skew;            /* pages that the first 2 MiB lack, where the region was added */
    size_t tables_size;

    struct mem *mem;
    const char *name;
    uint64_t id;    /* of all regions that there ever were */
    uint64_t first; /* GPN, or NOWHERE */
    uint64_t pages;
    unsigned busy;        /* pages that are WORD_BUSY */
    unsigned long pinned; /* sum of PINS */
    struct mem_region *next;

    int fd; /* the memory, from FD_OFFSET on */
    uint64_t fd_offset;
    bool own_mapping; /* HOST and FD are this region's, not those of mem */
    struct lost lost; /* of its own mapping */
};

#define NOWHERE (MEM_NOWHERE >> MEM_PAGE_SHIFT)
/* No region reaches beyond this, which is far above what a processor can address. */
#define GPN_LIMIT (1ULL << 40)

/* The regions that are mapped, by rising GPN. There are two tables: while one is changed, the gate
 * searches the other (see table.c). */
#define OWN_REGIONS 3
#define PLACES      (MEM_REGIONS_MAX + OWN_REGIONS)
struct mem_place {
    _Atomic uint64_t first, end; /* GPNs */
    struct mem_region *_Atomic region;
};
struct mem_table {
    _Atomic unsigned count;
    struct mem_place place[PLACES];
};

struct mem_pool;

struct mem {
    uint8_t *base; /* where guest physical address 0 is mapped */
    uint64_t ram_size, low_end, high_end;
    int fd;
    struct lost lost; /* of RAM; and the first page of all regions that was */

    pthread_mutex_t lock;   /* all below, and words; taken last, and never across a callback */
    pthread_cond_t changed; /* pages are no longer busy, regions no longer pinned */
    struct mem_region *regions;
    unsigned region_count; /* of those that were added */
    _Atomic uint64_t region_ids;
    /* The regions that RAM was created with, which stay: the gate need not search for them. */
    struct mem_own {
        uint64_t first, pages;
        struct mem_region *region;
    } own[OWN_REGIONS];
    unsigned own_count;
    struct mem_table table[2];
    _Atomic unsigned turn;
    pthread_rwlock_t listening; /* guards LISTENERS; read-locked while they are told */
    struct mem_listener *listeners;
    void (*check)(void *opaque);
    void *check_opaque;

    struct mem_pool *pool; /* or NULL, before the first page is shared */
    const struct mem_pager *pager;
    void *pager_opaque;
    struct mem_counts counts;
    uint64_t next_unshared, unshare_run; /* see fault.c */

    uint64_t pinned, pin_limit; /* bytes */
    struct fifo pin_waiters;    /* mem_pin_waiter.link */
    bool logging;
    bool clearing;    /* mem_clear is at work */
    bool exported;    /* foreign.h */
    unsigned keepers; /* see mem_keep_present in map.h */

    struct mem_manager {
        pthread_t thread;
        struct where where; /* of the thread */
        bool started, ending;
        pthread_cond_t posted;
        struct mem_batch *first, **last;
    } manager;
};

/* --- table.c --- */

/* The region that GPN lies in, or NULL; stores the page's number in it. Lock-free. */
struct mem_region *mem_region_search(const struct mem *mem, uint64_t gpn, uint64_t *page);
static inline struct mem_region *mem_region_at(const struct mem *mem, uint64_t gpn, uint64_t *page)
{
    for (unsigned i = 0; i < OWN_REGIONS; i++) {
        *page = gpn - mem->own[i].first;
        if (*page < mem->own[i].pages)
            return mem->own[i].region;
    }
    return mem_region_search(mem, gpn, page);
}
/* Makes the tables say what the regions do. With the lock. */
void mem_table_publish(struct mem *mem);

/* --- region.c --- */

/* Adds a region of RAM's own mapping, before anyone uses MEM. */
int mem_region_add_own(struct mem *mem, const char *name, uint64_t gpa, uint64_t size,
                       uint64_t fd_offset);
void mem_regions_free(struct mem *mem);
/* Whether each page of [GPA, GPA + SIZE) is in a region that FITS. Takes the lock. */
bool mem_covers(const struct mem *mem, uint64_t gpa, uint64_t size,
                bool (*fits)(const struct mem_region *r));

static inline uint8_t *mem_region_page(const struct mem_region *r, uint64_t page)
{
    return r->host + (page << MEM_PAGE_SHIFT);
}

/* --- page.c: words; with the lock --- */

static inline uint32_t mem_word(const struct mem_region *r, uint64_t page)
{
    return r->word ? atomic_load_explicit(&r->word[page], memory_order_acquire) : 0;
}

static inline enum word_state mem_word_state(uint32_t word)
{
    return (enum word_state)(word & WORD_STATE);
}

static inline uint32_t mem_word_slot(uint32_t word)
{
    return word >> WORD_SLOT_SHIFT;
}

static inline uint32_t mem_word_make(enum word_state state, uint32_t slot)
{
    return (uint32_t)state | slot << WORD_SLOT_SHIFT;
}

/* Changes a word, with all that is counted. Wakes who waits for a busy page. */
void mem_word_set(struct mem_region *r, uint64_t page, uint32_t word);
/* Makes all pages of R the guest's own, whatever was there. Without the lock; waits for busy ones.
 */
void mem_words_clear(struct mem_region *r);
/* Gives the page's memory back to the host; from then on it reads as zeroes. The page is busy.
 * Without the lock. */
int mem_punch(const struct mem_region *r, uint64_t page, uint64_t pages);
/* Whether the host has memory for PAGE, of PAGES pages that are the guest's own or a device's.
 * Stores for how many from there on the answer is the same. */
bool mem_is_touched(const struct mem_region *r, uint64_t page, uint64_t pages, uint64_t *same);
/* Where the bytes of a page are that is present for reading. */
const void *mem_present(const struct mem_region *r, uint64_t page, uint32_t word);

/* --- fault.c --- */

/* Makes GPN present for accesses of this kind. OWN: and private. Stores where it is. May release
 * the lock and take it again. */
int mem_fault_locked(struct mem *mem, uint64_t gpn, enum mem_access access, bool own,
                     struct mem_region **region, uint64_t *page);

/* --- log.c --- */

static inline void mem_mark_in(_Atomic uint64_t *log, uint64_t page)
{
    uint64_t bit = 1ULL << (page & 63);

    if (!(atomic_load_explicit(&log[page / 64], memory_order_relaxed) & bit))
        atomic_fetch_or(&log[page / 64], bit);
}

/* Notes that a page was, or is about to be, written to. Lock-free. */
static inline void mem_mark(struct mem_region *r, uint64_t page)
{
    _Atomic uint64_t *log = atomic_load_explicit(&r->log, memory_order_acquire);

    if (__builtin_expect(log != NULL, 0))
        mem_mark_in(log, page);
    if (__builtin_expect(r->own_log != NULL, 0))
        mem_mark_in(r->own_log, page);
}

_Atomic uint64_t *mem_bitmap_create(uint64_t pages);
void mem_bitmap_free(_Atomic uint64_t *bitmap, uint64_t pages);

/* --- listener.c: without the lock --- */

void mem_tell_invalidated(struct mem *mem, const struct mem_range *ranges, unsigned count,
                          enum mem_access access);
void mem_tell_written(struct mem *mem, uint64_t gpa, uint64_t size);
void mem_tell_regions(struct mem *mem);
void mem_tell_log(struct mem *mem);
/* Has the listeners mark what guest code has written to unseen. */
void mem_collect_log(struct mem *mem);
/* Returns when no vCPU uses what was invalidated before. */
void mem_settle(struct mem *mem);
/* The calling thread is about to wait for vCPUs. */
static inline void mem_check(const struct mem *mem)
{
    if (mem->check)
        mem->check(mem->check_opaque);
}

/* Ranges that are collected for mem_tell_invalidated: neighbours become one, and too many become
 * all of memory. */
#define RANGES_MAX 64
struct mem_ranges {
    struct mem_range at[RANGES_MAX];
    unsigned count;
    bool all;
};
void mem_ranges_add(struct mem_ranges *ranges, uint64_t gpn, uint64_t pages, const void *host);
void mem_ranges_tell(struct mem *mem, const struct mem_ranges *ranges, enum mem_access access);

/* --- manager.c --- */

void mem_manager_init(struct mem *mem);

#endif
