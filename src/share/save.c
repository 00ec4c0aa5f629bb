/*
 * Saving and loading what a guest knows of a shared folder: nodes, handles and locks, in sections
 * of at most CHUNK records each.
 *
 * What was loaded has no descriptors yet (reopen.c).
 */
#include "share/lock.h"
#include "share/tables.h"

#include "base/util.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#define CHUNK 4096u

struct walk {
    struct share *share;
    struct state *s;
    uint32_t instance;
    uint64_t *parents; /* of the nodes that were loaded, in order, */
    struct share_node **loaded;
    uint32_t count;  /* of them */
    uint32_t handle; /* index of the last one that was loaded */
};

/* ---- Records ---- */

struct node_record {
    uint64_t number, lookups, parent; /* PARENT 0: seen nowhere */
    struct share_key key;
    uint16_t length;
    char name[NAME_MAX + 1];
};

static void visit_node(struct state *s, struct node_record *r)
{
    state_field(s, r->number);
    state_field(s, r->lookups);
    state_field(s, r->parent);
    state_field(s, r->key.device);
    state_field(s, r->key.inode);
    state_field(s, r->key.birth);
    state_field(s, r->key.type);
    state_field(s, r->length);
    if (r->length > NAME_MAX)
        state_fail(s, "a name of %u bytes", r->length);
    else
        state_value(s, "name", r->name, r->length);
}

#define HANDLES_VERSION 2u /* of their sections; the first had no LOST */

struct handle_record {
    uint64_t number, node;
    uint32_t flags, flock;
    bool lost;
};

static void visit_handle(struct state *s, uint32_t version, struct handle_record *r)
{
    state_field(s, r->number);
    state_field(s, r->node);
    state_field(s, r->flags);
    state_field(s, r->flock);
    if (version >= 2)
        state_bool(s, &r->lost);
}

struct holder_record {
    uint64_t node, owner, handle;
    uint32_t count; /* above SHARE_RANGES_MOST: they are not there */
    struct share_range range[SHARE_RANGES_MOST];
};

static void visit_holder(struct state *s, struct holder_record *r)
{
    state_field(s, r->node);
    state_field(s, r->owner);
    state_field(s, r->handle);
    state_field(s, r->count);
    for (uint32_t i = 0; i < r->count && r->count <= SHARE_RANGES_MOST; i++) {
        state_field(s, r->range[i].type);
        state_field(s, r->range[i].start);
        state_field(s, r->range[i].length);
    }
}

/* Opens the next section before record N of those called NAME, whose newest version is NEWEST.
 * *VERSION is the present one's. */
static void next_record(const struct walk *w, const char *name, uint32_t n, uint32_t newest,
                        uint32_t *version)
{
    if (n % CHUNK == 0)
        *version = state_section(w->s, name, w->instance << 16 | n / CHUNK, newest);
}

/* ---- Saving ---- */

static struct share_node *node_at(const struct share *s, uint32_t index)
{
    return slots_get(&s->nodes, slots_number(&s->nodes, index));
}

static void save_nodes(struct walk *w)
{
    const struct share *s = w->share;
    uint32_t n = 0, version = 0;

    for (uint32_t i = 0; i < s->nodes.count; i++) {
        const struct share_node *node = node_at(s, i);
        struct node_record r;

        if (!node || node == s->top)
            continue;
        r = (struct node_record){.number = node->number,
                                 .lookups = node->lookups,
                                 .parent = node->name ? node->parent->number : 0,
                                 .key = node->key,
                                 .length = (uint16_t)(node->name ? strlen(node->name) : 0)};
        memcpy(r.name, node->name ? node->name : "", r.length);
        next_record(w, "share-nodes", n++, 1, &version);
        visit_node(w->s, &r);
    }
}

static void save_handles(struct walk *w)
{
    const struct share *s = w->share;
    uint32_t n = 0, version = 0;

    for (uint32_t i = 0; i < s->handles.count; i++) {
        const struct share_handle *handle = slots_get(&s->handles, slots_number(&s->handles, i));
        struct handle_record r;

        if (!handle)
            continue;
        r = (struct handle_record){.number = handle->number,
                                   .node = handle->node->number,
                                   .flags = (uint32_t)handle->flags,
                                   .flock = (uint32_t)handle->flock,
                                   .lost = handle->lost};
        next_record(w, "share-handles", n++, HANDLES_VERSION, &version);
        visit_handle(w->s, version, &r);
    }
}

static uint32_t count_holders(const struct share *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->nodes.count; i++) {
        const struct share_node *node = node_at(s, i);

        for (const struct share_holder *h = node ? node->holders : NULL; h; h = h->next)
            n++;
    }
    return n;
}

static void save_holders(struct walk *w, struct holder_record *r)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->share->nodes.count; i++) {
        const struct share_node *node = node_at(w->share, i);

        for (const struct share_holder *h = node ? node->holders : NULL; h; h = h->next) {
            r->node = node->number;
            r->owner = h->owner;
            r->handle = h->handle;
            r->count = share_holder_list(h, r->range);
            /* One has up to 5 KiB. */
            state_section(w->s, "share-locks", w->instance << 16 | (n++ & 0xFFFF), 1);
            visit_holder(w->s, r);
        }
    }
}

/* ---- Loading ---- */

static void load_node(struct walk *w, uint32_t n)
{
    struct share *s = w->share;
    struct node_record r = {0};
    struct share_node *node;

    visit_node(w->s, &r);
    if (state_error(w->s))
        return;
    if (n > 0 && (uint32_t)r.number <= (uint32_t)w->loaded[n - 1]->number) {
        state_fail(w->s, "node %llx is out of order", (unsigned long long)r.number);
        return;
    }
    node = share_node_make(s, &r.key);
    if (!node || (r.length && share_node_name(s, node, r.name) < 0) ||
        slots_put(&s->nodes, r.number, node) < 0) {
        state_fail(w->s, "node %llx cannot be made", (unsigned long long)r.number);
        if (node)
            share_node_unname(s, node);
        free(node);
        return;
    }
    node->number = r.number;
    node->lookups = r.lookups;
    w->loaded[n] = node;
    w->parents[n] = r.parent;
    w->count = n + 1;
    share_node_hash(s, node);
}

static void place_node(struct walk *w, struct share_node *node, uint64_t number)
{
    struct share *s = w->share;
    struct share_node *parent = number ? slots_get(&s->nodes, number) : NULL;
    bool good = parent && parent->key.type == S_IFDIR && node->name && !strchr(node->name, '/') &&
                strcmp(node->name, ".") != 0 && strcmp(node->name, "..") != 0;

    if (number && (!good || !share_node_may_be_in(node, parent)))
        state_fail(w->s, "node %llx cannot be where it was", (unsigned long long)node->number);
    else if (number) {
        node->parent = parent;
        parent->users++;
        return;
    }
    share_node_unname(s, node);
}

static void load_nodes(struct walk *w, uint32_t count)
{
    uint32_t version = 0;

    w->parents = calloc((size_t)count + 1, sizeof(*w->parents));
    w->loaded = calloc((size_t)count + 1, sizeof(struct share_node *));
    if (!w->parents || !w->loaded) {
        state_fail(w->s, "no memory for %u nodes", count);
        count = 0;
    }
    for (uint32_t n = 0; n < count && !state_error(w->s); n++) {
        next_record(w, "share-nodes", n, 1, &version);
        load_node(w, n);
    }
    for (uint32_t n = 0; n < w->count; n++)
        place_node(w, w->loaded[n], w->parents[n]);
    free(w->parents);
    free(w->loaded);
}

static void load_handle(struct walk *w, uint32_t version)
{
    struct share *s = w->share;
    struct handle_record r = {0};
    struct share_handle *handle;
    struct share_node *node;

    visit_handle(w->s, version, &r);
    node = slots_get(&s->nodes, r.node);
    if ((uint32_t)r.number <= w->handle) {
        state_fail(w->s, "handle %llx is out of order", (unsigned long long)r.number);
        return;
    }
    w->handle = (uint32_t)r.number;
    if (state_error(w->s) || !node) {
        state_fail(w->s, "handle %llx of no node", (unsigned long long)r.number);
        return;
    }
    if (share_handle_put(s, node, r.number, -1, (int)r.flags, &handle) < 0) {
        state_fail(w->s, "handle %llx cannot be made", (unsigned long long)r.number);
        return;
    }
    if (r.flock == LOCK_SH || r.flock == LOCK_EX)
        handle->flock = (int)r.flock;
    handle->lost = r.lost;
}

static void load_handles(struct walk *w, uint32_t count)
{
    uint32_t version = 0;

    for (uint32_t n = 0; n < count && !state_error(w->s); n++) {
        next_record(w, "share-handles", n, HANDLES_VERSION, &version);
        load_handle(w, version);
    }
}

static void load_holder(struct walk *w, struct holder_record *r)
{
    struct share *s = w->share;
    struct share_handle *handle;

    visit_holder(w->s, r);
    handle = slots_get(&s->handles, r->handle);
    if (state_error(w->s) || !handle || handle->node->number != r->node) {
        state_fail(w->s, "locks of owner %llx, who has no file", (unsigned long long)r->owner);
        return;
    }
    if (share_holder_put(s, handle, r->owner, 0, r->count, r->range) < 0)
        state_fail(w->s, "no memory for locks, or too many");
}

/* ---- Both ---- */

struct counts {
    uint32_t nodes, handles, holders;
};

static void save(struct walk *w, struct holder_record *room)
{
    save_nodes(w);
    save_handles(w);
    save_holders(w, room);
}

static void load(struct walk *w, const struct counts *counts, struct holder_record *room)
{
    if (counts->nodes > SHARE_NODES_MOST || counts->handles > SHARE_HANDLES_MOST) {
        state_fail(w->s, "%u nodes and %u handles", counts->nodes, counts->handles);
        return;
    }
    load_nodes(w, counts->nodes);
    load_handles(w, counts->handles);
    for (uint32_t n = 0; n < counts->holders && !state_error(w->s); n++) {
        state_section(w->s, "share-locks", w->instance << 16 | (n & 0xFFFF), 1);
        load_holder(w, room);
    }
}

void share_tables_state(struct share *s, struct state *state, uint32_t instance)
{
    struct walk w = {.share = s, .s = state, .instance = instance};
    struct holder_record *room = malloc(sizeof(*room));
    struct counts counts = {0};
    bool ready = atomic_load(&s->ready), submounts = atomic_load(&s->submounts);

    if (!room) {
        state_fail(state, "no memory");
        return;
    }
    if (state_saving(state))
        counts = (struct counts){
            .nodes = s->nodes.used - 1, .handles = s->handles.used, .holders = count_holders(s)};
    else
        share_tables_reset(s);
    state_section(state, "share", instance, 1);
    state_bool(state, &ready);
    state_bool(state, &submounts);
    state_field(state, counts.nodes);
    state_field(state, counts.handles);
    state_field(state, counts.holders);
    if (state_saving(state))
        save(&w, room);
    else
        load(&w, &counts, room);
    atomic_store(&s->ready, ready);
    atomic_store(&s->submounts, submounts);
    free(room);
}
