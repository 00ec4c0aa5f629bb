/*
 * Operations that open and close.
 */
#include "share/lock.h"
#include "share/operation.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* The guest's flags that the host's descriptor gets. O_APPEND is not among them: the guest's kernel
 * may also write back by this handle what was changed in mapped memory. */
#define FLAGS_KEPT (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC)

/* Checks what the guest wants to open for. */
static int check_flags(const struct share_op *op, uint32_t flags)
{
    bool changes = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;

    if ((flags & O_ACCMODE) == O_ACCMODE)
        return -EINVAL;
    return changes && op->share->options.readonly ? -EROFS : 0;
}

/* Gives the guest a handle for FD. */
static int answer_handle(struct share_op *op, struct share_node *node, int fd, uint32_t flags,
                         uint32_t open_flags)
{
    struct fuse_open_out out = {.open_flags = open_flags};
    struct share_handle *handle;
    int ret = share_handle_add(op->share, node, fd, (int)flags, &handle);

    if (ret < 0)
        return ret;
    share_op_change(op, CHANGE_OPENED, flags, handle->number, node->number);
    out.fh = handle->number;
    return share_op_answer(op, &out, sizeof(out));
}

/* A file that is known by a name is opened by that name only, so that the guest sees at once if it
 * is another one. */
static int reach_to_open(struct share_op *op, struct share_place *place)
{
    return share_node_is_nowhere(op->share, op->node)
               ? share_reach(op->share, op->node, place)
               : share_reach_named(op->share, op->node, place);
}

/* Opens the operation's node as FLAGS say. Returns a descriptor. */
static int open_node(struct share_op *op, int flags, struct statx *stx)
{
    struct share *s = op->share;
    struct share_place place;
    int fd = reach_to_open(op, &place), ret = 0;

    if (fd < 0)
        return fd;
    *stx = place.stx;
    fd = share_may_access(s, op->node, &place, flags);
    if (fd == 0)
        fd = share_reopen(s, &place, flags);
    if (fd >= 0 && !place.handle)
        ret = share_within(s, fd);
    share_leave(s, &place);
    if (ret == 0)
        return fd;
    close(fd);
    return ret;
}

/* Clears the rights to execute a file as somebody else, when it is cut off. */
static int kill_rights(const struct share *s, int fd, const struct statx *stx)
{
    char path[SHARE_LINK_SIZE];

    share_link(fd, path);
    return share_owner_kill(s, path, stx);
}

int share_op_open(struct share_op *op)
{
    const struct fuse_open_in *in = SHARE_ARGUMENT(op, fuse_open_in);
    struct share *s = op->share;
    struct statx stx;
    int ret = check_flags(op, in->flags), fd;

    if (ret < 0)
        return ret;
    fd = open_node(op, (int)in->flags & FLAGS_KEPT, &stx);
    if (fd < 0)
        return fd;
    if (in->open_flags & FUSE_OPEN_KILL_SUIDGID)
        ret = kill_rights(s, fd, &stx);
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return answer_handle(op, op->node, fd, in->flags,
                         share_node_unchanged(s, op->node, &stx) ? FOPEN_KEEP_CACHE : 0);
}

int share_op_opendir(struct share_op *op)
{
    struct statx stx;
    int fd = open_node(op, O_RDONLY | O_DIRECTORY, &stx);

    return fd < 0 ? fd : answer_handle(op, op->node, fd, O_RDONLY | O_DIRECTORY, 0);
}

/* ---- Making ---- */

struct made {
    struct fuse_entry_out entry;
    struct fuse_open_out open;
};

/* FD was made as NAME in PARENT, both NULL if it has no name. It becomes a handle. */
static int answer_made(struct share_op *op, struct share_node *parent, const char *name, int fd,
                       const struct fuse_create_in *in)
{
    struct share *s = op->share;
    char path[SHARE_LINK_SIZE];
    struct share_node *node = NULL;
    struct share_handle *handle;
    struct made made = {0};
    struct statx stx;
    int ret = statx(fd, "", AT_EMPTY_PATH, SHARE_STATX, &stx) < 0 ? -errno : 0;

    share_link(fd, path);
    if (ret == 0)
        ret = share_owner_new(s, path, &stx, in->mode, op->header.uid, op->header.gid);
    if (ret == 0 && statx(fd, "", AT_EMPTY_PATH, SHARE_STATX, &stx) < 0)
        ret = -errno;
    if (ret == 0)
        ret = share_op_found(op, parent, name, &stx, &node);
    if (ret < 0) {
        close(fd);
        return ret;
    }
    share_fill_entry(s, node, path, NULL, &stx, false, &made.entry);
    ret = share_handle_add(s, node, fd, (int)in->flags, &handle);
    if (ret < 0) {
        share_unfind(op, node);
        return ret;
    }
    share_op_change(op, CHANGE_OPENED, in->flags, handle->number, node->number);
    made.open.fh = handle->number;
    share_node_drop(s, node);
    return share_op_answer(op, &made, sizeof(made));
}

/* NAME is there already. */
static int open_existing(struct share_op *op, const struct share_place *place, const char *name,
                         const struct fuse_create_in *in)
{
    struct share *s = op->share;
    struct share_node *node, *parent = op->node;
    struct made made = {0};
    struct statx stx;
    int ret = share_find(op, parent, place, name, &made.entry, &node), fd;

    if (ret < 0)
        return ret;
    op->node = node;
    fd = open_node(op, (int)in->flags & FLAGS_KEPT, &stx);
    if (fd >= 0)
        ret = answer_handle(op, node, fd, in->flags, 0);
    op->node = parent;
    if (fd < 0 || ret < 0) {
        share_unfind(op, node);
        return fd < 0 ? fd : ret;
    }
    share_node_drop(s, node);
    memcpy(&made.open, op->answer, sizeof(made.open));
    return share_op_answer(op, &made, sizeof(made));
}

/* Begins with making NAME, if it is free. A file that a process which has died has made there is
 * empty, and is made again. */
static void begin_making(const struct share_op *op, const struct share_place *place,
                         const char *name)
{
    struct share_plan plan = {.size = 0}, was;
    struct statx stx;
    int ret;

    if (!op->request->intent)
        return;
    ret = share_look(op->share, place, name, &stx);
    if (ret == -ENOENT)
        share_begin(op->request, &plan);
    else if (ret == 0 && share_begun(op->request, &was) && S_ISREG(stx.stx_mode) &&
             stx.stx_size == 0 && stx.stx_nlink == 1)
        unlinkat(place->fd, name, 0);
}

static int create_in(struct share_op *op, const struct share_place *place, const char *name,
                     const struct fuse_create_in *in)
{
    int fd;

    begin_making(op, place, name);
    fd = share_open_in(op->share, place, name, ((int)in->flags & FLAGS_KEPT) | O_CREAT | O_EXCL,
                       share_owner_mode(op->share, (in->mode & 07777) | S_IFREG));

    if (fd == -EEXIST && !(in->flags & O_EXCL))
        return open_existing(op, place, name, in);
    return fd < 0 ? fd : answer_made(op, op->node, name, fd, in);
}

int share_op_create(struct share_op *op)
{
    const struct fuse_create_in *in = SHARE_ARGUMENT(op, fuse_create_in);
    struct share_place place;
    const char *name;
    int ret = share_op_name(op, sizeof(*in), &name, NULL);

    if (ret == 0)
        ret = check_flags(op, in->flags);
    if (ret == 0)
        ret = share_reach(op->share, op->node, &place);
    if (ret < 0)
        return ret;
    ret = create_in(op, &place, name, in);
    share_leave(op->share, &place);
    return ret;
}

int share_op_tmpfile(struct share_op *op)
{
    const struct fuse_create_in *in = SHARE_ARGUMENT(op, fuse_create_in);
    struct share *s = op->share;
    int flags = O_TMPFILE | ((int)in->flags & (FLAGS_KEPT | O_EXCL) & ~O_TRUNC);
    struct share_place place;
    int ret = check_flags(op, in->flags), fd;

    if (ret == 0)
        ret = share_reach(s, op->node, &place);
    if (ret < 0)
        return ret;
    fd = share_open_in(s, &place, ".", flags, share_owner_mode(s, (in->mode & 07777) | S_IFREG));
    share_leave(s, &place);
    return fd < 0 ? fd : answer_made(op, NULL, NULL, fd, in);
}

/* ---- Closing ---- */

int share_op_flush(struct share_op *op)
{
    const struct fuse_flush_in *in = SHARE_ARGUMENT(op, fuse_flush_in);
    struct share_handle *handle = share_handle_hold(op->share, op->node, in->fh);
    int ret = 0, fd;

    if (!handle)
        return -EBADF;
    /* A process that closes a file loses its locks, whichever descriptor it was. */
    if (share_holder_end(op->share, op->node, in->lock_owner)) {
        share_lock_tell_end(op->share, op->request, op->node, in->lock_owner);
        share_waits_kick(op->share->waits);
    }
    /* File systems of servers say at a close what became of writes. */
    fd = handle->fd >= 0 ? fcntl(handle->fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (fd >= 0 && close(fd) < 0)
        ret = -errno;
    share_handle_drop(op->share, handle);
    return ret;
}

int share_op_release(struct share_op *op)
{
    const struct fuse_release_in *in = SHARE_ARGUMENT(op, fuse_release_in);
    struct share *s = op->share;
    struct share_handle *handle = share_handle_hold(s, op->node, in->fh);
    bool unlocks;

    if (!handle)
        return -EBADF;
    share_handle_release(s, handle);
    share_op_change(op, CHANGE_RELEASED, 0, in->fh, op->node->number);
    unlocks = share_holders_end(s, op->node, in->fh);
    if (handle->flock != LOCK_UN) {
        flock(handle->fd, LOCK_UN);
        unlocks = true;
    }
    share_handle_drop(s, handle);
    if (unlocks)
        share_waits_kick(s->waits);
    return 0;
}
