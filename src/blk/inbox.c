/*
 * Requests on their way to the one thread that carries them out.
 */
#include "blk/inbox.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int inbox_create(struct inbox *inbox)
{
    *inbox = (struct inbox){.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (inbox->event < 0)
        return -errno;
    pthread_mutex_init(&inbox->lock, NULL);
    return 0;
}

void inbox_destroy(struct inbox *inbox)
{
    close(inbox->event);
    pthread_mutex_destroy(&inbox->lock);
}

void inbox_put(struct inbox *inbox, struct blk_request *request)
{
    pthread_mutex_lock(&inbox->lock);
    blk_list_put(&inbox->list, request);
    atomic_store_explicit(&inbox->filled, true, memory_order_relaxed);
    pthread_mutex_unlock(&inbox->lock);
}

static void wake(const struct inbox *inbox)
{
    uint64_t one = 1;

    /* It can only fail when the counter is full, and then the thread is awake. */
    if (write(inbox->event, &one, sizeof(one)) < 0)
        return;
}

void inbox_kick(struct inbox *inbox)
{
    bool sleeps;

    if (!atomic_load_explicit(&inbox->filled, memory_order_relaxed))
        return;
    pthread_mutex_lock(&inbox->lock);
    sleeps = inbox->list.first && inbox->asleep;
    inbox->asleep = inbox->asleep && !sleeps;
    pthread_mutex_unlock(&inbox->lock);
    if (sleeps)
        wake(inbox);
}

void inbox_end(struct inbox *inbox)
{
    pthread_mutex_lock(&inbox->lock);
    inbox->ending = true;
    pthread_mutex_unlock(&inbox->lock);
    wake(inbox);
}

bool inbox_take(struct inbox *inbox, struct blk_list *list)
{
    bool goes_on;

    pthread_mutex_lock(&inbox->lock);
    blk_list_put_all(list, &inbox->list);
    atomic_store_explicit(&inbox->filled, false, memory_order_relaxed);
    inbox->asleep = true;
    goes_on = !inbox->ending;
    pthread_mutex_unlock(&inbox->lock);
    return goes_on;
}

void inbox_awake(struct inbox *inbox)
{
    pthread_mutex_lock(&inbox->lock);
    inbox->asleep = false;
    pthread_mutex_unlock(&inbox->lock);
}
