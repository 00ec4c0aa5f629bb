/*
 * Parts of scattered buffers: the element that a position lies in, then one after the other.
 */
#include "base/buffers.h"

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

size_t buffers_length(const struct iovec *iov, unsigned count)
{
    size_t length = 0;

    for (unsigned i = 0; i < count; i++)
        if (__builtin_add_overflow(length, iov[i].iov_len, &length))
            return SIZE_MAX;
    return length;
}

unsigned buffers_slice(struct iovec *to, const struct iovec *iov, unsigned count, uint64_t skip,
                       uint64_t size)
{
    struct walk w = {.iov = iov, .skip = skip, .size = size};
    unsigned n = 0;

    while (n < count && next(&w, &to[n]))
        n++;
    return n;
}

void buffers_gather(const struct iovec *iov, uint64_t skip, void *to, uint64_t size)
{
    struct walk w = {.iov = iov, .skip = skip, .size = size};
    struct iovec piece;

    for (char *at = to; next(&w, &piece); at += piece.iov_len)
        memcpy(at, piece.iov_base, piece.iov_len);
}

void buffers_scatter(const struct iovec *iov, uint64_t skip, const void *from, uint64_t size)
{
    struct walk w = {.iov = iov, .skip = skip, .size = size};
    struct iovec piece;

    for (const char *at = from; next(&w, &piece); at += piece.iov_len)
        memcpy(piece.iov_base, at, piece.iov_len);
}

void buffers_clear(const struct iovec *iov, uint64_t skip, uint64_t size)
{
    struct walk w = {.iov = iov, .skip = skip, .size = size};
    struct iovec piece;

    while (next(&w, &piece))
        memset(piece.iov_base, 0, piece.iov_len);
}
