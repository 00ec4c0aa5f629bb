/*
 * Requests that wait for room on the host's disk. While there are any, the machine is held.
 */
#include "dev/virtio/block_private.h"

#include <stdio.h>

void block_room_init(struct block_room *room)
{
    pthread_mutex_init(&room->lock, NULL);
    room->last = &room->first;
}

void block_room_free(struct block_room *room)
{
    pthread_mutex_destroy(&room->lock);
}

static void hold(const struct virtio_block *b)
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

static void release(const struct virtio_block *b, bool gone)
{
    char why[400];

    snprintf(why, sizeof(why), "disk %.200s: there is room again; the machine goes on",
             b->info.file);
    b->config.release(b->config.opaque, gone ? NULL : why);
}

bool block_room_await(struct block_request *r)
{
    struct virtio_block *b = r->block;
    struct block_room *room = &b->room;
    bool waits;

    pthread_mutex_lock(&room->lock);
    waits = !virtio_recalled(&b->device); /* else block_recall has looked already, or soon will */
    if (waits) {
        r->next = NULL;
        *room->last = r;
        room->last = &r->next;
        if (!r->wants_room && room->wanting++ == 0)
            hold(b);
        r->wants_room = true;
    }
    pthread_mutex_unlock(&room->lock);
    return waits;
}

void block_room_leave(struct block_request *r, bool gone)
{
    struct virtio_block *b = r->block;

    if (!r->wants_room)
        return;
    pthread_mutex_lock(&b->room.lock);
    r->wants_room = false;
    if (--b->room.wanting == 0)
        release(b, gone);
    pthread_mutex_unlock(&b->room.lock);
}

struct block_request *block_room_take(struct virtio_block *b)
{
    struct block_room *room = &b->room;
    struct block_request *first;

    pthread_mutex_lock(&room->lock);
    first = room->first;
    room->first = NULL;
    room->last = &room->first;
    pthread_mutex_unlock(&room->lock);
    return first;
}
