/*
 * Fuzz target: the virtio balloon. What it gives back is given back at once, or never.
 */
#include "virtio.h"

#include "dev/virtio/balloon.h"

#include <errno.h>

enum { INFLATE, QUEUES = 4 };

static bool ends; /* no changes are made any more */

static int post(struct mem *mem, struct mem_batch *batch)
{
    fuzz_check(batch->count >= 1 && batch->count <= MEM_BATCH_MAX);
    if (ends)
        return -ESHUTDOWN;
    mem_change(mem, batch->changes, batch->count);
    batch->done(batch);
    return 0;
}

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    const struct virtio_balloon_config config = {.post = post};

    ends = false;
    return virtio_balloon_create(slot, &config, err);
}

static void host(struct fuzz_virtio_machine *m, unsigned n, bool level)
{
    if (n % 2)
        ends = level;
    else
        virtio_balloon_ask(m->device);
}

static void calm(struct fuzz_virtio_machine *m)
{
    ends = false;
    virtio_balloon_set_target(m->device, 1 << 20);
}

static void request(struct fuzz_virtio_machine *m)
{
    static const uint32_t numbers[3] = {0x80, 0x81, 0xFFFFFFFF};
    uint64_t value = 1;

    fuzz_check(!mem_write(m->mem, FUZZ_VIRTIO_DATA, numbers, sizeof(numbers)));
    fuzz_check(!mem_fill(m->mem, 0x80000, 0x11, 0x2000));
    fuzz_virtio_descriptor(m, 0, FUZZ_VIRTIO_DATA, sizeof(numbers), 0);
    fuzz_virtio_publish(m, INFLATE, 0, 0);
    fuzz_check(fuzz_virtio_used(m, INFLATE, NULL) == 1);
    fuzz_check(fuzz_virtio_status(m) == 15);
    fuzz_check(!mem_read(m->mem, 0x80FFC, &value, 8) && value == 0);
}

const struct fuzz_virtio fuzz_virtio = {.create = create,
                                        .queues = QUEUES,
                                        .features = 1 << 1 | 1 << 2 | 1 << 5,
                                        .request = request,
                                        .host = host,
                                        .calm = calm};
