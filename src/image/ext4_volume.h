/*
 * An ext4 file system on a struct blk, through libext2fs. For the files of this folder.
 */
#ifndef DOPPEL_IMAGE_EXT4_VOLUME_H
#define DOPPEL_IMAGE_EXT4_VOLUME_H

#include "base/error.h"
#include "blk/blk.h"
#include "image/ext2_library.h"

/* Where on a disk it lies. */
struct ext4_place {
    struct blk *blk;
    uint64_t offset, size; /* bytes */
    uint64_t reads_most;   /* of blocks, after which reading fails; 0: no limit */
};

struct ext4_volume {
    struct ext2_library library;
    struct ext4_place place;
    ext2_filsys fs;
    const char *name; /* for messages; the caller's, as long as the volume is used */
};

/* ---- ext4_io.c: libext2fs's way to the disk ---- */

extern const struct struct_io_manager ext4_io_manager;
/* Bytes of a text that tells the io manager which place is meant. */
#define EXT4_IO_NAME 32
void ext4_io_name(char name[EXT4_IO_NAME], const struct ext4_place *place);

/* ---- ext4_volume.c ---- */

/* Sets ERR to "what: the library's message". Returns the negative errno, or -EIO for codes of the
 * library's own. */
int ext4_fail(const struct ext4_volume *volume, struct error *err, errcode_t code,
              const char *what);

/* Opens the file system at PLACE. NAME is for messages and lives as long. */
int ext4_volume_open(struct ext4_volume *volume, const struct ext4_place *place, const char *name,
                     bool readonly, struct error *err);
/* Writes what is left, and closes it. */
int ext4_volume_finish(struct ext4_volume *volume, struct error *err);
/* Closes it and forgets what has not been written yet. Does nothing if it is closed. */
void ext4_volume_abandon(struct ext4_volume *volume);

struct ext4_attributes;

/* Sets what kind of file INODE is (S_IFREG, ...), its mode and its owner. */
void ext4_describe(struct ext2_inode *inode, unsigned type,
                   const struct ext4_attributes *attributes);

/* ---- ext4_make.c ---- */

struct ext4_make {
    uint8_t uuid[16];
    const char *label; /* up to 16 bytes; or NULL */
    int64_t now;       /* seconds since the epoch: when it was made */
};

#define EXT4_LEAST (64ULL << 20) /* bytes: the smallest place */
#define EXT4_MOST  (16ULL << 40)

/* Makes an empty file system at PLACE, which reads as zeros: reserved inodes are in use, the
 * journal and the room to grow are there. The root directory and lost+found (EXT4_LOST_FOUND) have
 * no inodes yet. */
int ext4_volume_make(struct ext4_volume *volume, const struct ext4_place *place, const char *name,
                     const struct ext4_make *make, struct error *err);

#define EXT4_LOST_FOUND 11

#endif
