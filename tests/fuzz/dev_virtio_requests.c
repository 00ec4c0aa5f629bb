/*
 * Fuzz target: what all virtio devices have in common when requests end later: held, woken, given
 * back, completed in any order, broken, and recalled when the machine pauses or the driver resets
 * the device.
 */
#include "virtio.h"

#include "base/util.h"

#include <stdlib.h>

#define QUEUES 2

/* Has requests until the input says what comes of them. */
struct keeper {
    struct virtio_device device;
    struct virtio_request *kept[QUEUES * FUZZ_VIRTIO_SIZE];
    unsigned count;
    enum virtio_result answer;
    uint8_t value;
};

static struct keeper *keeper; /* the one of the machine that was made last */

static enum virtio_result serve(struct virtio_device *d, struct virtio_request *r)
{
    struct keeper *k = container_of(d, struct keeper, device);
    uint64_t *mark = virtio_request_data(r);
    struct mem_pin pin[3];
    struct iovec iov[3];
    struct virtio_map map = {.pin = pin, .iov = iov, .room = 3};
    int ret;

    if (k->answer != VIRTIO_TAKEN)
        return k->answer;
    ret = virtio_map(r, MEM_WRITE, 1, 70000, &map);
    if (ret < 0)
        return virtio_map_failed(ret);
    fuzz_check(map.size <= r->chain.writable_bytes);
    virtio_unmap(r, &map);
    /* No more than there are, and none that another request has. */
    fuzz_check(k->count < ARRAY_SIZE(k->kept));
    for (unsigned i = 0; i < k->count; i++)
        fuzz_check(k->kept[i] != r);
    *mark = (uintptr_t)r;
    k->kept[k->count++] = r;
    return VIRTIO_TAKEN;
}

static struct virtio_request *take(struct keeper *k, unsigned n)
{
    struct virtio_request *r = k->kept[n % k->count];

    fuzz_check(*(uint64_t *)virtio_request_data(r) == (uintptr_t)r);
    k->kept[n % k->count] = k->kept[k->count - 1];
    k->count--;
    return r;
}

static void recall(struct virtio_device *d)
{
    struct keeper *k = container_of(d, struct keeper, device);

    while (k->count)
        virtio_give_back(take(k, 0));
}

static void read_config(struct virtio_device *d, void *config)
{
    *(uint8_t *)config = container_of(d, struct keeper, device)->value;
}

static void write_config(struct virtio_device *d, const void *config, unsigned offset,
                         unsigned size)
{
    fuzz_check(offset + size <= 4);
    container_of(d, struct keeper, device)->value = *(const uint8_t *)config;
}

static void state(struct virtio_device *d, struct state *s)
{
    state_field(s, container_of(d, struct keeper, device)->value);
}

static void reset(struct virtio_device *d)
{
    struct keeper *k = container_of(d, struct keeper, device);

    fuzz_check(!k->count);
    k->value = 0;
}

static void free_keeper(struct virtio_device *d)
{
    free(container_of(d, struct keeper, device));
}

static const struct virtio_ops ops = {.name = "keeper",
                                      .id = 99,
                                      .queues = QUEUES,
                                      .queue_size = FUZZ_VIRTIO_SIZE,
                                      .config_size = 4,
                                      .request_size = 8,
                                      .serve = serve,
                                      .recall = recall,
                                      .read_config = read_config,
                                      .write_config = write_config,
                                      .state = state,
                                      .reset = reset,
                                      .free = free_keeper};

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    keeper = calloc(1, sizeof(*keeper));
    fuzz_check(keeper);
    return virtio_pci_create(slot, &ops, &keeper->device, err);
}

static void host(struct fuzz_virtio_machine *m, unsigned n, bool level)
{
    struct keeper *k = keeper;

    switch (n % 8) {
    case 0: k->answer = VIRTIO_TAKEN; break;
    case 1: k->answer = level ? VIRTIO_WAIT : VIRTIO_NO_PINS; break;
    case 2: k->answer = level ? VIRTIO_BROKEN : VIRTIO_WAIT; break;
    case 3: virtio_wake(&k->device, level); break;
    case 4: virtio_config_changed(&k->device); break;
    case 5:
        if (k->count)
            virtio_give_back(take(k, n / 8));
        break;
    case 6:
        if (k->count && level)
            virtio_break(take(k, n / 8));
        break;
    default:
        if (k->count)
            virtio_complete(take(k, n / 8), n);
        break;
    }
}

/* Ends what is in flight, for which a reset would wait. */
static void calm(struct fuzz_virtio_machine *m)
{
    keeper->answer = VIRTIO_TAKEN;
    while (keeper->count)
        virtio_complete(take(keeper, 0), 0);
}

static void request(struct fuzz_virtio_machine *m)
{
    uint32_t written = 0;

    for (unsigned i = 0; i < 2; i++) {
        fuzz_virtio_descriptor(m, i, FUZZ_VIRTIO_DATA, 100, 2);
        fuzz_virtio_publish(m, 1, i, i);
    }
    fuzz_check(keeper->count == 2 && fuzz_virtio_used(m, 1, NULL) == 0);
    virtio_complete(take(keeper, 1), 7);
    virtio_complete(take(keeper, 0), 9);
    fuzz_check(fuzz_virtio_used(m, 1, &written) == 2 && written == 9);
    fuzz_check(fuzz_virtio_status(m) == 15);
}

const struct fuzz_virtio fuzz_virtio = {
    .create = create, .queues = QUEUES, .request = request, .host = host, .calm = calm};
