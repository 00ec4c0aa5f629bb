/*
 * The harness of fuzz targets for virtio devices.
 */
#include "virtio.h"

#include "base/util.h"

#include <stdlib.h>

#define SLOT  5u
#define BAR   0xD0000000u
#define SIZE  FUZZ_VIRTIO_SIZE
#define RINGS 0x10000u /* a page each: descriptors, available, used, an indirect table */
#define DATA  FUZZ_VIRTIO_DATA

/* All queues share one table of descriptors; their rings lie behind each other. */
#define AVAILABLE(Q) (RINGS + 0x1000 + 0x100 * (Q))
#define USED(Q)      (RINGS + 0x2000 + 0x100 * (Q))

/* Registers in the BAR (virtio 1.2, 4.1.4.3). */
enum { STATUS = 20, QUEUE_SELECT = 22, QUEUE_SIZE = 24, QUEUE_VECTOR = 26, QUEUE_ENABLE = 28 };
enum {
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    AREAS = 32,
    CONFIGURATION = 0x2000,
    NOTIFY = 0x3000,
    TABLE = 0x4000
};

static void message(void *opaque, uint64_t address, uint32_t data)
{
    fuzz_check(!(address & 3));
}

static void config(struct fuzz_virtio_machine *m, unsigned reg, unsigned size, uint32_t value)
{
    bus_write(m->bus, BUS_PORT, 0xCF8, 4, 1u << 31 | SLOT << 11 | (reg & 0xFC));
    bus_write(m->bus, BUS_PORT, 0xCFC + (reg & 3), size, value);
}

static void write(struct fuzz_virtio_machine *m, unsigned offset, unsigned size, uint64_t value)
{
    bus_write(m->bus, BUS_MMIO, BAR + offset, size, value);
}

uint8_t fuzz_virtio_status(struct fuzz_virtio_machine *m)
{
    return (uint8_t)bus_read(m->bus, BUS_MMIO, BAR + STATUS, 1);
}

static void put(struct fuzz_virtio_machine *m, uint64_t gpa, unsigned size, uint64_t value)
{
    mem_write(m->mem, gpa, &value, size);
}

static void start_queue(struct fuzz_virtio_machine *m, unsigned queue, uint8_t how)
{
    const uint64_t areas[] = {RINGS, AVAILABLE(queue), USED(queue)};

    write(m, QUEUE_SELECT, 2, queue);
    write(m, QUEUE_SIZE, 2, SIZE);
    write(m, QUEUE_VECTOR, 2, (how >> 2) & 3);
    for (unsigned i = 0; i < 3; i++)
        write(m, AREAS + 8 * i, 8, areas[i]);
    write(m, QUEUE_ENABLE, 2, 1);
}

/* By the rules, with the features that HOW chooses. */
static void start(struct fuzz_virtio_machine *m, uint8_t how)
{
    uint64_t features = 1ull << VIRTIO_F_VERSION_1 | (uint64_t)(how & 3) << 28;

    if (fuzz_virtio.calm)
        fuzz_virtio.calm(m);
    mem_set_pin_limit(m->mem, MEM_PIN_LIMIT);
    config(m, PCI_BAR0, 4, BAR);
    config(m, PCI_BAR0 + 4, 4, 0);
    config(m, PCI_COMMAND, 2, 6);
    write(m, STATUS, 1, 0);
    fake_lane_run(m->workers, m->loop);
    fuzz_check(fuzz_virtio_status(m) == 0);
    write(m, STATUS, 1, 3);
    features |= fuzz_virtio.features & ((how & 4) ? UINT64_MAX : 0);
    for (unsigned i = 0; i < 2; i++) {
        write(m, DRIVER_FEATURE_SELECT, 4, i);
        write(m, DRIVER_FEATURE, 4, (uint32_t)(features >> 32 * i));
    }
    write(m, STATUS, 1, 11);
    fuzz_check(fuzz_virtio_status(m) == 11);
    fuzz_check(!mem_fill(m->mem, RINGS, 0, 0x4000));
    for (unsigned i = 0; i < fuzz_virtio.queues; i++)
        start_queue(m, i, how);
    write(m, STATUS, 1, 15);
    fuzz_check(fuzz_virtio_status(m) == 15);
}

void fuzz_virtio_descriptor(struct fuzz_virtio_machine *m, unsigned n, uint64_t gpa, uint32_t size,
                            unsigned flags)
{
    put(m, RINGS + 16 * n, 8, gpa);
    put(m, RINGS + 16 * n + 8, 8, size | (uint64_t)flags << 32 | (uint64_t)(n + 1) << 48);
}

void fuzz_virtio_publish(struct fuzz_virtio_machine *m, unsigned queue, unsigned index,
                         unsigned head)
{
    put(m, AVAILABLE(queue) + 4 + 2 * (index % SIZE), 2, head);
    put(m, AVAILABLE(queue) + 2, 2, index + 1);
    write(m, NOTIFY + 4 * queue, 2, 0);
    fake_lane_run(m->workers, m->loop);
}

unsigned fuzz_virtio_used(struct fuzz_virtio_machine *m, unsigned queue, uint32_t *written)
{
    uint16_t index = 0;

    fuzz_check(!mem_read(m->mem, USED(queue) + 2, &index, 2));
    if (index && written)
        fuzz_check(!mem_read(m->mem, USED(queue) + 8 + 8 * ((index - 1u) % SIZE), written, 4));
    return index;
}

/* A descriptor, in the queues' table or the indirect one. Small numbers are more likely to mean
 * something. */
static void descriptor(struct fuzz_virtio_machine *m, struct fuzz_input *in)
{
    uint8_t how = fuzz_u8(in), next = fuzz_u8(in);
    uint64_t gpa = RINGS + (how & 8 ? 0x3000 : 0) + 16 * (how & 7u);
    uint64_t data = how & 16 ? fuzz_uint(in, 8) : how & 32 ? RINGS + 0x3000 : DATA + next * 512u;
    uint32_t size = how & 64 ? (uint32_t)fuzz_uint(in, 4) : 16u * (next >> 4);

    put(m, gpa, 8, data);
    put(m, gpa + 8, 4, size);
    put(m, gpa + 12, 2, how & 128 ? fuzz_uint(in, 2) : fuzz_u8(in) & 7);
    put(m, gpa + 14, 2, next & 15);
}

/* An entry of an available ring; with several queues, the head's upper half says which. */
static void head(struct fuzz_virtio_machine *m, unsigned entry, uint8_t value)
{
    unsigned queue = fuzz_virtio.queues > 1 ? value >> 4 : 0;

    put(m, AVAILABLE(queue % fuzz_virtio.queues) + 4 + 2 * entry, 2, queue ? value & 15 : value);
}

/* The data of a request, or few pins. */
static void data_or_pins(struct fuzz_virtio_machine *m, uint8_t how, struct fuzz_input *in)
{
    if (how & 8)
        put(m, DATA + 16 * fuzz_u8(in), 1u << (how & 3), fuzz_uint(in, 1u << (how & 3)));
    else
        mem_set_pin_limit(m->mem, MEM_PAGE_SIZE * (uint64_t)how);
}

static void pause_device(struct fuzz_virtio_machine *m)
{
    if (fuzz_virtio.drain)
        fuzz_virtio.drain(m);
    m->device->ops->pause(m->device);
}

static void other(struct fuzz_board *board, struct fuzz_input *in)
{
    struct fuzz_virtio_machine *m = board->device;
    uint8_t what = fuzz_u8(in);

    switch (what % 16) {
    case 0: start(m, what >> 4); break;
    case 1:
        start(m, what >> 4);
        fuzz_virtio.request(m);
        break;
    case 2:
    case 3:
    case 4: descriptor(m, in); break;
    case 5: head(m, what >> 4 & 7, fuzz_u8(in)); break;
    case 6:
        put(m, AVAILABLE((what >> 4 & 7) % fuzz_virtio.queues) + 2, 2,
            fuzz_uint(in, 1 + (what >> 7)));
        break;
    case 7: put(m, RINGS + (fuzz_uint(in, 2) & 0x3FFF), 4, fuzz_uint(in, 4)); break;
    case 8: write(m, NOTIFY + 4 * ((what >> 4) % fuzz_virtio.queues), 2, 0); break;
    case 9: fake_workers_step(m->workers); break;
    case 10: fake_loop_step(m->loop); break;
    case 11: write(m, fuzz_u8(in) & 63, 1u << (what >> 4 & 3), fuzz_uint(in, 4)); break;
    case 12:
        config(m, (unsigned)fuzz_u8(in), 1u << (what >> 4) % 3, (uint32_t)fuzz_uint(in, 4));
        break;
    case 13:
        write(m, (what & 128 ? CONFIGURATION : TABLE) + 4 * (fuzz_u8(in) & 15u), 4,
              fuzz_uint(in, 4));
        break;
    case 14: data_or_pins(m, what >> 4, in); break;
    default:
        pause_device(m);
        fake_workers_step(m->workers);
        m->device->ops->resume(m->device);
        break;
    }
}

static void line(struct fuzz_board *board, unsigned n, bool level)
{
    if (fuzz_virtio.host)
        fuzz_virtio.host(board->device, n, level);
}

static void reset(struct dev *dev)
{
    struct fuzz_virtio_machine *m = container_of(dev, struct fuzz_virtio_machine, dev);

    pci_host_dev(m->pci)->ops->reset(pci_host_dev(m->pci));
    m->device->ops->reset(m->device);
    mem_set_pin_limit(m->mem, MEM_PIN_LIMIT);
}

static void state(struct dev *dev, struct state *s)
{
    struct fuzz_virtio_machine *m = container_of(dev, struct fuzz_virtio_machine, dev);

    pci_host_dev(m->pci)->ops->state(pci_host_dev(m->pci), s);
    m->device->ops->state(m->device, s);
}

static void hold(struct dev *dev)
{
    struct fuzz_virtio_machine *m = container_of(dev, struct fuzz_virtio_machine, dev);

    pause_device(m);
}

static void go_on(struct dev *dev)
{
    struct fuzz_virtio_machine *m = container_of(dev, struct fuzz_virtio_machine, dev);

    m->device->ops->resume(m->device);
}

static void destroy(struct dev *dev)
{
    struct fuzz_virtio_machine *m = container_of(dev, struct fuzz_virtio_machine, dev);

    /* However it was left, it can be started anew. */
    start(m, 3);
    fuzz_virtio.request(m);
    m->device->ops->free(m->device);
    pci_host_dev(m->pci)->ops->free(pci_host_dev(m->pci));
    workers_destroy(m->workers);
    loop_destroy(m->loop);
    mem_destroy(m->mem);
    free(m);
}

static const struct dev_ops ops = {.name = "virtio",
                                   .reset = reset,
                                   .state = state,
                                   .pause = hold,
                                   .resume = go_on,
                                   .free = destroy};

static struct dev *create(struct fuzz_board *board)
{
    struct fuzz_virtio_machine *m = calloc(1, sizeof(*m));
    struct virtio_slot slot;

    fuzz_check(m);
    m->dev.ops = &ops;
    m->bus = board->bus;
    m->mem = mem_create(FUZZ_VIRTIO_MEMORY, NULL);
    m->loop = loop_create(NULL);
    m->workers = workers_create("fuzz", 1, NULL);
    m->pci = pci_host_create(board->bus, &(struct pci_host_config){.reset = fuzz_no_line()}, NULL);
    slot = (struct virtio_slot){.pci = m->pci,
                                .number = SLOT,
                                .bus = m->bus,
                                .mem = m->mem,
                                .loop = m->loop,
                                .workers = m->workers,
                                .msi = {message, m}};
    m->device = fuzz_virtio.create(&slot, NULL);
    fuzz_check(m->mem && m->device);
    board->device = m;
    return &m->dev;
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0xCF8, 8}, {BUS_MMIO, BAR, 0x8000}, {BUS_MMIO, BAR, 64}},
    .line = line,
    .other = other,
};
