/*
 * The buffers of a request, and its answer.
 */
#include "share/operation.h"

#include "base/buffers.h"
#include "base/util.h"

#include <errno.h>

/* Whether there are SIZE bytes from OFFSET on. */
static bool has(const struct iovec *iov, unsigned iovs, size_t offset, size_t size)
{
    size_t length = buffers_length(iov, iovs);

    return offset <= length && size <= length - offset;
}

bool share_gather(const struct iovec *iov, unsigned iovs, size_t offset, void *data, size_t size)
{
    if (!has(iov, iovs, offset, size))
        return false;
    buffers_gather(iov, offset, data, size);
    return true;
}

bool share_scatter(const struct iovec *iov, unsigned iovs, size_t offset, const void *data,
                   size_t size)
{
    if (!has(iov, iovs, offset, size))
        return false;
    buffers_scatter(iov, offset, data, size);
    return true;
}

unsigned share_slice(const struct iovec *iov, unsigned iovs, size_t offset, size_t size,
                     struct iovec *part)
{
    size_t length = buffers_length(iov, iovs);

    size = offset < length ? MIN(size, length - offset) : 0;
    return buffers_slice(part, iov, iovs, offset, size);
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
