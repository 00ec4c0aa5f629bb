/*
 * The jump table of a vCPU: where the translated code for a virtual address is, for indirect
 * branches and for branches to other pages. Translated code looks into it by itself (code.c). A
 * place has two entries; the one that was entered last is compared first.
 */
#include "cpu/bt/bt.h"

#include <string.h>

static struct bt_jump *place_of(struct bt *bt, uint64_t rip)
{
    return bt->jump[rip / BT_JUMP_GRAIN % BT_JUMP_PLACES];
}

/* The word of jump_pages that has bit 17:12 of LINEAR for its page. */
static uint64_t *pages_word(struct bt *bt, uint64_t linear)
{
    return &bt->jump_pages[(linear >> 18 ^ linear >> 24) % ARRAY_SIZE(bt->jump_pages)];
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

void bt_jump_add(struct bt *bt, uint64_t rip, const void *code)
{
    struct bt_jump *jump = place_of(bt, rip);

    if (!is_for(bt, &jump[0], rip))
        jump[1] = jump[0];
    *pages_word(bt, rip) |= 1ULL << (rip >> MEM_PAGE_SHIFT & 63);
    jump[0] = (struct bt_jump){rip, (uint32_t)bt->jump_view,
                               (uint32_t)((const uint8_t *)code - bt->cache->run)};
}

void bt_jump_forget(struct bt *bt, uint64_t rip)
{
    struct bt_jump *jump = place_of(bt, rip);

    for (unsigned i = 0; i < BT_JUMP_WAYS; i++)
        if (is_for(bt, &jump[i], rip))
            jump[i].view = 0;
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
    if (!(*pages_word(bt, page) >> (page >> MEM_PAGE_SHIFT & 63) & 1))
        return;
    for (uint64_t rip = page; rip - page < MEM_PAGE_SIZE; rip += BT_JUMP_GRAIN) {
        struct bt_jump *jump = place_of(bt, rip);

        for (unsigned i = 0; i < BT_JUMP_WAYS; i++)
            if (ALIGN_DOWN(jump[i].rip, MEM_PAGE_SIZE) == page)
                jump[i].view = 0;
    }
}
