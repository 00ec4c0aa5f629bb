/*
 * Guest memory in a saved machine (docs/state.md): RAM, wherever it is mapped, and then the regions
 * of ROM and of devices, mapped or not. Each is a list of the pages that are not zero, in ascending
 * order and cut into sections. Pages that nobody has touched are not read, because that would touch
 * them.
 *
 * Where a region is mapped belongs to the state of its device, which is loaded before.
 */
#include "mem/mem_private.h"

#include <string.h>

/* What a section holds, so that one fits in STATE_SECTION_MAX. One with fewer is the last. */
#define PAGES_MAX 256

#define WORDS (MEM_PAGE_SIZE / sizeof(uint64_t))

#define NAME_SIZE 24 /* of a region, with the byte 0 at its end; more is cut off */

struct chunk {
    uint32_t count;
    uint64_t page[PAGES_MAX];
};

/* The pages that are visited: of RAM by their GPN, of a region by their number in it. */
struct pages {
    struct mem *mem;
    struct mem_region *region; /* NULL: RAM */
    uint64_t limit;            /* all numbers are below this */
    const char *what;          /* what a number is called in messages */
};

/* --- One page --------------------------------------------------------------------------------- */

/* Finds the first page of RAM from GPN on that may hold something else than zeroes, without
 * touching those before it. Returns LIMIT if there is none. */
static uint64_t next_in_ram(const struct mem *mem, uint64_t gpn, uint64_t limit)
{
    for (;;) {
        uint64_t pages;
        enum mem_page_state state = mem_page_state(mem, gpn, &pages);

        if (!pages)
            return limit;
        if (state != MEM_STATE_NONE && state != MEM_STATE_UNTOUCHED && state != MEM_STATE_BALLOONED)
            return gpn;
        gpn += pages;
    }
}

/* Does the same for a region. */
static uint64_t next_touched(const struct pages *p, uint64_t page)
{
    uint64_t same;

    if (!p->region)
        return next_in_ram(p->mem, page, p->limit);
    while (page < p->limit && !mem_is_touched(p->region, page, p->limit - page, &same))
        page += same;
    return page;
}

static bool is_zero(const uint64_t page[WORDS])
{
    uint64_t any = 0;

    for (unsigned i = 0; i < WORDS && !any; i += 8)
        for (unsigned k = 0; k < 8; k++)
            any |= page[i + k];
    return !any;
}

static int read_page(const struct pages *p, uint64_t page, uint64_t to[WORDS])
{
    if (!p->region)
        return mem_read(p->mem, page << MEM_PAGE_SHIFT, to, MEM_PAGE_SIZE);
    memcpy(to, mem_region_page(p->region, page), MEM_PAGE_SIZE);
    return 0;
}

static int write_page(const struct pages *p, uint64_t page, const uint64_t from[WORDS])
{
    if (!p->region)
        return mem_write(p->mem, page << MEM_PAGE_SHIFT, from, MEM_PAGE_SIZE);
    memcpy(mem_region_page(p->region, page), from, MEM_PAGE_SIZE);
    return 0;
}

/* Whether a page that a file names is one of P. */
static bool is_there(const struct pages *p, uint64_t page)
{
    return page < p->limit &&
           (p->region || mem_is_ram(p->mem, page << MEM_PAGE_SHIFT, MEM_PAGE_SIZE));
}

static void visit_page(const struct pages *p, struct state *s, uint64_t page)
{
    uint64_t bytes[WORDS] = {0};
    int ret = 0;

    if (state_saving(s))
        ret = read_page(p, page, bytes);
    state_value(s, "page", bytes, sizeof(bytes));
    if (!state_saving(s) && !state_error(s))
        ret = write_page(p, page, bytes);
    if (ret < 0)
        state_fail(s, "%s %llx: %s", p->what, (unsigned long long)page, strerror(-ret));
}

/* --- All of them ------------------------------------------------------------------------------ */

/* Collects the next pages that are not zero, from *NEXT on; *NEXT moves behind them. A page that
 * cannot be read is collected, too, so that visit_page fails for it. */
static void collect(const struct pages *p, uint64_t *next, struct chunk *chunk)
{
    uint64_t bytes[WORDS];

    chunk->count = 0;
    while (chunk->count < PAGES_MAX && (*next = next_touched(p, *next)) < p->limit) {
        if (read_page(p, *next, bytes) < 0 || !is_zero(bytes))
            chunk->page[chunk->count++] = *next;
        ++*next;
    }
}

/* Whether CHUNK, which was loaded, names pages of P in ascending order, all of them from *NEXT on;
 * *NEXT moves behind them. So there can be no more sections than P has pages for. */
static bool check(const struct pages *p, struct state *s, const struct chunk *chunk, uint64_t *next)
{
    if (chunk->count > PAGES_MAX) {
        state_fail(s, "count %u: must be %u or less", chunk->count, PAGES_MAX);
        return false;
    }
    for (unsigned i = 0; i < chunk->count; i++) {
        uint64_t found = chunk->page[i];

        if (found < *next || !is_there(p, found)) {
            state_fail(s, "%s %llx: %s", p->what, (unsigned long long)found,
                       found < *next ? "not in order"
                       : p->region   ? "not in the region"
                                     : "not in RAM");
            return false;
        }
        *next = found + 1;
    }
    return true;
}

/* Visits the next pages from *NEXT on, in the section that has just been opened; *NEXT moves behind
 * them. Returns whether another section follows. */
static bool visit_chunk(const struct pages *p, struct state *s, uint64_t *next)
{
    struct chunk chunk;

    memset(&chunk, 0, sizeof(chunk));
    if (state_saving(s))
        collect(p, next, &chunk);
    state_field(s, chunk.count);
    state_field(s, chunk.page);
    if (state_error(s) || (!state_saving(s) && !check(p, s, &chunk, next)))
        return false;
    for (unsigned i = 0; i < chunk.count; i++)
        visit_page(p, s, chunk.page[i]);
    return chunk.count == PAGES_MAX && !state_error(s);
}

static void visit_ram(struct mem *mem, struct state *s)
{
    const struct pages all = {.mem = mem, .limit = GPN_LIMIT, .what = "gpn"};
    uint64_t next = 0;
    uint32_t instance = 0;

    do
        state_section(s, "ram", instance++, 1);
    while (visit_chunk(&all, s, &next));
}

/* What tells regions apart: a saved one is loaded into one that is alike. */
static void visit_description(const struct mem_region *r, struct state *s)
{
    char name[NAME_SIZE] = "", found[NAME_SIZE];
    uint32_t kind = r->kind;
    uint64_t pages = r->pages;

    memcpy(name, r->name, strnlen(r->name, NAME_SIZE - 1));
    memcpy(found, name, NAME_SIZE);
    state_bytes(s, found, sizeof(found));
    state_field(s, kind);
    state_field(s, pages);
    if (memcmp(found, name, NAME_SIZE) != 0 || kind != (uint32_t)r->kind || pages != r->pages)
        state_fail(s, "the saved machine has another region of memory than %s of %llu KiB here",
                   name, (unsigned long long)(r->pages << MEM_PAGE_SHIFT >> 10));
}

/* Visits region number INSTANCE. */
static void visit_region(struct mem_region *r, uint32_t instance, struct state *s)
{
    const struct pages all = {.mem = r->mem, .region = r, .limit = r->pages, .what = "page"};
    uint64_t next = 0;

    state_section(s, "region", instance, 1);
    visit_description(r, s);
    if (state_error(s))
        return;
    /* Firmware, for example, is there already in a new machine; the saved one's may be another. */
    if (!state_saving(s) && mem_punch(r, 0, r->pages) < 0)
        state_fail(s, "%s cannot be cleared", r->name);
    do
        state_section(s, "region_pages", instance, 1);
    while (visit_chunk(&all, s, &next));
    if (!state_saving(s))
        mem_region_written(r, 0, r->pages << MEM_PAGE_SHIFT);
}

void mem_state(struct mem *mem, struct state *s)
{
    struct mem_region *found[PLACES]; /* the last one that was added comes first */
    unsigned count = 0;

    visit_ram(mem, s);
    for (struct mem_region *r = mem->regions; r && count < PLACES; r = r->next)
        if (r->kind != MEM_RAM)
            found[count++] = r;
    for (unsigned i = 0; i < count && !state_error(s); i++)
        visit_region(found[count - 1 - i], i, s);
}
