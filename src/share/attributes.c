/*
 * A file's attributes, as the guest sees them.
 */
#include "share/operation.h"

#include <sys/sysmacros.h>

void share_fill_timeout(const struct share *s, uint64_t *seconds, uint32_t *nanoseconds)
{
    *seconds = s->options.timeout_ms / 1000;
    *nanoseconds = s->options.timeout_ms % 1000 * 1000000;
}

void share_fill_attributes(const struct share *s, const char *path, const char *name,
                           const struct statx *stx, struct fuse_attr *attr)
{
    struct share_owner_of owner;

    share_owner_get(s, path, name, stx, &owner);
    *attr = (struct fuse_attr){
        .ino = stx->stx_ino,
        .size = stx->stx_size,
        .blocks = stx->stx_blocks,
        .atime = (uint64_t)stx->stx_atime.tv_sec,
        .mtime = (uint64_t)stx->stx_mtime.tv_sec,
        .ctime = (uint64_t)stx->stx_ctime.tv_sec,
        .atimensec = stx->stx_atime.tv_nsec,
        .mtimensec = stx->stx_mtime.tv_nsec,
        .ctimensec = stx->stx_ctime.tv_nsec,
        .mode = (stx->stx_mode & S_IFMT) | owner.mode,
        .nlink = stx->stx_nlink,
        .uid = owner.uid,
        .gid = owner.gid,
        .rdev = (uint32_t)makedev(stx->stx_rdev_major, stx->stx_rdev_minor),
        .blksize = stx->stx_blksize,
    };
}

void share_fill_entry(const struct share *s, const struct share_node *node, const char *path,
                      const char *name, const struct statx *stx, bool submount,
                      struct fuse_entry_out *entry)
{
    *entry = (struct fuse_entry_out){.nodeid = node->number};
    share_fill_timeout(s, &entry->entry_valid, &entry->entry_valid_nsec);
    share_fill_timeout(s, &entry->attr_valid, &entry->attr_valid_nsec);
    share_fill_attributes(s, path, name, stx, &entry->attr);
    if (submount && atomic_load(&s->submounts))
        entry->attr.flags = FUSE_ATTR_SUBMOUNT;
}
