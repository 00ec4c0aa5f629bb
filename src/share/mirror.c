/*
 * What a guest knows and has open of an isolated folder.
 */
#include "share/mirror.h"

#include "share/lock.h"
#include "share/tables.h"

#include <errno.h>
#include <string.h>
#include <sys/file.h>

int share_mirror_init(struct share *s)
{
    const struct statx top = {.stx_mode = S_IFDIR};

    s->root = s->descriptors = -1;
    s->keeps = true;
    return share_nodes_init(s, &top);
}

/* ---- Nodes ---- */

static int node_is(struct share *s, const struct share_note_node *n)
{
    char name[NAME_MAX + 1] = "";

    if (n->note.size < sizeof(*n) || n->length > NAME_MAX || n->length > n->note.size - sizeof(*n))
        return -EPROTO;
    memcpy(name, n + 1, n->length);
    if (strlen(name) != n->length || strchr(name, '/') || !strcmp(name, ".") ||
        !strcmp(name, "..") || (n->length > 0) != (n->parent > 0))
        return -EPROTO;
    return share_node_put(s, n->number, &n->key, n->parent, name);
}

/* The guest may have given back the node before a handle of it: the answers come in any order. */
static int node_is_gone(struct share *s, uint64_t number)
{
    struct share_node *node = share_node_hold(s, number);

    if (!node)
        return 0;
    share_holders_end_all(s, node);
    share_handles_end(s, node);
    share_node_drop(s, node);
    return share_node_end(s, number);
}

static int handle_is_lost(struct share *s, uint64_t number)
{
    struct share_handle *handle = share_handle_hold(s, NULL, number);

    if (!handle)
        return 0;
    share_holders_end(s, handle->node, number);
    handle->flock = LOCK_UN;
    handle->lost = true;
    share_handle_drop(s, handle);
    return 0;
}

int share_mirror_note(struct share *s, const struct share_note *note)
{
    const void *whole = note;
    const struct share_note_gone *gone = whole;

    switch ((enum share_note_kind)note->kind) {
    case NOTE_NODE: return node_is(s, whole);
    case NOTE_GONE: return note->size < sizeof(*gone) ? -EPROTO : node_is_gone(s, gone->number);
    case NOTE_LOST: return note->size < sizeof(*gone) ? -EPROTO : handle_is_lost(s, gone->number);
    case NOTE_RESET: share_tables_reset(s); return 0;
    case NOTE_RESULT:
    case NOTE_DONE: break;
    }
    return -EPROTO;
}

/* ---- Changes ---- */

static struct share_handle *handle_of(struct share *s, uint64_t number)
{
    return share_handle_hold(s, NULL, number);
}

static void released(struct share *s, uint64_t number)
{
    struct share_handle *handle = handle_of(s, number);

    if (!handle)
        return;
    share_holders_end(s, handle->node, number);
    share_handle_release(s, handle);
    share_handle_drop(s, handle);
}

/* The handle that had its place among the numbers before is released; that is told later. */
static int opened(struct share *s, const struct share_change *c)
{
    struct share_node *node = share_node_hold(s, c->b);
    struct share_handle *handle;
    int ret = 0;

    if (node) {
        released(s, slots_number(&s->handles, (uint32_t)c->a));
        ret = share_handle_put(s, node, c->a, -1, (int)c->count, &handle);
    }
    share_node_drop(s, node);
    return ret;
}

static void locked_whole(struct share *s, const struct share_change *c)
{
    struct share_handle *handle = handle_of(s, c->a);

    if (handle && c->order > handle->order &&
        (c->count == LOCK_SH || c->count == LOCK_EX || c->count == LOCK_UN)) {
        handle->flock = (int)c->count;
        handle->order = c->order;
    }
    share_handle_drop(s, handle);
}

static int locked(struct share *s, const struct share_change *c, const uint8_t *ranges)
{
    struct share_range range[SHARE_RANGES_MOST];
    struct share_handle *handle = handle_of(s, c->handle);
    int ret = 0;

    if (c->count <= SHARE_RANGES_MOST)
        memcpy(range, ranges, c->count * sizeof(range[0]));
    if (handle && handle->node->number == c->b)
        ret = share_holder_put(s, handle, c->a, c->order, c->count, range);
    share_handle_drop(s, handle);
    return ret;
}

static void unlocked(struct share *s, const struct share_change *c)
{
    struct share_node *node = share_node_hold(s, c->b);

    if (node)
        share_holder_end(s, node, c->a);
    share_node_drop(s, node);
}

/* How many bytes of ranges follow C. */
static size_t ranges_of(const struct share_change *c)
{
    return c->kind == CHANGE_LOCKS && c->count <= SHARE_RANGES_MOST
               ? c->count * sizeof(struct share_range)
               : 0;
}

static int follow(struct share *s, const struct share_change *c, const uint8_t *ranges)
{
    switch ((enum share_change_kind)c->kind) {
    case CHANGE_FOUND: share_node_count(s, c->a, c->count); return 0;
    case CHANGE_FORGOT: share_node_forget(s, c->a, c->b); return 0;
    case CHANGE_OPENED: return opened(s, c);
    case CHANGE_RELEASED: released(s, c->a); return 0;
    case CHANGE_FLOCK: locked_whole(s, c); return 0;
    case CHANGE_LOCKS: return locked(s, c, ranges);
    case CHANGE_UNLOCKED: unlocked(s, c); return 0;
    case CHANGE_READY:
        atomic_store(&s->submounts, c->count != 0);
        atomic_store(&s->ready, true);
        return 0;
    }
    return -EPROTO;
}

int share_mirror_change(struct share *s, const uint8_t *changes, size_t size)
{
    int ret = 0;

    for (size_t at = 0; at < size && ret == 0;) {
        struct share_change c;

        if (size - at < sizeof(c))
            return -EPROTO;
        memcpy(&c, changes + at, sizeof(c));
        at += sizeof(c);
        if (size - at < ranges_of(&c))
            return -EPROTO;
        ret = follow(s, &c, changes + at);
        at += ranges_of(&c);
    }
    return ret;
}
