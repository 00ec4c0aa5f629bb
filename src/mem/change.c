/*
 * Batches of changes. Each has three steps:
 *
 * 1. The pages that can be taken become busy, so that the gate answers ABSENT for them.
 * 2. The vCPUs forget what they know of these pages; when all have, nobody writes there any more.
 * 3. Each page is compared, written out or given back, without the lock where that takes long, and
 *    gets its new state. Who has waited for it in mem_fault goes on, and finds it absent or not.
 */
#include "mem/mem_private.h"

#include "mem/pool.h"

#include <errno.h>
#include <string.h>

/* A change under way. */
struct taken {
    struct mem_change *change;
    struct mem_region *region;
    uint64_t page;
    uint32_t word; /* that the page had */
};

void mem_set_pager(struct mem *mem, const struct mem_pager *pager, void *opaque)
{
    mem->pager = pager;
    mem->pager_opaque = opaque;
}

/* Whether this change can be made to a page whose word is WORD: 0 or the change's status. */
static int check_state(const struct mem *mem, enum mem_change_kind kind, uint32_t word)
{
    enum word_state state = mem_word_state(word);

    if (state == WORD_BUSY || mem->clearing)
        return -EBUSY;
    if ((mem->exported || mem->keepers) && kind != MEM_BALLOON)
        return -EPERM;
    switch (kind) {
    case MEM_BALLOON:
        return state == WORD_BALLOONED ? -EALREADY : word & WORD_PROTECTED ? -EBUSY : 0;
    case MEM_SHARE: return state == WORD_SHARED ? -EALREADY : word ? -EBUSY : 0;
    case MEM_SWAP_OUT:
        return state == WORD_SWAPPED ? -EALREADY : word ? -EBUSY : mem->pager ? 0 : -ENODEV;
    case MEM_PROTECT: return word & WORD_PROTECTED ? -EALREADY : word ? -EBUSY : 0;
    }
    return -EINVAL;
}

/* Step 1 for one page. Returns whether there is more to do. With the lock. */
static bool take(struct mem *mem, struct mem_change *change, struct taken *t)
{
    *t = (struct taken){.change = change};
    t->region = mem_region_at(mem, change->gpn, &t->page);
    change->status = -EFAULT;
    if (!t->region || t->region->kind != MEM_RAM)
        return false;
    t->word = mem_word(t->region, t->page);
    change->status = t->region->pins[t->page] ? -EBUSY : check_state(mem, change->kind, t->word);
    if (change->status < 0)
        return false;
    mem_word_set(t->region, t->page, WORD_BUSY);
    return true;
}

/* Step 2. */
static void forget(struct mem *mem, const struct taken *taken, unsigned count)
{
    struct mem_ranges all = {.count = 0}, writing = {.count = 0};

    for (unsigned i = 0; i < count; i++) {
        const struct taken *t = &taken[i];
        enum word_state state = mem_word_state(t->word);
        bool protect = t->change->kind == MEM_PROTECT;

        if (state == WORD_OWN || state == WORD_SHARED)
            mem_ranges_add(protect ? &writing : &all, t->change->gpn, 1,
                           mem_present(t->region, t->page, t->word));
    }
    mem_ranges_tell(mem, &all, MEM_READ);
    mem_ranges_tell(mem, &writing, MEM_WRITE);
    mem_settle(mem);
}

static bool is_zero(const void *page)
{
    const uint64_t *word = page;
    uint64_t any = 0;

    for (unsigned i = 0; i < MEM_PAGE_SIZE / sizeof(*word); i += 8) {
        for (unsigned j = 0; j < 8; j++)
            any |= word[i + j];
        if (any)
            return false;
    }
    return true;
}

/* Drops what the page was before, if that was elsewhere. */
static void drop_old(struct mem *mem, const struct taken *t)
{
    uint32_t slot = mem_word_slot(t->word);

    if (mem_word_state(t->word) == WORD_SHARED) {
        pthread_mutex_lock(&mem->lock);
        mem_pool_drop(mem->pool, slot);
        pthread_mutex_unlock(&mem->lock);
    } else if (mem_word_state(t->word) == WORD_SWAPPED && mem->pager->drop) {
        mem->pager->drop(mem->pager_opaque, slot);
    }
}

/* Gives the memory of a busy page to the host and sets *WORD to what the page is then. Without the
 * lock. On failure *WORD stays. */
static int balloon(struct mem *mem, const struct taken *t, uint32_t *word)
{
    int ret = mem_punch(t->region, t->page, 1);

    if (ret < 0)
        return ret;
    drop_old(mem, t);
    *word = mem_word_make(WORD_BALLOONED, 0);
    mem_tell_written(mem, t->change->gpn << MEM_PAGE_SHIFT, MEM_PAGE_SIZE);
    return 0;
}

/* Puts the page into the pool. */
static int share(struct mem *mem, const struct taken *t, uint32_t *word)
{
    uint32_t slot = POOL_NONE;

    pthread_mutex_lock(&mem->lock);
    if (!mem->pool)
        mem->pool = mem_pool_create((uint32_t)MIN(mem->ram_size >> MEM_PAGE_SHIFT, WORD_SLOTS - 1),
                                    &mem->lost);
    if (mem->pool)
        slot = mem_pool_put(mem->pool, mem_region_page(t->region, t->page));
    pthread_mutex_unlock(&mem->lock);
    if (slot == POOL_NONE)
        return -ENOMEM;
    *word = mem_word_make(WORD_SHARED, slot);
    mem_punch(t->region, t->page, 1); /* its bytes are not looked at any more */
    return 0;
}

static int swap_out(struct mem *mem, const struct taken *t, uint32_t *word)
{
    uint32_t slot = 0;
    int ret = mem->pager->out(mem->pager_opaque, t->change->gpn,
                              mem_region_page(t->region, t->page), &slot);

    if (ret == 0 && slot >= WORD_SLOTS)
        ret = -ERANGE;
    if (ret < 0)
        return ret;
    *word = mem_word_make(WORD_SWAPPED, slot);
    mem_punch(t->region, t->page, 1);
    return 0;
}

/* Step 3 for one page. */
static void finish(struct mem *mem, const struct taken *t)
{
    enum mem_change_kind kind = t->change->kind;
    uint32_t word = t->word;
    int ret = 0;

    if (kind == MEM_BALLOON)
        ret = balloon(mem, t, &word);
    else if (kind == MEM_PROTECT)
        word = WORD_PROTECTED;
    else if (is_zero(mem_region_page(t->region, t->page)))
        ret = mem_punch(t->region, t->page, 1);
    else if (kind == MEM_SHARE)
        ret = share(mem, t, &word);
    else
        ret = swap_out(mem, t, &word);
    t->change->status = ret;
    pthread_mutex_lock(&mem->lock);
    if (kind == MEM_BALLOON)
        mem_mark(t->region, t->page);
    mem_word_set(t->region, t->page, word);
    pthread_mutex_unlock(&mem->lock);
}

unsigned mem_change(struct mem *mem, struct mem_change *changes, unsigned count)
{
    struct taken taken[MEM_BATCH_MAX];
    unsigned n = 0, made = 0;

    mem_check(mem);
    count = MIN(count, MEM_BATCH_MAX);
    pthread_mutex_lock(&mem->lock);
    for (unsigned i = 0; i < count; i++)
        n += take(mem, &changes[i], &taken[n]);
    pthread_mutex_unlock(&mem->lock);
    if (n)
        forget(mem, taken, n);
    for (unsigned i = 0; i < n; i++)
        finish(mem, &taken[i]);
    for (unsigned i = 0; i < count; i++)
        made += changes[i].status == 0;
    return made;
}
