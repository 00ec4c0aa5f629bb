/*
 * The gate, and the state of single pages.
 */
#include "mem/mem_private.h"

#include "mem/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* --- The gate --------------------------------------------------------------------------------- */

/* The answer for a page of R that is not simply the guest's own. */
static enum mem_answer odd_page(const struct mem_region *r, uint64_t page, enum mem_access access,
                                uint32_t word, void **host)
{
    bool present = mem_word_state(word) == WORD_OWN || mem_word_state(word) == WORD_SHARED;

    if (access == MEM_WRITE || !present)
        return MEM_ABSENT;
    *host = (void *)(uintptr_t)mem_present(r, page, word);
    return MEM_OK;
}

enum mem_answer mem_page(struct mem *mem, uint64_t gpn, enum mem_access access, void **host)
{
    uint64_t page;
    struct mem_region *r = mem_region_at(mem, gpn, &page);

    if (!r)
        return MEM_NOT_RAM;
    /* As long as no page of the region is odd, its words need not be looked at. */
    if (unlikely(atomic_load_explicit(&r->odd, memory_order_relaxed))) {
        uint32_t word = mem_word(r, page);

        if (word)
            return odd_page(r, page, access, word, host);
    }
    if (access == MEM_WRITE) {
        if (r->kind == MEM_ROM)
            return MEM_NOT_RAM;
        mem_mark(r, page);
    }
    *host = mem_region_page(r, page);
    return MEM_OK;
}

/* PAGE's place in odd_in. */
static uint64_t piece_of(const struct mem_region *r, uint64_t page)
{
    return (page + r->skew) >> PIECE_SHIFT;
}

bool mem_is_whole(const struct mem *mem, uint64_t gpn, uint64_t pages, enum mem_access access)
{
    uint64_t page;
    const struct mem_region *r = mem_region_at(mem, gpn, &page);

    if (!r || r->kind != MEM_RAM || pages > r->pages - page)
        return false;
    if (access == MEM_WRITE && (atomic_load_explicit(&r->log, memory_order_relaxed) || r->own_log))
        return false;
    if (!atomic_load_explicit(&r->odd, memory_order_relaxed))
        return true;
    for (uint64_t piece = piece_of(r, page); piece <= piece_of(r, page + pages - 1); piece++)
        if (atomic_load_explicit(&r->odd_in[piece], memory_order_relaxed))
            return false;
    return true;
}

/* --- Words ------------------------------------------------------------------------------------ */

const void *mem_present(const struct mem_region *r, uint64_t page, uint32_t word)
{
    if (mem_word_state(word) == WORD_SHARED)
        return mem_pool_page(r->mem->pool, mem_word_slot(word));
    return mem_region_page(r, page);
}

static void count_state(struct mem *mem, uint32_t word, int64_t by)
{
    switch (mem_word_state(word)) {
    case WORD_SHARED: mem->counts.shared += (uint64_t)by; break;
    case WORD_BALLOONED: mem->counts.ballooned += (uint64_t)by; break;
    case WORD_SWAPPED: mem->counts.swapped += (uint64_t)by; break;
    default: break;
    }
}

void mem_word_set(struct mem_region *r, uint64_t page, uint32_t word)
{
    struct mem *mem = r->mem;
    uint32_t before = mem_word(r, page);
    bool was_busy = mem_word_state(before) == WORD_BUSY;
    bool is_busy = mem_word_state(word) == WORD_BUSY;

    count_state(mem, before, -1);
    count_state(mem, word, 1);
    if (word && !before) { /* before the word says so: the gate looks at these first */
        atomic_fetch_add(&r->odd, 1);
        atomic_fetch_add(&r->odd_in[piece_of(r, page)], 1);
    }
    atomic_store_explicit(&r->word[page], word, memory_order_release);
    if (!word && before) {
        atomic_fetch_sub(&r->odd, 1);
        atomic_fetch_sub(&r->odd_in[piece_of(r, page)], 1);
    }
    r->busy += is_busy;
    r->busy -= was_busy;
    if (was_busy && !is_busy)
        pthread_cond_broadcast(&mem->changed);
}

/* Makes PAGE the guest's own. Returns the pager's slot that it was in, or WORD_SLOTS. With the
 * lock, which it may release. */
static uint32_t word_clear(struct mem_region *r, uint64_t page)
{
    struct mem *mem = r->mem;
    uint32_t word;

    while (mem_word_state(word = mem_word(r, page)) == WORD_BUSY)
        pthread_cond_wait(&mem->changed, &mem->lock);
    if (mem_word_state(word) == WORD_SHARED)
        mem_pool_drop(mem->pool, mem_word_slot(word));
    mem_word_set(r, page, 0);
    return mem_word_state(word) == WORD_SWAPPED ? mem_word_slot(word) : WORD_SLOTS;
}

void mem_words_clear(struct mem_region *r)
{
    struct mem *mem = r->mem;

    if (!r->word)
        return;
    pthread_mutex_lock(&mem->lock);
    for (uint64_t page = 0; atomic_load(&r->odd) && page < r->pages; page++) {
        uint32_t slot = mem_word(r, page) ? word_clear(r, page) : WORD_SLOTS;

        if (slot == WORD_SLOTS || !mem->pager->drop)
            continue;
        pthread_mutex_unlock(&mem->lock);
        mem->pager->drop(mem->pager_opaque, slot);
        pthread_mutex_lock(&mem->lock);
    }
    pthread_mutex_unlock(&mem->lock);
}

int mem_punch(const struct mem_region *r, uint64_t page, uint64_t pages)
{
    int ret;

    do
        ret = fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)(r->fd_offset + (page << MEM_PAGE_SHIFT)),
                        (off_t)(pages << MEM_PAGE_SHIFT));
    while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

/* --- Questions -------------------------------------------------------------------------------- */

bool mem_is_touched(const struct mem_region *r, uint64_t page, uint64_t pages, uint64_t *same)
{
    off_t start = (off_t)(r->fd_offset + (page << MEM_PAGE_SHIFT));
    off_t end = start + (off_t)(pages << MEM_PAGE_SHIFT), data, hole;

    data = lseek(r->fd, start, SEEK_DATA);
    if (data < 0 || data >= end) { /* ENXIO: no data up to the end of the file */
        *same = pages;
        return false;
    }
    if (data > start) {
        *same = (uint64_t)(data - start) >> MEM_PAGE_SHIFT;
        return false;
    }
    hole = lseek(r->fd, start, SEEK_HOLE);
    *same = hole < 0 || hole > end ? pages : (uint64_t)(hole - start) >> MEM_PAGE_SHIFT;
    return true;
}

/* The first page of RAM behind GPN, or 0. */
static uint64_t next_ram(const struct mem *mem, uint64_t gpn)
{
    uint64_t next = 0;

    for (const struct mem_region *r = mem->regions; r; r = r->next)
        if (r->kind == MEM_RAM && r->first != NOWHERE && r->first > gpn &&
            (!next || r->first < next))
            next = r->first;
    return next;
}

static enum mem_page_state state_of(uint32_t word)
{
    switch (mem_word_state(word)) { /* no default: the compiler finds a state that is forgotten */
    case WORD_OWN: return MEM_STATE_PRIVATE;
    case WORD_SHARED: return MEM_STATE_SHARED;
    case WORD_BALLOONED: return MEM_STATE_BALLOONED;
    case WORD_SWAPPED: return MEM_STATE_SWAPPED;
    case WORD_BUSY: return MEM_STATE_BUSY;
    }
    return MEM_STATE_NONE;
}

#define SAME_MAX 8192u /* pages that one question looks at */

static enum mem_page_state state_locked(const struct mem *mem, uint64_t gpn, uint64_t *pages)
{
    uint64_t page, count = 1;
    const struct mem_region *r = mem_region_at(mem, gpn, &page);
    enum mem_page_state state;

    if (!r || r->kind != MEM_RAM) {
        uint64_t next = next_ram(mem, gpn);

        *pages = next ? next - gpn : 0;
        return MEM_STATE_NONE;
    }
    state = state_of(mem_word(r, page));
    if (!atomic_load(&r->odd))
        count = r->pages - page;
    while (count < SAME_MAX && page + count < r->pages &&
           state_of(mem_word(r, page + count)) == state)
        count++;
    if (state == MEM_STATE_PRIVATE && !mem_is_touched(r, page, count, &count))
        state = MEM_STATE_UNTOUCHED;
    *pages = count;
    return state;
}

enum mem_page_state mem_page_state(const struct mem *mem, uint64_t gpn, uint64_t *pages)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&mem->lock;
    enum mem_page_state state;

    pthread_mutex_lock(lock);
    state = state_locked(mem, gpn, pages);
    pthread_mutex_unlock(lock);
    return state;
}

void mem_count(struct mem *mem, struct mem_counts *counts)
{
    pthread_mutex_lock(&mem->lock);
    *counts = mem->counts;
    counts->shared_machine_pages = mem->pool ? mem_pool_used(mem->pool) : 0;
    pthread_mutex_unlock(&mem->lock);
}
