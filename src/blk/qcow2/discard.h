/*
 * Giving clusters of the disk back, on threads that may wait. Without a lock.
 */
#ifndef DOPPEL_BLK_QCOW2_DISCARD_H
#define DOPPEL_BLK_QCOW2_DISCARD_H

#include "blk/qcow2/qcow2_private.h"

enum qcow2_erase {
    QCOW2_DISCARD, /* as UNMAP, but version 2 with a backing file, which would have to write zeroes,
                    * changes nothing */
    QCOW2_UNMAP,   /* the range reads as zeroes; clusters are given back */
    QCOW2_KEEP,    /* the range reads as zeroes; clusters are kept where the format can say so */
    QCOW2_FORGET,  /* the range reads the backing image; clusters are given back */
};
/* Does that for a range of the disk. */
int qcow2_erase(struct qcow2 *q, uint64_t offset, uint64_t size, enum qcow2_erase how);

#endif
