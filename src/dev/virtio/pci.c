/*
 * Virtio over PCI (Virtual I/O Device specification 1.2, 4.1).
 */
#include "dev/virtio/pci.h"

#include "base/util.h"
#include "dev/pci/msix.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VENDOR      0x1AF4
#define DEVICE_BASE 0x1040 /* plus the device's type (4.1.2.1) */
#define REVISION    1      /* not a transitional device */

#define BAR      0
#define BAR_SIZE 0x8000
enum page { PAGE_COMMON, PAGE_ISR, PAGE_DEVICE, PAGE_NOTIFY, PAGE_TABLE, PAGE_PENDING };
#define PAGE_SHIFT     12
#define PAGE_OFFSET(N) ((uint32_t)(N) << PAGE_SHIFT)

#define NOTIFY_MULTIPLIER BUS_DOORBELL_STEP /* bytes from a queue's doorbell to the next one's */

/* Capabilities (4.1.4). */
struct virtio_capability {
    uint8_t id, link, length, type, bar, number, padding[2];
    uint32_t offset, size;
    uint32_t extra; /* NOTIFY: the multiplier. CONFIG: the data */
};
enum { TYPE_COMMON = 1, TYPE_NOTIFY, TYPE_ISR, TYPE_DEVICE, TYPE_CONFIG };
#define CAPABILITY_SIZE 16 /* without EXTRA */

/* Common configuration (4.1.4.3). What a driver reads is an image of this; what it writes changes
 * the image's bytes, and then the fields that have some of them are looked at. */
struct common {
    uint32_t feature_select, feature;
    uint32_t driver_feature_select, driver_feature;
    uint16_t config_vector, queues;
    uint8_t status, generation;
    uint16_t queue_select;
    uint16_t queue_size, queue_vector, queue_enable, queue_notify;
    uint64_t queue_descriptors, queue_available, queue_used;
} __attribute__((packed));
_Static_assert(sizeof(struct common) == 56, "as the driver sees it");

struct virtio_pci {
    struct dev dev;
    struct bus *bus;
    struct pci_host *pci;
    unsigned number; /* PCI device number */
    struct pci_function function;
    struct pci_msix msix;
    unsigned window; /* offset of the capability that is a window to the BAR (4.1.4.9) */
    struct virtio_device *device;

    uint32_t feature_select, driver_feature_select;
    uint16_t queue_select;
    _Atomic uint8_t isr;
    struct loop_job line_job; /* runs update_line() */
};

/* ---- The interrupt pin ---- */

/* Board lock held. */
static void update_line(struct virtio_pci *p)
{
    pci_function_interrupt(&p->function, atomic_load(&p->isr) && !pci_msix_enabled(&p->msix));
}

/* On the loop's thread. */
static void update_line_later(void *opaque)
{
    struct virtio_pci *p = opaque;

    bus_lock(p->bus);
    update_line(p);
    bus_unlock(p->bus);
}

/* Reading acknowledges (4.1.4.5). */
static uint8_t read_isr(struct virtio_pci *p)
{
    uint8_t isr = atomic_exchange(&p->isr, 0);

    update_line(p);
    return isr;
}

/* ---- Common configuration ---- */

static uint32_t half(uint64_t value, uint32_t n)
{
    return n < 2 ? (uint32_t)(value >> 32 * n) : 0;
}

static struct common common_image(const struct virtio_pci *p)
{
    const struct virtio_device *d = p->device;
    struct common c = {
        .feature_select = p->feature_select,
        .feature = half(virtio_features(d), p->feature_select),
        .driver_feature_select = p->driver_feature_select,
        .driver_feature = half(d->driver_features, p->driver_feature_select),
        .config_vector = atomic_load(&d->config_vector),
        .queues = (uint16_t)d->queues,
        .status = d->status,
        .generation = d->generation,
        .queue_select = p->queue_select,
    };

    /* A queue that does not exist has size 0. */
    if (p->queue_select < d->queues) {
        const struct virtio_queue *q = &d->queue[p->queue_select];

        c.queue_size = (uint16_t)q->config.size;
        c.queue_vector = atomic_load(&q->vector);
        c.queue_enable = q->enabled;
        c.queue_notify = p->queue_select;
        c.queue_descriptors = q->config.descriptors;
        c.queue_available = q->config.available;
        c.queue_used = q->config.used;
    }
    return c;
}

static uint32_t common_read(struct virtio_pci *p, uint64_t offset, unsigned size)
{
    struct common c = common_image(p);
    uint32_t value = 0;

    if (offset + size <= sizeof(c))
        memcpy(&value, (const uint8_t *)&c + offset, size);
    return value;
}

/* A vector that does not exist reads back as none, by which a driver learns of it (4.1.5.1.2). */
static uint16_t vector(const struct virtio_pci *p, uint16_t wanted)
{
    return wanted < p->msix.count ? wanted : VIRTIO_NO_VECTOR;
}

/* Whether a write of SIZE bytes at OFFSET has bytes of a field. */
#define WRITES(FIELD)                                                                              \
    (offset < offsetof(struct common, FIELD) + sizeof(((struct common *)0)->FIELD) &&              \
     offset + size > offsetof(struct common, FIELD))

static void write_queue(struct virtio_pci *p, const struct common *c, uint64_t offset,
                        unsigned size)
{
    struct virtio_queue *q = &p->device->queue[p->queue_select];

    if (WRITES(queue_vector))
        atomic_store(&q->vector, vector(p, c->queue_vector));
    if (q->enabled)
        return;
    if (WRITES(queue_size))
        q->config.size = c->queue_size;
    if (WRITES(queue_descriptors))
        q->config.descriptors = c->queue_descriptors;
    if (WRITES(queue_available))
        q->config.available = c->queue_available;
    if (WRITES(queue_used))
        q->config.used = c->queue_used;
    if (WRITES(queue_enable) && c->queue_enable == 1)
        virtio_enable_queue(p->device, p->queue_select);
}

static void common_write(struct virtio_pci *p, uint64_t offset, unsigned size, uint32_t value)
{
    struct virtio_device *d = p->device;
    struct common c = common_image(p);

    if (offset + size > sizeof(c) || !virtio_takes_writes(d))
        return;
    memcpy((uint8_t *)&c + offset, &value, size);
    if (WRITES(feature_select))
        p->feature_select = c.feature_select;
    if (WRITES(driver_feature) && p->driver_feature_select < 2) {
        unsigned shift = 32 * p->driver_feature_select;

        virtio_set_features(d, (d->driver_features & ~((uint64_t)UINT32_MAX << shift)) |
                                   (uint64_t)c.driver_feature << shift);
    }
    if (WRITES(driver_feature_select))
        p->driver_feature_select = c.driver_feature_select;
    if (WRITES(config_vector))
        atomic_store(&d->config_vector, vector(p, c.config_vector));
    if (p->queue_select < d->queues)
        write_queue(p, &c, offset, size);
    if (WRITES(queue_select))
        p->queue_select = c.queue_select;
    if (WRITES(status))
        virtio_set_status(d, c.status);
}

/* ---- The BAR ---- */

static uint64_t bar_read(void *dev, uint64_t offset, unsigned size)
{
    struct virtio_pci *p = dev;
    uint64_t within = offset & (PAGE_OFFSET(1) - 1);

    switch (offset >> PAGE_SHIFT) {
    case PAGE_COMMON: return common_read(p, within, size);
    case PAGE_ISR: return within == 0 ? read_isr(p) : 0;
    case PAGE_DEVICE: return virtio_read_config(p->device, within, size);
    case PAGE_TABLE: return pci_msix_table_read(&p->msix, within, size);
    case PAGE_PENDING: return pci_msix_pending_read(&p->msix, within, size);
    default: return 0;
    }
}

/* A doorbell: without the board lock. The value repeats the queue's number (4.1.5.2). */
static void ring(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *p = dev;

    virtio_notify(p->device, offset / NOTIFY_MULTIPLIER);
}

static void bar_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *p = dev;
    uint64_t within = offset & (PAGE_OFFSET(1) - 1);

    switch (offset >> PAGE_SHIFT) {
    case PAGE_COMMON: common_write(p, within, size, (uint32_t)value); break;
    case PAGE_DEVICE: virtio_write_config(p->device, within, size, (uint32_t)value); break;
    case PAGE_NOTIFY: ring(p, within, size, value); break;
    case PAGE_TABLE: pci_msix_table_write(&p->msix, within, size, (uint32_t)value); break;
    default: break;
    }
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write, .max_size = 4};

/* ---- Configuration space ---- */

static bool touches(unsigned offset, unsigned size, unsigned at, unsigned length)
{
    return offset < at + length && offset + size > at;
}

/* What the window looks at. False if the driver has not set it up as it must (4.1.4.9.1). */
static bool window_range(const struct virtio_pci *p, uint32_t *offset, uint32_t *size)
{
    const uint8_t *at = p->function.config + p->window;

    memcpy(offset, at + offsetof(struct virtio_capability, offset), 4);
    memcpy(size, at + offsetof(struct virtio_capability, size), 4);
    return at[offsetof(struct virtio_capability, bar)] == BAR &&
           (*size == 1 || *size == 2 || *size == 4) && *offset % *size == 0 && *offset < BAR_SIZE;
}

static unsigned window_data(const struct virtio_pci *p)
{
    return p->window + offsetof(struct virtio_capability, extra);
}

static void config_reading(struct pci_function *f, unsigned offset, unsigned size)
{
    struct virtio_pci *p = container_of(f, struct virtio_pci, function);
    uint32_t at, bytes;

    if (touches(offset, size, window_data(p), 4) && window_range(p, &at, &bytes))
        pci_config_set(f, window_data(p), bytes, (uint32_t)bar_read(p, at, bytes));
}

static void config_written(struct pci_function *f, unsigned offset, unsigned size)
{
    struct virtio_pci *p = container_of(f, struct virtio_pci, function);
    uint32_t at, bytes;

    if (touches(offset, size, window_data(p), 4)) {
        if (window_range(p, &at, &bytes))
            bar_write(p, at, bytes, pci_config_get(f, window_data(p), bytes));
        return;
    }
    pci_msix_configure(&p->msix);
    update_line(p);
    if (touches(offset, size, PCI_COMMAND, 2))
        virtio_set_bus_master(p->device, pci_bus_master(f));
}

/* Adds the capability that tells where the structure of a TYPE is. Returns its offset.
 * EXTRA: the multiplier of TYPE_NOTIFY; 0 for all other types. */
static unsigned add_capability(struct virtio_pci *p, uint8_t type, enum page page, uint32_t size,
                               uint32_t extra)
{
    bool more = type == TYPE_NOTIFY || type == TYPE_CONFIG;
    struct virtio_capability c = {
        .length = (uint8_t)(CAPABILITY_SIZE + (more ? 4 : 0)),
        .type = type,
        .bar = BAR,
        .offset = PAGE_OFFSET(page),
        .size = size,
        .extra = extra,
    };
    unsigned at = pci_function_add_capability(&p->function, PCI_CAPABILITY_VENDOR, c.length);

    memcpy(p->function.config + at + 2, (const uint8_t *)&c + 2, c.length - 2u);
    return at;
}

static void add_window(struct virtio_pci *p)
{
    uint8_t *writable;

    p->window = add_capability(p, TYPE_CONFIG, 0, 0, 0);
    writable = p->function.writable + p->window;
    writable[offsetof(struct virtio_capability, bar)] = 0xFF;
    memset(writable + offsetof(struct virtio_capability, offset), 0xFF, 12); /* SIZE, EXTRA, too */
}

/* The class by which a guest's tools name the function: class, subclass and programming interface
 * (PCI Code and ID Assignment Specification). Drivers do not look at it; these are QEMU's. */
static uint32_t class_of(uint16_t id)
{
    static const struct {
        uint16_t id;
        uint32_t class;
    } known[] = {
        {1, 0x020000},  /* network: Ethernet */
        {2, 0x010000},  /* block: a SCSI bus */
        {3, 0x078000},  /* console: another communication device */
        {19, 0x078000}, /* socket */
        {26, 0x018000}, /* file system: another mass storage */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
        if (known[i].id == id)
            return known[i].class;
    return 0x00FF00; /* no class, and not one from before there were classes */
}

static int init_function(struct virtio_pci *p, const struct virtio_ops *ops, struct msi_sink msi,
                         struct error *err)
{
    const struct pci_bar bar = {
        .size = BAR_SIZE,
        .wide = true,
        .name = ops->name,
        .ops = &bar_ops,
        .dev = p,
        .doorbell = PAGE_OFFSET(PAGE_NOTIFY),
        .doorbell_size = p->device->queues * NOTIFY_MULTIPLIER,
        .ring = ring,
    };
    struct pci_function *f = &p->function;

    pci_function_init(f, VENDOR, DEVICE_BASE + ops->id, class_of(ops->id), REVISION);
    pci_config_set(f, PCI_SUBSYSTEM_VENDOR, 2, VENDOR);
    pci_config_set(f, PCI_SUBSYSTEM, 2, DEVICE_BASE + ops->id);
    pci_function_add_bar(f, BAR, &bar);
    pci_function_add_pin(f);
    f->reading = config_reading;
    f->written = config_written;
    add_capability(p, TYPE_COMMON, PAGE_COMMON, sizeof(struct common), 0);
    add_capability(p, TYPE_ISR, PAGE_ISR, 1, 0);
    if (ops->config_size)
        add_capability(p, TYPE_DEVICE, PAGE_DEVICE, ops->config_size, 0);
    add_capability(p, TYPE_NOTIFY, PAGE_NOTIFY, (uint32_t)bar.doorbell_size, NOTIFY_MULTIPLIER);
    add_window(p);
    /* One vector for each queue, and one for the configuration. */
    return pci_msix_init(&p->msix, f, p->device->queues + 1, BAR, PAGE_OFFSET(PAGE_TABLE),
                         PAGE_OFFSET(PAGE_PENDING), msi, err);
}

/* ---- The device ---- */

/* A line is changed with the board lock held, which this thread may not take. */
static void interrupt(void *opaque, enum virtio_cause cause, uint16_t vector)
{
    struct virtio_pci *p = opaque;

    if (pci_msix_send(&p->msix, vector))
        return;
    atomic_fetch_or(&p->isr, (uint8_t)cause);
    loop_post(p->device->host.loop, &p->line_job);
}

static void pci_reset(struct dev *dev)
{
    struct virtio_pci *p = container_of(dev, struct virtio_pci, dev);

    pci_function_reset(&p->function);
    pci_msix_reset(&p->msix);
    virtio_set_bus_master(p->device, false);
    virtio_reset(p->device);
    p->feature_select = p->driver_feature_select = 0;
    p->queue_select = 0;
    atomic_store(&p->isr, 0);
    update_line(p);
    pci_host_remap(p->pci);
}

static void pci_state(struct dev *dev, struct state *s)
{
    struct virtio_pci *p = container_of(dev, struct virtio_pci, dev);
    uint8_t isr = atomic_load(&p->isr);

    uint32_t version = state_section(s, p->device->ops->name, p->number, 2);

    pci_function_state(&p->function, s);
    pci_msix_state(&p->msix, s);
    state_field(s, p->feature_select);
    state_field(s, p->driver_feature_select);
    state_field(s, p->queue_select);
    state_field(s, isr);
    atomic_store(&p->isr, isr);
    virtio_state(p->device, s, version);
    if (state_saving(s))
        return;
    virtio_set_bus_master(p->device, pci_bus_master(&p->function));
    update_line(p);
    pci_host_remap(p->pci);
}

static void pci_pause(struct dev *dev)
{
    struct virtio_pci *p = container_of(dev, struct virtio_pci, dev);

    virtio_pause(p->device);
    update_line_later(p); /* what is left for the loop belongs to the state */
}

static void pci_resume(struct dev *dev)
{
    virtio_resume(container_of(dev, struct virtio_pci, dev)->device);
}

static void pci_free(struct dev *dev)
{
    struct virtio_pci *p = container_of(dev, struct virtio_pci, dev);

    pci_detach(p->pci, p->number, 0);
    virtio_finish(p->device);
    loop_cancel(p->device->host.loop, &p->line_job);
    if (p->device->ops->free)
        p->device->ops->free(p->device);
    pci_msix_free(&p->msix);
    free(p);
}

static const struct dev_ops pci_ops = {.name = "virtio",
                                       .reset = pci_reset,
                                       .state = pci_state,
                                       .pause = pci_pause,
                                       .resume = pci_resume,
                                       .free = pci_free};

static struct dev *create(const struct virtio_slot *slot, const struct virtio_ops *ops,
                          struct virtio_device *device, struct error *err)
{
    struct virtio_pci *p = calloc(1, sizeof(*p));
    const struct virtio_host host = {.bus = slot->bus,
                                     .mem = slot->mem,
                                     .loop = slot->loop,
                                     .workers = slot->workers,
                                     .interrupt = interrupt,
                                     .opaque = p};

    if (!p) {
        error_set(err, ENOMEM, "no memory for a device (%s)", ops->name);
        return NULL;
    }
    p->dev.ops = &pci_ops;
    p->bus = slot->bus;
    p->pci = slot->pci;
    p->number = slot->number;
    p->device = device;
    p->line_job = (struct loop_job){.run = update_line_later, .opaque = p};
    if (virtio_init(device, ops, &host, err) < 0)
        goto fail;
    if (init_function(p, ops, slot->msi, err) < 0)
        goto fail_device;
    if (pci_attach(slot->pci, slot->number, 0, &p->function, err) < 0)
        goto fail_msix;
    return &p->dev;

fail_msix:
    pci_msix_free(&p->msix);
fail_device:
    virtio_finish(device);
fail:
    free(p);
    return NULL;
}

struct dev *virtio_pci_create(const struct virtio_slot *slot, const struct virtio_ops *ops,
                              struct virtio_device *device, struct error *err)
{
    return slot->plug_in ? slot->plug_in(slot->transport, ops, device, err)
                         : create(slot, ops, device, err);
}

struct virtio_device *virtio_pci_device(struct dev *dev)
{
    return container_of(dev, struct virtio_pci, dev)->device;
}
