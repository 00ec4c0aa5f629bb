/*
 * Locks of files: who holds them, and taking them.
 */
#include "share/lock.h"

#include "share/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
        if (holder->fd >= 0)
            close(holder->fd);
        free(holder->range);
        free(holder);
    }
}

/* HOLDER is in no list any more. */
static void retire(struct share *s, struct share_holder *holder)
{
    struct share_node *node = holder->node;
    /* A request that waits may have it, too. */
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    if (holder->fd >= 0)
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
    if (holder) {
        *link = holder->next;
        holder->ended = true;
    }
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

void share_holders_end_all(struct share *s, struct share_node *node)
{
    struct share_holder *holder;

    do {
        pthread_mutex_lock(&s->lock);
        holder = node->holders;
        if (holder) {
            node->holders = holder->next;
            holder->ended = true;
        }
        pthread_mutex_unlock(&s->lock);
        if (holder)
            retire(s, holder);
    } while (holder);
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
        holder->ended = true;
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

/* ---- Which ranges ---- */

/* Reads a lock as proc(5) shows it for a descriptor: "lock: N: OFDLCK ADVISORY WRITE -1 DEV:INODE
 * START END". */
static bool parse_lock(const char *line, struct share_range *range)
{
    char kind[16], end[24];
    long long start, last;

    if (sscanf(line, "lock: %*d: OFDLCK %*s %15s %*d %*s %lld %23s", kind, &start, end) != 3)
        return false;
    *range = (struct share_range){.type = strcmp(kind, "WRITE") == 0 ? F_WRLCK : F_RDLCK,
                                  .start = start};
    if (sscanf(end, "%lld", &last) == 1)
        range->length = last - start + 1;
    return true;
}

/* The kernel alone knows which ranges are locked. */
static uint32_t ask_kernel(const struct share_holder *holder, struct share_range *list)
{
    char path[64], line[256];
    struct share_range range;
    uint32_t count = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", holder->fd);
    file = fopen(path, "re");
    if (!file)
        return SHARE_RANGES_MOST + 1;
    while (fgets(line, sizeof(line), file))
        if (parse_lock(line, &range) && count++ < SHARE_RANGES_MOST)
            list[count - 1] = range;
    fclose(file);
    return count;
}

uint32_t share_holder_list(const struct share_holder *holder,
                           struct share_range range[SHARE_RANGES_MOST])
{
    if (holder->fd >= 0)
        return ask_kernel(holder, range);
    if (holder->count <= SHARE_RANGES_MOST && holder->count > 0)
        memcpy(range, holder->range, holder->count * sizeof(*range));
    return holder->count;
}

/* ---- Telling ---- */

/* The order in which locks are looked at is that in which they are told. */
void share_lock_tell(struct share *s, const struct share_request *r, const struct share_lock *lock)
{
    struct share_change change = {.kind = CHANGE_FLOCK, .a = lock->handle->number};
    struct share_range range[SHARE_RANGES_MOST];

    if (!r->changes)
        return;
    pthread_mutex_lock(&s->lock);
    change.order = ++s->lock_order;
    if (lock->holder) {
        change.kind = CHANGE_LOCKS;
        change.a = lock->holder->owner;
        change.b = lock->node->number;
        change.handle = lock->holder->handle;
        change.count = share_holder_list(lock->holder, range);
    } else {
        change.count = (uint32_t)lock->handle->flock;
    }
    pthread_mutex_unlock(&s->lock);
    share_changes_add(r->changes, &change,
                      lock->holder && change.count <= SHARE_RANGES_MOST ? range : NULL);
}

void share_lock_tell_end(struct share *s, const struct share_request *r,
                         const struct share_node *node, uint64_t owner)
{
    struct share_change change = {.kind = CHANGE_UNLOCKED, .a = owner, .b = node->number};

    if (!r->changes)
        return;
    pthread_mutex_lock(&s->lock);
    change.order = ++s->lock_order;
    pthread_mutex_unlock(&s->lock);
    share_changes_add(r->changes, &change, NULL);
}

/* ---- Mirrors ---- */

int share_holder_put(struct share *s, struct share_handle *handle, uint64_t owner, uint64_t order,
                     uint32_t count, const struct share_range *range)
{
    uint32_t known = count <= SHARE_RANGES_MOST ? count : 0;
    struct share_range *copy = calloc(known + 1, sizeof(*copy));
    struct share_holder *holder, *ours = calloc(1, sizeof(*ours));

    if (!copy || !ours) {
        free(copy);
        free(ours);
        return -ENOMEM;
    }
    *ours = (struct share_holder){
        .node = handle->node, .owner = owner, .handle = handle->number, .fd = -1, .users = 1};
    if (known)
        memcpy(copy, range, known * sizeof(*copy));
    holder = look_up(s, handle->node, owner, ours);
    let_go(s, ours);
    if (order && order < holder->order) {
        free(copy);
    } else {
        free(holder->range);
        holder->range = copy;
        holder->count = count;
        holder->order = order;
    }
    let_go(s, holder);
    return 0;
}

int share_holder_open(struct share *s, struct share_holder *holder,
                      const struct share_handle *handle)
{
    if (holder->count > SHARE_RANGES_MOST)
        return -ENOLCK;
    holder->fd = open_again(s, handle);
    if (holder->fd < 0)
        return holder->fd;
    for (uint32_t i = 0; i < holder->count; i++) {
        struct flock range = {.l_type = (short)holder->range[i].type,
                              .l_whence = SEEK_SET,
                              .l_start = holder->range[i].start,
                              .l_len = holder->range[i].length};

        if (fcntl(holder->fd, F_OFD_SETLK, &range) < 0)
            return -errno;
    }
    return 0;
}

/* ---- Taking ---- */

static int try_range(const struct share_lock *lock, int type)
{
    struct flock range = {
        .l_type = (short)type, .l_whence = SEEK_SET, .l_start = lock->start, .l_len = lock->length};

    if (fcntl(lock->holder->fd, F_OFD_SETLK, &range) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

static int try_flock(const struct share_lock *lock, int operation)
{
    if (flock(lock->handle->fd, operation | LOCK_NB) < 0)
        return -errno; /* EWOULDBLOCK is EAGAIN */
    lock->handle->flock = operation;
    return 0;
}

/* Whether the guest has ended what LOCK belongs to. Whoever ends it releases its locks afterwards:
 * those that were taken before. */
static bool has_ended(struct share *s, const struct share_lock *lock)
{
    bool ended;

    pthread_mutex_lock(&s->lock);
    ended = lock->handle->released || (lock->holder && lock->holder->ended);
    pthread_mutex_unlock(&s->lock);
    return ended;
}

int share_lock_try(struct share *s, const struct share_lock *lock)
{
    int ret = lock->holder ? try_range(lock, lock->type) : try_flock(lock, lock->operation);

    if (ret < 0 || lock->type == F_UNLCK || !has_ended(s, lock))
        return ret;
    if (lock->holder)
        try_range(lock, F_UNLCK);
    else
        try_flock(lock, LOCK_UN);
    return -EBADF;
}
