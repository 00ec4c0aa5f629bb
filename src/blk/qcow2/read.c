/*
 * Reading ranges of the disk: part by part, as the map says where each is.
 */
#include "blk/qcow2/read.h"

#include "base/buffers.h"
#include "blk/qcow2/compress.h"
#include "blk/qcow2/file.h"

#include <errno.h>

bool qcow2_reads_zero(const struct qcow2 *q, const struct qcow2_part *part, uint64_t offset)
{
    if (part->kind == QCOW2_UNALLOCATED)
        return !q->has_backing || (q->backing && offset >= blk_info(q->backing).size);
    return part->kind == QCOW2_ZERO;
}

static int read_part(struct qcow2 *q, const struct qcow2_part *part, uint64_t offset,
                     const struct qcow2_buffers *to)
{
    if (qcow2_reads_zero(q, part, offset)) {
        buffers_clear(to->iov, to->skip, part->size);
        return 0;
    }
    switch (part->kind) {
    case QCOW2_COMPRESSED:
        return qcow2_unpack(q, part, qcow2_in_cluster(q, offset), to->iov, to->iovs, to->skip,
                            part->size);
    case QCOW2_DATA:
        return qcow2_readv(q->file, part->host, to->iov, to->iovs, to->skip, part->size);
    default:
        return q->backing ? qcow2_readv(q->backing, offset, to->iov, to->iovs, to->skip, part->size)
                          : -ENXIO;
    }
}

int qcow2_read_range(struct qcow2 *q, uint64_t offset, uint64_t size,
                     const struct qcow2_buffers *to)
{
    struct qcow2_buffers rest = *to;
    int ret = 0;

    if (offset + size > q->disk_size) {
        uint64_t there = offset < q->disk_size ? q->disk_size - offset : 0;

        buffers_clear(to->iov, to->skip + there, size - there);
        size = there;
    }
    while (size && ret == 0) {
        struct qcow2_part part;

        pthread_mutex_lock(&q->lock);
        ret = qcow2_find(q, offset, size, &part);
        pthread_mutex_unlock(&q->lock);
        if (ret == 0)
            ret = read_part(q, &part, offset, &rest);
        offset += part.size;
        rest.skip += part.size;
        size -= part.size;
    }
    return ret;
}
