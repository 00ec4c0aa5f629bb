/*
 * The files of a shared folder that a guest knows.
 */
#include "share/node.h"

#include "base/util.h"
#include "share/notes.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

#define FIRST_BUCKETS 256u
/* The times of a file that was changed less than this ago say nothing of the next change: they have
 * the grain of a clock, which may be the server's. */
#define SETTLED_SECONDS 2

/* ---- Keys ---- */

struct share_key share_key_of(const struct statx *stx)
{
    struct share_key key = {.device = makedev(stx->stx_dev_major, stx->stx_dev_minor),
                            .inode = stx->stx_ino,
                            .type = stx->stx_mode & S_IFMT};

    if (stx->stx_mask & STATX_BTIME)
        key.birth = (uint64_t)stx->stx_btime.tv_sec * 1000000000u + stx->stx_btime.tv_nsec;
    return key;
}

bool share_same_key(const struct share_key *a, const struct share_key *b)
{
    return a->device == b->device && a->inode == b->inode && a->birth == b->birth &&
           a->type == b->type;
}

bool share_key_is(const struct share_key *key, const struct statx *stx)
{
    struct share_key other = share_key_of(stx);

    return share_same_key(key, &other);
}

/* ---- The table ---- */

static uint32_t bucket_of(const struct share *s, const struct share_key *key)
{
    uint64_t hash = (key->inode ^ key->device << 40) * 0x9E3779B97F4A7C15u;

    return (uint32_t)(hash >> 32) & (s->buckets - 1);
}

static struct share_node *find(const struct share *s, const struct share_key *key)
{
    struct share_node *node = s->table[bucket_of(s, key)];

    while (node && !share_same_key(&node->key, key))
        node = node->next;
    return node;
}

/* Doubles the table, if there is memory for it. */
static void grow(struct share *s)
{
    struct share_node **table = s->table, **larger;
    uint32_t buckets = s->buckets;

    larger = calloc((size_t)buckets * 2, sizeof(struct share_node *));
    if (!larger)
        return;
    s->table = larger;
    s->buckets = buckets * 2;
    for (uint32_t i = 0; i < buckets; i++) {
        struct share_node *node = table[i], *next;

        for (; node; node = next) {
            next = node->next;
            share_node_hash(s, node);
        }
    }
    free(table);
}

void share_node_hash(struct share *s, struct share_node *node)
{
    struct share_node **bucket = &s->table[bucket_of(s, &node->key)];

    node->next = *bucket;
    *bucket = node;
    node->hashed = true;
}

static void unhash(struct share *s, struct share_node *node)
{
    struct share_node **link = &s->table[bucket_of(s, &node->key)];

    if (!node->hashed)
        return;
    while (*link != node)
        link = &(*link)->next;
    *link = node->next;
    node->hashed = false;
}

/* ---- Nodes ---- */

struct share_node *share_node_make(struct share *s, const struct share_key *key)
{
    struct share_node *node = calloc(1, sizeof(*node));

    if (!node)
        return NULL;
    node->key = *key;
    if (s->nodes.used > s->buckets)
        grow(s);
    return node;
}

/* Frees NODE if nobody needs it, and then perhaps the directories that it was seen in. */
static void release(struct share *s, struct share_node *node)
{
    while (node && !node->lookups && !node->users && node != s->top && !s->keeps) {
        struct share_node *parent = node->parent;

        share_note_gone(s, node);
        unhash(s, node);
        slots_remove(&s->nodes, node->number);
        share_node_unname(s, node);
        free(node);
        node = parent;
        if (node)
            node->users--;
    }
}

int share_node_name(struct share *s, struct share_node *node, const char *name)
{
    size_t size = strlen(name) + 1;

    if (size > SHARE_NAMES_MOST - s->names)
        return -ENFILE;
    node->name = strdup(name);
    if (!node->name)
        return -ENOMEM;
    s->names += size;
    return 0;
}

void share_node_unname(struct share *s, struct share_node *node)
{
    if (node->name)
        s->names -= strlen(node->name) + 1;
    free(node->name);
    node->name = NULL;
}

/* Forgets where NODE was seen. */
static void lose(struct share *s, struct share_node *node)
{
    struct share_node *parent = node->parent;

    share_node_unname(s, node);
    node->parent = NULL;
    if (parent) {
        parent->users--;
        release(s, parent);
    }
}

bool share_node_may_be_in(const struct share_node *node, const struct share_node *parent)
{
    /* A path has at most PATH_MAX bytes, so one that is deeper leads nowhere. */
    for (unsigned depth = 0; parent && depth < PATH_MAX / 2; depth++) {
        if (parent == node)
            return false;
        parent = parent->parent;
    }
    return !parent;
}

/* Notes that NODE was seen in PARENT as NAME. On failure it is nowhere. */
static int place(struct share *s, struct share_node *node, struct share_node *parent,
                 const char *name)
{
    struct share_node *before = node->parent;
    int ret = 0;

    if (node == s->top || (node->name && before == parent && !strcmp(node->name, name)))
        return 0;
    parent->users++;
    if (before)
        before->users++; /* it goes after it is told that NODE is not in it */
    lose(s, node);
    /* A directory that the host has moved meanwhile may be above itself: then it is nowhere. */
    if (node->key.type != S_IFDIR || share_node_may_be_in(node, parent))
        ret = share_node_name(s, node, name);
    if (node->name)
        node->parent = parent;
    else
        parent->users--;
    share_note_node(s, node);
    if (before) {
        before->users--;
        release(s, before);
    }
    return ret;
}

int share_nodes_init(struct share *s, const struct statx *top)
{
    struct share_key key = share_key_of(top);

    slots_init(&s->nodes, SHARE_NODES_MOST);
    s->buckets = FIRST_BUCKETS;
    s->table = calloc(s->buckets, sizeof(struct share_node *));
    s->top = s->table ? share_node_make(s, &key) : NULL;
    if (!s->top)
        return -ENOMEM;
    s->top->number = slots_add(&s->nodes, s->top);
    if (!s->top->number)
        return -ENOMEM;
    share_node_hash(s, s->top);
    return 0;
}

void share_nodes_forget(struct share *s)
{
    struct share_notes *notes;
    bool keeps;

    pthread_mutex_lock(&s->lock);
    share_note_reset(s);
    notes = s->notes;
    keeps = s->keeps;
    s->notes = NULL; /* that was the note of all of them */
    s->keeps = false;
    s->top->seen = 0;
    for (uint32_t i = 0; i < s->nodes.count; i++) {
        struct share_node *node = slots_get(&s->nodes, slots_number(&s->nodes, i));

        if (node) {
            node->lookups = 0;
            release(s, node);
        }
    }
    s->notes = notes;
    s->keeps = keeps;
    pthread_mutex_unlock(&s->lock);
}

void share_nodes_free(struct share *s)
{
    if (s->top)
        share_nodes_forget(s);
    slots_free(&s->nodes);
    free(s->top);
    free(s->table);
}

struct share_node *share_node_hold(struct share *s, uint64_t number)
{
    struct share_node *node;

    pthread_mutex_lock(&s->lock);
    node = slots_get(&s->nodes, number);
    if (node)
        node->users++;
    pthread_mutex_unlock(&s->lock);
    return node;
}

void share_node_drop(struct share *s, struct share_node *node)
{
    if (!node)
        return;
    pthread_mutex_lock(&s->lock);
    node->users--;
    release(s, node);
    pthread_mutex_unlock(&s->lock);
}

void share_node_forget(struct share *s, uint64_t number, uint64_t count)
{
    struct share_node *node;

    pthread_mutex_lock(&s->lock);
    node = slots_get(&s->nodes, number);
    if (node) {
        node->lookups -= MIN(count, node->lookups);
        release(s, node);
    }
    pthread_mutex_unlock(&s->lock);
}

/* A new node for KEY, which is in no list yet but the slots. */
static int add(struct share *s, const struct share_key *key, struct share_node **node)
{
    *node = share_node_make(s, key);
    if (!*node)
        return -ENOMEM;
    (*node)->number = slots_add(&s->nodes, *node);
    if ((*node)->number) {
        share_node_hash(s, *node);
        return 0;
    }
    free(*node);
    *node = NULL;
    return s->nodes.used == s->nodes.most ? -ENFILE : -ENOMEM;
}

int share_node_found(struct share *s, struct share_node *parent, const char *name,
                     const struct statx *stx, struct share_node **found)
{
    struct share_key key = share_key_of(stx);
    struct share_node *node;
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    node = find(s, &key);
    if (!node)
        ret = add(s, &key, &node);
    if (node) {
        node->users++;
        ret = 0;
        if (parent)
            ret = place(s, node, parent, name);
        else
            share_note_node(s, node);
    }
    if (node && ret == 0) {
        node->lookups++;
    } else if (node) {
        node->users--;
        release(s, node);
        node = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    *found = node;
    return ret;
}

void share_node_moved(struct share *s, const struct share_key *key, struct share_node *parent,
                      const char *name)
{
    struct share_node *node;

    pthread_mutex_lock(&s->lock);
    node = find(s, key);
    if (node)
        place(s, node, parent, name);
    pthread_mutex_unlock(&s->lock);
}

void share_node_gone(struct share *s, const struct share_key *key, struct share_node *parent,
                     const char *name, bool last)
{
    struct share_node *node;

    pthread_mutex_lock(&s->lock);
    node = find(s, key);
    if (node && node != s->top) {
        if (node->parent == parent && !strcmp(node->name, name)) {
            lose(s, node);
            share_note_node(s, node);
        }
        if (last) /* its inode number may soon be another file's */
            unhash(s, node);
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- Mirrors ---- */

int share_node_put(struct share *s, uint64_t number, const struct share_key *key, uint64_t parent,
                   const char *name)
{
    struct share_node *node, *above;
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    node = slots_get(&s->nodes, number);
    above = parent ? slots_get(&s->nodes, parent) : NULL;
    if (node == s->top || (above && above->key.type != S_IFDIR))
        ret = -EINVAL;
    if (ret == 0 && !node) {
        node = share_node_make(s, key);
        ret = node ? slots_put(&s->nodes, number, node) : -ENOMEM;
        if (ret == 0)
            node->number = number;
        else
            free(node);
    }
    if (ret == 0 && above)
        ret = place(s, node, above, name);
    else if (ret == 0)
        lose(s, node);
    pthread_mutex_unlock(&s->lock);
    return ret;
}

int share_node_end(struct share *s, uint64_t number)
{
    struct share_node *node;
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    node = slots_get(&s->nodes, number);
    if (node == s->top || (node && node->users)) {
        ret = -EINVAL;
    } else if (node) {
        lose(s, node);
        unhash(s, node);
        slots_remove(&s->nodes, number);
        free(node);
    }
    pthread_mutex_unlock(&s->lock);
    return ret;
}

void share_node_count(struct share *s, uint64_t number, uint64_t more)
{
    struct share_node *node;

    pthread_mutex_lock(&s->lock);
    node = slots_get(&s->nodes, number);
    if (node && more <= UINT64_MAX - node->lookups)
        node->lookups += more;
    pthread_mutex_unlock(&s->lock);
}

void share_nodes_sweep(struct share *s)
{
    pthread_mutex_lock(&s->lock);
    s->keeps = false;
    for (uint32_t i = 0; i < s->nodes.count; i++)
        release(s, slots_get(&s->nodes, slots_number(&s->nodes, i)));
    s->keeps = true;
    pthread_mutex_unlock(&s->lock);
}

/* ---- Changes by the host ---- */

/* What times and size are, in one number. 0 if they may stay the same when the file changes again,
 * because it has just been changed. */
static uint64_t version_of(const struct statx *stx)
{
    const uint64_t parts[] = {(uint64_t)stx->stx_mtime.tv_sec, stx->stx_mtime.tv_nsec,
                              (uint64_t)stx->stx_ctime.tv_sec, stx->stx_ctime.tv_nsec,
                              stx->stx_size};
    uint64_t hash = 1;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (stx->stx_ctime.tv_sec + SETTLED_SECONDS > now.tv_sec)
        return 0;
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
        hash = (hash ^ parts[i]) * 0x9E3779B97F4A7C15u;
    return hash | 1;
}

bool share_node_unchanged(struct share *s, struct share_node *node, const struct statx *stx)
{
    uint64_t version = version_of(stx);
    bool same;

    pthread_mutex_lock(&s->lock);
    same = version && node->seen == version;
    node->seen = version;
    pthread_mutex_unlock(&s->lock);
    return same;
}

/* ---- Paths ---- */

bool share_node_is_nowhere(struct share *s, const struct share_node *node)
{
    bool nowhere;

    pthread_mutex_lock(&s->lock);
    nowhere = !node->name && node != s->top;
    pthread_mutex_unlock(&s->lock);
    return nowhere;
}

static int make_path(const struct share *s, const struct share_node *node, char *buffer,
                     size_t size, const char **path)
{
    char *at = buffer + size;

    *--at = '\0';
    if (node == s->top)
        *--at = '.';
    while (node != s->top) {
        size_t length = node->name ? strlen(node->name) : 0;

        if (!length)
            return -ESTALE;
        if (length + 1 > (size_t)(at - buffer))
            return -ENAMETOOLONG;
        if (*at)
            *--at = '/';
        at -= length;
        memcpy(at, node->name, length);
        node = node->parent;
    }
    *path = at;
    return 0;
}

int share_node_path(struct share *s, const struct share_node *node, char *buffer, size_t size,
                    const char **path)
{
    int ret;

    pthread_mutex_lock(&s->lock);
    ret = make_path(s, node, buffer, size, path);
    pthread_mutex_unlock(&s->lock);
    return ret;
}
