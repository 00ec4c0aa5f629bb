/*
 * libarchive, which is loaded when an archive is read or written: with what it needs in turn (XML
 * among it) it would cost each start of doppel some milliseconds.
 */
#ifndef DOPPEL_IMAGE_ARCHIVE_LIBRARY_H
#define DOPPEL_IMAGE_ARCHIVE_LIBRARY_H

#include "base/error.h"

#include <archive.h>
#include <archive_entry.h>

/* Calls X for each function that is used. */
#define ARCHIVE_FUNCTIONS(X)                                                                       \
    X(entry_clear)                                                                                 \
    X(entry_filetype)                                                                              \
    X(entry_free)                                                                                  \
    X(entry_gid)                                                                                   \
    X(entry_hardlink)                                                                              \
    X(entry_mtime)                                                                                 \
    X(entry_mtime_nsec)                                                                            \
    X(entry_new)                                                                                   \
    X(entry_pathname)                                                                              \
    X(entry_perm)                                                                                  \
    X(entry_rdevmajor)                                                                             \
    X(entry_rdevminor)                                                                             \
    X(entry_set_filetype)                                                                          \
    X(entry_set_mtime)                                                                             \
    X(entry_set_pathname)                                                                          \
    X(entry_set_perm)                                                                              \
    X(entry_set_size)                                                                              \
    X(entry_set_symlink)                                                                           \
    X(entry_size)                                                                                  \
    X(entry_pathname_utf8)                                                                         \
    X(entry_symlink_utf8)                                                                          \
    X(entry_hardlink_utf8)                                                                         \
    X(entry_symlink)                                                                               \
    X(entry_uid)                                                                                   \
    X(entry_xattr_next)                                                                            \
    X(entry_xattr_reset)                                                                           \
    X(error_string)                                                                                \
    X(filter_bytes)                                                                                \
    X(filter_count)                                                                                \
    X(read_data)                                                                                   \
    X(read_data_block)                                                                             \
    X(read_free)                                                                                   \
    X(read_new)                                                                                    \
    X(read_next_header)                                                                            \
    X(read_open_fd)                                                                                \
    X(read_open_memory)                                                                            \
    X(read_set_format_option)                                                                      \
    X(read_support_filter_bzip2)                                                                   \
    X(read_support_filter_gzip)                                                                    \
    X(read_support_filter_lz4)                                                                     \
    X(read_support_filter_xz)                                                                      \
    X(read_support_filter_zstd)                                                                    \
    X(read_support_format_cpio)                                                                    \
    X(read_support_format_raw)                                                                     \
    X(read_support_format_tar)                                                                     \
    X(write_data)                                                                                  \
    X(write_free)                                                                                  \
    X(write_close)                                                                                 \
    X(write_header)                                                                                \
    X(write_new)                                                                                   \
    X(write_open_fd)                                                                               \
    X(write_set_format_gnutar)                                                                     \
    X(write_set_format_iso9660)                                                                    \
    X(write_set_options)

struct archive_library {
#define X(name) __typeof__(archive_##name) *name;
    ARCHIVE_FUNCTIONS(X)
#undef X
};

/* Stays loaded for good. */
int archive_library_load(struct archive_library *library, struct error *err);

#endif
