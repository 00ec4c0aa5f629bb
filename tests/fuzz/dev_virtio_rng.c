/*
 * Fuzz target: the virtio entropy device.
 */
#include "virtio.h"

#include "dev/virtio/rng.h"

static void request(struct fuzz_virtio_machine *m)
{
    uint32_t written = 0;

    fuzz_virtio_descriptor(m, 0, FUZZ_VIRTIO_DATA, 100, 2);
    fuzz_virtio_publish(m, 0, 0, 0);
    fuzz_check(fuzz_virtio_used(m, 0, &written) == 1 && written == 100);
    fuzz_check(fuzz_virtio_status(m) == 15);
}

const struct fuzz_virtio fuzz_virtio = {
    .create = virtio_rng_create, .queues = 1, .request = request};
