/*
 * Opening again what a guest had open, and taking the locks that it had. Files are found by their
 * names. What is not there any more, or whose lock somebody else has now, is stale for the guest.
 */
#include "share/lock.h"
#include "share/reach.h"
#include "share/tables.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

/* What a handle is opened with again. */
#define FLAGS_KEPT (O_ACCMODE | O_DIRECTORY | O_SYNC | O_DSYNC)

/* Opens the file that was reached once more. One of our own that was made with a mode that would
 * not allow it, as the guest may have done, gets another mode for that moment. */
static int reopen(struct share *s, const struct share_place *place, int flags)
{
    const struct statx *stx = &place->stx;
    char path[SHARE_LINK_SIZE];
    int fd = share_reopen(s, place, flags);

    if (fd != -EACCES || !S_ISREG(stx->stx_mode) || stx->stx_uid != s->uid)
        return fd;
    share_link(place->fd, path);
    if (chmod(path, (stx->stx_mode & 07777) | S_IRUSR | S_IWUSR) < 0)
        return fd;
    fd = share_reopen(s, place, flags);
    chmod(path, stx->stx_mode & 07777);
    return fd;
}

/* Opens what NODE is, as FLAGS say. Returns -1 if that cannot be done any more. */
static int open_again(struct share *s, struct share_node *node, uint32_t flags)
{
    bool reads = (flags & O_ACCMODE) == O_RDONLY;
    struct share_place place;
    int fd;

    if ((s->options.readonly && !reads) || share_reach_named(s, node, &place) < 0)
        return -1;
    fd = reopen(s, &place, (int)flags & FLAGS_KEPT);
    share_leave(s, &place);
    return fd < 0 ? -1 : fd;
}

static void make_stale(const struct share *s, struct share_handle *handle, const char *why)
{
    if (handle->fd < 0)
        return;
    log_line(s->host.log, LOG_LEVEL_WARNING, "share %s: %s: the file is stale for the guest",
             s->options.tag, why);
    close(handle->fd);
    handle->fd = -1;
}

static void open_handle(struct share *s, struct share_handle *handle)
{
    int lock = handle->flock;

    handle->fd = open_again(s, handle->node, (uint32_t)handle->flags);
    if (lock == LOCK_UN || (handle->fd >= 0 && flock(handle->fd, lock | LOCK_NB) == 0))
        return;
    make_stale(s, handle, "somebody else has a lock that the guest had");
    handle->flock = LOCK_UN;
}

/* The handle that is at INDEX or behind it, held; or NULL. */
static struct share_handle *next_handle(struct share *s, uint32_t *index)
{
    for (; *index < s->handles.count; (*index)++) {
        uint64_t number = slots_number(&s->handles, *index);

        if (number)
            return share_handle_hold(s, NULL, number);
    }
    return NULL;
}

/* Locks what OWNER had locked on the file of HANDLE. */
static void lock_again(struct share *s, struct share_handle *handle, struct share_holder *holder)
{
    if (handle->fd >= 0 && share_holder_open(s, holder, handle) == 0)
        return;
    make_stale(s, handle, "a lock that the guest had cannot be taken");
    share_holder_end(s, handle->node, holder->owner);
}

static void lock_all_again(struct share *s, struct share_handle *handle)
{
    struct share_holder *holder, *next;

    for (holder = handle->node->holders; holder; holder = next) {
        next = holder->next;
        if (holder->handle == handle->number)
            lock_again(s, handle, holder);
    }
}

void share_tables_open(struct share *s)
{
    struct share_handle *handle;

    for (uint32_t i = 0; (handle = next_handle(s, &i)); i++) {
        open_handle(s, handle);
        lock_all_again(s, handle);
        share_handle_drop(s, handle);
    }
}
