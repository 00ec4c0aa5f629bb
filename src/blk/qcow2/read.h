/*
 * Reading and writing ranges of the disk, on threads that may wait. Without a lock.
 */
#ifndef DOPPEL_BLK_QCOW2_READ_H
#define DOPPEL_BLK_QCOW2_READ_H

#include "blk/qcow2/table.h"

/* Buffers, from SKIP bytes on. */
struct qcow2_buffers {
    const struct iovec *iov;
    unsigned iovs;
    uint64_t skip;
};

/* Reads a range, which may reach behind the disk's end: there are zeroes. The caller has entered an
 * epoch. */
int qcow2_read_range(struct qcow2 *q, uint64_t offset, uint64_t size,
                     const struct qcow2_buffers *to);

/* Whether PART, which begins at OFFSET of the disk, reads as zeroes, as far as is known. */
bool qcow2_reads_zero(const struct qcow2 *q, const struct qcow2_part *part, uint64_t offset);

#endif
