/*
 * The names in a file system that is built.
 */
#include "image/ext4_names.h"

#include "image/ext2_library.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <xxhash.h>

#define FIRST_BUCKETS 1024u
#define BYTES_MOST    (1u << 30) /* of memory that an archive's names may take */

struct names {
    struct node *root;
    struct node **buckets; /* a power of two of them */
    size_t bucket_count, count, bytes;
    uint64_t seed; /* so that nobody can have an archive whose names share a bucket */
};

static size_t bucket_of(const struct names *names, const struct node *folder, const char *name,
                        size_t length)
{
    uint64_t hash = XXH3_64bits_withSeed(name, length, names->seed ^ folder->ino);

    return hash & (names->bucket_count - 1);
}

static struct node *new_node(const char *name, size_t length, uint8_t type, uint32_t ino)
{
    struct node *node = calloc(1, sizeof(*node) + length);

    if (!node)
        return NULL;
    node->ino = ino;
    node->type = type;
    node->length = (uint8_t)length;
    memcpy(node->name, name, length);
    return node;
}

/* What a name takes: about, with the allocator's share and that of the table. */
static size_t node_bytes(size_t length, const char *target)
{
    return sizeof(struct node) + length + 32 + (target ? strlen(target) + 32 : 0);
}

struct names *names_create(uint32_t root_ino)
{
    struct names *names = calloc(1, sizeof(*names));

    if (!names)
        return NULL;
    names->root = new_node("", 0, EXT2_FT_DIR, root_ino);
    names->buckets = calloc(FIRST_BUCKETS, sizeof(*names->buckets));
    names->bucket_count = FIRST_BUCKETS;
    if (!names->root || !names->buckets ||
        getrandom(&names->seed, sizeof(names->seed), 0) != sizeof(names->seed)) {
        names_free(names);
        return NULL;
    }
    names->root->parent = names->root;
    return names;
}

static void free_node(struct node *node)
{
    free(node->target);
    free(node);
}

void names_free(struct names *names)
{
    if (!names)
        return;
    for (size_t i = 0; names->buckets && i < names->bucket_count; i++) {
        for (struct node *node = names->buckets[i], *next; node; node = next) {
            next = node->chain;
            free_node(node);
        }
    }
    if (names->root)
        free_node(names->root);
    free(names->buckets);
    free(names);
}

struct node *names_root(struct names *names)
{
    return names->root;
}

uint64_t names_count(const struct names *names)
{
    return names->count;
}

struct node *names_find(struct names *names, const struct node *folder, const char *name,
                        size_t length)
{
    struct node *node = names->buckets[bucket_of(names, folder, name, length)];

    while (node && (node->parent != folder || node->length != length ||
                    memcmp(node->name, name, length) != 0))
        node = node->chain;
    return node;
}

/* Twice the buckets. Without memory for them it stays as it is. */
static void grow(struct names *names)
{
    struct names larger = *names;

    larger.bucket_count *= 2;
    larger.buckets = calloc(larger.bucket_count, sizeof(*larger.buckets));
    if (!larger.buckets)
        return;
    for (size_t i = 0; i < names->bucket_count; i++) {
        for (struct node *node = names->buckets[i], *next; node; node = next) {
            size_t bucket = bucket_of(&larger, node->parent, node->name, node->length);

            next = node->chain;
            node->chain = larger.buckets[bucket];
            larger.buckets[bucket] = node;
        }
    }
    free(names->buckets);
    *names = larger;
}

struct node *names_add(struct names *names, struct node *folder, const char *name, size_t length,
                       uint8_t type, uint32_t ino, const char *target)
{
    struct node *node;
    size_t bucket;

    size_t bytes = node_bytes(length, target);

    if (bytes > BYTES_MOST - names->bytes)
        return NULL;
    node = new_node(name, length, type, ino);
    if (node && target)
        node->target = strdup(target);
    if (!node || (target && !node->target)) {
        free(node);
        return NULL;
    }
    names->bytes += bytes;
    if (names->count++ >= names->bucket_count)
        grow(names);
    bucket = bucket_of(names, folder, name, length);
    node->chain = names->buckets[bucket];
    names->buckets[bucket] = node;
    node->parent = folder;
    node->previous = folder->last;
    *(folder->last ? &folder->last->next : &folder->first) = node;
    folder->last = node;
    folder->children++;
    folder->folders += type == EXT2_FT_DIR;
    return node;
}

void names_remove(struct names *names, struct node *node)
{
    struct node *folder = node->parent;
    struct node **link = &names->buckets[bucket_of(names, folder, node->name, node->length)];

    while (*link != node)
        link = &(*link)->chain;
    *link = node->chain;
    *(node->previous ? &node->previous->next : &folder->first) = node->next;
    *(node->next ? &node->next->previous : &folder->last) = node->previous;
    folder->children--;
    folder->folders -= node->type == EXT2_FT_DIR;
    names->count--;
    names->bytes -= node_bytes(node->length, node->target);
    free_node(node);
}

struct node *names_next_folder(struct names *names, struct node *node)
{
    if (!node)
        return names->root;
    do {
        if (node->first) {
            node = node->first;
            continue;
        }
        while (node != names->root && !node->next)
            node = node->parent;
        if (node == names->root)
            return NULL;
        node = node->next;
    } while (node->type != EXT2_FT_DIR);
    return node;
}
