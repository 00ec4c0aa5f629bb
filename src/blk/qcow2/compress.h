/*
 * Compressed clusters.
 */
#ifndef DOPPEL_BLK_QCOW2_COMPRESS_H
#define DOPPEL_BLK_QCOW2_COMPRESS_H

#include "blk/qcow2/table.h"

/* Remembers the clusters that were unpacked last. NULL: out of memory. */
struct qcow2_unpacked *qcow2_unpacked_create(void);
void qcow2_unpacked_free(struct qcow2_unpacked *unpacked);

/* Unpacks the cluster of PART, and stores SIZE bytes that begin FROM bytes into it in the buffers,
 * from SKIP on. The caller has entered an epoch before PART was looked up. Without a lock. */
int qcow2_unpack(struct qcow2 *q, const struct qcow2_part *part, uint64_t from,
                 const struct iovec *iov, unsigned iovs, uint64_t skip, uint64_t size);

/* Packs the cluster at BYTES. Stores memory that free() frees in *PACKED and returns its size, or 0
 * if it is not smaller than the cluster, or -ENOMEM. */
int64_t qcow2_pack(struct qcow2 *q, const void *bytes, void **packed);

/* Writes SIZE bytes of packed data for the cluster at OFFSET of the disk. Without a lock. */
int qcow2_write_packed(struct qcow2 *q, uint64_t offset, const void *packed, uint64_t size);

#endif
