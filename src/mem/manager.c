/*
 * The memory manager's thread: makes the batches of changes that are posted, one after the other.
 */
#include "mem/mem_private.h"

#include "base/thread.h"

#include <errno.h>

void mem_manager_init(struct mem *mem)
{
    mem->manager.last = &mem->manager.first;
    pthread_cond_init(&mem->manager.posted, NULL);
}

/* The batch to make next, or NULL: the thread ends. */
static struct mem_batch *next_batch(struct mem *mem)
{
    struct mem_manager *m = &mem->manager;
    struct mem_batch *batch;

    pthread_mutex_lock(&mem->lock);
    while (!m->first && !m->ending)
        pthread_cond_wait(&m->posted, &mem->lock);
    batch = m->first;
    if (batch) {
        m->first = batch->next;
        if (!m->first)
            m->last = &m->first;
    }
    pthread_mutex_unlock(&mem->lock);
    return batch;
}

static void *manage(void *opaque)
{
    struct mem *mem = opaque;
    struct mem_batch *batch;

    where_begin(&mem->manager.where);
    while ((batch = next_batch(mem))) {
        mem_change(mem, batch->changes, batch->count);
        if (batch->done)
            batch->done(batch);
    }
    where_end(&mem->manager.where);
    return NULL;
}

struct where *mem_where(struct mem *mem)
{
    return &mem->manager.where;
}

int mem_change_post(struct mem *mem, struct mem_batch *batch)
{
    struct mem_manager *m = &mem->manager;
    int ret = 0;

    pthread_mutex_lock(&mem->lock);
    if (m->ending)
        ret = -ESHUTDOWN;
    else if (!m->started)
        ret = thread_start(&m->thread, "memory", manage, mem, NULL);
    if (ret == 0) {
        m->started = true;
        batch->next = NULL;
        *m->last = batch;
        m->last = &batch->next;
        pthread_cond_signal(&m->posted);
    }
    pthread_mutex_unlock(&mem->lock);
    return ret;
}

void mem_change_end(struct mem *mem)
{
    struct mem_manager *m = &mem->manager;
    bool started;

    pthread_mutex_lock(&mem->lock);
    m->ending = true;
    started = m->started;
    m->started = false;
    pthread_cond_signal(&m->posted);
    pthread_mutex_unlock(&mem->lock);
    if (started)
        pthread_join(m->thread, NULL);
}
