/*
 * Opening again what a guest had open, and taking the locks that it had. Files are found by their
 * names. What is not there any more, or whose lock somebody else has now, is stale for the guest.
 */
#include "share/intent.h"
#include "share/lock.h"
#include "share/notes.h"
#include "share/reach.h"
#include "share/tables.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* What a handle is opened with again. */
#define FLAGS_KEPT (O_ACCMODE | O_DIRECTORY | O_SYNC | O_DSYNC)

/* ---- Modes ---- */

/* Notes that the file of NODE gets BITS more. False: it cannot be said where that file is. */
static bool lend(struct share *s, const struct share_node *node, uint32_t bits)
{
    struct share_lent *lent = s->lent;
    char buffer[PATH_MAX];
    const char *path;

    if (!lent)
        return true;
    if (share_node_path(s, node, buffer, sizeof(buffer), &path) < 0)
        return false;
    lent->key = node->key;
    strcpy(lent->path, path);
    atomic_store_explicit(&lent->bits, bits, memory_order_release);
    return true;
}

static void end_lending(struct share *s)
{
    if (s->lent)
        atomic_store_explicit(&s->lent->bits, 0, memory_order_release);
}

/* Takes BITS from the file at PATH, if it is the file of KEY and ours. */
static void take_bits(struct share *s, const struct share_key *key, const char *path, uint32_t bits)
{
    struct share_place top = {.fd = s->root};
    char link[SHARE_LINK_SIZE];
    struct statx stx;
    int fd = share_open_in(s, &top, path, O_PATH, 0);

    if (fd < 0)
        return;
    share_link(fd, link);
    if (statx(fd, "", AT_EMPTY_PATH, SHARE_STATX, &stx) == 0 && share_key_is(key, &stx) &&
        S_ISREG(stx.stx_mode) && stx.stx_uid == s->uid)
        chmod(link, stx.stx_mode & 07777 & ~bits);
    close(fd);
}

void share_tables_mend(struct share *s)
{
    struct share_lent *lent = s->lent;
    uint32_t bits = atomic_load_explicit(&lent->bits, memory_order_acquire) & (S_IRUSR | S_IWUSR);
    struct share_key key = lent->key;
    char path[PATH_MAX];

    /* The other side may write there whatever it wants: all that can come of it is that a file
     * beneath the folder has fewer rights. */
    memcpy(path, lent->path, sizeof(path));
    path[sizeof(path) - 1] = '\0';
    if (bits && !s->options.readonly)
        take_bits(s, &key, path, bits);
    end_lending(s);
}

/* ---- Files ---- */

/* Opens the file of NODE, which was reached, once more. One of our own that was made with a mode
 * that would not allow it, as the guest may have done, gets another mode for that moment. */
static int reopen(struct share *s, const struct share_node *node, const struct share_place *place,
                  int flags)
{
    const struct statx *stx = &place->stx;
    mode_t mode = stx->stx_mode & 07777, more = mode | S_IRUSR | S_IWUSR;
    char path[SHARE_LINK_SIZE];
    int fd = share_reopen(s, place, flags);

    if (fd != -EACCES || !S_ISREG(stx->stx_mode) || stx->stx_uid != s->uid || more == mode ||
        s->options.readonly || !lend(s, node, more & ~mode))
        return fd;
    share_link(place->fd, path);
    if (chmod(path, more) == 0) {
        fd = share_reopen(s, place, flags);
        chmod(path, mode);
    }
    end_lending(s);
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
    fd = reopen(s, node, &place, (int)flags & FLAGS_KEPT);
    share_leave(s, &place);
    if (fd >= 0 && share_within(s, fd) < 0) {
        close(fd);
        return -1;
    }
    return fd < 0 ? -1 : fd;
}

/* Makes HANDLE stale for good: the guest must not have a lock again that it has lost. */
static void make_stale(struct share *s, struct share_handle *handle, const char *why)
{
    if (handle->fd < 0)
        return;
    handle->lost = true;
    share_note_lost(s, handle->number);
    log_line(s->host.log, LOG_LEVEL_WARNING, "share %s: %s: the file is stale for the guest",
             s->options.tag, why);
    close(handle->fd);
    handle->fd = -1;
}

static void open_handle(struct share *s, struct share_handle *handle)
{
    int lock = handle->flock;

    handle->fd = handle->lost ? -1 : open_again(s, handle->node, (uint32_t)handle->flags);
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
