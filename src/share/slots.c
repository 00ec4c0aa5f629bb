/*
 * Numbers that a guest is given for things and hands back.
 */
#include "share/slots.h"

#include "base/util.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

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
    memset(slot + s->room, 0, (room - s->room) * sizeof(*slot));
    s->slot = slot;
    s->room = (uint32_t)room;
    return true;
}

static uint64_t number_of(const struct slots *s, uint32_t index)
{
    return (uint64_t)s->slot[index].serial << 32 | index;
}

uint64_t slots_add(struct slots *s, void *thing)
{
    uint32_t index = s->free;

    if (s->used == s->most)
        return 0;
    if (index) {
        s->free = s->slot[index].next;
    } else {
        if (!grow(s, s->count))
            return 0;
        index = s->count++;
    }
    s->slot[index].thing = thing;
    s->used++;
    return number_of(s, index);
}

/* Takes INDEX out of the list of free ones, which it is in. */
static void unlist(struct slots *s, uint32_t index)
{
    uint32_t *link = &s->free;

    while (*link != index)
        link = &s->slot[*link].next;
    *link = s->slot[index].next;
}

int slots_put(struct slots *s, uint64_t number, void *thing)
{
    uint32_t index = (uint32_t)number;

    if (!index || index > s->most || s->used == s->most)
        return -EINVAL;
    if (!grow(s, index))
        return -ENOMEM;
    if (index < s->count && s->slot[index].thing)
        return -EINVAL;
    if (index < s->count)
        unlist(s, index);
    for (; s->count < index; s->count++) {
        s->slot[s->count].next = s->free;
        s->free = s->count;
    }
    s->count = MAX(s->count, index + 1);
    s->slot[index].thing = thing;
    s->slot[index].serial = (uint32_t)(number >> 32);
    s->used++;
    return 0;
}

void *slots_get(const struct slots *s, uint64_t number)
{
    uint32_t index = (uint32_t)number;

    return index && index < s->count && s->slot[index].serial == number >> 32 ? s->slot[index].thing
                                                                              : NULL;
}

void slots_remove(struct slots *s, uint64_t number)
{
    uint32_t index = (uint32_t)number;

    if (!slots_get(s, number))
        return;
    s->slot[index].thing = NULL;
    s->slot[index].serial++;
    s->slot[index].next = s->free;
    s->free = index;
    s->used--;
}

uint64_t slots_number(const struct slots *s, uint32_t index)
{
    return index && index < s->count && s->slot[index].thing ? number_of(s, index) : 0;
}
