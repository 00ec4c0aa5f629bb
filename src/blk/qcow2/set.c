/*
 * A set of clusters: a hash table with open addressing, at most half full. A key that is
 * removed leaves no mark: keys behind it that a search would no longer reach move up.
 */
#include "blk/qcow2/set.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t place_of(const struct qcow2_set *set, uint64_t key)
{
    return (key * 0x9e3779b97f4a7c15ULL >> 20) & (set->size - 1);
}

/* The place of KEY, or the empty one where it would be. */
static uint64_t find(const struct qcow2_set *set, uint64_t key)
{
    uint64_t at = place_of(set, key);

    while (set->key[at] && set->key[at] != key)
        at = (at + 1) & (set->size - 1);
    return at;
}

static int make_room(struct qcow2_set *set, uint64_t n)
{
    struct qcow2_set larger = {.count = set->count, .size = MAX(set->size, 64)};

    if (n > UINT64_MAX / 4 - set->count)
        return -ENOMEM;
    while (larger.size / 2 < set->count + n)
        larger.size *= 2;
    if (larger.size == set->size)
        return 0;
    larger.key = calloc(larger.size, sizeof(larger.key[0]));
    if (!larger.key)
        return -ENOMEM;
    for (uint64_t i = 0; i < set->size; i++)
        if (set->key[i])
            larger.key[find(&larger, set->key[i])] = set->key[i];
    free(set->key);
    *set = larger;
    return 0;
}

bool qcow2_set_has(const struct qcow2_set *set, uint64_t cluster)
{
    return set->count && set->key[find(set, cluster + 1)];
}

int qcow2_set_add(struct qcow2_set *set, uint64_t first, uint64_t n)
{
    int ret = make_room(set, n);

    if (ret < 0)
        return ret;
    for (uint64_t i = 0; i < n; i++)
        if (qcow2_set_has(set, first + i))
            return -EEXIST;
    for (uint64_t i = 0; i < n; i++)
        set->key[find(set, first + i + 1)] = first + i + 1;
    set->count += n;
    return 0;
}

static void remove_one(struct qcow2_set *set, uint64_t cluster)
{
    uint64_t mask = set->size - 1, hole = find(set, cluster + 1);

    if (!set->key[hole])
        return;
    set->key[hole] = 0;
    set->count--;
    for (uint64_t at = (hole + 1) & mask; set->key[at]; at = (at + 1) & mask) {
        /* A key may move to the hole unless its own place lies behind the hole. */
        if (((at - place_of(set, set->key[at])) & mask) < ((at - hole) & mask))
            continue;
        set->key[hole] = set->key[at];
        set->key[at] = 0;
        hole = at;
    }
}

void qcow2_set_remove(struct qcow2_set *set, uint64_t first, uint64_t n)
{
    for (uint64_t i = 0; i < n && set->count; i++)
        remove_one(set, first + i);
}

void qcow2_set_free(struct qcow2_set *set)
{
    free(set->key);
    *set = (struct qcow2_set){0};
}
