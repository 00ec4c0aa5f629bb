/*
 * Operations on a file's bytes.
 */
#include "share/operation.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* The most that is copied by one request: the guest asks for the rest by others. */
#define COPY_MOST (64u << 20)

/* Those that Linux sends, and that can be done twice. */
#define FALLOCATE_MODES                                                                            \
    ((uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))

/* The handle FH of NODE, open on the host. 0, -EBADF or -ESTALE. */
static int hold(struct share *s, const struct share_node *node, uint64_t fh,
                struct share_handle **handle)
{
    *handle = share_handle_hold(s, node, fh);
    if (!*handle)
        return -EBADF;
    if ((*handle)->fd >= 0)
        return 0;
    share_handle_drop(s, *handle);
    return -ESTALE;
}

/* ---- Reading and writing ---- */

static ssize_t transfer(int fd, const struct iovec *part, unsigned parts, uint64_t offset,
                        int opcode, int flags)
{
    return opcode == FUSE_READ ? preadv(fd, part, (int)parts, (off_t)offset)
                               : pwritev2(fd, part, (int)parts, (off_t)offset, flags);
}

/* Moves SIZE bytes between the file and the buffers, in which they begin at AT. A read that gets
 * less has met the end of the file. Returns how many were moved, or a negative errno if none. */
static ssize_t move(const struct share_op *op, int fd, size_t at, uint64_t offset, size_t size,
                    int flags)
{
    const struct share_request *r = op->request;
    bool reads = op->header.opcode == FUSE_READ;
    struct iovec part[SHARE_IOVS_MOST];
    size_t done = 0;

    while (done < size) {
        unsigned parts = reads ? share_slice(r->out, r->outs, at + done, size - done, part)
                               : share_slice(r->in, r->ins, at + done, size - done, part);
        ssize_t moved = transfer(fd, part, parts, offset + done, (int)op->header.opcode, flags);

        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0 && !done)
            return -errno;
        if (moved <= 0)
            break;
        done += (size_t)moved;
    }
    return (ssize_t)done;
}

int share_op_read(struct share_op *op)
{
    const struct fuse_read_in *in = SHARE_ARGUMENT(op, fuse_read_in);
    struct share_handle *handle;
    ssize_t moved;
    int ret;

    if (in->offset > INT64_MAX || in->size > SHARE_DATA_MOST)
        return -EINVAL;
    ret = hold(op->share, op->node, in->fh, &handle);
    if (ret < 0)
        return ret;
    moved = move(op, handle->fd, sizeof(struct fuse_out_header), in->offset,
                 MIN(in->size, op->room), 0);
    share_handle_drop(op->share, handle);
    if (moved < 0)
        return (int)moved;
    op->placed = true;
    op->answered = (size_t)moved;
    return 0;
}

/* Clears the rights to execute the file as somebody else. */
static int kill_rights(const struct share *s, int fd)
{
    char path[SHARE_LINK_SIZE];
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH, SHARE_STATX, &stx) < 0)
        return -errno;
    share_link(fd, path);
    return share_owner_kill(s, path, &stx);
}

/* Whether the SIZE bytes of the file at OFFSET are those of the request at AT. */
static bool has_bytes(const struct share_op *op, int fd, uint64_t offset, size_t at, size_t size)
{
    uint8_t there[4096], wanted[4096];

    for (size_t done = 0, step; done < size; done += step) {
        step = MIN(size - done, sizeof(there));
        if (pread(fd, there, step, (off_t)(offset + done)) != (ssize_t)step ||
            !share_gather(op->request->in, op->request->ins, at + done, wanted, step) ||
            memcmp(there, wanted, step) != 0)
            return false;
    }
    return true;
}

/* How many of SIZE bytes, which begin at AT of the request, a process that has died has appended.
 * The handle may be for writing only, so the file is opened once more. */
static size_t appended_before(const struct share_op *op, const struct share_handle *handle,
                              size_t at, size_t size)
{
    struct share_plan plan = {.size = 0};
    struct share_place place = {.fd = handle->fd};
    struct stat st;
    size_t there = 0;
    int fd;

    if (!op->request->intent || fstat(handle->fd, &st) < 0)
        return 0;
    if (!share_begun(op->request, &plan)) {
        plan.size = (uint64_t)st.st_size;
        share_begin(op->request, &plan);
        return 0;
    }
    place.stx.stx_mode = (uint16_t)st.st_mode;
    fd = share_reopen(op->share, &place, O_RDONLY);
    if (fd >= 0 && (uint64_t)st.st_size > plan.size)
        there = MIN(size, (uint64_t)st.st_size - plan.size);
    if (there && !has_bytes(op, fd, plan.size, at, there))
        there = 0;
    if (fd >= 0)
        close(fd);
    return there;
}

int share_op_write(struct share_op *op)
{
    const struct fuse_write_in *in = SHARE_ARGUMENT(op, fuse_write_in);
    size_t before = sizeof(struct fuse_in_header) + sizeof(*in);
    /* What is written back from mapped memory has its place, whatever the handle is for. */
    bool appends = in->flags & O_APPEND && !(in->write_flags & FUSE_WRITE_CACHE);
    struct fuse_write_out out = {0};
    struct share_handle *handle;
    ssize_t moved;
    size_t skip;
    int ret;

    if (in->offset > INT64_MAX || in->size > SHARE_DATA_MOST || in->size > op->header.len - before)
        return -EINVAL;
    ret = hold(op->share, op->node, in->fh, &handle);
    if (ret < 0)
        return ret;
    skip = appends ? appended_before(op, handle, before, in->size) : 0;
    moved =
        move(op, handle->fd, before + skip, in->offset, in->size - skip, appends ? RWF_APPEND : 0);
    if (moved >= 0)
        moved += (ssize_t)skip;
    if (moved >= 0 && in->write_flags & FUSE_WRITE_KILL_SUIDGID)
        ret = kill_rights(op->share, handle->fd);
    share_handle_drop(op->share, handle);
    if (moved < 0 || ret < 0)
        return moved < 0 ? (int)moved : ret;
    out.size = (uint32_t)moved;
    return share_op_answer(op, &out, sizeof(out));
}

/* ---- The rest ---- */

int share_op_fsync(struct share_op *op)
{
    const struct fuse_fsync_in *in = SHARE_ARGUMENT(op, fuse_fsync_in);
    struct share_handle *handle;
    int ret = hold(op->share, op->node, in->fh, &handle);

    if (ret < 0)
        return ret;
    ret = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(handle->fd) : fsync(handle->fd);
    ret = ret < 0 ? -errno : 0;
    share_handle_drop(op->share, handle);
    return ret;
}

int share_op_fallocate(struct share_op *op)
{
    const struct fuse_fallocate_in *in = SHARE_ARGUMENT(op, fuse_fallocate_in);
    struct share_handle *handle;
    int ret;

    if (in->offset > INT64_MAX || in->length > INT64_MAX)
        return -EFBIG;
    if (in->mode & ~FALLOCATE_MODES)
        return -EOPNOTSUPP;
    ret = hold(op->share, op->node, in->fh, &handle);
    if (ret < 0)
        return ret;
    ret =
        fallocate(handle->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? -errno : 0;
    share_handle_drop(op->share, handle);
    return ret;
}

int share_op_lseek(struct share_op *op)
{
    const struct fuse_lseek_in *in = SHARE_ARGUMENT(op, fuse_lseek_in);
    struct fuse_lseek_out out;
    struct share_handle *handle;
    off_t found;
    int ret;

    /* Others do not depend on the file, and directories stand where the guest reads them. */
    if ((in->whence != SEEK_DATA && in->whence != SEEK_HOLE) || op->node->key.type != S_IFREG)
        return -EINVAL;
    if (in->offset > INT64_MAX)
        return -ENXIO;
    ret = hold(op->share, op->node, in->fh, &handle);
    if (ret < 0)
        return ret;
    found = lseek(handle->fd, (off_t)in->offset, (int)in->whence);
    ret = found < 0 ? -errno : 0;
    share_handle_drop(op->share, handle);
    out.offset = (uint64_t)found;
    return ret < 0 ? ret : share_op_answer(op, &out, sizeof(out));
}

static int copy(struct share_op *op, const struct fuse_copy_file_range_in *in,
                const struct share_handle *from, const struct share_handle *to)
{
    struct fuse_write_out out = {0};
    off_t read_at = (off_t)in->off_in, write_at = (off_t)in->off_out;
    ssize_t copied =
        copy_file_range(from->fd, &read_at, to->fd, &write_at, MIN(in->len, COPY_MOST), 0);

    if (copied < 0)
        return -errno;
    out.size = (uint32_t)copied;
    return share_op_answer(op, &out, sizeof(out));
}

int share_op_copy(struct share_op *op)
{
    const struct fuse_copy_file_range_in *in = SHARE_ARGUMENT(op, fuse_copy_file_range_in);
    struct share *s = op->share;
    struct share_handle *from, *to;
    struct share_node *node;
    int ret;

    if (in->flags || in->off_in > INT64_MAX || in->off_out > INT64_MAX)
        return -EINVAL;
    ret = hold(s, op->node, in->fh_in, &from);
    if (ret < 0)
        return ret;
    node = share_node_hold(s, in->nodeid_out);
    ret = node ? hold(s, node, in->fh_out, &to) : -EBADF;
    if (ret == 0) {
        ret = copy(op, in, from, to);
        share_handle_drop(s, to);
    }
    share_node_drop(s, node);
    share_handle_drop(s, from);
    return ret;
}
