/*
 * Locks of files: who holds them, and taking them.
 */
#include "share/lock.h"

#include "base/util.h"
#include "share/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define RANGES_UNKNOWN UINT32_MAX
/* How many more than a holder had twice are thought to be there, until they are counted again. */
#define RANGES_SLACK 32u

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

/* Takes the first holder of LINK's list out of it. With the lock. */
static struct share_holder *detach(struct share *s, struct share_holder **link)
{
    struct share_holder *holder = *link;

    if (holder) {
        *link = holder->next;
        holder->ended = true;
        s->holders--;
        s->ranges -= holder->most;
    }
    return holder;
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

/* The one that there is, or else OURS, unless there are too many; or NULL. */
static struct share_holder *look_up(struct share *s, struct share_node *node, uint64_t owner,
                                    struct share_holder *ours)
{
    struct share_holder **link, *holder;

    pthread_mutex_lock(&s->lock);
    link = find(node, owner);
    if (!*link && ours && s->holders < SHARE_HOLDERS_MOST) {
        *link = ours;
        ours->users++; /* the list's */
        node->users++;
        s->holders++;
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
    return *holder ? 0 : -ENOLCK;
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
    holder = detach(s, link);
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
        holder = detach(s, &node->holders);
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
    if (node)
        holder = detach(s, &node->holders);
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

/* The kernel alone knows which ranges are locked. Returns how many, and puts the first MOST of them
 * into LIST. */
static uint32_t ask_kernel(const struct share_holder *holder, struct share_range *list,
                           uint32_t most)
{
    char path[64], line[256];
    struct share_range range;
    uint32_t count = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", holder->fd);
    file = fopen(path, "re");
    if (!file)
        return RANGES_UNKNOWN;
    while (fgets(line, sizeof(line), file))
        if (parse_lock(line, &range) && count++ < most)
            list[count - 1] = range;
    fclose(file);
    return count;
}

uint32_t share_holder_list(const struct share_holder *holder,
                           struct share_range range[SHARE_RANGES_MOST])
{
    if (holder->fd >= 0)
        return ask_kernel(holder, range, SHARE_RANGES_MOST);
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

/* ---- How many ---- */

/* HOLDER has MORE ranges at most than before. False: there would be too many. With the lock. */
static bool add_ranges(struct share *s, struct share_holder *holder, int64_t more)
{
    if (more > 0 && s->ranges + (uint64_t)more > SHARE_LOCKS_MOST)
        return false;
    holder->most += (uint64_t)more;
    if (!holder->ended)
        s->ranges += (uint64_t)more;
    return true;
}

static void count_ranges(struct share *s, struct share_holder *holder)
{
    uint32_t count = ask_kernel(holder, NULL, 0);

    if (count == RANGES_UNKNOWN)
        return;
    pthread_mutex_lock(&s->lock);
    if (add_ranges(s, holder, (int64_t)count - (int64_t)holder->most))
        holder->counted = count;
    pthread_mutex_unlock(&s->lock);
}

/* Allows HOLDER what a change adds at most: one in the midst of a range makes three of it. False:
 * it would have too many. */
static bool allow_change(struct share *s, struct share_holder *holder)
{
    bool due, good;

    pthread_mutex_lock(&s->lock);
    due = holder->most > 2 * holder->counted + RANGES_SLACK || s->ranges + 2 > SHARE_LOCKS_MOST;
    pthread_mutex_unlock(&s->lock);
    if (due)
        count_ranges(s, holder);
    pthread_mutex_lock(&s->lock);
    good = add_ranges(s, holder, 2);
    pthread_mutex_unlock(&s->lock);
    return good;
}

/* There was no change. */
static void take_back_change(struct share *s, struct share_holder *holder)
{
    pthread_mutex_lock(&s->lock);
    add_ranges(s, holder, -(int64_t)MIN(holder->most, 2));
    pthread_mutex_unlock(&s->lock);
}

/* ---- Mirrors ---- */

/* What is known of HOLDER: COUNT ranges, in RANGE if they are few enough, which is the holder's. */
static void put_ranges(struct share *s, struct share_holder *holder, uint64_t order, uint32_t count,
                       struct share_range *range)
{
    int64_t known = count <= SHARE_RANGES_MOST ? count : 0;

    if (order && order < holder->order) {
        free(range);
        return;
    }
    pthread_mutex_lock(&s->lock);
    if (!add_ranges(s, holder, known - (int64_t)holder->most)) {
        add_ranges(s, holder, -(int64_t)holder->most);
        free(range);
        range = NULL;
        count = SHARE_RANGES_MOST + 1;
    }
    pthread_mutex_unlock(&s->lock);
    free(holder->range);
    holder->range = range;
    holder->count = count;
    holder->order = order;
}

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
    if (holder)
        put_ranges(s, holder, order, count, copy);
    else
        free(copy);
    share_holder_drop(s, holder);
    return holder ? 0 : -ENOLCK;
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

static int change_ranges(struct share *s, const struct share_lock *lock)
{
    int ret;

    if (!allow_change(s, lock->holder))
        return -ENOLCK;
    ret = try_range(lock, lock->type);
    if (ret < 0)
        take_back_change(s, lock->holder);
    return ret;
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
    int ret = lock->holder ? change_ranges(s, lock) : try_flock(lock, lock->operation);

    if (ret < 0 || lock->type == F_UNLCK || !has_ended(s, lock))
        return ret;
    if (lock->holder)
        try_range(lock, F_UNLCK);
    else
        try_flock(lock, LOCK_UN);
    return -EBADF;
}
