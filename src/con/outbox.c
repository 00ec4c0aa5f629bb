/*
 * Bytes on their way from a device to the thread that writes them out: a ring with a lock.
 */
#include "con/outbox.h"

#include "base/util.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct outbox {
    pthread_mutex_t lock;
    int wake_fd;
    _Atomic bool full;
    size_t limit, size, start, used;
    uint8_t bytes[];
};

struct outbox *outbox_create(size_t limit, size_t excess, int wake_fd, struct error *err)
{
    struct outbox *box = calloc(1, sizeof(*box) + limit + excess);

    if (!box) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&box->lock, NULL);
    box->wake_fd = wake_fd;
    box->limit = limit;
    box->size = limit + excess;
    return box;
}

void outbox_destroy(struct outbox *box)
{
    if (!box)
        return;
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

size_t outbox_put(struct outbox *box, const void *data, size_t size)
{
    const uint8_t *from = data;
    size_t done = 0;

    pthread_mutex_lock(&box->lock);
    if (box->used == 0 && size > 0)
        wake(box);
    while (done < size && box->used < box->size) {
        size_t end = (box->start + box->used) % box->size;
        size_t n = MIN(MIN(size - done, box->size - box->used), box->size - end);

        memcpy(box->bytes + end, from + done, n);
        box->used += n;
        done += n;
    }
    if (box->used >= box->limit)
        atomic_store(&box->full, true);
    pthread_mutex_unlock(&box->lock);
    return done;
}

bool outbox_full(const struct outbox *box)
{
    return atomic_load(&box->full);
}

size_t outbox_take(struct outbox *box, void *data, size_t size, bool *room)
{
    uint8_t *to = data;
    size_t taken = 0;

    pthread_mutex_lock(&box->lock);
    while (taken < size && box->used > 0) {
        size_t n = MIN(MIN(size - taken, box->used), box->size - box->start);

        memcpy(to + taken, box->bytes + box->start, n);
        box->start = (box->start + n) % box->size;
        box->used -= n;
        taken += n;
    }
    *room = box->used <= box->limit / 2 && atomic_exchange(&box->full, false);
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
