/*
 * Copying between one buffer and the buffers of a request.
 */
#ifndef DOPPEL_BLK_BUFFERS_H
#define DOPPEL_BLK_BUFFERS_H

#include <stdint.h>
#include <sys/uio.h>

/* Copies SIZE bytes from IOV, from the byte SKIP on. IOV has them. */
void buffers_gather(const struct iovec *iov, uint64_t skip, void *to, uint64_t size);
/* Copies SIZE bytes to IOV, from the byte SKIP on. FROM NULL: zeroes. */
void buffers_scatter(const struct iovec *iov, uint64_t skip, const void *from, uint64_t size);

#endif
