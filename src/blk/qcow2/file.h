/*
 * The file that an image is in: reading and writing metadata, and data on threads that may wait.
 * Returns are 0 or a negative errno.
 */
#ifndef DOPPEL_BLK_QCOW2_FILE_H
#define DOPPEL_BLK_QCOW2_FILE_H

#include "blk/qcow2/qcow2_private.h"

/* Memory for SIZE bytes that the file can be read into and written from, zero at first; free()
 * frees it. */
void *qcow2_buffer(uint64_t size);

/* Behind the file's end there are zeroes. Any alignment. */
int qcow2_file_read(struct qcow2 *q, uint64_t offset, void *bytes, uint64_t size);
/* The same into buffers, at multiples of the file's blocks, from BLK: the file, or the backing
 * image. */
int qcow2_readv(struct blk *blk, uint64_t offset, const struct iovec *iov, unsigned iovs,
                uint64_t skip, uint64_t size);
/* At multiples of the file's blocks, and inside the file. */
int qcow2_file_write(struct qcow2 *q, uint64_t offset, const void *bytes, uint64_t size);
int qcow2_file_writev(struct qcow2 *q, uint64_t offset, const struct iovec *iov, unsigned iovs,
                      uint64_t size);
/* What has been written is on stable storage. After a failure it is unknown what the file holds, so
 * the image takes no more changes. */
int qcow2_file_flush(struct qcow2 *q);

/* With the image's lock: makes the file at least END bytes long. */
int qcow2_file_extend(struct qcow2 *q, uint64_t end);
/* With the image's lock: gives the range back to the host, if it takes it. */
void qcow2_file_punch(struct qcow2 *q, uint64_t offset, uint64_t size);

#endif
