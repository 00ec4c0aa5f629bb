/*
 * Refcounts: how many references there are to each cluster of the file. With the image's lock.
 */
#ifndef DOPPEL_BLK_QCOW2_REFCOUNT_H
#define DOPPEL_BLK_QCOW2_REFCOUNT_H

#include "blk/qcow2/qcow2_private.h"

/* Sets entry I of a refcount block whose entries have 2^ORDER bits. */
void qcow2_count_set(uint8_t *block, uint64_t i, unsigned order, uint64_t count);

/* The largest refcount that the image can store. */
uint64_t qcow2_refcount_max(const struct qcow2 *q);

/* Stores the refcount of CLUSTER, which is 0 if no block covers it. */
int qcow2_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *count);
/* Stores the first cluster from CLUSTER on, and before END, of which the refcount is not 0; END if
 * there is none, or after a failure. One block covers them all. */
int qcow2_refcount_find(struct qcow2 *q, uint64_t cluster, uint64_t end, uint64_t *found);
/* -EIO: no block covers CLUSTER. */
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t count);
/* Adds 1 to each of N. -ERANGE: one has the largest already; none has changed. */
int qcow2_refcount_add(struct qcow2 *q, uint64_t first, uint64_t n);
/* Subtracts 1 from that of CLUSTER, and stores what is left of it. A refcount of 0 is corrupt. */
int qcow2_refcount_drop(struct qcow2 *q, uint64_t cluster, uint64_t *left);

/* Writes the blocks that differ from the file. */
int qcow2_refcounts_write(struct qcow2 *q);

#endif
