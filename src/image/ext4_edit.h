/*
 * Reads and changes single files of an ext4 file system that is not mounted, of any make that
 * libext2fs knows. What is in it is not trusted; libext2fs checks it.
 *
 * Errors: negative errno, and ERR is filled. -ENOENT: there is no such file. After an error in a
 * call that changes something, the file system may be damaged: it is to be thrown away.
 */
#ifndef DOPPEL_IMAGE_EXT4_EDIT_H
#define DOPPEL_IMAGE_EXT4_EDIT_H

#include "base/error.h"
#include "image/ext4.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blk;
struct ext4_edit;

/* What is done with it. What is only read may be damaged so that directories never end: then the
 * calls fail after so many blocks as a look or the largest kernel takes. */
enum ext4_use { EXT4_CHANGE, EXT4_LOOK, EXT4_COPY };

/* The file system in the SIZE bytes at OFFSET of BLK, which stays the caller's. NAME is for
 * messages and lives as long. */
struct ext4_edit *ext4_edit_open(struct blk *blk, uint64_t offset, uint64_t size, const char *name,
                                 enum ext4_use use, struct error *err);
/* Writes what has changed. BLK is not flushed. */
int ext4_edit_finish(struct ext4_edit *edit, struct error *err);
void ext4_edit_free(struct ext4_edit *edit); /* may be NULL */

/* Symbolic links are followed, inside the file system. Reads at most MOST bytes of the file: memory
 * that the caller frees, with a 0 behind it. */
char *ext4_edit_read(struct ext4_edit *edit, const char *path, size_t most, size_t *size,
                     struct error *err);
/* Writes the file to the end of FD; more than MOST bytes are an error. */
int ext4_edit_copy(struct ext4_edit *edit, const char *path, int fd, uint64_t most,
                   struct error *err);
bool ext4_edit_exists(struct ext4_edit *edit, const char *path);
/* Calls NAME for each name in the directory PATH, "." and ".." too. */
int ext4_edit_list(struct ext4_edit *edit, const char *path,
                   void (*name)(void *opaque, const char *name), void *opaque, struct error *err);

/* The file PATH, whose directory is there, holds DATA from now on. One that is there keeps owner
 * and mode; a new one has those of ATTRIBUTES. */
int ext4_edit_write(struct ext4_edit *edit, const char *path, const void *data, size_t size,
                    const struct ext4_attributes *attributes, struct error *err);
/* Makes a directory, whose parent is there; nothing happens if PATH is there. */
int ext4_edit_directory(struct ext4_edit *edit, const char *path,
                        const struct ext4_attributes *attributes, struct error *err);

#endif
