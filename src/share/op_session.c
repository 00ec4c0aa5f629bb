/*
 * Operations on the file system as a whole: the beginning and the end, what the guest no longer
 * knows, statistics.
 */
#include "share/lock.h"
#include "share/operation.h"
#include "share/tables.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The versions of the protocol that are spoken: before 7.27 some structures are shorter. */
#define MINOR_LEAST 27u
#define MINOR_MOST  39u
#define INIT_MOST   64 /* bytes of struct fuse_init_in */

#define BACKGROUND 64 /* requests that the guest has under way without waiting for them */
#define CONGESTED  48

/* What is accepted of what the guest offers. Its page cache is written through at once: else the
 * host would see what a program has written only much later. */
#define ACCEPTED                                                                                   \
    (FUSE_ASYNC_READ | FUSE_POSIX_LOCKS | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |                  \
     FUSE_FLOCK_LOCKS | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |       \
     FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |                \
     FUSE_SUBMOUNTS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_INIT_EXT)

int share_op_init(struct share_op *op)
{
    struct share *s = op->share;
    struct fuse_init_in in = {0};
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION};

    memcpy(&in, op->argument, MIN(op->size, sizeof(in)));
    if (in.major < FUSE_KERNEL_VERSION ||
        (in.major == FUSE_KERNEL_VERSION && in.minor < MINOR_LEAST))
        return -EPROTO;
    out.minor = MIN(in.minor, MINOR_MOST);
    if (in.major == FUSE_KERNEL_VERSION) { /* else the guest begins again with that version */
        out.max_readahead = in.max_readahead;
        out.flags = in.flags & ACCEPTED;
        out.max_background = BACKGROUND;
        out.congestion_threshold = CONGESTED;
        out.max_write = SHARE_DATA_MOST;
        out.time_gran = 1;
        out.max_pages = SHARE_DATA_MOST / 4096;
        atomic_store(&s->submounts, (out.flags & FUSE_SUBMOUNTS) != 0);
        atomic_store(&s->ready, true);
        share_op_change(op, CHANGE_READY, (out.flags & FUSE_SUBMOUNTS) != 0, 0, 0);
    }
    return share_op_answer(op, &out, sizeof(out));
}

/* The guest has unmounted it, and does not give back what it has known. */
int share_op_destroy(struct share_op *op)
{
    share_waits_end(op->share->waits, -EINTR);
    share_tables_reset(op->share);
    return 0;
}

static void forget(struct share_op *op, uint64_t number, uint64_t count)
{
    share_node_forget(op->share, number, count);
    share_op_change(op, CHANGE_FORGOT, 0, number, count);
}

int share_op_forget(struct share_op *op)
{
    forget(op, op->header.nodeid, SHARE_ARGUMENT(op, fuse_forget_in)->nlookup);
    return 0;
}

int share_op_forget_batch(struct share_op *op)
{
    const struct fuse_forget_one *one =
        (const void *)(op->argument + sizeof(struct fuse_batch_forget_in));
    size_t most = (op->size - sizeof(struct fuse_batch_forget_in)) / sizeof(*one);
    size_t count = MIN(most, SHARE_ARGUMENT(op, fuse_batch_forget_in)->count);

    for (size_t i = 0; i < count; i++)
        forget(op, one[i].nodeid, one[i].nlookup);
    return 0;
}

/* The request that is meant may not have come yet: then the guest tries again. */
int share_op_interrupt(struct share_op *op)
{
    uint64_t unique = SHARE_ARGUMENT(op, fuse_interrupt_in)->unique;

    return share_wait_interrupt(op->share, unique) ? 0 : -EAGAIN;
}

int share_op_statfs(struct share_op *op)
{
    struct fuse_statfs_out out = {0};
    struct statvfs fs;

    if (fstatvfs(op->share->root, &fs) < 0)
        return -errno;
    out.st.blocks = fs.f_blocks;
    out.st.bfree = fs.f_bfree;
    out.st.bavail = fs.f_bavail;
    out.st.files = fs.f_files;
    out.st.ffree = fs.f_ffree;
    out.st.bsize = (uint32_t)fs.f_bsize;
    out.st.namelen = (uint32_t)fs.f_namemax;
    out.st.frsize = (uint32_t)fs.f_frsize;
    return share_op_answer(op, &out, sizeof(out));
}

int share_op_syncfs(struct share_op *op)
{
    struct share *s = op->share;
    int fd = openat(s->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret;

    if (fd < 0)
        return -errno;
    ret = syncfs(fd) < 0 ? -errno : 0;
    close(fd);
    return ret;
}
