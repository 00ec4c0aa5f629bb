/*
 * Copying between one buffer and the buffers of a request.
 */
#include "blk/buffers.h"

#include "base/util.h"

#include <string.h>

/* Finds the byte SKIP, and how many of SIZE bytes follow it in the same buffer. SKIP becomes what
 * is to be skipped of the buffer that is returned. */
static const struct iovec *find(const struct iovec *iov, uint64_t *skip, uint64_t size, uint64_t *n)
{
    while (*skip >= iov->iov_len)
        *skip -= iov++->iov_len;
    *n = MIN(size, iov->iov_len - *skip);
    return iov;
}

void buffers_gather(const struct iovec *iov, uint64_t skip, void *to, uint64_t size)
{
    char *next = to;

    for (uint64_t n; size > 0; size -= n, next += n, skip += n) {
        iov = find(iov, &skip, size, &n);
        memcpy(next, (const char *)iov->iov_base + skip, n);
    }
}

void buffers_scatter(const struct iovec *iov, uint64_t skip, const void *from, uint64_t size)
{
    const char *next = from;

    for (uint64_t n; size > 0; size -= n, skip += n) {
        iov = find(iov, &skip, size, &n);
        if (next)
            memcpy((char *)iov->iov_base + skip, next, n);
        else
            memset((char *)iov->iov_base + skip, 0, n);
        next = next ? next + n : NULL;
    }
}
