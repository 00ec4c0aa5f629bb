/*
 * The table of regions: what is mapped where in guest physical space.
 *
 * The gate searches it without a lock. There are two copies. mem.turn says which one to search:
 * while the first is changed it is odd, and the second is searched; then the second is changed. A
 * search that meets a change of the copy that it looks at begins anew.
 */
#include "mem/mem_private.h"

/* The place of GPN in a table that may be changed meanwhile; then anything. */
static struct mem_region *search(const struct mem_table *table, uint64_t gpn, uint64_t *page)
{
    unsigned low = 0, high = atomic_load_explicit(&table->count, memory_order_relaxed);
    const struct mem_place *place;
    uint64_t first;

    while (low < high) { /* the first place that starts beyond GPN */
        unsigned middle = (low + high) / 2;

        if (atomic_load_explicit(&table->place[middle].first, memory_order_relaxed) <= gpn)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    place = &table->place[low - 1];
    first = atomic_load_explicit(&place->first, memory_order_relaxed);
    if (gpn >= atomic_load_explicit(&place->end, memory_order_relaxed))
        return NULL;
    *page = gpn - first;
    return atomic_load_explicit(&place->region, memory_order_relaxed);
}

struct mem_region *mem_region_search(const struct mem *mem, uint64_t gpn, uint64_t *page)
{
    for (;;) {
        unsigned turn = atomic_load_explicit(&mem->turn, memory_order_acquire);
        struct mem_region *found = search(&mem->table[turn & 1], gpn, page);

        atomic_thread_fence(memory_order_acquire);
        if (likely(atomic_load_explicit(&mem->turn, memory_order_relaxed) == turn))
            return found;
    }
}

/* Fills TABLE with the regions that are mapped, by insertion. */
static void fill(struct mem_table *table, const struct mem *mem)
{
    unsigned count = 0;

    for (struct mem_region *r = mem->regions; r; r = r->next) {
        unsigned at = count;

        if (r->first == NOWHERE)
            continue;
        for (; at > 0; at--) {
            struct mem_place *before = &table->place[at - 1], *to = &table->place[at];

            if (atomic_load_explicit(&before->first, memory_order_relaxed) < r->first)
                break;
            atomic_store_explicit(&to->first, before->first, memory_order_relaxed);
            atomic_store_explicit(&to->end, before->end, memory_order_relaxed);
            atomic_store_explicit(&to->region, before->region, memory_order_relaxed);
        }
        atomic_store_explicit(&table->place[at].first, r->first, memory_order_relaxed);
        atomic_store_explicit(&table->place[at].end, r->first + r->pages, memory_order_relaxed);
        atomic_store_explicit(&table->place[at].region, r, memory_order_relaxed);
        count++;
    }
    atomic_store_explicit(&table->count, count, memory_order_relaxed);
}

void mem_table_publish(struct mem *mem)
{
    for (unsigned i = 0; i < 2; i++) {
        atomic_fetch_add(&mem->turn, 1);
        fill(&mem->table[i], mem);
    }
}
