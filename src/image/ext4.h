/*
 * Builds an ext4 file system file by file, in the order in which an archive has them: no mount, no
 * root, no temporary tree.
 *
 * Paths are relative to the root directory of the file system; a "/" or "./" in front changes
 * nothing. Directories on the way that are missing are made (owner 0, mode 0755). Symbolic links
 * on the way are followed inside the file system. A path with ".." fails. What is added replaces
 * what has the name already, but a directory that is added to a directory, or to a link to one,
 * only changes its attributes. A directory with something in it is replaced by nothing else.
 *
 * Names are kept in memory until ext4_finish, which writes the directories: each in one piece, with
 * a hash tree if it is longer than a block.
 *
 * Errors: negative errno, and ERR is filled. -EINVAL: the path or the archive is not good. -ENOSPC:
 * the file system or the host's is full. After an error the file system is to be abandoned.
 */
#ifndef DOPPEL_IMAGE_EXT4_H
#define DOPPEL_IMAGE_EXT4_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct blk;
struct ext4;

struct ext4_options {
    uint64_t size; /* bytes, a multiple of 4096, 64 MiB to 16 TiB, at most what the disk has */
    uint8_t uuid[16];
    const char *label; /* up to 16 bytes; or NULL */
    int64_t now;       /* seconds since the epoch */
    const char *name;  /* what messages call it; lives as long */
};

/* Makes a file system at the beginning of BLK, which reads as zeros and which stays the caller's.
 */
struct ext4 *ext4_create(struct blk *blk, const struct ext4_options *options, struct error *err);
/* Writes all that is left; BLK is not flushed. */
int ext4_finish(struct ext4 *ext4, struct error *err);
void ext4_free(struct ext4 *ext4); /* may be NULL. What was not finished is no file system */

struct ext4_xattr {
    const char *name; /* "security.capability" */
    const void *value;
    size_t size;
};

struct ext4_attributes {
    unsigned mode; /* the permission bits, 07777 */
    uint32_t uid, gid;
    int64_t seconds; /* of the last change */
    uint32_t nanoseconds;
    const struct ext4_xattr *xattrs;
    unsigned xattr_count;
};

int ext4_directory(struct ext4 *ext4, const char *path, const struct ext4_attributes *attributes,
                   struct error *err);
int ext4_symlink(struct ext4 *ext4, const char *path, const char *target,
                 const struct ext4_attributes *attributes, struct error *err);
/* Another name for the file EXISTING. */
int ext4_link(struct ext4 *ext4, const char *path, const char *existing, struct error *err);

/* TYPE is S_IFCHR, S_IFBLK, S_IFIFO or S_IFSOCK. */
int ext4_special(struct ext4 *ext4, const char *path, unsigned type, unsigned major, unsigned minor,
                 const struct ext4_attributes *attributes, struct error *err);

/* A regular file: begun, written from the beginning to the end, and ended, with nothing else added
 * meanwhile. What is left out becomes a hole. */
int ext4_file_begin(struct ext4 *ext4, const char *path, const struct ext4_attributes *attributes,
                    struct error *err);
int ext4_file_write(struct ext4 *ext4, uint64_t offset, const void *data, size_t size,
                    struct error *err);
int ext4_file_end(struct ext4 *ext4, uint64_t size, struct error *err);

/* Removes what PATH names, and all that is in it. Nothing there: nothing happens. */
int ext4_remove(struct ext4 *ext4, const char *path, struct error *err);
/* Removes all that is in the directory PATH. */
int ext4_remove_contents(struct ext4 *ext4, const char *path, struct error *err);

/* How many names it has. */
uint64_t ext4_count(const struct ext4 *ext4);

#endif
