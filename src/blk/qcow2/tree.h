/*
 * All that an L1 table leads to, for snapshots: with nothing in flight, all metadata in the file,
 * and the image's lock.
 */
#ifndef DOPPEL_BLK_QCOW2_TREE_H
#define DOPPEL_BLK_QCOW2_TREE_H

#include "blk/qcow2/qcow2_private.h"

enum qcow2_tree {
    QCOW2_TREE_TRY,   /* fails if a refcount cannot rise (-ERANGE), or cannot be read */
    QCOW2_TREE_ADD,   /* one reference more to each cluster */
    QCOW2_TREE_DROP,  /* one less; what nothing refers to becomes free */
    QCOW2_TREE_FLAGS, /* says of each entry whether it is the only reference. L1 changes in memory
                       */
};
/* Does that for the COUNT entries of an L1 table and the L2 tables that they lead to. */
int qcow2_tree(struct qcow2 *q, uint64_t *l1, uint64_t count, enum qcow2_tree how);

#endif
