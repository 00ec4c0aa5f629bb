/*
 * Fuzz target: the virtio network device. The network behind it is the test's own (fake_net.h): it
 * has room or not, frames of all sizes come, the link comes and goes.
 */
#include "virtio.h"

#include "../unit/fake_net.h"
#include "dev/virtio/net.h"

#include <string.h>

#define HEADER  12u
#define FRAME   (FUZZ_VIRTIO_DATA + 0x1000)
#define SIZE    100u
#define PAIRS   2u
#define CONTROL (2 * PAIRS)
#define LARGEST 65568u

static const struct virtio_net_config config = {
    .net = &fake_net, .mac = {2, 0, 0, 0, 0, 1}, .pairs = PAIRS};

static struct dev *create(const struct virtio_slot *slot, struct error *err)
{
    struct virtio_net *card;

    fake_net_make();
    card = virtio_net_create(slot, &config, err);
    return virtio_net_dev(card);
}

/* A frame each way, to a driver that has said nothing of filters. */
static void request(struct fuzz_virtio_machine *m)
{
    uint8_t frame[HEADER + SIZE] = {0}, seen[HEADER + SIZE];
    uint32_t written = 0;

    memset(frame + HEADER, 0x5A, SIZE);
    fuzz_check(!mem_write(m->mem, FRAME, frame, sizeof(frame)));
    fuzz_virtio_descriptor(m, 0, FRAME, sizeof(frame), 0);
    fuzz_virtio_publish(m, 1, 0, 0);
    fuzz_check(fuzz_virtio_used(m, 1, &written) == 1 && written == 0);
    fuzz_check(fake_net.sent_count == 1 && fake_net.sent[0].size == SIZE);
    fuzz_check(!memcmp(fake_net.sent[0].data, frame + HEADER, SIZE));

    fake_net_put(frame + HEADER, SIZE, NULL);
    fake_net_ready();
    fuzz_virtio_descriptor(m, 0, FRAME + 0x1000, 2000, 2);
    fuzz_virtio_publish(m, 0, 0, 0);
    fuzz_check(fuzz_virtio_used(m, 0, &written) == 1 && written == sizeof(frame));
    fuzz_check(!mem_read(m->mem, FRAME + 0x1000, seen, sizeof(seen)));
    fuzz_check(!memcmp(seen + HEADER, frame + HEADER, SIZE));
    fuzz_check(fuzz_virtio_status(m) == 15);
}

/* A frame that may have a tag, may be of a flow, and may be large. */
static void frame_comes(unsigned n)
{
    static uint8_t frame[LARGEST];
    const struct net_offload offload = {
        .flags = n >> 3 & 3, .gso = (uint8_t)(n >> 5 & 1), .segment_size = 1448};
    static const size_t sizes[] = {14, 60, 200, 1514, 2048, 2049, 9000, LARGEST};

    frame[0] = (uint8_t)(n >> 4 & 3);
    frame[12] = n & 64 ? 0x81 : 0x08;
    frame[14] = 0x45;
    frame[23] = 6;
    frame[35] = (uint8_t)n;
    fake_net_put(frame, sizes[n & 7], &offload);
    fake_net_ready();
}

static void host(struct fuzz_virtio_machine *m, unsigned n, bool level)
{
    switch (n % 4) {
    case 0: fake_net.room = level ? n >> 2 & 3 : UINT32_MAX; break;
    case 1: fake_net_ready(); break;
    case 2:
        if (fake_net.events.link)
            fake_net.events.link(fake_net.events.opaque, level);
        break;
    default: frame_comes(n >> 2); break;
    }
    if (fake_net.sent_count == FAKE_NET_FRAMES)
        fake_net_forget();
}

static void calm(struct fuzz_virtio_machine *m)
{
    fake_net_free();
    fake_net.room = UINT32_MAX;
}

const struct fuzz_virtio fuzz_virtio = {
    .create = create,
    .queues = CONTROL + 1,
    .features = 0xFF99AFu, /* all that it offers but what is every device's */
    .request = request,
    .host = host,
    .calm = calm,
};
