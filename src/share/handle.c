/*
 * What the guest has open.
 */
#include "share/handle.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

static void destroy(struct share_handle *handle)
{
    if (handle->fd >= 0)
        close(handle->fd);
    pthread_mutex_destroy(&handle->reading);
    free(handle);
}

static struct share_handle *make(struct share_node *node, int fd, int flags)
{
    struct share_handle *handle = calloc(1, sizeof(*handle));

    if (!handle)
        return NULL;
    handle->fd = fd;
    handle->flags = flags;
    handle->node = node;
    handle->flock = LOCK_UN;
    handle->users = 1;
    pthread_mutex_init(&handle->reading, NULL);
    return handle;
}

int share_handle_add(struct share *s, struct share_node *node, int fd, int flags,
                     struct share_handle **added)
{
    struct share_handle *handle = make(node, fd, flags);

    if (!handle) {
        if (fd >= 0)
            close(fd);
        return -ENOMEM;
    }
    pthread_mutex_lock(&s->lock);
    handle->number = slots_add(&s->handles, handle);
    if (handle->number) {
        handle->next = node->handles;
        node->handles = handle;
        node->users++;
    }
    pthread_mutex_unlock(&s->lock);
    if (!handle->number) {
        destroy(handle);
        return -ENFILE;
    }
    *added = handle;
    return 0;
}

struct share_handle *share_handle_hold(struct share *s, const struct share_node *node,
                                       uint64_t number)
{
    struct share_handle *handle;

    pthread_mutex_lock(&s->lock);
    handle = slots_get(&s->handles, number);
    if (handle && handle->node != node)
        handle = NULL;
    if (handle)
        handle->users++;
    pthread_mutex_unlock(&s->lock);
    return handle;
}

struct share_handle *share_handle_any(struct share *s, const struct share_node *node)
{
    struct share_handle *handle;

    pthread_mutex_lock(&s->lock);
    for (handle = node->handles; handle && handle->fd < 0;)
        handle = handle->next;
    if (handle)
        handle->users++;
    pthread_mutex_unlock(&s->lock);
    return handle;
}

void share_handle_drop(struct share *s, struct share_handle *handle)
{
    bool last;

    if (!handle)
        return;
    pthread_mutex_lock(&s->lock);
    last = --handle->users == 0;
    pthread_mutex_unlock(&s->lock);
    if (last) {
        share_node_drop(s, handle->node);
        destroy(handle);
    }
}

static void unlist(struct share_handle *handle)
{
    struct share_handle **link = &handle->node->handles;

    while (*link != handle)
        link = &(*link)->next;
    *link = handle->next;
}

void share_handle_release(struct share *s, struct share_handle *handle)
{
    bool first;

    pthread_mutex_lock(&s->lock);
    first = !handle->released;
    handle->released = true;
    if (first) {
        slots_remove(&s->handles, handle->number);
        unlist(handle);
    }
    pthread_mutex_unlock(&s->lock);
    if (first)
        share_handle_drop(s, handle);
}

/* The handle at INDEX, held; or NULL. */
static struct share_handle *hold_at(struct share *s, uint32_t index)
{
    struct share_handle *handle;

    pthread_mutex_lock(&s->lock);
    handle = slots_get(&s->handles, slots_number(&s->handles, index));
    if (handle)
        handle->users++;
    pthread_mutex_unlock(&s->lock);
    return handle;
}

static uint32_t count(struct share *s)
{
    uint32_t handles;

    pthread_mutex_lock(&s->lock);
    handles = s->handles.count;
    pthread_mutex_unlock(&s->lock);
    return handles;
}

void share_handles_release(struct share *s)
{
    for (uint32_t i = 0; i < count(s); i++) {
        struct share_handle *handle = hold_at(s, i);

        if (handle)
            share_handle_release(s, handle);
        share_handle_drop(s, handle);
    }
}
