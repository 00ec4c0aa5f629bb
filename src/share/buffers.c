/*
 * The buffers of a request, and its answer.
 */
#include "share/operation.h"

#include "base/util.h"

#include <errno.h>
#include <string.h>

size_t share_length(const struct iovec *iov, unsigned iovs)
{
    size_t length = 0;

    for (unsigned i = 0; i < iovs; i++)
        if (__builtin_add_overflow(length, iov[i].iov_len, &length))
            return SIZE_MAX;
    return length;
}

unsigned share_slice(const struct iovec *iov, unsigned iovs, size_t offset, size_t size,
                     struct iovec *part)
{
    unsigned parts = 0;

    for (unsigned i = 0; i < iovs && size; i++) {
        size_t skipped = MIN(offset, iov[i].iov_len);
        size_t taken = MIN(size, iov[i].iov_len - skipped);

        offset -= skipped;
        size -= taken;
        if (taken)
            part[parts++] = (struct iovec){(uint8_t *)iov[i].iov_base + skipped, taken};
    }
    return parts;
}

/* Copies between the buffers and DATA. */
static bool copy(const struct iovec *iov, unsigned iovs, size_t offset, void *into,
                 const void *from, size_t size)
{
    size_t done = 0;

    for (unsigned i = 0; i < iovs && done < size; i++) {
        size_t skipped = MIN(offset, iov[i].iov_len);
        size_t taken = MIN(size - done, iov[i].iov_len - skipped);
        uint8_t *bytes = (uint8_t *)iov[i].iov_base + skipped;

        offset -= skipped;
        if (into)
            memcpy((uint8_t *)into + done, bytes, taken);
        else
            memcpy(bytes, (const uint8_t *)from + done, taken);
        done += taken;
    }
    return done == size;
}

bool share_gather(const struct iovec *iov, unsigned iovs, size_t offset, void *data, size_t size)
{
    return copy(iov, iovs, offset, data, NULL, size);
}

bool share_scatter(const struct iovec *iov, unsigned iovs, size_t offset, const void *data,
                   size_t size)
{
    return copy(iov, iovs, offset, NULL, data, size);
}

void share_answer(struct share_request *r, uint64_t unique, int error, const void *data,
                  size_t size)
{
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof(header) + (error ? 0 : size)), .error = error, .unique = unique};

    if (!error && data && !share_scatter(r->out, r->outs, sizeof(header), data, size))
        header =
            (struct fuse_out_header){.len = sizeof(header), .error = -ERANGE, .unique = unique};
    if (share_scatter(r->out, r->outs, 0, &header, sizeof(header)))
        r->done(r, header.len);
    else
        r->done(r, -EPROTO);
}
