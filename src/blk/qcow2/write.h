/*
 * Writing ranges of the disk, on threads that may wait. Without a lock. The caller has entered an
 * epoch.
 */
#ifndef DOPPEL_BLK_QCOW2_WRITE_H
#define DOPPEL_BLK_QCOW2_WRITE_H

#include "blk/qcow2/read.h"

/* Writes what FROM has. */
int qcow2_write_range(struct qcow2 *q, uint64_t offset, uint64_t size,
                      const struct qcow2_buffers *from);
/* Writes zeroes, without changes of the map but for clusters that the image does not have. */
int qcow2_write_zeroes(struct qcow2 *q, uint64_t offset, uint64_t size);

/* Whether PART, whose clusters the image has for itself, may be written to as it is: no metadata is
 * there. With one of the locks. */
bool qcow2_may_overwrite(const struct qcow2 *q, const struct qcow2_part *part);

#endif
