/*
 * Where translated code can be entered: the entries, and what finds them.
 *
 * Each page of guest memory that has translations has a table of its own:
 *
 *     table_of[GPN] --> table { generation, slots } --> entry { id, generation, code }
 *
 * A table is for one generation of its page. When the page is written to, all of the table is out
 * of date at once, so a search for code that changed ends with one comparison, and the next
 * translation of the page starts with an empty table.
 *
 * One vCPU at a time adds; searching takes no lock. A search may meet a table that is emptied, is
 * copied into a larger one or serves another page by now. It still ends, because a table's memory
 * keeps its size, and it finds no wrong entry, because an entry is written before the slot that
 * leads to it, never changes its id or generation, and is compared with both. It may miss an entry
 * that is there; then the code is interpreted, or found by the next search.
 */
#include "cpu/bt/bt.h"

#include <string.h>
#include <sys/mman.h>

#define TABLE_BITS_MIN 3
#define TAG_SHIFT      19 /* bits of an entry's number in a slot */
_Static_assert(BT_ENTRIES <= 1u << TAG_SHIFT, "a slot holds the number of an entry");

struct table {
    _Atomic uint32_t generation; /* of the page */
    uint32_t bits;               /* of the number of slots */
    uint32_t used;               /* slots, at most three quarters */
    uint32_t next_free;
    _Atomic uint32_t slot[];
};

#define WORD           ((uint32_t)sizeof(uint32_t))
#define TABLE_WORDS(B) ((uint32_t)sizeof(struct table) / WORD + (1u << (B)))
/* Enough if each entry is on a page of its own; larger tables take less for an entry. */
#define WORDS (BT_ENTRIES * TABLE_WORDS(TABLE_BITS_MIN))

void *bt_reserve(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

bool bt_entries_create(struct bt_entries *entries, uint64_t pages)
{
    entries->pages = pages;
    entries->entry = bt_reserve(BT_ENTRIES * sizeof(struct bt_entry));
    entries->table_of = bt_reserve(pages * sizeof(*entries->table_of));
    entries->words = bt_reserve((size_t)WORDS * WORD);
    if (!entries->entry || !entries->table_of || !entries->words)
        return false;
    bt_entries_clear(entries);
    return true;
}

void bt_entries_destroy(struct bt_entries *entries)
{
    if (entries->entry)
        munmap(entries->entry, BT_ENTRIES * sizeof(struct bt_entry));
    if (entries->table_of)
        munmap(entries->table_of, entries->pages * sizeof(*entries->table_of));
    if (entries->words)
        munmap(entries->words, (size_t)WORDS * WORD);
}

void bt_entries_clear(struct bt_entries *entries)
{
    size_t size = entries->pages * sizeof(*entries->table_of);

    /* The pages read as zeroes afterwards; most were never touched. Memory that is locked stays. */
    if (madvise((void *)entries->table_of, size, MADV_DONTNEED) != 0)
        memset((void *)entries->table_of, 0, size);
    memset(entries->free, 0, sizeof(entries->free));
    entries->words_used = 1; /* 0 is no table */
    entries->words_full = false;
    entries->count = 1;
}

bool bt_entries_full(const struct bt_entries *entries)
{
    return BT_ENTRIES - entries->count < PARTS_MAX || entries->words_full;
}

/* --- Searching -------------------------------------------------------------------------------- */

static struct table *table_of(const struct bt_entries *entries, uint64_t gpn)
{
    uint32_t at = gpn < entries->pages
                      ? atomic_load_explicit(&entries->table_of[gpn], memory_order_acquire)
                      : 0;

    return at ? (struct table *)(entries->words + at) : NULL;
}

/* Hashes what is not the same for all entries of a page: offset, privilege and mode. */
static uint32_t hash_of(uint64_t id)
{
    return ((uint32_t)(id % MEM_PAGE_SIZE) | (uint32_t)(id >> 60) << MEM_PAGE_SHIFT) * 0x9E3779B9u;
}

/* Returns what a slot holds for entry NUMBER, which has this ID: the number, and some bits of the
 * hash. */
static uint32_t slot_value(uint64_t id, uint32_t number)
{
    return number | hash_of(id) << TAG_SHIFT;
}

static uint32_t number_in(uint32_t slot)
{
    return slot & ((1u << TAG_SHIFT) - 1);
}

/* Returns the slot of ID in TABLE and sets *FOUND to the number of its entry; or returns an empty
 * slot and sets 0. Returns NULL if it finds neither, because another vCPU changes the table. */
static _Atomic uint32_t *slot_of(const struct bt_entries *entries, struct table *table, uint64_t id,
                                 uint32_t *found)
{
    uint32_t mask = (1u << table->bits) - 1, first = hash_of(id) >> (32 - table->bits);

    for (uint32_t i = 0; i <= mask; i++) {
        _Atomic uint32_t *at = &table->slot[(first + i) & mask];
        uint32_t seen = atomic_load_explicit(at, memory_order_acquire), number = number_in(seen);

        if (!seen || (seen == slot_value(id, number) && entries->entry[number].id == id)) {
            *found = number;
            return at;
        }
    }
    return NULL;
}

struct bt_entry *bt_entry_find(const struct bt *bt, uint64_t gpa)
{
    const struct bt_entries *entries = &bt->cache->entries;
    struct table *table = table_of(entries, gpa >> MEM_PAGE_SHIFT);
    uint32_t generation, found = 0;
    struct bt_entry *entry;

    if (!table)
        return NULL;
    generation = atomic_load_explicit(bt_generation(bt, gpa), memory_order_relaxed);
    if (atomic_load_explicit(&table->generation, memory_order_acquire) != generation ||
        !slot_of(entries, table, bt_code_id(bt, gpa), &found))
        return NULL;
    entry = &entries->entry[found];
    return found && entry->generation == generation ? entry : NULL;
}

/* --- Adding ----------------------------------------------------------------------------------- */

static void table_empty(struct table *table)
{
    for (uint32_t i = 0; i < 1u << table->bits; i++)
        atomic_store_explicit(&table->slot[i], 0, memory_order_relaxed);
    table->used = 0;
}

/* Makes an empty table for GENERATION. Returns where it is in WORDS, or 0 if there is no room. */
static uint32_t table_new(struct bt_entries *entries, unsigned bits, uint32_t generation)
{
    uint32_t at = entries->free[bits];
    struct table *table;

    if (!at && WORDS - entries->words_used < TABLE_WORDS(bits))
        return 0;
    if (!at) {
        at = entries->words_used;
        entries->words_used += TABLE_WORDS(bits);
        table = (struct table *)(entries->words + at);
        table->bits = bits;
    } else {
        /* Another vCPU may be searching it still, and reads its size, which stays. */
        table = (struct table *)(entries->words + at);
        entries->free[bits] = table->next_free;
    }
    table_empty(table);
    atomic_store_explicit(&table->generation, generation, memory_order_release);
    return at;
}

/* Makes a search of TABLE find entry NUMBER. */
static void put_slot(const struct bt_entries *entries, struct table *table, uint32_t number)
{
    uint64_t id = entries->entry[number].id;
    uint32_t old;
    _Atomic uint32_t *slot = slot_of(entries, table, id, &old);

    if (!old)
        table->used++;
    atomic_store_explicit(slot, slot_value(id, number), memory_order_release);
}

/* Replaces TABLE, which is GPN's, by one of twice the size. Returns NULL if there is no room. */
static struct table *table_grow(struct bt_entries *entries, uint64_t gpn, struct table *table)
{
    uint32_t generation = atomic_load_explicit(&table->generation, memory_order_relaxed);
    uint32_t at = table_new(entries, table->bits + 1, generation);
    struct table *larger = (struct table *)(entries->words + at);

    if (!at)
        return NULL;
    for (uint32_t i = 0; i < 1u << table->bits; i++) {
        uint32_t slot = atomic_load_explicit(&table->slot[i], memory_order_relaxed);

        if (slot)
            put_slot(entries, larger, number_in(slot));
    }
    table->next_free = entries->free[table->bits];
    entries->free[table->bits] =
        atomic_exchange_explicit(&entries->table_of[gpn], at, memory_order_release);
    return larger;
}

/* Returns the table of GPN for GENERATION, with room for another entry; NULL: there is no room. */
static struct table *table_for(struct bt_entries *entries, uint64_t gpn, uint32_t generation)
{
    struct table *table = table_of(entries, gpn);

    if (!table) {
        uint32_t at = table_new(entries, TABLE_BITS_MIN, generation);

        atomic_store_explicit(&entries->table_of[gpn], at, memory_order_release);
        return at ? (struct table *)(entries->words + at) : NULL;
    }
    if (atomic_load_explicit(&table->generation, memory_order_relaxed) != generation) {
        table_empty(table);
        atomic_store_explicit(&table->generation, generation, memory_order_release);
    }
    return table->used < (1u << table->bits) / 4 * 3 ? table : table_grow(entries, gpn, table);
}

void bt_entry_add(struct translation *t, const struct part *p, const uint8_t *entrance)
{
    struct bt_cache *cache = t->cache;
    struct bt_entries *entries = &cache->entries;
    uint32_t number = entries->count;
    struct table *table;

    /* A part that is out of date already must not empty the table of newer ones. */
    if (atomic_load_explicit(bt_generation(t->bt, t->gpa), memory_order_relaxed) != t->generation)
        return;
    table = table_for(entries, t->gpa >> MEM_PAGE_SHIFT, t->generation);
    if (!table) {
        entries->words_full = true;
        return;
    }
    entries->entry[number] = (struct bt_entry){
        .id = bt_code_id(t->bt, ALIGN_DOWN(t->gpa, MEM_PAGE_SIZE) + p->start),
        .generation = t->generation,
        .entrance = entrance ? (uint32_t)(entrance - cache->write) : 0,
        .inside = (uint32_t)(p->code - cache->write),
        .live = (uint16_t)p->live,
        .files = t->files,
        .s0 = (uint8_t)t->s0,
        .s1 = (uint8_t)t->s1,
    };
    entries->count++;
    put_slot(entries, table, number);
}
