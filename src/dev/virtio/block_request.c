/*
 * What becomes of a request to the block device (virtio 1.2, 5.2.6).
 *
 *      readable: header (type, sector), then what is written, or the ranges of a discard
 *      writable: what is read, then the status, one byte
 *
 * A request is done in steps, of which each is a request to the struct blk: as many bytes as can be
 * pinned at once, or a range, or the flush behind a write that must reach stable storage. The next
 * step begins when the last one is done, on whatever thread that is.
 */
#include "dev/virtio/block_private.h"

#include "base/util.h"

#include <errno.h>
#include <string.h>

/* Types of requests, and their status. */
enum {
    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13,
};
enum status { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

#define RANGE_UNMAP 1u /* a flag of struct block_range */

/* ---- The end ---- */

static void complete(struct block_request *r, enum status status)
{
    struct virtio_request *request = r->request;
    uint64_t room = request->chain.writable_bytes;
    uint8_t byte = (uint8_t)status;

    block_space_leave(r, false);
    if (virtio_write_at(request, room - 1, &byte, 1) < 0)
        virtio_break(request);
    else
        virtio_complete(request, (uint32_t)MIN(room, UINT32_MAX));
}

static void give_back(struct block_request *r)
{
    block_space_leave(r, true);
    virtio_give_back(r->request);
}

static void fail(struct block_request *r, int error)
{
    complete(r, error == -ENOTSUP ? STATUS_UNSUPP : STATUS_IOERR);
}

static bool recalled(const struct block_request *r)
{
    return virtio_recalled(&r->block->device);
}

/* ---- One step ---- */

static bool moves_bytes(const struct block_request *r)
{
    return r->io.kind == BLK_READ || r->io.kind == BLK_WRITE;
}

/* Leaves out what MAP has beyond SIZE bytes. */
static void cut(struct virtio_map *map, uint64_t size)
{
    for (uint64_t more = map->size - size; more;) {
        struct iovec *last = &map->iov[map->iovs - 1];
        uint64_t part = MIN(more, last->iov_len);

        last->iov_len -= part;
        more -= part;
        map->iovs -= !last->iov_len;
    }
}

/* Pins what the next step moves. Returns what virtio_map does. */
static int map_step(struct block_request *r)
{
    enum mem_access part = r->io.kind == BLK_READ ? MEM_WRITE : MEM_READ;
    int ret = virtio_map(r->request, part, r->at, r->left, &r->map);

    if (ret < 0)
        return ret;
    r->io.size = MIN(ALIGN_DOWN(r->map.size, r->block->info.block), r->left);
    if (!r->io.size) { /* half a block: the limit of pins is reached */
        virtio_unmap(r->request, &r->map);
        return -EAGAIN;
    }
    cut(&r->map, r->io.size);
    r->io.iov = r->map.iov;
    r->io.iovs = r->map.iovs;
    return 0;
}

static void next_range(struct block_request *r)
{
    const struct block_range *range = &r->list[r->range++];

    r->offset = range->sector * BLOCK_SECTOR;
    r->left = (uint64_t)range->sectors * BLOCK_SECTOR;
    r->io.unmap = range->flags & RANGE_UNMAP;
}

/* Sets R->io up for the next step. Returns 1, 0 if there is none, or a negative errno as map_step
 * does. */
static int prepare(struct block_request *r)
{
    int ret = 0;

    while (!r->left && r->range < r->ranges)
        next_range(r);
    r->io.offset = r->offset;
    r->io.size = r->left;
    if (r->left && moves_bytes(r))
        ret = map_step(r);
    return ret < 0 ? ret : r->left != 0 || r->flushing;
}

static bool has_more(const struct block_request *r)
{
    return r->left || r->range < r->ranges || r->flushing;
}

/* Whether what the request has changed is still to be flushed. */
static bool must_flush(const struct block_request *r)
{
    bool changes = r->io.kind == BLK_WRITE || r->io.kind == BLK_ZEROES;

    return changes && !r->left && r->range == r->ranges && atomic_load(&r->block->write_through);
}

/* The step is done. Returns 0, or what it failed with. */
static int finish_step(struct block_request *r)
{
    virtio_unmap(r->request, &r->map);
    if (r->result < 0)
        return r->result;
    r->offset += r->io.size;
    r->at += r->io.size;
    r->left -= r->io.size;
    r->flushing = must_flush(r);
    if (r->flushing)
        r->io.kind = BLK_FLUSH;
    return 0;
}

/* ---- Step by step ---- */

/* A step could not begin. */
static void cannot_begin(struct block_request *r, int error)
{
    struct virtio_queue *queue = r->request->queue;

    if (error == -EFAULT) {
        block_space_leave(r, true);
        virtio_break(r->request);
    } else {
        /* It is served again, and then waits until something is unpinned. */
        give_back(r);
        virtio_wake(queue->device, queue->index);
    }
}

/* A step has failed. */
static void cannot_do(struct block_request *r, int error)
{
    if (error == -ECANCELED && recalled(r)) /* it has not been begun */
        give_back(r);
    else if ((error != -ENOSPC && error != -EDQUOT) || !r->block->config.hold)
        fail(r, error);
    else if (!block_space_await(r))
        give_back(r);
}

/* Ends R if there is nothing more to do or READY, which prepare() has returned, says that it cannot
 * be done. Returns whether R goes on. */
static bool goes_on(struct block_request *r, int ready)
{
    if (ready < 0)
        cannot_begin(r, ready);
    else if (ready == 0)
        complete(r, STATUS_OK);
    return ready > 0;
}

/* Submits the step that prepare() has set up. Returns true if it is done. */
static bool submit(struct block_request *r)
{
    atomic_store_explicit(&r->parties, 2, memory_order_relaxed);
    blk_submit(r->block->config.blk, &r->io);
    /* block_recall may have come before. */
    if (recalled(r))
        blk_recall(r->block->config.blk);
    /* The second one to come here or to done() goes on with R, which is no longer the first one's.
     */
    return atomic_fetch_sub(&r->parties, 1) == 1;
}

/* A step is done. Returns whether there is another one, which is set up. A request that is recalled
 * goes no further: when it is served again, it does what it has done once more. */
static bool next(struct block_request *r)
{
    int error = finish_step(r);

    if (error) {
        cannot_do(r, error);
        return false;
    }
    if (recalled(r) && has_more(r)) {
        give_back(r);
        return false;
    }
    return goes_on(r, prepare(r));
}

/* Begins the step that is set up, and those behind it for as long as they are done at once. */
static void begin(struct block_request *r)
{
    while (submit(r) && next(r))
        ;
}

static void done(struct blk_request *io, int result)
{
    struct block_request *r = container_of(io, struct block_request, io);
    struct blk *blk = r->block->config.blk;

    r->result = result;
    if (atomic_fetch_sub(&r->parties, 1) == 1 && next(r)) {
        begin(r);
        blk_kick(blk);
    }
}

/* ---- The beginning ---- */

static bool within(const struct virtio_block *b, uint64_t offset, uint64_t size)
{
    uint64_t end = atomic_load(&b->size), block = b->info.block;

    return offset % block == 0 && size % block == 0 && size <= end && offset <= end - size;
}

static enum status check_range(const struct virtio_block *b, uint32_t type,
                               const struct block_range *range)
{
    if (range->flags & (type == TYPE_DISCARD ? UINT32_MAX : ~RANGE_UNMAP))
        return STATUS_UNSUPP;
    return range->sectors <= BLOCK_RANGE_MOST && range->sector <= UINT64_MAX / BLOCK_SECTOR &&
                   within(b, range->sector * BLOCK_SECTOR, (uint64_t)range->sectors * BLOCK_SECTOR)
               ? STATUS_OK
               : STATUS_IOERR;
}

/* Copies and checks the ranges of a discard or a write-zeroes request. */
static int take_ranges(struct block_request *r, uint32_t type, enum status *status)
{
    uint64_t size = r->request->chain.readable_bytes - sizeof(struct header);
    unsigned most = type == TYPE_DISCARD ? BLOCK_RANGES : BLOCK_ZEROES_RANGES;

    r->io.kind = type == TYPE_DISCARD ? BLK_DISCARD : BLK_ZEROES;
    *status = STATUS_IOERR;
    if (!size || size % sizeof(*r->list) || size / sizeof(*r->list) > most)
        return 0;
    if (virtio_read_at(r->request, sizeof(struct header), r->list, size) < 0)
        return -EFAULT;
    *status = STATUS_OK;
    r->ranges = (unsigned)(size / sizeof(*r->list));
    for (unsigned i = 0; i < r->ranges && *status == STATUS_OK; i++)
        *status = check_range(r->block, type, &r->list[i]);
    return 0;
}

/* Sets R up for a transfer of SIZE bytes, which begin at AT in the chain's buffers. */
static enum status set_transfer(struct block_request *r, enum blk_kind kind, uint64_t sector,
                                uint64_t at, uint64_t size)
{
    r->io.kind = kind;
    r->offset = sector * BLOCK_SECTOR;
    r->at = at;
    r->left = size;
    return sector <= UINT64_MAX / BLOCK_SECTOR && within(r->block, r->offset, size) ? STATUS_OK
                                                                                    : STATUS_IOERR;
}

static enum status set_flush(struct block_request *r)
{
    r->io.kind = BLK_FLUSH;
    r->flushing = true;
    return STATUS_OK;
}

/* The disk's name, which the request itself gets. */
static int get_id(struct block_request *r)
{
    uint64_t room = r->request->chain.writable_bytes - 1;

    return virtio_write_at(r->request, 0, r->block->serial, MIN(room, sizeof(r->block->serial)));
}

/* Sets R up for what the header asks for. -EFAULT: a buffer is not memory. Else STATUS says whether
 * there is anything to do, or with what R is completed. */
static int decode(struct block_request *r, const struct header *header, enum status *status)
{
    const struct virtqueue_chain *chain = &r->request->chain;
    const struct virtio_device *d = &r->block->device;

    *status = STATUS_UNSUPP;
    switch (header->type) {
    case TYPE_IN:
        *status = set_transfer(r, BLK_READ, header->sector, 0, chain->writable_bytes - 1);
        break;
    case TYPE_OUT:
        *status = set_transfer(r, BLK_WRITE, header->sector, sizeof(*header),
                               chain->readable_bytes - sizeof(*header));
        break;
    case TYPE_FLUSH: *status = set_flush(r); break;
    case TYPE_GET_ID: *status = STATUS_OK; return get_id(r);
    case TYPE_DISCARD:
        return virtio_accepted(d, BLOCK_F_DISCARD) ? take_ranges(r, header->type, status) : 0;
    case TYPE_WRITE_ZEROES:
        return virtio_accepted(d, BLOCK_F_WRITE_ZEROES) ? take_ranges(r, header->type, status) : 0;
    default: break;
    }
    return 0;
}

/* R is as new, but for the large members, which are written before they are read. */
static void renew(struct block_request *r, struct virtio_block *b, struct virtio_request *request)
{
    r->request = request;
    r->block = b;
    r->wants_space = r->flushing = false;
    r->offset = r->at = r->left = 0;
    r->range = r->ranges = 0;
    r->io.unmap = false;
    r->io.done = done;
    r->map = (struct virtio_map){.pin = r->pin, .iov = r->iov, .room = ARRAY_SIZE(r->iov)};
}

enum virtio_result block_serve(struct virtio_device *device, struct virtio_request *request)
{
    struct virtio_block *b = container_of(device, struct virtio_block, device);
    struct block_request *r = virtio_request_data(request);
    enum status status;
    struct header header;
    int ready;

    if (request->chain.readable_bytes < sizeof(header) || !request->chain.writable_bytes ||
        virtio_read_at(request, 0, &header, sizeof(header)) < 0)
        return VIRTIO_BROKEN;
    renew(r, b, request);
    if (decode(r, &header, &status) < 0)
        return VIRTIO_BROKEN;
    if (status != STATUS_OK) {
        complete(r, status);
        return VIRTIO_TAKEN;
    }
    ready = prepare(r);
    if (ready < 0)
        return virtio_map_failed(ready);
    if (goes_on(r, ready))
        begin(r);
    return VIRTIO_TAKEN;
}

void block_served(struct virtio_device *device, unsigned queue)
{
    blk_kick(container_of(device, struct virtio_block, device)->config.blk);
}

/* ---- Waiting for space ---- */

void block_recall(struct virtio_device *device)
{
    struct virtio_block *b = container_of(device, struct virtio_block, device);
    struct block_request *r = block_space_take(b), *following;

    for (; r; r = following) {
        following = r->next;
        give_back(r);
    }
    blk_recall(b->config.blk);
}

void block_try_again(void *opaque)
{
    struct virtio_block *b = opaque;
    struct block_request *r = block_space_take(b), *following;

    for (; r; r = following) {
        following = r->next;
        if (goes_on(r, prepare(r)))
            begin(r);
    }
    blk_kick(b->config.blk);
}
