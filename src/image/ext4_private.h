/*
 * Of an ext4 file system that is built; for ext4*.c.
 */
#ifndef DOPPEL_IMAGE_EXT4_PRIVATE_H
#define DOPPEL_IMAGE_EXT4_PRIVATE_H

#include "image/ext4.h"
#include "image/ext4_names.h"
#include "image/ext4_volume.h"

#include <stdbool.h>

/* A file whose contents are being written: what has come of it, up to BUFFER bytes, waits for its
 * place on the disk, so that a file lies in one piece where the disk has one. */
struct stream {
    bool open;
    ext2_ino_t ino;
    struct ext2_inode_large inode; /* as it will be written at the end */
    ext2_extent_handle_t handle;
    struct ext2fs_extent pending; /* the last one, which may yet grow; e_len 0: none */
    uint8_t *buffer;
    uint64_t start; /* where the buffer begins in the file, bytes; at a block */
    size_t filled;
    uint64_t end; /* where the last data ended */
};

struct ext4 {
    struct ext4_volume volume;
    struct names *names;
    struct stream stream;
    ext2_ino_t last_ino; /* the next inode is looked for from here on, */
    blk64_t goal;        /* and the next block from here on */
};

/* ---- ext4_data.c ---- */

/* Begins the contents of the file INO, whose inode has been written. */
int stream_begin(struct ext4 *ext4, ext2_ino_t ino, struct error *err);
int stream_write(struct ext4 *ext4, uint64_t offset, const void *data, size_t size,
                 struct error *err);
/* The file ends at SIZE. The inode is written with what it has become. */
int stream_end(struct ext4 *ext4, uint64_t size, struct error *err);
/* Block LOGICAL of the file, behind all that it has, lies at BLOCK. Not mixed with stream_write. */
int stream_add_block(struct ext4 *ext4, uint64_t logical, blk64_t block, struct error *err);
void stream_abandon(struct ext4 *ext4);

/* Takes up to COUNT blocks that lie in one piece, at least one, and sets *TAKEN to how many. */
int take_blocks(struct ext4 *ext4, uint64_t count, blk64_t *first, uint64_t *taken,
                struct error *err);

/* ---- ext4_dir.c ---- */

/* Writes the directory FOLDER, whose inode has been written and has no blocks yet. */
int write_folder(struct ext4 *ext4, const struct node *folder, struct error *err);

#endif
