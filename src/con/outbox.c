/*
 * Bytes on their way from a device to the thread that writes them out: a ring with a lock.
 */
#include "con/outbox.h"

#include "base/util.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct outbox {
    pthread_mutex_t lock;
    pthread_cond_t room;
    int wake_fd;
    bool closed;
    size_t limit, start, used;
    uint8_t bytes[];
};

struct outbox *outbox_create(size_t limit, int wake_fd, struct error *err)
{
    struct outbox *box = calloc(1, sizeof(*box) + limit);

    if (!box) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&box->lock, NULL);
    pthread_cond_init(&box->room, NULL);
    box->wake_fd = wake_fd;
    box->limit = limit;
    return box;
}

void outbox_destroy(struct outbox *box)
{
    if (!box)
        return;
    pthread_cond_destroy(&box->room);
    pthread_mutex_destroy(&box->lock);
    free(box);
}

static void wake(const struct outbox *box)
{
    uint64_t one = 1;

    /* It can only fail when the counter is full, and then the reader is awake. */
    if (write(box->wake_fd, &one, sizeof(one)) < 0)
        return;
}

void outbox_put(struct outbox *box, const void *data, size_t size)
{
    const uint8_t *from = data;

    pthread_mutex_lock(&box->lock);
    while (size > 0 && !box->closed) {
        size_t end = (box->start + box->used) % box->limit;
        size_t n = MIN(MIN(size, box->limit - box->used), box->limit - end);

        if (n == 0) {
            pthread_cond_wait(&box->room, &box->lock);
            continue;
        }
        memcpy(box->bytes + end, from, n);
        if (box->used == 0)
            wake(box);
        box->used += n;
        from += n;
        size -= n;
    }
    pthread_mutex_unlock(&box->lock);
}

void outbox_close(struct outbox *box)
{
    pthread_mutex_lock(&box->lock);
    box->closed = true;
    pthread_cond_broadcast(&box->room);
    pthread_mutex_unlock(&box->lock);
}

size_t outbox_take(struct outbox *box, void *data, size_t size)
{
    uint8_t *to = data;
    size_t taken = 0;

    pthread_mutex_lock(&box->lock);
    while (taken < size && box->used > 0) {
        size_t n = MIN(MIN(size - taken, box->used), box->limit - box->start);

        memcpy(to + taken, box->bytes + box->start, n);
        box->start = (box->start + n) % box->limit;
        box->used -= n;
        taken += n;
    }
    if (taken > 0)
        pthread_cond_broadcast(&box->room);
    pthread_mutex_unlock(&box->lock);
    return taken;
}

bool outbox_empty(struct outbox *box)
{
    bool empty;

    pthread_mutex_lock(&box->lock);
    empty = box->used == 0;
    pthread_mutex_unlock(&box->lock);
    return empty;
}
