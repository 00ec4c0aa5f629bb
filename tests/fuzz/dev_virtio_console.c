/*
 * Fuzz target: the virtio console, with two ports whose host sides type, are full, and have room.
 */
#include "virtio.h"

#include "dev/virtio/console.h"

#include <string.h>

#define QUEUES 6
enum { SEND_0 = 1, CONTROL_RECEIVE, CONTROL_SEND };

static struct con_end *ends[2]; /* of the machine that was made last */
static bool is_full;
static unsigned sent;

static void output(void *opaque, const void *data, size_t size)
{
    fuzz_check(size && size <= 4096);
    sent += (unsigned)size;
}

static bool full(void *opaque)
{
    return is_full;
}

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    static const struct con_given given = {.output = output, .full = full};
    struct virtio_console_port ports[2] = {{.name = ""}, {.name = "port"}};

    is_full = false;
    for (unsigned i = 0; i < 2; i++)
        ports[i].end = ends[i] = con_end_open("tty", &given, slot->loop, err);
    return virtio_console_create(slot, ports, 2, err);
}

static void host(struct fuzz_virtio_machine *m, unsigned n, bool level)
{
    static const char typed[640];

    switch (n % 4) {
    case 0: is_full = level; break;
    case 1: con_end_room(ends[level]); break;
    case 2: virtio_console_resize(m->device, n / 4, n); break;
    default: con_end_input(ends[level], typed, n * 5); break;
    }
}

static void calm(struct fuzz_virtio_machine *m)
{
    is_full = false;
}

/* The driver says that it is there, and is told of a port; then it sends. */
static void request(struct fuzz_virtio_machine *m)
{
    static const struct {
        uint32_t port;
        uint16_t event, value;
    } ready = {0, 0, 1};

    fuzz_check(!mem_write(m->mem, FUZZ_VIRTIO_DATA, &ready, sizeof(ready)));
    fuzz_virtio_descriptor(m, 0, FUZZ_VIRTIO_DATA, sizeof(ready), 0);
    fuzz_virtio_descriptor(m, 1, FUZZ_VIRTIO_DATA + 0x1000, 64, 2);
    fuzz_virtio_publish(m, CONTROL_SEND, 0, 0);
    fuzz_virtio_publish(m, CONTROL_RECEIVE, 0, 1);
    fuzz_check(fuzz_virtio_used(m, CONTROL_SEND, NULL) == 1);
    fuzz_check(fuzz_virtio_used(m, CONTROL_RECEIVE, NULL) <= 1);
    sent = 0;
    fuzz_virtio_publish(m, SEND_0, 0, 0);
    fuzz_check(fuzz_virtio_used(m, SEND_0, NULL) == 1 && sent == sizeof(ready));
    fuzz_check(fuzz_virtio_status(m) == 15);
}

const struct fuzz_virtio fuzz_virtio = {.create = create,
                                        .queues = QUEUES,
                                        .features = 3,
                                        .request = request,
                                        .host = host,
                                        .calm = calm};
