/*
 * Requests that wait for space on the host's disk. While there are any, the machine is held.
 */
#include "dev/virtio/block_private.h"

#include <stdio.h>

void block_space_init(struct block_space *space)
{
    pthread_mutex_init(&space->lock, NULL);
    space->last = &space->first;
}

void block_space_free(struct block_space *space)
{
    pthread_mutex_destroy(&space->lock);
}

static void hold_machine(const struct virtio_block *b)
{
    char why[400];

    if (b->info.folder)
        snprintf(
            why, sizeof(why),
            "no room in %.150s (TMPDIR) for what the guest writes to %.150s; the machine stands "
            "still until there is",
            b->info.folder, b->info.file);
    else
        snprintf(
            why, sizeof(why),
            "disk %.200s: the host's disk is full; the machine stands still until there is room",
            b->info.file);
    b->config.hold(b->config.opaque, why);
}

static void release_machine(const struct virtio_block *b, bool gone)
{
    char why[400];

    snprintf(why, sizeof(why), "disk %.200s: there is room again; the machine goes on",
             b->info.file);
    b->config.release(b->config.opaque, gone ? NULL : why);
}

bool block_space_await(struct block_request *r)
{
    struct virtio_block *b = r->block;
    struct block_space *space = &b->space;
    bool waits;

    pthread_mutex_lock(&space->lock);
    waits = !virtio_recalled(&b->device); /* else block_recall has looked already, or soon will */
    if (waits) {
        r->next = NULL;
        *space->last = r;
        space->last = &r->next;
        if (!r->wants_space && space->wanting++ == 0)
            hold_machine(b);
        r->wants_space = true;
    }
    pthread_mutex_unlock(&space->lock);
    return waits;
}

void block_space_leave(struct block_request *r, bool gone)
{
    struct virtio_block *b = r->block;

    if (!r->wants_space)
        return;
    pthread_mutex_lock(&b->space.lock);
    r->wants_space = false;
    if (--b->space.wanting == 0)
        release_machine(b, gone);
    pthread_mutex_unlock(&b->space.lock);
}

struct block_request *block_space_take(struct virtio_block *b)
{
    struct block_space *space = &b->space;
    struct block_request *first;

    pthread_mutex_lock(&space->lock);
    first = space->first;
    space->first = NULL;
    space->last = &space->first;
    pthread_mutex_unlock(&space->lock);
    return first;
}
