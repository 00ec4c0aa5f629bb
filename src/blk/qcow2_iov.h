/*
 * Parts of scattered buffers.
 */
#ifndef DOPPEL_BLK_QCOW2_IOV_H
#define DOPPEL_BLK_QCOW2_IOV_H

#include <stdint.h>
#include <sys/uio.h>

/* Stores in TO the SIZE bytes that begin SKIP bytes into IOV, and returns how many elements these
 * are: COUNT at most. IOV has them. */
unsigned qcow2_iov_slice(struct iovec *to, const struct iovec *iov, unsigned count, uint64_t skip,
                         uint64_t size);
void qcow2_iov_fill(const struct iovec *iov, uint64_t skip, uint64_t size);
void qcow2_iov_put(const struct iovec *iov, uint64_t skip, const void *bytes, uint64_t size);

#endif
