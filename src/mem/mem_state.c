/*
 * RAM in a saved machine (docs/state.md): a list of the pages that are not zero, in ascending order
 * and cut into sections. Pages that nobody has touched are not even looked at, because that would
 * touch them.
 */
#include "mem/change.h"
#include "mem/mem.h"

#include <string.h>

/* What a section holds, so that one fits in STATE_SECTION_MAX. One with fewer is the last. */
#define PAGES_MAX 256

#define WORDS (MEM_PAGE_SIZE / sizeof(uint64_t))

struct chunk {
    uint32_t count;
    uint64_t gpn[PAGES_MAX];
};

/* The first page from GPN on that has been touched since it was last cleared, or all of them
 * further on read as zeroes: then mem_gpn_limit. It is found without touching those before it. */
static uint64_t next_touched(const struct mem *mem, uint64_t gpn)
{
    for (;;) {
        uint64_t pages;
        enum mem_page_state state = mem_page_state(mem, gpn, &pages);

        if (!pages)
            return mem_gpn_limit(mem);
        if (state != MEM_STATE_NONE && state != MEM_STATE_UNTOUCHED && state != MEM_STATE_BALLOONED)
            return gpn;
        gpn += pages;
    }
}

static bool is_zero(const uint64_t page[WORDS])
{
    uint64_t any = 0;

    for (unsigned i = 0; i < WORDS && !any; i += 8)
        for (unsigned k = 0; k < 8; k++)
            any |= page[i + k];
    return !any;
}

/* Collects the next pages that are not zero, from *GPN on; *GPN moves behind them. A page that
 * cannot be read is collected, too, so that visit_page fails for it. */
static void collect(struct mem *mem, uint64_t *gpn, struct chunk *chunk)
{
    uint64_t limit = mem_gpn_limit(mem), page[WORDS];

    chunk->count = 0;
    while (chunk->count < PAGES_MAX && (*gpn = next_touched(mem, *gpn)) < limit) {
        if (mem_read(mem, *gpn << MEM_PAGE_SHIFT, page, sizeof(page)) < 0 || !is_zero(page))
            chunk->gpn[chunk->count++] = *gpn;
        ++*gpn;
    }
}

/* Whether CHUNK, which was loaded, names pages of RAM in ascending order, all of them from *GPN on;
 * *GPN moves behind them. So there can be no more sections than RAM has pages for. */
static bool check(struct mem *mem, struct state *s, const struct chunk *chunk, uint64_t *gpn)
{
    if (chunk->count > PAGES_MAX) {
        state_fail(s, "count %u: must be %u or less", chunk->count, PAGES_MAX);
        return false;
    }
    for (unsigned i = 0; i < chunk->count; i++) {
        uint64_t found = chunk->gpn[i];

        if (found < *gpn || found >= mem_gpn_limit(mem) ||
            !mem_is_ram(mem, found << MEM_PAGE_SHIFT, MEM_PAGE_SIZE)) {
            state_fail(s, "gpn %llx: %s", (unsigned long long)found,
                       found < *gpn ? "not in order" : "not in RAM");
            return false;
        }
        *gpn = found + 1;
    }
    return true;
}

static void visit_page(struct mem *mem, struct state *s, uint64_t gpn)
{
    uint64_t page[WORDS] = {0}, gpa = gpn << MEM_PAGE_SHIFT;
    int ret = 0;

    if (state_saving(s))
        ret = mem_read(mem, gpa, page, sizeof(page));
    state_field(s, page);
    if (!state_saving(s) && !state_error(s))
        ret = mem_write(mem, gpa, page, sizeof(page));
    if (ret < 0)
        state_fail(s, "page %llx: %s", (unsigned long long)gpn, strerror(-ret));
}

void mem_state(struct mem *mem, struct state *s)
{
    uint64_t gpn = 0;
    struct chunk chunk;

    for (uint32_t instance = 0;; instance++) {
        memset(&chunk, 0, sizeof(chunk));
        if (state_saving(s))
            collect(mem, &gpn, &chunk);
        state_section(s, "ram", instance, 1);
        state_field(s, chunk.count);
        state_field(s, chunk.gpn);
        if (state_error(s) || (!state_saving(s) && !check(mem, s, &chunk, &gpn)))
            return;
        for (unsigned i = 0; i < chunk.count; i++)
            visit_page(mem, s, chunk.gpn[i]);
        if (chunk.count < PAGES_MAX)
            return;
    }
}
