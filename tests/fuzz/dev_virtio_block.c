/*
 * Fuzz target: the virtio block device. The disk behind it is the test's own (fake_blk.h): requests
 * end in any order, fail, or wait for room.
 */
#include "virtio.h"

#include "../unit/fake_blk.h"
#include "dev/virtio/block.h"

#include <errno.h>
#include <string.h>

#define SECTORS 64u
#define HEADER  FUZZ_VIRTIO_DATA
#define BYTES   (FUZZ_VIRTIO_DATA + 0x1000)

enum { IN = 0, OUT = 1, OTHER = 0xAA };

static struct virtio_block *block; /* the one there is */

static void hold(void *opaque, const char *why)
{
    fuzz_check(!*(bool *)opaque);
    *(bool *)opaque = true;
}

static void release(void *opaque, const char *why)
{
    fuzz_check(*(bool *)opaque);
    *(bool *)opaque = false;
}

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    static bool held;
    const struct virtio_block_config config = {.blk = &fake_blk,
                                               .serial = "fuzz",
                                               .queues = 2,
                                               .discard = true,
                                               .hold = hold,
                                               .release = release,
                                               .opaque = &held};

    if (fake_blk.bytes)
        fake_blk_free();
    fake_blk_make(SECTORS * 512);
    held = false;
    block = virtio_block_create(slot, &config, err);
    return virtio_block_dev(block);
}

/* One sector, header first. */
static void transfer(struct fuzz_virtio_machine *m, unsigned number, uint64_t type, uint64_t sector)
{
    const uint64_t header[] = {type, sector};
    const uint8_t status = OTHER;
    uint8_t got = OTHER;

    fuzz_check(!mem_write(m->mem, HEADER, header, sizeof(header)));
    fuzz_check(!mem_write(m->mem, HEADER + 100, &status, 1));
    fuzz_virtio_descriptor(m, 0, HEADER, sizeof(header), 1);
    fuzz_virtio_descriptor(m, 1, BYTES, 512, type == IN ? 3 : 1);
    fuzz_virtio_descriptor(m, 2, HEADER + 100, 1, 2);
    fuzz_virtio_publish(m, 1, number, 0);
    fuzz_check(fuzz_virtio_used(m, 1, NULL) == number + 1);
    fuzz_check(!mem_read(m->mem, HEADER + 100, &got, 1) && got == 0);
}

static void request(struct fuzz_virtio_machine *m)
{
    uint8_t bytes[512];

    transfer(m, 0, IN, 5);
    fuzz_check(!mem_read(m->mem, BYTES, bytes, sizeof(bytes)));
    fuzz_check(!memcmp(bytes, fake_blk.bytes + 5 * 512, sizeof(bytes)));
    transfer(m, 1, OUT, SECTORS - 1);
    fuzz_check(!memcmp(bytes, fake_blk.bytes + (SECTORS - 1) * 512, sizeof(bytes)));
    fuzz_check(fuzz_virtio_status(m) == 15);
}

static void host(struct fuzz_virtio_machine *m, unsigned n, bool level)
{
    switch (n % 5) {
    case 0: fake_blk.later = level; break;
    case 1: fake_blk.write_fails = level ? -ENOSPC : 0; break;
    case 2: fake_blk.read_fails = level ? -EIO : 0; break;
    case 3: virtio_block_retry(block); break;
    default:
        if (fake_blk.count)
            fake_blk_end(n % fake_blk.count);
        break;
    }
}

static void drain(struct fuzz_virtio_machine *m)
{
    fake_blk.later = false;
    while (fake_blk.count)
        fake_blk_end(0);
}

static void calm(struct fuzz_virtio_machine *m)
{
    drain(m);
    fake_blk.write_fails = fake_blk.read_fails = 0;
    virtio_block_retry(block);
}

const struct fuzz_virtio fuzz_virtio = {
    .create = create,
    .queues = 2,
    .features = 1u << 2 | 1u << 6 | 1u << 9 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14,
    .request = request,
    .host = host,
    .drain = drain,
    .calm = calm,
};
