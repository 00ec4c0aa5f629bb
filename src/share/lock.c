/*
 * Locks of files: who holds them, and taking them.
 */
#include "share/lock.h"

#include "share/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

/* ---- Holders ---- */

static struct share_holder **find(struct share_node *node, uint64_t owner)
{
    struct share_holder **link = &node->holders;

    while (*link && (*link)->owner != owner)
        link = &(*link)->next;
    return link;
}

static void let_go(struct share *s, struct share_holder *holder)
{
    bool last;

    pthread_mutex_lock(&s->lock);
    last = --holder->users == 0;
    pthread_mutex_unlock(&s->lock);
    if (last) {
        close(holder->fd);
        free(holder);
    }
}

/* HOLDER is in no list any more. */
static void retire(struct share *s, struct share_holder *holder)
{
    struct share_node *node = holder->node;
    /* A request that waits may have it, too. */
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    fcntl(holder->fd, F_OFD_SETLK, &all);
    let_go(s, holder);
    share_node_drop(s, node);
}

/* Opens the file of HANDLE once more. For writing if possible, whatever HANDLE is open for: a
 * process that has locked for reading may lock for writing later. */
static int open_again(struct share *s, const struct share_handle *handle)
{
    struct share_place place = {.fd = handle->fd};
    int fd = -EROFS;

    place.stx.stx_mode = (uint16_t)handle->node->key.type;
    if (!s->options.readonly)
        fd = share_reopen(s, &place, O_RDWR);
    return fd == -EROFS || fd == -EACCES || fd == -ETXTBSY || fd == -EISDIR
               ? share_reopen(s, &place, O_RDONLY)
               : fd;
}

static struct share_holder *make(struct share *s, struct share_handle *handle, uint64_t owner,
                                 int *error)
{
    struct share_holder *holder = calloc(1, sizeof(*holder));

    *error = -ENOMEM;
    if (!holder)
        return NULL;
    holder->fd = open_again(s, handle);
    holder->node = handle->node;
    holder->owner = owner;
    holder->handle = handle->number;
    holder->users = 1;
    if (holder->fd >= 0)
        return holder;
    *error = holder->fd == -ENFILE ? -ENOLCK : holder->fd;
    free(holder);
    return NULL;
}

/* The one that there is, or else OURS; or NULL. */
static struct share_holder *look_up(struct share *s, struct share_node *node, uint64_t owner,
                                    struct share_holder *ours)
{
    struct share_holder **link, *holder;

    pthread_mutex_lock(&s->lock);
    link = find(node, owner);
    if (!*link && ours) {
        *link = ours;
        ours->users++; /* the list's */
        node->users++;
    }
    holder = *link;
    if (holder)
        holder->users++;
    pthread_mutex_unlock(&s->lock);
    return holder;
}

int share_holder_hold(struct share *s, struct share_handle *handle, uint64_t owner, bool may_make,
                      struct share_holder **holder)
{
    struct share_holder *ours;
    int error = 0;

    *holder = look_up(s, handle->node, owner, NULL);
    if (*holder || !may_make)
        return 0;
    ours = make(s, handle, owner, &error);
    if (!ours)
        return error;
    *holder = look_up(s, handle->node, owner, ours);
    let_go(s, ours);
    return 0;
}

void share_holder_drop(struct share *s, struct share_holder *holder)
{
    if (holder)
        let_go(s, holder);
}

/* The next one of NODE's that is OWNER's, or, without one, that came by HANDLE; or NULL. It is in
 * no list any more. */
static struct share_holder *unlist(struct share *s, struct share_node *node, const uint64_t *owner,
                                   uint64_t handle)
{
    struct share_holder **link, *holder;

    pthread_mutex_lock(&s->lock);
    link = &node->holders;
    while (*link && (owner ? (*link)->owner != *owner : (*link)->handle != handle))
        link = &(*link)->next;
    holder = *link;
    if (holder)
        *link = holder->next;
    pthread_mutex_unlock(&s->lock);
    return holder;
}

static bool end(struct share *s, struct share_node *node, const uint64_t *owner, uint64_t handle)
{
    struct share_holder *holder;
    bool ended = false;

    while ((holder = unlist(s, node, owner, handle))) {
        retire(s, holder);
        ended = true;
    }
    return ended;
}

bool share_holder_end(struct share *s, struct share_node *node, uint64_t owner)
{
    return end(s, node, &owner, 0);
}

bool share_holders_end(struct share *s, struct share_node *node, uint64_t handle)
{
    return end(s, node, NULL, handle);
}

/* A holder of the node at INDEX, in no list any more; or NULL. *MORE: there is a node at INDEX or
 * above. */
static struct share_holder *unlist_at(struct share *s, uint32_t index, bool *more)
{
    struct share_holder *holder = NULL;
    struct share_node *node;

    pthread_mutex_lock(&s->lock);
    *more = index < s->nodes.count;
    node = slots_get(&s->nodes, slots_number(&s->nodes, index));
    if (node && node->holders) {
        holder = node->holders;
        node->holders = holder->next;
    }
    pthread_mutex_unlock(&s->lock);
    return holder;
}

void share_holders_release(struct share *s)
{
    bool more = true;

    for (uint32_t i = 0; more; i++) {
        struct share_holder *holder;

        while ((holder = unlist_at(s, i, &more)))
            retire(s, holder);
    }
}

/* ---- Taking ---- */

int share_lock_try(struct share_lock *lock)
{
    struct flock range = {.l_type = (short)lock->type,
                          .l_whence = SEEK_SET,
                          .l_start = lock->start,
                          .l_len = lock->length};

    if (lock->holder) {
        if (fcntl(lock->holder->fd, F_OFD_SETLK, &range) == 0)
            return 0;
        return errno == EACCES ? -EAGAIN : -errno;
    }
    if (flock(lock->handle->fd, lock->operation | LOCK_NB) < 0)
        return -errno; /* EWOULDBLOCK is EAGAIN */
    lock->handle->flock = lock->operation;
    return 0;
}
