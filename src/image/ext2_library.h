/*
 * libext2fs, which is loaded when an image is made: no start of a machine needs it.
 */
#ifndef DOPPEL_IMAGE_EXT2_LIBRARY_H
#define DOPPEL_IMAGE_EXT2_LIBRARY_H

#include "base/error.h"

/* The library's own functions, and not copies in each of our files. */
#define NO_INLINE_FUNCS
#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>

/* Calls X for each function that is used. */
#define EXT2_FUNCTIONS(X)                                                                          \
    X(add_journal_inode2)                                                                          \
    X(allocate_tables)                                                                             \
    X(bg_flags_set)                                                                                \
    X(block_alloc_stats_range)                                                                     \
    X(close_free)                                                                                  \
    X(create_resize_inode)                                                                         \
    X(default_journal_size)                                                                        \
    X(dir_iterate)                                                                                 \
    X(dirhash)                                                                                     \
    X(expand_dir)                                                                                  \
    X(extent_fix_parents)                                                                          \
    X(extent_free)                                                                                 \
    X(extent_insert)                                                                               \
    X(extent_open2)                                                                                \
    X(file_close)                                                                                  \
    X(file_get_lsize)                                                                              \
    X(file_open)                                                                                   \
    X(file_read)                                                                                   \
    X(file_set_size2)                                                                              \
    X(file_write)                                                                                  \
    X(flush)                                                                                       \
    X(free)                                                                                        \
    X(free_ext_attr)                                                                               \
    X(group_desc_csum_set)                                                                         \
    X(iblk_add_blocks)                                                                             \
    X(init_csum_seed)                                                                              \
    X(initialize)                                                                                  \
    X(initialize_dirent_tail)                                                                      \
    X(inode_alloc_stats2)                                                                          \
    X(link)                                                                                        \
    X(mkdir)                                                                                       \
    X(namei_follow)                                                                                \
    X(new_inode)                                                                                   \
    X(new_range)                                                                                   \
    X(open)                                                                                        \
    X(punch)                                                                                       \
    X(read_bitmaps)                                                                                \
    X(read_inode)                                                                                  \
    X(read_inode_full)                                                                             \
    X(update_bb_inode)                                                                             \
    X(write_dir_block4)                                                                            \
    X(write_inode)                                                                                 \
    X(write_inode_full)                                                                            \
    X(xattr_set)                                                                                   \
    X(xattrs_close)                                                                                \
    X(xattrs_open)                                                                                 \
    X(xattrs_write)

struct ext2_library {
#define X(name) __typeof__(ext2fs_##name) *name;
    EXT2_FUNCTIONS(X)
#undef X
    const char *(*error_message)(long code); /* of libcom_err */
};

/* Stays loaded for good. */
int ext2_library_load(struct ext2_library *library, struct error *err);

#endif
