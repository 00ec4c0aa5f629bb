/*
 * What the process of an isolated folder tells.
 */
#include "share/notes.h"

#include "base/util.h"

#include <stdlib.h>
#include <string.h>

static size_t fixed_size(size_t size)
{
    return ALIGN_UP(size, NOTE_ALIGN);
}

void share_note_node(struct share *s, const struct share_node *node)
{
    struct {
        struct share_note_node node;
        char name[NAME_MAX + NOTE_ALIGN];
    } n = {.node = {.number = node->number,
                    .parent = node->name ? node->parent->number : 0,
                    .key = node->key,
                    .length = (uint32_t)(node->name ? strlen(node->name) : 0)}};
    size_t size = fixed_size(sizeof(n.node) + n.node.length);

    if (!s->notes)
        return;
    n.node.note = (struct share_note){.size = (uint32_t)size, .kind = NOTE_NODE};
    if (node->name)
        memcpy(n.name, node->name, n.node.length);
    s->notes->put(s->notes, &n, size);
}

static void put_number(struct share *s, enum share_note_kind kind, uint64_t number)
{
    const struct share_note_gone n = {.note = {.size = sizeof(n), .kind = kind}, .number = number};

    if (s->notes)
        s->notes->put(s->notes, &n, sizeof(n));
}

void share_note_gone(struct share *s, const struct share_node *node)
{
    put_number(s, NOTE_GONE, node->number);
}

void share_note_lost(struct share *s, uint64_t number)
{
    put_number(s, NOTE_LOST, number);
}

void share_note_reset(struct share *s)
{
    const struct share_note n = {.size = sizeof(n), .kind = NOTE_RESET};

    if (s->notes)
        s->notes->put(s->notes, &n, sizeof(n));
}

/* ---- Changes ---- */

static uint8_t *bytes_of(struct share_changes *c)
{
    return c->more ? c->more : c->few;
}

const uint8_t *share_changes_bytes(const struct share_changes *c)
{
    return c->more ? c->more : c->few;
}

/* Makes room for SIZE bytes more. */
static bool grow(struct share_changes *c, size_t size)
{
    size_t room = c->more ? c->room : sizeof(c->few);
    uint8_t *more;

    if (c->size + size <= room)
        return true;
    while (room < c->size + size)
        room *= 2;
    more = realloc(c->more, room);
    if (!more)
        return false;
    if (!c->more)
        memcpy(more, c->few, c->size);
    c->more = more;
    c->room = (uint32_t)room;
    return true;
}

void share_changes_add(struct share_changes *c, const struct share_change *change,
                       const struct share_range *ranges)
{
    size_t more = ranges ? MIN(change->count, SHARE_RANGES_MOST) * sizeof(*ranges) : 0;

    if (!c)
        return;
    if (c->size + sizeof(*change) + more > NOTE_MOST - sizeof(struct share_note_result) ||
        !grow(c, sizeof(*change) + more)) {
        c->lost = true;
        return;
    }
    memcpy(bytes_of(c) + c->size, change, sizeof(*change));
    c->size += (uint32_t)sizeof(*change);
    if (more)
        memcpy(bytes_of(c) + c->size, ranges, more);
    c->size += (uint32_t)more;
}

void share_changes_drop(struct share_changes *c, enum share_change_kind kind)
{
    struct share_change last;

    if (!c || c->size < sizeof(last))
        return;
    memcpy(&last, bytes_of(c) + c->size - sizeof(last), sizeof(last));
    if (last.kind == (uint32_t)kind)
        c->size -= (uint32_t)sizeof(last);
}

void share_changes_free(struct share_changes *c)
{
    free(c->more);
    c->more = NULL;
    c->size = c->room = 0;
}
