/*
 * The dirty log: bitmaps, a bit for a page.
 *
 * Who writes through an answer of the gate has marked the page when the gate was asked; so a fetch
 * takes the bits first, and then has every vCPU forget its answers for writing to these pages.
 * What a vCPU writes before it has forgotten is there when the fetch returns, and what it writes
 * later it asks for again. Everything else writes first and marks then.
 */
#include "mem/log.h"

#include "mem/mem_private.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static size_t bitmap_bytes(uint64_t pages)
{
    return (size_t)ALIGN_UP(pages, 64) / 8;
}

_Atomic uint64_t *mem_bitmap_create(uint64_t pages)
{
    void *bitmap = mmap(NULL, bitmap_bytes(pages), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return bitmap == MAP_FAILED ? NULL : bitmap;
}

void mem_bitmap_free(_Atomic uint64_t *bitmap, uint64_t pages)
{
    if (bitmap)
        munmap((void *)bitmap, bitmap_bytes(pages));
}

/* --- Start and end ---------------------------------------------------------------------------- */

/* Takes the bitmaps off all regions, to be freed later. With the lock. Returns their number. */
static unsigned detach(struct mem *mem, _Atomic uint64_t **detached, uint64_t *pages)
{
    unsigned n = 0;

    for (struct mem_region *r = mem->regions; r; r = r->next) {
        detached[n] = atomic_exchange(&r->log, NULL);
        pages[n++] = r->pages;
    }
    mem->logging = false;
    return n;
}

static bool attach(struct mem *mem)
{
    for (struct mem_region *r = mem->regions; r; r = r->next) {
        _Atomic uint64_t *log;

        if (r->kind == MEM_ROM)
            continue;
        log = mem_bitmap_create(r->pages);
        if (!log)
            return false;
        atomic_store(&r->log, log);
    }
    return mem->logging = true;
}

void mem_log_stop(struct mem *mem)
{
    _Atomic uint64_t *detached[PLACES];
    uint64_t pages[PLACES];
    unsigned count;

    pthread_mutex_lock(&mem->lock);
    count = detach(mem, detached, pages);
    pthread_mutex_unlock(&mem->lock);
    mem_tell_log(mem);
    mem_settle(mem); /* a vCPU may be marking a page */
    for (unsigned i = 0; i < count; i++)
        mem_bitmap_free(detached[i], pages[i]);
}

int mem_log_start(struct mem *mem, struct error *err)
{
    const struct mem_range all = {0, UINT64_MAX, NULL};
    bool busy, attached;

    pthread_mutex_lock(&mem->lock);
    busy = mem->logging;
    attached = !busy && attach(mem);
    pthread_mutex_unlock(&mem->lock);
    if (busy)
        return error_set(err, EBUSY, "guest memory: there is a dirty log already");
    if (!attached) {
        mem_log_stop(mem);
        return error_set(err, ENOMEM, "guest memory: out of memory for the dirty log");
    }
    mem_tell_log(mem);
    mem_tell_invalidated(mem, &all, 1, MEM_WRITE);
    mem_settle(mem);
    return 0;
}

/* --- Fetching --------------------------------------------------------------------------------- */

/* Takes the bits of LOG's pages from PAGE up to END, and ORs them into BITMAP, the first one at bit
 * AT. Collects where the pages are. */
static uint64_t take(struct mem_region *r, _Atomic uint64_t *log, uint64_t page, uint64_t end,
                     uint64_t *bitmap, uint64_t at, struct mem_ranges *ranges)
{
    uint64_t count = 0;

    while (page < end) {
        unsigned first = page & 63, bits = (unsigned)MIN(end - page, 64 - first);
        uint64_t mask = (~0ULL >> (64 - bits)) << first;
        uint64_t got = atomic_load_explicit(&log[page / 64], memory_order_relaxed) & mask;

        if (got)
            got = atomic_fetch_and(&log[page / 64], ~mask) & mask;
        for (; got; got &= got - 1) {
            uint64_t dirty = ALIGN_DOWN(page, 64) + (unsigned)__builtin_ctzll(got);
            uint64_t bit = at + dirty - page;

            bitmap[bit / 64] |= 1ULL << (bit & 63);
            mem_ranges_add(ranges, r->first + dirty, 1, mem_region_page(r, dirty));
            count++;
        }
        page += bits;
        at += bits;
    }
    return count;
}

/* Has the vCPUs ask again before they write to what was fetched. */
static void rearm(struct mem *mem, const struct mem_ranges *ranges)
{
    mem_ranges_tell(mem, ranges, MEM_WRITE);
    mem_settle(mem);
}

uint64_t mem_log_fetch(struct mem *mem, uint64_t gpn, uint64_t pages, uint64_t *bitmap)
{
    struct mem_ranges ranges = {.count = 0};
    uint64_t count = 0;

    memset(bitmap, 0, bitmap_bytes(pages));
    mem_collect_log(mem);
    pthread_mutex_lock(&mem->lock);
    for (struct mem_region *r = mem->regions; r; r = r->next) {
        _Atomic uint64_t *log = atomic_load(&r->log);
        uint64_t first = MAX(gpn, r->first), end = MIN(gpn + pages, r->first + r->pages);

        if (log && r->first != NOWHERE && first < end)
            count += take(r, log, first - r->first, end - r->first, bitmap, first - gpn, &ranges);
    }
    pthread_mutex_unlock(&mem->lock);
    rearm(mem, &ranges);
    return count;
}

uint64_t mem_region_log_fetch(struct mem_region *r, uint64_t *bitmap)
{
    struct mem_ranges ranges = {.count = 0};
    uint64_t count;

    memset(bitmap, 0, bitmap_bytes(r->pages));
    mem_collect_log(r->mem);
    pthread_mutex_lock(&r->mem->lock);
    count = take(r, r->own_log, 0, r->pages, bitmap, 0, &ranges);
    pthread_mutex_unlock(&r->mem->lock);
    rearm(r->mem, &ranges);
    return count;
}
