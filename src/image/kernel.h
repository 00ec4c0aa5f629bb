/*
 * Finds the kernel and its initramfs on a disk, by the names that distributions give them.
 */
#ifndef DOPPEL_IMAGE_KERNEL_H
#define DOPPEL_IMAGE_KERNEL_H

#include "base/error.h"

#include <stdint.h>

struct blk;

#define KERNEL_PATH_MOST 300

struct kernel_found {
    uint64_t offset, size; /* of the file system that they are in; size 0: there are none */
    char kernel[KERNEL_PATH_MOST], initrd[KERNEL_PATH_MOST]; /* no initrd: "" */
    unsigned root; /* number of the partition with the root directory; 0: the whole disk */
};

/* Looks for the newest kernel on the disk BLK: in "/", in "/boot", and in a partition that is
 * mounted there. -ENOENT: there is none, or it is in no file system that can be read. */
int kernel_find(struct blk *blk, const char *name, struct kernel_found *found, struct error *err);

/* Writes both to the files KERNEL and INITRD (descriptors). */
int kernel_copy(struct blk *blk, const char *name, const struct kernel_found *found, int kernel,
                int initrd, struct error *err);

#endif
