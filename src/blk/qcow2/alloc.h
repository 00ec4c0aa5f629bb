/*
 * Finding clusters of the file that are free, and giving them back. With the image's lock.
 */
#ifndef DOPPEL_BLK_QCOW2_ALLOC_H
#define DOPPEL_BLK_QCOW2_ALLOC_H

#include "blk/qcow2/qcow2_private.h"

/* Allocates up to N adjacent clusters (at least one), or exactly N, and stores the number of the
 * first. The file is long enough for them; what they hold is undefined unless they lie behind
 * q->fresh. Returns their number, or a negative errno: -ENOSPC, -EFBIG. */
int64_t qcow2_alloc(struct qcow2 *q, uint64_t n, uint64_t *first);
int qcow2_alloc_exactly(struct qcow2 *q, uint64_t n, uint64_t *first);

/* Drops a reference to each of N clusters to which nothing in the file leads, or ever has in the
 * case of new ones. What becomes free is given back to the host. */
int qcow2_free(struct qcow2 *q, uint64_t first, uint64_t n);
/* The same for a list of them, which is sorted and emptied. */
int qcow2_free_list(struct qcow2 *q, struct qcow2_drops *drops);

/* Metadata is about to be written to N clusters: refuses, if other metadata is there. */
int qcow2_metadata_add(struct qcow2 *q, uint64_t first, uint64_t n);
void qcow2_metadata_remove(struct qcow2 *q, uint64_t first, uint64_t n);

#endif
