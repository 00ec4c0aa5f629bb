/*
 * Operations on locks of files.
 */
#include "share/lock.h"
#include "share/operation.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

/* Reads what the guest asks for, but for who asks. */
static int take_range(const struct fuse_lk_in *in, struct share_lock *lock)
{
    if (in->lk.start > in->lk.end || in->lk.end > INT64_MAX ||
        (in->lk.type != F_RDLCK && in->lk.type != F_WRLCK && in->lk.type != F_UNLCK))
        return -EINVAL;
    lock->type = (int)in->lk.type;
    lock->operation = in->lk.type == F_RDLCK ? LOCK_SH : in->lk.type == F_WRLCK ? LOCK_EX : LOCK_UN;
    lock->start = (int64_t)in->lk.start;
    lock->length = in->lk.end == INT64_MAX ? 0 : (int64_t)(in->lk.end - in->lk.start + 1);
    return 0;
}

/* Takes, waits for or releases LOCK, whose handle and holder are held. */
static int set(struct share_op *op, const struct share_lock *lock)
{
    int ret = share_lock_try(op->share, lock);

    if (ret == 0)
        share_lock_tell(op->share, op->request, lock);
    if (ret == 0 && lock->type == F_UNLCK)
        share_waits_kick(op->share->waits);
    if (ret != -EAGAIN || op->header.opcode != FUSE_SETLKW)
        return ret;
    /* The wait has holds of its own of what the lock needs. */
    op->later = true;
    ret = share_wait(op->share, op->request, op->header.unique, lock);
    op->later = ret == 0;
    op->cancelled = ret == -ECANCELED;
    return ret;
}

/* The guest has released HANDLE meanwhile: then nobody else ends what came by it. */
static void end_if_released(struct share *s, struct share_handle *handle)
{
    bool released;

    pthread_mutex_lock(&s->lock);
    released = handle->released;
    pthread_mutex_unlock(&s->lock);
    if (released && share_holders_end(s, handle->node, handle->number))
        share_waits_kick(s->waits);
}

int share_op_setlk(struct share_op *op)
{
    const struct fuse_lk_in *in = SHARE_ARGUMENT(op, fuse_lk_in);
    struct share *s = op->share;
    struct share_lock lock = {0};
    int ret = take_range(in, &lock);

    if (ret < 0)
        return ret;
    lock.handle = share_handle_hold(s, op->node, in->fh);
    if (!lock.handle || lock.handle->fd < 0) {
        share_handle_drop(s, lock.handle);
        return lock.handle ? -ESTALE : -EBADF;
    }
    lock.node = share_node_hold(s, op->node->number);
    if (!(in->lk_flags & FUSE_LK_FLOCK))
        ret = share_holder_hold(s, lock.handle, in->owner, lock.type != F_UNLCK, &lock.holder);
    if (ret == 0 && (lock.holder || in->lk_flags & FUSE_LK_FLOCK))
        ret = set(op, &lock);
    if (op->later)
        return 0;
    end_if_released(s, lock.handle);
    share_holder_drop(s, lock.holder);
    share_handle_drop(s, lock.handle);
    share_node_drop(s, lock.node);
    return ret;
}

/* Asks who has a lock in the way of LOCK. On a descriptor without locks of its own all are in the
 * way, also those of the one who asks. */
static int ask(struct share *s, struct share_handle *handle, const struct share_holder *holder,
               const struct share_lock *lock, struct flock *range)
{
    const struct share_place place = {.fd = handle->fd,
                                      .stx = {.stx_mode = (uint16_t)handle->node->key.type}};
    int fd = holder ? holder->fd : share_reopen(s, &place, O_RDONLY), ret;

    *range = (struct flock){.l_type = (short)lock->type,
                            .l_whence = SEEK_SET,
                            .l_start = lock->start,
                            .l_len = lock->length};
    if (fd < 0)
        return fd;
    ret = fcntl(fd, F_OFD_GETLK, range) < 0 ? -errno : 0;
    if (!holder)
        close(fd);
    return ret;
}

int share_op_getlk(struct share_op *op)
{
    const struct fuse_lk_in *in = SHARE_ARGUMENT(op, fuse_lk_in);
    struct share *s = op->share;
    struct share_handle *handle;
    struct share_holder *holder;
    struct fuse_lk_out out = {.lk = in->lk};
    struct share_lock lock;
    struct flock range;
    int ret = take_range(in, &lock);

    if (ret < 0 || lock.type == F_UNLCK)
        return -EINVAL;
    handle = share_handle_hold(s, op->node, in->fh);
    if (!handle || handle->fd < 0) {
        share_handle_drop(s, handle);
        return handle ? -ESTALE : -EBADF;
    }
    ret = share_holder_hold(s, handle, in->owner, false, &holder);
    if (ret == 0)
        ret = ask(s, handle, holder, &lock, &range);
    share_holder_drop(s, holder);
    share_handle_drop(s, handle);
    if (ret < 0)
        return ret;
    out.lk.type = (uint32_t)range.l_type;
    if (range.l_type != F_UNLCK) {
        out.lk.start = (uint64_t)range.l_start;
        out.lk.end = range.l_len ? (uint64_t)(range.l_start + range.l_len - 1) : INT64_MAX;
        out.lk.pid = 0; /* who it is, the guest could not tell */
    }
    return share_op_answer(op, &out, sizeof(out));
}
