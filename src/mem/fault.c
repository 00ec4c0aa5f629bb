/*
 * Making pages present: what the gate answers MEM_ABSENT for.
 *
 * A page that takes time to bring in is busy meanwhile, with the lock released; who else wants it
 * waits until it is not.
 */
#include "mem/mem_private.h"

#include "mem/pool.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* How many neighbouring pages are unshared at once, at most. The number doubles as long as each
 * fault is for the page behind those that were unshared last. So a guest that writes to its memory
 * from end to end interrupts its other vCPUs less often. */
#define UNSHARE_MAX 16

/* --- Shared pages ----------------------------------------------------------------------------- */

/* How many shared pages of R from PAGE on, which is GPN, to unshare. */
static unsigned unshare_count(struct mem_region *r, uint64_t page, uint64_t gpn)
{
    struct mem *mem = r->mem;
    unsigned count = 1;

    mem->unshare_run = gpn == mem->next_unshared ? MIN(mem->unshare_run * 2, UNSHARE_MAX) : 1;
    while (count < mem->unshare_run && page + count < r->pages &&
           mem_word_state(mem_word(r, page + count)) == WORD_SHARED)
        count++;
    mem->next_unshared = gpn + count;
    return count;
}

/* Replaces the shared page PAGE of R, and perhaps its neighbours, by private copies. Each copy
 * stays busy until all vCPUs have forgotten the shared page. Otherwise one vCPU could write to the
 * copy, then elsewhere, and another could see the second write but still read the first page as it
 * was. */
static void copy_shared(struct mem_region *r, uint64_t page, uint64_t gpn)
{
    struct mem *mem = r->mem;
    unsigned count = unshare_count(r, page, gpn);
    struct mem_ranges ranges = {.count = 0};
    uint32_t slot[UNSHARE_MAX];

    for (unsigned i = 0; i < count; i++) {
        const void *shared = mem_present(r, page + i, mem_word(r, page + i));

        slot[i] = mem_word_slot(mem_word(r, page + i));
        mem_word_set(r, page + i, WORD_BUSY);
        memcpy(mem_region_page(r, page + i), shared, MEM_PAGE_SIZE);
        mem_ranges_add(&ranges, gpn + i, 1, shared);
    }
    pthread_mutex_unlock(&mem->lock);
    mem_ranges_tell(mem, &ranges, MEM_READ);
    mem_settle(mem);
    pthread_mutex_lock(&mem->lock);
    for (unsigned i = 0; i < count; i++) {
        mem_pool_drop(mem->pool, slot[i]);
        mem_word_set(r, page + i, 0);
    }
}

/* --- Pages in the pager's hands --------------------------------------------------------------- */

static int swap_in(struct mem_region *r, uint64_t page, uint64_t gpn, uint32_t word)
{
    struct mem *mem = r->mem;
    const struct mem_pager *pager = mem->pager;
    int ret;

    mem_word_set(r, page, WORD_BUSY);
    pthread_mutex_unlock(&mem->lock);
    mem_check(mem);
    ret = pager->in(mem->pager_opaque, gpn, mem_word_slot(word), mem_region_page(r, page));
    if (ret == 0 && pager->drop)
        pager->drop(mem->pager_opaque, mem_word_slot(word));
    pthread_mutex_lock(&mem->lock);
    mem_word_set(r, page, ret == 0 ? 0 : word);
    return ret;
}

static int unprotect(struct mem_region *r, uint64_t page, uint64_t gpn, uint32_t word)
{
    struct mem *mem = r->mem;
    const struct mem_pager *pager = mem->pager;
    int ret = 0;

    mem_word_set(r, page, WORD_BUSY);
    pthread_mutex_unlock(&mem->lock);
    mem_check(mem);
    if (pager && pager->unprotected)
        ret = pager->unprotected(mem->pager_opaque, gpn, mem_region_page(r, page));
    pthread_mutex_lock(&mem->lock);
    mem_word_set(r, page, ret == 0 ? 0 : word);
    return ret;
}

static void wait_busy(struct mem *mem)
{
    mem_check(mem);
    pthread_cond_wait(&mem->changed, &mem->lock);
}

/* --- Faults ----------------------------------------------------------------------------------- */

/* One step towards a page that is present. 1: it is. */
static int step(struct mem_region *r, uint64_t page, uint64_t gpn, enum mem_access access, bool own)
{
    uint32_t word = mem_word(r, page);

    switch (mem_word_state(word)) {
    case WORD_BUSY: wait_busy(r->mem); return 0;
    case WORD_BALLOONED: mem_word_set(r, page, 0); return 0;
    case WORD_SWAPPED: return swap_in(r, page, gpn, word);
    case WORD_SHARED:
        if (access == MEM_READ && !own)
            return 1;
        copy_shared(r, page, gpn);
        return 0;
    case WORD_OWN:
        if (access == MEM_READ || !(word & WORD_PROTECTED))
            return 1;
        return unprotect(r, page, gpn, word);
    }
    return -EFAULT; /* no such state */
}

int mem_fault_locked(struct mem *mem, uint64_t gpn, enum mem_access access, bool own,
                     struct mem_region **region, uint64_t *page)
{
    int ret;

    do { /* the region may be another after each step */
        *region = mem_region_at(mem, gpn, page);
        if (!*region || (access == MEM_WRITE && (*region)->kind == MEM_ROM))
            return -EFAULT;
        ret = step(*region, *page, gpn, access, own);
    } while (ret == 0);
    if (ret == -EFAULT) /* the pager's own; callers take it for a page that is not RAM */
        ret = -EIO;
    return ret < 0 ? ret : 0;
}

/* --- Pages that are kept ---------------------------------------------------------------------- */

/* Adds BY to the pins of GPN. Returns false if the page has no such count: it is not RAM. */
static bool count_pin(struct mem *mem, uint64_t gpn, int by)
{
    uint64_t page;
    struct mem_region *r = mem_region_at(mem, gpn, &page);

    if (!r || !r->pins)
        return false;
    r->pins[page] = (uint16_t)(r->pins[page] + by);
    r->pinned += (unsigned long)by;
    if (!r->pinned)
        pthread_cond_broadcast(&mem->changed);
    return true;
}

static void keep(struct mem *mem, struct mem_kept *kept, uint64_t gpn)
{
    uint64_t *place = &kept->gpn[kept->count++ % MEM_KEPT];

    if (kept->count > MEM_KEPT)
        count_pin(mem, *place, -1);
    /* What was not counted must not be uncounted: RAM may be mapped there by then. */
    *place = count_pin(mem, gpn, 1) ? gpn : NOWHERE;
}

void mem_release(struct mem *mem, struct mem_kept *kept)
{
    pthread_mutex_lock(&mem->lock);
    for (unsigned i = 0; i < MIN(kept->count, MEM_KEPT); i++)
        count_pin(mem, kept->gpn[i], -1);
    pthread_mutex_unlock(&mem->lock);
    kept->count = 0;
}

int mem_fault(struct mem *mem, uint64_t gpn, enum mem_access access, struct mem_kept *kept)
{
    struct mem_region *r;
    uint64_t page;
    int ret;

    mem_check(mem);
    pthread_mutex_lock(&mem->lock);
    ret = mem_fault_locked(mem, gpn, access, false, &r, &page);
    if (ret == 0 && kept)
        keep(mem, kept, gpn);
    pthread_mutex_unlock(&mem->lock);
    return ret;
}
