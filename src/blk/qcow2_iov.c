/*
 * Parts of scattered buffers: the element that a position lies in, then one after the other.
 */
#include "blk/qcow2_iov.h"

#include "base/util.h"

#include <stdbool.h>
#include <string.h>

/* A walk over SIZE bytes of IOV. */
struct walk {
    const struct iovec *iov;
    uint64_t skip, size;
};

/* Stores the next piece; false: the walk is over. */
static bool next(struct walk *w, struct iovec *piece)
{
    if (!w->size)
        return false;
    while (w->skip >= w->iov->iov_len) {
        w->skip -= w->iov->iov_len;
        w->iov++;
    }
    piece->iov_base = (char *)w->iov->iov_base + w->skip;
    piece->iov_len = MIN(w->iov->iov_len - w->skip, w->size);
    w->size -= piece->iov_len;
    w->skip += piece->iov_len;
    return true;
}

unsigned qcow2_iov_slice(struct iovec *to, const struct iovec *iov, unsigned count, uint64_t skip,
                         uint64_t size)
{
    struct walk w = {.iov = iov, .skip = skip, .size = size};
    unsigned n = 0;

    while (n < count && next(&w, &to[n]))
        n++;
    return n;
}

void qcow2_iov_fill(const struct iovec *iov, uint64_t skip, uint64_t size)
{
    struct walk w = {.iov = iov, .skip = skip, .size = size};
    struct iovec piece;

    while (next(&w, &piece))
        memset(piece.iov_base, 0, piece.iov_len);
}

void qcow2_iov_put(const struct iovec *iov, uint64_t skip, const void *bytes, uint64_t size)
{
    struct walk w = {.iov = iov, .skip = skip, .size = size};
    const char *from = bytes;
    struct iovec piece;

    for (; next(&w, &piece); from += piece.iov_len)
        memcpy(piece.iov_base, from, piece.iov_len);
}
