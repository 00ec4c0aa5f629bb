/*
 * What the guest has open.
 */
#include "share/handle.h"

#include <errno.h>
#include <fcntl.h>
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

/* Gives HANDLE its NUMBER; 0: a new one. */
static int enter(struct share *s, struct share_handle *handle, uint64_t number)
{
    struct share_node *node = handle->node;
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    if (number)
        ret = slots_put(&s->handles, number, handle);
    else if (!(number = slots_add(&s->handles, handle)))
        ret = -ENFILE;
    if (ret == 0) {
        handle->number = number;
        handle->next = node->handles;
        node->handles = handle;
        node->users++;
    }
    pthread_mutex_unlock(&s->lock);
    return ret;
}

static int add(struct share *s, struct share_node *node, uint64_t number, int fd, int flags,
               struct share_handle **added)
{
    struct share_handle *handle = make(node, fd, flags);
    int ret;

    if (!handle) {
        if (fd >= 0)
            close(fd);
        return -ENOMEM;
    }
    ret = enter(s, handle, number);
    if (ret < 0)
        destroy(handle);
    else
        *added = handle;
    return ret;
}

int share_handle_add(struct share *s, struct share_node *node, int fd, int flags,
                     struct share_handle **added)
{
    return add(s, node, 0, fd, flags, added);
}

int share_handle_put(struct share *s, struct share_node *node, uint64_t number, int fd, int flags,
                     struct share_handle **added)
{
    if (number)
        return add(s, node, number, fd, flags, added);
    if (fd >= 0)
        close(fd);
    return -EINVAL;
}

struct share_handle *share_handle_hold(struct share *s, const struct share_node *node,
                                       uint64_t number)
{
    struct share_handle *handle;

    pthread_mutex_lock(&s->lock);
    handle = slots_get(&s->handles, number);
    if (handle && node && handle->node != node)
        handle = NULL;
    if (handle)
        handle->users++;
    pthread_mutex_unlock(&s->lock);
    return handle;
}

bool share_handle_allows(const struct share_handle *handle, int flags)
{
    int has = handle->flags & O_ACCMODE, wanted = flags & O_ACCMODE;

    if (flags & O_TRUNC && has == O_RDONLY)
        return false;
    return has == O_RDWR || has == wanted;
}

static bool has_more(const struct share_handle *a, const struct share_handle *b)
{
    return share_handle_allows(a, O_RDWR) ||
           (share_handle_allows(a, O_WRONLY) && !share_handle_allows(b, O_WRONLY));
}

struct share_handle *share_handle_any(struct share *s, const struct share_node *node)
{
    struct share_handle *best = NULL;

    pthread_mutex_lock(&s->lock);
    for (struct share_handle *handle = node->handles; handle; handle = handle->next)
        if (handle->fd >= 0 && (!best || has_more(handle, best)))
            best = handle;
    if (best)
        best->users++;
    pthread_mutex_unlock(&s->lock);
    return best;
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

/* The first of NODE's, held; or NULL. */
static struct share_handle *hold_first(struct share *s, const struct share_node *node)
{
    struct share_handle *handle;

    pthread_mutex_lock(&s->lock);
    handle = node->handles;
    if (handle)
        handle->users++;
    pthread_mutex_unlock(&s->lock);
    return handle;
}

void share_handles_end(struct share *s, struct share_node *node)
{
    struct share_handle *handle;

    while ((handle = hold_first(s, node))) {
        share_handle_release(s, handle);
        share_handle_drop(s, handle);
    }
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
