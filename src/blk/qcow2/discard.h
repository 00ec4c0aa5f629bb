/*
 * Giving clusters of the disk back, on threads that may wait. Without a lock.
 */
#ifndef DOPPEL_BLK_QCOW2_DISCARD_H
#define DOPPEL_BLK_QCOW2_DISCARD_H

#include "blk/qcow2/qcow2_private.h"

enum qcow2_erase {
    QCOW2_DISCARD, /* clusters are given back; all reads as zeroes but what version 2 cannot say */
    QCOW2_UNMAP,   /* all reads as zeroes; clusters are given back */
    QCOW2_KEEP,    /* all reads as zeroes; clusters are kept where the format can say so */
    QCOW2_FORGET,  /* clusters are given back; the backing image shows */
};
int qcow2_erase(struct qcow2 *q, uint64_t offset, uint64_t size, enum qcow2_erase how);

#endif
