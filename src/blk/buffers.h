/*
 * Parts of scattered buffers, such as those of a request. Each call is for SIZE bytes that begin
 * SKIP bytes into IOV, which has them.
 */
#ifndef DOPPEL_BLK_BUFFERS_H
#define DOPPEL_BLK_BUFFERS_H

#include <stdint.h>
#include <sys/uio.h>

/* Stores in TO the elements that the part consists of, and returns how many these are: COUNT at
 * most. */
unsigned buffers_slice(struct iovec *to, const struct iovec *iov, unsigned count, uint64_t skip,
                       uint64_t size);
/* Copies the part to TO. */
void buffers_gather(const struct iovec *iov, uint64_t skip, void *to, uint64_t size);
/* Copies FROM to the part. */
void buffers_scatter(const struct iovec *iov, uint64_t skip, const void *from, uint64_t size);
/* Fills the part with zeroes. */
void buffers_clear(const struct iovec *iov, uint64_t skip, uint64_t size);

#endif
