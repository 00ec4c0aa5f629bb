/*
 * The file that an image is in.
 */
#include "blk/qcow2/file.h"

#include "base/buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 4096
/* The file grows by an eighth of itself, within these, so that it is not made longer each time. */
#define GROWTH_MIN MiB
#define GROWTH_MAX (64 * MiB)

void *qcow2_buffer(uint64_t size)
{
    void *bytes;

    if (size > SIZE_MAX - ALIGNMENT || posix_memalign(&bytes, ALIGNMENT, ALIGN_UP(size, ALIGNMENT)))
        return NULL;
    return memset(bytes, 0, ALIGN_UP(size, ALIGNMENT));
}

/* A range that does not begin or end with a block: reads the blocks that it lies in. */
static int read_unaligned(struct qcow2 *q, uint64_t offset, void *bytes, uint64_t size)
{
    unsigned block = blk_info(q->file).block;
    uint64_t start = ALIGN_DOWN(offset, block), end = ALIGN_UP(offset + size, block);
    uint8_t *whole = qcow2_buffer(end - start);
    int ret;

    if (!whole)
        return -ENOMEM;
    ret = qcow2_file_read(q, start, whole, end - start);
    if (ret == 0)
        memcpy(bytes, whole + (offset - start), size);
    free(whole);
    return ret;
}

int qcow2_file_read(struct qcow2 *q, uint64_t offset, void *bytes, uint64_t size)
{
    struct blk_info info = blk_info(q->file);
    uint64_t there = offset < info.size ? MIN(size, info.size - offset) : 0;

    if ((offset | there) & (info.block - 1))
        return read_unaligned(q, offset, bytes, size);
    memset((char *)bytes + there, 0, size - there);
    return there ? blk_read(q->file, offset, bytes, there) : 0;
}

static int transfer(struct blk *blk, enum blk_kind kind, uint64_t offset, const struct iovec *iov,
                    unsigned iovs, uint64_t size)
{
    struct blk_request request = {
        .kind = kind, .offset = offset, .size = size, .iov = iov, .iovs = iovs};

    return blk_perform(blk, &request);
}

int qcow2_readv(struct blk *blk, uint64_t offset, const struct iovec *iov, unsigned iovs,
                uint64_t skip, uint64_t size)
{
    uint64_t end = blk_info(blk).size;
    uint64_t there = offset < end ? MIN(size, end - offset) : 0;
    struct iovec *part;
    int ret;

    buffers_clear(iov, skip + there, size - there);
    if (!there)
        return 0;
    part = calloc(iovs, sizeof(*part));
    if (!part)
        return -ENOMEM;
    ret = transfer(blk, BLK_READ, offset, part, buffers_slice(part, iov, iovs, skip, there), there);
    free(part);
    return ret;
}

int qcow2_file_write(struct qcow2 *q, uint64_t offset, const void *bytes, uint64_t size)
{
    return blk_write(q->file, offset, bytes, size);
}

int qcow2_file_writev(struct qcow2 *q, uint64_t offset, const struct iovec *iov, unsigned iovs,
                      uint64_t size)
{
    return transfer(q->file, BLK_WRITE, offset, iov, iovs, size);
}

int qcow2_file_flush(struct qcow2 *q)
{
    int ret = q->temporary ? 0 : blk_flush(q->file);

    if (ret < 0)
        atomic_store(&q->failed, -EIO);
    return ret;
}

int qcow2_file_extend(struct qcow2 *q, uint64_t end)
{
    uint64_t growth = MAX(GROWTH_MIN, MIN(q->file_end / 8, GROWTH_MAX));
    uint64_t size = ALIGN_UP(end, q->cluster_size);
    int ret;

    if (end <= q->file_end)
        return 0;
    if (end > QCOW2_FILE_MAX)
        return -EFBIG;
    /* Where there is no space for more than is needed, that must do. */
    ret = blk_resize(q->file, ALIGN_UP(MAX(size, q->file_end + growth), q->cluster_size), NULL);
    if (ret < 0)
        ret = blk_resize(q->file, size, NULL);
    if (ret == 0)
        q->file_end = blk_info(q->file).size;
    /* A device, or a part of one, is full when it ends. */
    return ret == -ENOTSUP || ret == -EINVAL ? -ENOSPC : ret;
}

void qcow2_file_punch(struct qcow2 *q, uint64_t offset, uint64_t size)
{
    if (q->no_punch || offset >= q->file_end)
        return;
    if (blk_discard(q->file, offset, MIN(size, q->file_end - offset)) < 0)
        q->no_punch = true;
}
