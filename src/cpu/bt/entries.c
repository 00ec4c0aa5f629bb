/*
 * Where translated code can be entered: every start of a part, found by its guest physical address
 * and what else its translation depends on. A part is translated once, whoever wants it: what is
 * entered from outside gets an entrance then.
 */
#include "cpu/bt/bt.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define ENTRIES_SIZE (BT_ENTRIES * sizeof(struct bt_entry))
#define HASH_SIZE    (BT_ENTRY_SLOTS * sizeof(uint32_t))

int bt_entries_create(struct bt *bt, struct error *err)
{
    uint8_t *memory = mmap(NULL, ENTRIES_SIZE + HASH_SIZE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        return error_set(err, errno, "cannot map memory for translations: %s", strerror(errno));
    bt->entries = (struct bt_entry *)memory;
    bt->entry_hash = (uint32_t *)(memory + ENTRIES_SIZE);
    bt->entry_count = 1;
    return 0;
}

void bt_entries_destroy(struct bt *bt)
{
    if (bt->entries)
        munmap(bt->entries, ENTRIES_SIZE + HASH_SIZE);
    bt->entries = NULL;
}

void bt_entries_clear(struct bt *bt)
{
    memset(bt->entry_hash, 0, HASH_SIZE);
    bt->entry_count = 1;
}

/* The slot of KEY, or the one where it would be. Code that stands together is found in slots that
 * do, because of the processor's caches. Entries that are no longer valid stay until all goes, so
 * a search never ends too early. */
static uint32_t *slot_of(const struct bt *bt, uint64_t key)
{
    uint32_t page = (uint32_t)((key >> MEM_PAGE_SHIFT) * 0x9E3779B97F4A7C15ULL >> 32);
    uint32_t slot = (page + (key % MEM_PAGE_SIZE >> 2)) & (BT_ENTRY_SLOTS - 1);

    while (bt->entry_hash[slot] && bt->entries[bt->entry_hash[slot]].key != key)
        slot = (slot + 1) & (BT_ENTRY_SLOTS - 1);
    return &bt->entry_hash[slot];
}

struct bt_entry *bt_entry_find(const struct bt *bt, uint64_t gpa)
{
    uint32_t found = *slot_of(bt, bt_key(bt, gpa));
    struct bt_entry *entry = &bt->entries[found];

    return found && entry->generation ==
                        atomic_load_explicit(bt_generation(bt, gpa), memory_order_relaxed)
               ? entry
               : NULL;
}

void bt_entry_add(struct translation *t, const struct part *p, const uint8_t *entrance)
{
    struct bt *bt = t->bt;
    struct bt_entry *entry = &bt->entries[bt->entry_count];

    *entry = (struct bt_entry){
        .key = bt_key(bt, ALIGN_DOWN(t->gpa, MEM_PAGE_SIZE) + p->start),
        .generation = t->generation,
        .entrance = entrance ? (uint32_t)(entrance - bt->run) : 0,
        .inside = (uint32_t)(p->code - bt->write),
        .live = (uint16_t)p->live,
        .files = t->files,
        .s0 = (uint8_t)t->s0,
        .s1 = (uint8_t)t->s1,
    };
    *slot_of(bt, entry->key) = bt->entry_count++;
}
