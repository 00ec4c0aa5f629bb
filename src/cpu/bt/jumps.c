/*
 * The jump table of a vCPU: where the translated code for an address is, for indirect branches and
 * for branches to other pages. Translated code looks into it by itself (lookup.c).
 *
 *     virtual address, jump_view
 *        |   first level: two entries to a place; the one that was entered last is compared first
 *        |       hit ----> code
 *        v miss
 *        software TLB, for execution ----> guest physical address
 *        |   second level: one entry to a place, whatever the address space
 *        |       hit ----> code, which is entered into the first level
 *        v miss
 *        find_code (translator.c)
 *
 * The second level needs to hear of no change of mappings. What it leads to may be out of date, as
 * what the first one leads to: an entrance checks that. A vCPU with an instruction breakpoint does
 * not look into it, because the breakpoint's page may have another virtual address, too.
 */
#include "cpu/bt/bt.h"

#include "cpu/core/fetch.h"

#include <string.h>

static struct bt_jump *place_of(struct bt *bt, uint64_t rip)
{
    return bt->jump[rip / BT_JUMP_GRAIN % BT_JUMP_PLACES];
}

static struct bt_second_jump *second_place_of(struct bt *bt, uint64_t id)
{
    return &bt->second_jump[(uint32_t)id * BT_SECOND_JUMP_FACTOR >> (32 - BT_SECOND_JUMP_BITS)];
}

/* Returns the number of the bit of jump_pages for the page at LINEAR. */
static unsigned page_bit(uint64_t linear)
{
    uint64_t page = linear >> MEM_PAGE_SHIFT;

    return (page ^ page >> 12) % BT_JUMP_PAGES;
}

static bool is_for(const struct bt *bt, const struct bt_jump *jump, uint64_t rip)
{
    return jump->rip == rip && jump->view == (uint32_t)bt->jump_view;
}

const void *bt_jump_find(struct bt *bt, uint64_t rip)
{
    const struct bt_jump *jump = place_of(bt, rip);

    for (unsigned i = 0; i < BT_JUMP_WAYS; i++)
        if (is_for(bt, &jump[i], rip))
            return bt->cache->run + jump[i].code;
    return NULL;
}

void bt_jump_add(struct bt *bt, uint64_t rip, uint64_t gpa, const void *code)
{
    uint32_t offset = (uint32_t)((const uint8_t *)code - bt->cache->run);
    uint64_t id = bt_second_jump_id(bt->jump_view, gpa);
    struct bt_jump *jump = place_of(bt, rip);
    unsigned bit = page_bit(rip);

    if (!is_for(bt, &jump[0], rip))
        jump[1] = jump[0];
    bt->jump_pages[bit / 32] |= 1u << bit % 32;
    jump[0] = (struct bt_jump){rip, (uint32_t)bt->jump_view, offset};
    *second_place_of(bt, id) = (struct bt_second_jump){id, offset};
}

void bt_jump_forget(struct bt *bt, uint64_t rip)
{
    struct bt_jump *jump = place_of(bt, rip);
    uint64_t gpa;

    for (unsigned i = 0; i < BT_JUMP_WAYS; i++)
        if (is_for(bt, &jump[i], rip))
            jump[i].view = 0;
    if (fetch_peek(&bt->c, rip, &gpa)) {
        uint64_t id = bt_second_jump_id(bt->jump_view, gpa);

        if (second_place_of(bt, id)->id == id)
            second_place_of(bt, id)->id = 0;
    }
}

void bt_jumps_clear(struct bt *bt)
{
    memset(bt->jump, 0, sizeof(bt->jump)); /* no view is 0 */
    memset(bt->jump_pages, 0, sizeof(bt->jump_pages));
}

void bt_jumps_clear_page(struct bt *bt, uint64_t linear)
{
    uint64_t page = ALIGN_DOWN(linear, MEM_PAGE_SIZE);

    /* Most pages that are unmapped have never held code. */
    if (!(bt->jump_pages[page_bit(page) / 32] >> page_bit(page) % 32 & 1))
        return;
    for (uint64_t rip = page; rip - page < MEM_PAGE_SIZE; rip += BT_JUMP_GRAIN) {
        struct bt_jump *jump = place_of(bt, rip);

        for (unsigned i = 0; i < BT_JUMP_WAYS; i++)
            if (ALIGN_DOWN(jump[i].rip, MEM_PAGE_SIZE) == page)
                jump[i].view = 0;
    }
}

void bt_jumps_clear_all(struct bt *bt)
{
    bt_jumps_clear(bt);
    memset(bt->second_jump, 0, sizeof(bt->second_jump));
}
