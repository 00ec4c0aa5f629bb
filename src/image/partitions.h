/*
 * The partitions of a disk: GPT (UEFI 2.10, 5.3) or MBR. What the disk says is checked: each
 * partition lies inside of it.
 */
#ifndef DOPPEL_IMAGE_PARTITIONS_H
#define DOPPEL_IMAGE_PARTITIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct blk;

#define PARTITIONS_MOST 128

struct partition {
    unsigned number;       /* as Linux counts: 1 is the first */
    uint64_t offset, size; /* bytes */
    bool ext4;             /* what is in it looks like ext2, ext3 or ext4 */
};

struct partitions {
    bool whole; /* the disk has no partitions and is ext4 itself: [0], number 0 */
    unsigned count;
    struct partition partition[PARTITIONS_MOST];
};

/* Reads the table. A disk without one has no partitions. */
int partitions_read(struct blk *blk, const char *name, struct partitions *partitions,
                    struct error *err);

#endif
