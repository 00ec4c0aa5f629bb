/*
 * Parts of scattered buffers, such as those of a request or of a frame. Each call but the first is
 * for SIZE bytes that begin SKIP bytes into IOV, which has them.
 */
#ifndef DOPPEL_BASE_BUFFERS_H
#define DOPPEL_BASE_BUFFERS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The bytes in COUNT elements. SIZE_MAX: more than fit into a size. */
size_t buffers_length(const struct iovec *iov, unsigned count);
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
