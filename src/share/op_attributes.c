/*
 * Operations on a file's attributes.
 */
#include "share/operation.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

/* Version 7.39, which headers of today may lack. */
struct statx_in {
    uint32_t flags, unused;
    uint64_t fh;
    uint32_t sx_flags, mask;
};

struct sx_time {
    int64_t seconds;
    uint32_t nanoseconds;
    int32_t unused;
};

struct statx_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec, flags;
    uint64_t unused[2];
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, unused2;
    uint64_t ino, size, blocks, attributes_mask;
    struct sx_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t unused3[14];
};
_Static_assert(sizeof(struct statx_in) == 24 && sizeof(struct statx_out) == 288,
               "as in the protocol");

/* Reaches the operation's node: by handle FH if WITH_HANDLE and it is one, or else by name. */
static int reach(struct share_op *op, bool with_handle, uint64_t fh, struct share_place *place)
{
    struct share *s = op->share;
    struct share_handle *handle = with_handle ? share_handle_hold(s, op->node, fh) : NULL;
    int ret = 0;

    if (!handle || handle->fd < 0) {
        share_handle_drop(s, handle);
        return share_reach(s, op->node, place);
    }
    *place = (struct share_place){.fd = handle->fd, .handle = handle};
    if (statx(place->fd, "", AT_EMPTY_PATH, SHARE_STATX, &place->stx) < 0)
        ret = -errno;
    if (ret < 0)
        share_leave(s, place);
    return ret;
}

static int answer_attributes(struct share_op *op, const struct share_place *place)
{
    struct fuse_attr_out out = {0};
    char path[SHARE_LINK_SIZE];

    share_link(place->fd, path);
    share_fill_timeout(op->share, &out.attr_valid, &out.attr_valid_nsec);
    share_fill_attributes(op->share, path, NULL, &place->stx, &out.attr);
    return share_op_answer(op, &out, sizeof(out));
}

int share_op_getattr(struct share_op *op)
{
    const struct fuse_getattr_in *in = SHARE_ARGUMENT(op, fuse_getattr_in);
    struct share_place place;
    int ret = reach(op, in->getattr_flags & FUSE_GETATTR_FH, in->fh, &place);

    if (ret < 0)
        return ret;
    ret = answer_attributes(op, &place);
    share_leave(op->share, &place);
    return ret;
}

/* ---- Changing them ---- */

static int set_size(struct share_op *op, const struct fuse_setattr_in *in,
                    const struct share_place *place, const char *path)
{
    int ret;

    if (!S_ISREG(place->stx.stx_mode))
        return S_ISDIR(place->stx.stx_mode) ? -EISDIR : -EINVAL;
    if (in->size > INT64_MAX)
        return -EFBIG;
    ret = place->handle && (place->handle->flags & O_ACCMODE) != O_RDONLY
              ? ftruncate(place->fd, (off_t)in->size)
              : truncate(path, (off_t)in->size);
    if (ret < 0)
        return -errno;
    return in->valid & FATTR_KILL_SUIDGID ? share_owner_kill(op->share, path, &place->stx) : 0;
}

static struct timespec time_of(bool given, bool now, uint64_t seconds, uint32_t nanoseconds)
{
    return (struct timespec){.tv_sec = (time_t)seconds,
                             .tv_nsec = !given ? UTIME_OMIT
                                        : now  ? UTIME_NOW
                                               : (long)nanoseconds};
}

static int set_times(const struct fuse_setattr_in *in, const struct share_place *place)
{
    const struct timespec times[2] = {
        time_of(in->valid & FATTR_ATIME, in->valid & FATTR_ATIME_NOW, in->atime, in->atimensec),
        time_of(in->valid & FATTR_MTIME, in->valid & FATTR_MTIME_NOW, in->mtime, in->mtimensec),
    };

    if (in->atimensec > 999999999 || in->mtimensec > 999999999)
        return -EINVAL;
    return utimensat(place->fd, "", times, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int set(struct share_op *op, const struct fuse_setattr_in *in,
               const struct share_place *place)
{
    char path[SHARE_LINK_SIZE];
    int ret = 0;

    share_link(place->fd, path);
    if (in->valid & (FATTR_MODE | FATTR_UID | FATTR_GID))
        ret = share_owner_set(op->share, path, &place->stx,
                              in->valid & FATTR_MODE ? (int64_t)(in->mode & 07777) : -1,
                              in->valid & FATTR_UID ? (int64_t)in->uid : -1,
                              in->valid & FATTR_GID ? (int64_t)in->gid : -1);
    if (ret == 0 && in->valid & FATTR_SIZE)
        ret = set_size(op, in, place, path);
    if (ret == 0 && in->valid & (FATTR_ATIME | FATTR_MTIME))
        ret = set_times(in, place);
    return ret;
}

int share_op_setattr(struct share_op *op)
{
    const struct fuse_setattr_in *in = SHARE_ARGUMENT(op, fuse_setattr_in);
    struct share_place place;
    int ret = reach(op, in->valid & FATTR_FH, in->fh, &place);

    if (ret < 0)
        return ret;
    ret = share_may_access(op->share, op->node, &place, O_WRONLY);
    if (ret == 0)
        ret = set(op, in, &place);
    if (ret == 0 && statx(place.fd, "", AT_EMPTY_PATH, SHARE_STATX, &place.stx) < 0)
        ret = -errno;
    if (ret == 0)
        ret = answer_attributes(op, &place);
    share_leave(op->share, &place);
    return ret;
}

/* ---- statx ---- */

static struct sx_time sx_time(const struct statx_timestamp *time)
{
    return (struct sx_time){.seconds = time->tv_sec, .nanoseconds = time->tv_nsec};
}

static int answer_statx(struct share_op *op, const struct share_place *place)
{
    const struct statx *stx = &place->stx;
    struct share_owner_of owner;
    char path[SHARE_LINK_SIZE];
    struct statx_out out = {
        .mask = stx->stx_mask & (STATX_BASIC_STATS | STATX_BTIME),
        .blksize = stx->stx_blksize,
        .nlink = stx->stx_nlink,
        .ino = stx->stx_ino,
        .size = stx->stx_size,
        .blocks = stx->stx_blocks,
        .atime = sx_time(&stx->stx_atime),
        .btime = sx_time(&stx->stx_btime),
        .ctime = sx_time(&stx->stx_ctime),
        .mtime = sx_time(&stx->stx_mtime),
        .rdev_major = stx->stx_rdev_major,
        .rdev_minor = stx->stx_rdev_minor,
    };

    share_link(place->fd, path);
    share_owner_get(op->share, path, NULL, stx, &owner);
    share_fill_timeout(op->share, &out.attr_valid, &out.attr_valid_nsec);
    out.uid = owner.uid;
    out.gid = owner.gid;
    out.mode = (uint16_t)((stx->stx_mode & S_IFMT) | owner.mode);
    return share_op_answer(op, &out, sizeof(out));
}

int share_op_statx(struct share_op *op)
{
    const struct statx_in *in = (const void *)op->argument;
    struct share_place place;
    int ret = reach(op, in->flags & FUSE_GETATTR_FH, in->fh, &place);

    if (ret < 0)
        return ret;
    ret = answer_statx(op, &place);
    share_leave(op->share, &place);
    return ret;
}
