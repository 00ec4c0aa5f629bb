/*
 * Fuzz target: the virtio entropy device, with its queue in guest memory: registers, rings, chains,
 * workers and jobs in any order. The device must survive every driver, and one that starts it by
 * the rules must be served.
 */
#include "dev.h"

#include "../unit/fake_lane.h"
#include "base/util.h"
#include "dev/virtio/rng.h"

#include <stdlib.h>

#define SLOT   5u
#define BAR    0xD0000000u
#define MEMORY (1 * MiB)
#define SIZE   4u
#define RINGS  0x10000u /* a page each: descriptors, available, used, an indirect table */
#define DATA   0x20000u

/* Registers in the BAR (virtio 1.2, 4.1.4.3). */
enum { STATUS = 20, QUEUE_SELECT = 22, QUEUE_SIZE = 24, QUEUE_VECTOR = 26, QUEUE_ENABLE = 28 };
enum {
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    AREAS = 32,
    NOTIFY = 0x3000,
    TABLE = 0x4000
};

struct machine {
    struct dev dev;
    struct bus *bus;
    struct mem *mem;
    struct loop *loop;
    struct workers *workers;
    struct pci_host *pci;
    struct dev *rng;
};

static void message(void *opaque, uint64_t address, uint32_t data)
{
    fuzz_check(!(address & 3));
}

static void config(struct machine *m, unsigned reg, unsigned size, uint32_t value)
{
    bus_write(m->bus, BUS_PORT, 0xCF8, 4, 1u << 31 | SLOT << 11 | (reg & 0xFC));
    bus_write(m->bus, BUS_PORT, 0xCFC + (reg & 3), size, value);
}

static void write(struct machine *m, unsigned offset, unsigned size, uint64_t value)
{
    bus_write(m->bus, BUS_MMIO, BAR + offset, size, value);
}

static uint8_t status(struct machine *m)
{
    return (uint8_t)bus_read(m->bus, BUS_MMIO, BAR + STATUS, 1);
}

static void put(struct machine *m, uint64_t gpa, unsigned size, uint64_t value)
{
    mem_write(m->mem, gpa, &value, size);
}

/* By the rules, with the features that HOW chooses. */
static void start(struct machine *m, uint8_t how)
{
    mem_set_pin_limit(m->mem, MEM_PIN_LIMIT);
    config(m, PCI_BAR0, 4, BAR);
    config(m, PCI_BAR0 + 4, 4, 0);
    config(m, PCI_COMMAND, 2, 6);
    write(m, STATUS, 1, 0);
    fake_lane_run(m->workers, m->loop);
    fuzz_check(status(m) == 0);
    write(m, STATUS, 1, 3);
    write(m, DRIVER_FEATURE_SELECT, 4, 0);
    write(m, DRIVER_FEATURE, 4, (uint32_t)(how & 3) << 28);
    write(m, DRIVER_FEATURE_SELECT, 4, 1);
    write(m, DRIVER_FEATURE, 4, 1);
    write(m, STATUS, 1, 11);
    fuzz_check(status(m) == 11);
    fuzz_check(!mem_fill(m->mem, RINGS, 0, 0x4000));
    write(m, QUEUE_SELECT, 2, 0);
    write(m, QUEUE_SIZE, 2, SIZE);
    write(m, QUEUE_VECTOR, 2, how >> 2 & 3);
    for (unsigned i = 0; i < 3; i++)
        write(m, AREAS + 8 * i, 8, RINGS + 0x1000 * i);
    write(m, QUEUE_ENABLE, 2, 1);
    write(m, STATUS, 1, 15);
    fuzz_check(status(m) == 15);
}

/* One good request to a device that has just been started. */
static void request(struct machine *m)
{
    uint32_t used[3];

    put(m, RINGS, 8, DATA);
    put(m, RINGS + 8, 8, 100 | 2ull << 32);
    put(m, RINGS + 0x1000, 8, 1 << 16);
    write(m, NOTIFY, 2, 0);
    fake_lane_run(m->workers, m->loop);
    fuzz_check(!mem_read(m->mem, RINGS + 0x2000, used, sizeof(used)));
    fuzz_check(used[0] >> 16 == 1 && used[1] == 0 && used[2] == 100);
    fuzz_check(status(m) == 15);
}

/* A descriptor, in the queue's table or the indirect one. Small numbers are more likely to mean
 * something. */
static void descriptor(struct machine *m, struct fuzz_input *in)
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

static void other(struct fuzz_board *board, struct fuzz_input *in)
{
    struct machine *m = board->device;
    uint8_t what = fuzz_u8(in);

    switch (what % 16) {
    case 0: start(m, what >> 4); break;
    case 1:
        start(m, what >> 4);
        request(m);
        break;
    case 2:
    case 3:
    case 4: descriptor(m, in); break;
    case 5: put(m, RINGS + 0x1004 + 2 * (what >> 4 & 7), 2, fuzz_u8(in)); break; /* a head */
    case 6: put(m, RINGS + 0x1002, 2, fuzz_uint(in, 1 + (what >> 7))); break;    /* the index */
    case 7: put(m, RINGS + (fuzz_uint(in, 2) & 0x3FFF), 4, fuzz_uint(in, 4)); break;
    case 8: write(m, NOTIFY + (what >> 4), 2, 0); break;
    case 9: fake_workers_step(m->workers); break;
    case 10: fake_loop_step(m->loop); break;
    case 11: write(m, fuzz_u8(in) & 63, 1u << (what >> 4 & 3), fuzz_uint(in, 4)); break;
    case 12:
        config(m, (unsigned)fuzz_u8(in), 1u << (what >> 4) % 3, (uint32_t)fuzz_uint(in, 4));
        break;
    case 13: write(m, TABLE + 4 * (fuzz_u8(in) & 15u), 4, fuzz_uint(in, 4)); break;
    case 14: mem_set_pin_limit(m->mem, MEM_PAGE_SIZE * (uint64_t)(what >> 4)); break;
    default:
        m->rng->ops->pause(m->rng);
        fake_workers_step(m->workers);
        m->rng->ops->resume(m->rng);
        break;
    }
}

static void reset(struct dev *dev)
{
    struct machine *m = container_of(dev, struct machine, dev);

    pci_host_dev(m->pci)->ops->reset(pci_host_dev(m->pci));
    m->rng->ops->reset(m->rng);
    mem_set_pin_limit(m->mem, MEM_PIN_LIMIT);
}

static void state(struct dev *dev, struct state *s)
{
    struct machine *m = container_of(dev, struct machine, dev);

    pci_host_dev(m->pci)->ops->state(pci_host_dev(m->pci), s);
    m->rng->ops->state(m->rng, s);
}

static void destroy(struct dev *dev)
{
    struct machine *m = container_of(dev, struct machine, dev);

    /* However it was left, it can be started anew. */
    start(m, 3);
    request(m);
    m->rng->ops->free(m->rng);
    pci_host_dev(m->pci)->ops->free(pci_host_dev(m->pci));
    workers_destroy(m->workers);
    loop_destroy(m->loop);
    mem_destroy(m->mem);
    free(m);
}

static const struct dev_ops ops = {
    .name = "virtio", .reset = reset, .state = state, .free = destroy};

static struct dev *create(struct fuzz_board *board)
{
    struct machine *m = calloc(1, sizeof(*m));
    struct virtio_slot slot;

    fuzz_check(m);
    m->dev.ops = &ops;
    m->bus = board->bus;
    m->mem = mem_create(MEMORY, NULL);
    m->loop = loop_create(NULL);
    m->workers = workers_create("fuzz", 1, NULL);
    m->pci = pci_host_create(board->bus, fuzz_no_line(), NULL);
    slot = (struct virtio_slot){.pci = m->pci,
                                .number = SLOT,
                                .bus = m->bus,
                                .mem = m->mem,
                                .loop = m->loop,
                                .workers = m->workers,
                                .msi = {message, m}};
    m->rng = virtio_rng_create(&slot, NULL);
    fuzz_check(m->mem && m->rng);
    board->device = m;
    return &m->dev;
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0xCF8, 8}, {BUS_MMIO, BAR, 0x8000}, {BUS_MMIO, BAR, 64}},
    .other = other,
};
