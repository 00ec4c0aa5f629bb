/*
 * The bytes of a request: pinned for as long as the device works on them, or copied.
 */
#include "base/util.h"
#include "dev/virtio/device.h"

#include <errno.h>

/* A place in the readable or the writable buffers of a chain. */
struct cursor {
    const struct virtqueue_buffer *buffer;
    unsigned left;   /* buffers from that one on */
    uint64_t offset; /* in it */
};

static struct cursor cursor_at(const struct virtio_request *r, enum mem_access part,
                               uint64_t offset)
{
    const struct virtqueue_chain *chain = &r->chain;
    bool write = part == MEM_WRITE;
    struct cursor c = {.buffer = chain->buffer + (write ? chain->readable : 0),
                       .left = write ? chain->writable : chain->readable,
                       .offset = offset};

    for (; c.left && c.offset >= c.buffer->size; c.buffer++, c.left--)
        c.offset -= c.buffer->size;
    return c;
}

/* Moves by SIZE bytes, which lie in the cursor's buffer. */
static void advance(struct cursor *c, uint64_t size)
{
    for (c->offset += size; c->left && c->offset >= c->buffer->size; c->buffer++, c->left--)
        c->offset -= c->buffer->size;
}

/* Pins at most MOST bytes of the cursor's buffer, for which there is room. */
static int map_piece(struct mem *mem, const struct cursor *c, enum mem_access part, uint64_t most,
                     struct virtio_map *map)
{
    struct mem_pin *pin = &map->pin[map->pins];
    unsigned iovs = map->room - map->iovs;
    int ret = mem_pin(mem, c->buffer->gpa + c->offset, MIN(c->buffer->size - c->offset, most), part,
                      pin, &map->iov[map->iovs], &iovs);

    if (ret < 0)
        return ret;
    map->pins++;
    map->iovs += iovs;
    map->size += pin->size;
    return 0;
}

int virtio_map(struct virtio_request *r, enum mem_access part, uint64_t offset, uint64_t most,
               struct virtio_map *map)
{
    struct mem *mem = r->queue->device->host.mem;
    struct cursor c = cursor_at(r, part, offset);
    int ret = 0;

    map->pins = map->iovs = 0;
    map->size = 0;
    while (ret == 0 && c.left && map->size < most && map->pins < map->room &&
           map->iovs < map->room) {
        uint64_t before = map->size;

        ret = map_piece(mem, &c, part, most - map->size, map);
        advance(&c, map->size - before);
    }
    if (ret == -EAGAIN && map->size)
        ret = 0;
    if (ret < 0)
        virtio_unmap(r, map);
    return ret;
}

void virtio_unmap(struct virtio_request *r, struct virtio_map *map)
{
    for (unsigned i = 0; i < map->pins; i++)
        mem_unpin(r->queue->device->host.mem, &map->pin[i]);
    map->pins = map->iovs = 0;
    map->size = 0;
}

enum virtio_result virtio_map_failed(int error)
{
    return error == -EAGAIN ? VIRTIO_NO_PINS : VIRTIO_BROKEN;
}

static int copy(struct virtio_request *r, enum mem_access part, uint64_t offset, void *in,
                const void *out, uint64_t size)
{
    struct mem *mem = r->queue->device->host.mem;
    struct cursor c = cursor_at(r, part, offset);

    for (uint64_t done = 0, n; done < size; done += n) {
        int ret;

        if (!c.left)
            return -EFAULT;
        n = MIN(size - done, c.buffer->size - c.offset);
        ret = in ? mem_read(mem, c.buffer->gpa + c.offset, (uint8_t *)in + done, n)
                 : mem_write(mem, c.buffer->gpa + c.offset, (const uint8_t *)out + done, n);
        if (ret < 0)
            return -EFAULT;
        advance(&c, n);
    }
    return 0;
}

int virtio_read_at(struct virtio_request *r, uint64_t offset, void *data, uint64_t size)
{
    return copy(r, MEM_READ, offset, data, NULL, size);
}

int virtio_write_at(struct virtio_request *r, uint64_t offset, const void *data, uint64_t size)
{
    return copy(r, MEM_WRITE, offset, NULL, data, size);
}
