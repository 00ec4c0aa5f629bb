/*
 * Numbers that a guest is given for things and hands back.
 */
#include "share/slots.h"

#include "base/util.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#define FIRST_ROOM 64u

void slots_init(struct slots *s, uint32_t most)
{
    *s = (struct slots){.count = 1, .most = most};
}

void slots_free(struct slots *s)
{
    free(s->slot);
    slots_init(s, s->most);
}

/* Makes room for index LEAST. */
static bool grow(struct slots *s, uint32_t least)
{
    uint64_t room = MAX(s->room, FIRST_ROOM);
    struct slot *slot;

    if (least < s->room)
        return true;
    while (room <= least)
        room *= 2;
    slot = realloc(s->slot, room * sizeof(*slot));
    if (!slot)
        return false;
    s->slot = slot;
    s->room = (uint32_t)room;
    return true;
}

static uint64_t number_of(const struct slots *s, uint32_t index)
{
    return (uint64_t)s->slot[index].serial << 32 | index;
}

static bool is_used(const struct slots *s, uint32_t index)
{
    return index && index < s->count && s->slot[index].next == SLOT_USED;
}

static void take(struct slots *s, uint32_t index, void *thing)
{
    s->slot[index].thing = thing;
    s->slot[index].next = SLOT_USED;
    s->used++;
}

/* Puts INDEX into the list of free ones, at its beginning. */
static void list(struct slots *s, uint32_t index)
{
    s->slot[index].before = 0;
    s->slot[index].next = s->free;
    if (s->free)
        s->slot[s->free].before = index;
    s->free = index;
}

static void unlist(struct slots *s, uint32_t index)
{
    uint32_t before = s->slot[index].before, next = s->slot[index].next;

    *(before ? &s->slot[before].next : &s->free) = next;
    if (next)
        s->slot[next].before = before;
}

/* One that has never been used, for which there is room. */
static uint32_t begin(struct slots *s)
{
    s->slot[s->count].serial = s->serial;
    return s->count++;
}

uint64_t slots_add(struct slots *s, void *thing)
{
    uint32_t index = s->free;

    if (s->used == s->most || (!index && !grow(s, s->count)))
        return 0;
    if (index)
        unlist(s, index);
    else
        index = begin(s);
    take(s, index, thing);
    return number_of(s, index);
}

int slots_put(struct slots *s, uint64_t number, void *thing)
{
    uint32_t index = (uint32_t)number;

    if (!index || index > s->most || s->used == s->most || is_used(s, index))
        return -EINVAL;
    if (!grow(s, index))
        return -ENOMEM;
    while (s->count <= index)
        list(s, begin(s));
    unlist(s, index);
    s->slot[index].serial = (uint32_t)(number >> 32);
    take(s, index, thing);
    return 0;
}

void *slots_get(const struct slots *s, uint64_t number)
{
    uint32_t index = (uint32_t)number;

    return is_used(s, index) && s->slot[index].serial == number >> 32 ? s->slot[index].thing : NULL;
}

void slots_remove(struct slots *s, uint64_t number)
{
    uint32_t index = (uint32_t)number;

    if (!slots_get(s, number))
        return;
    s->slot[index].serial++;
    list(s, index);
    s->used--;
}

uint64_t slots_number(const struct slots *s, uint32_t index)
{
    return is_used(s, index) ? number_of(s, index) : 0;
}
