/*
 * A driver of one virtio device on a PCI bus, for tests: what an operating system does between the
 * search for its device and the first request (virtio 1.2, 3.1 and 4.1). The workers are those that
 * the test is linked with (fake_lane.h has some that run when told).
 */
#ifndef DOPPEL_TESTS_UNIT_VIRTIO_RIG_H
#define DOPPEL_TESTS_UNIT_VIRTIO_RIG_H

#include "base/util.h"
#include "dev/virtio/pci.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "dev_rig.h"
#include "virtqueue_rig.h"

#define VRIG_SLOT   5u
#define VRIG_BAR    0xD0000000u
#define VRIG_PIRQ   4 /* the rig's line that is PIRQA */
#define VRIG_MEMORY (4 * MiB)

/* Offsets in the BAR, and in the common configuration there (4.1.4.3). */
enum { VRIG_COMMON = 0, VRIG_ISR = 0x1000, VRIG_NOTIFY = 0x3000, VRIG_TABLE = 0x4000 };
enum {
    VRIG_FEATURE_SELECT = 0,
    VRIG_FEATURE = 4,
    VRIG_DRIVER_FEATURE_SELECT = 8,
    VRIG_DRIVER_FEATURE = 12,
    VRIG_CONFIG_VECTOR = 16,
    VRIG_QUEUES = 18,
    VRIG_STATUS = 20,
    VRIG_GENERATION = 21,
    VRIG_QUEUE_SELECT = 22,
    VRIG_QUEUE_SIZE = 24,
    VRIG_QUEUE_VECTOR = 26,
    VRIG_QUEUE_ENABLE = 28,
    VRIG_QUEUE_NOTIFY_OFF = 30,
    VRIG_QUEUE_DESCRIPTORS = 32,
    VRIG_QUEUE_AVAILABLE = 40,
    VRIG_QUEUE_USED = 48,
};

#define VRIG_FEATURES                                                                              \
    (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_F_EVENT_IDX |                       \
     UINT64_C(1) << VIRTIO_F_INDIRECT_DESC)

struct vrig {
    struct rig *rig;
    struct mem *mem;
    bool own_mem;
    struct loop *loop;
    struct workers *workers;
    struct pci_host *pci;
    struct dev *dev;
    struct rig_queue queue;
    _Atomic unsigned messages[4]; /* by the low bits of their data */
    void (*on_message)(void *opaque, uint32_t data);
    void *opaque;
};

static inline void vrig_message(void *opaque, uint64_t address, uint32_t data)
{
    struct vrig *v = opaque;

    atomic_fetch_add(&v->messages[data & 3], 1);
    if (v->on_message)
        v->on_message(v->opaque, data);
}

/* MEM: memory to share with another rig, or NULL. */
static inline struct vrig *vrig_create(struct dev *(*create)(const struct virtio_slot *slot,
                                                             struct error *err),
                                       struct mem *mem, unsigned threads)
{
    struct vrig *v = calloc(1, sizeof(*v));
    struct virtio_slot slot = {.number = VRIG_SLOT, .msi = {vrig_message, v}};

    v->rig = rig_create();
    v->own_mem = !mem;
    v->mem = mem ? mem : mem_create(VRIG_MEMORY, NULL);
    v->loop = loop_create(NULL);
    v->workers = workers_create("test", threads, NULL);
    v->pci = pci_host_create(v->rig->bus,
                             &(struct pci_host_config){.reset = rig_line(v->rig, 0),
                                                       .pirq = rig_line(v->rig, VRIG_PIRQ)},
                             NULL);
    slot.pci = v->pci;
    slot.bus = v->rig->bus;
    slot.mem = v->mem;
    slot.loop = v->loop;
    slot.workers = v->workers;
    v->dev = create(&slot, NULL);
    return v;
}

static inline void vrig_destroy(struct vrig *v)
{
    if (v->dev)
        v->dev->ops->free(v->dev);
    pci_host_dev(v->pci)->ops->free(pci_host_dev(v->pci));
    workers_destroy(v->workers);
    loop_destroy(v->loop);
    if (v->own_mem)
        mem_destroy(v->mem);
    rig_destroy(v->rig);
    free(v);
}

/* ---- Configuration space ---- */

static inline void vrig_select(struct vrig *v, unsigned reg)
{
    bus_write(v->rig->bus, BUS_PORT, 0xCF8, 4, 1u << 31 | VRIG_SLOT << 11 | (reg & 0xFC));
}

static inline uint32_t vrig_config(struct vrig *v, unsigned reg, unsigned size)
{
    vrig_select(v, reg);
    return (uint32_t)bus_read(v->rig->bus, BUS_PORT, 0xCFC + (reg & 3), size);
}

static inline void vrig_set_config(struct vrig *v, unsigned reg, unsigned size, uint32_t value)
{
    vrig_select(v, reg);
    bus_write(v->rig->bus, BUS_PORT, 0xCFC + (reg & 3), size, value);
}

/* The Nth capability with ID, or 0. */
static inline unsigned vrig_capability(struct vrig *v, uint8_t id, unsigned n)
{
    unsigned at = vrig_config(v, PCI_CAPABILITIES, 1);

    while (at && (vrig_config(v, at, 1) != id || n-- > 0))
        at = vrig_config(v, at + 1, 1);
    return at;
}

/* ---- Registers ---- */

static inline uint32_t vrig_read(struct vrig *v, unsigned offset, unsigned size)
{
    return (uint32_t)bus_read(v->rig->bus, BUS_MMIO, VRIG_BAR + offset, size);
}

static inline void vrig_write(struct vrig *v, unsigned offset, unsigned size, uint64_t value)
{
    bus_write(v->rig->bus, BUS_MMIO, VRIG_BAR + offset, size, value);
}

static inline uint8_t vrig_status(struct vrig *v)
{
    return (uint8_t)vrig_read(v, VRIG_STATUS, 1);
}

/* Places the BAR and turns everything on; vector N sends data 40h + N. */
static inline void vrig_enable(struct vrig *v)
{
    vrig_set_config(v, PCI_BAR0, 4, VRIG_BAR);
    vrig_set_config(v, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    vrig_set_config(v, vrig_capability(v, PCI_CAPABILITY_MSIX, 0) + 2, 2, 0x8000);
    for (unsigned i = 0; i < 2; i++) {
        vrig_write(v, VRIG_TABLE + 16 * i, 8, 0xFEE00000);
        vrig_write(v, VRIG_TABLE + 16 * i + 8, 8, 0x40 + i);
    }
}

/* The features of its kind that the device offers. */
static inline uint64_t vrig_offered(struct vrig *v)
{
    uint64_t features = 0;

    for (unsigned i = 0; i < 2; i++) {
        vrig_write(v, VRIG_FEATURE_SELECT, 4, i);
        features |= (uint64_t)vrig_read(v, VRIG_FEATURE, 4) << 32 * i;
    }
    return features & 0xFFFFFF;
}

/* Up to and with the features; returns whether the device agrees. */
static inline bool vrig_negotiate(struct vrig *v, uint64_t features)
{
    vrig_write(v, VRIG_STATUS, 1, 0);
    vrig_write(v, VRIG_STATUS, 1, 1);
    vrig_write(v, VRIG_STATUS, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        vrig_write(v, VRIG_DRIVER_FEATURE_SELECT, 4, i);
        vrig_write(v, VRIG_DRIVER_FEATURE, 4, (uint32_t)(features >> 32 * i));
    }
    vrig_write(v, VRIG_STATUS, 1, 11);
    return vrig_status(v) == 11;
}

/* Configures a queue with vector 1; vector 0 is for the device. */
static inline void vrig_set_queue_number(struct vrig *v, unsigned queue,
                                         struct virtqueue_config config)
{
    v->queue = (struct rig_queue){.mem = v->mem, .config = config};
    mem_fill(v->mem, config.descriptors, 0, config.size > 32 ? 0x2000 : 0x1000);
    vrig_write(v, VRIG_CONFIG_VECTOR, 2, 0);
    vrig_write(v, VRIG_QUEUE_SELECT, 2, queue);
    vrig_write(v, VRIG_QUEUE_VECTOR, 2, 1);
    vrig_write(v, VRIG_QUEUE_SIZE, 2, config.size);
    vrig_write(v, VRIG_QUEUE_DESCRIPTORS, 8, config.descriptors);
    vrig_write(v, VRIG_QUEUE_AVAILABLE, 8, config.available);
    vrig_write(v, VRIG_QUEUE_USED, 8, config.used);
    vrig_write(v, VRIG_QUEUE_ENABLE, 2, 1);
}

static inline void vrig_set_queue(struct vrig *v, struct virtqueue_config config)
{
    vrig_set_queue_number(v, 0, config);
}

/* All of it: the device serves queue 0 from now on. */
static inline void vrig_start(struct vrig *v, struct virtqueue_config config, uint64_t features)
{
    vrig_enable(v);
    assert_true(vrig_negotiate(v, features));
    vrig_set_queue(v, config);
    vrig_write(v, VRIG_STATUS, 1, 15);
}

static inline void vrig_notify(struct vrig *v)
{
    vrig_write(v, VRIG_NOTIFY, 2, 0);
}

#endif
