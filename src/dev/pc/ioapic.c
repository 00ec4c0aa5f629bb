/*
 * The I/O APIC (82093AA data sheet, 290566; the EOI register is that of version 20h, ICH2 data
 * sheet, 290687, 9.5.5).
 */
#include "dev/pc/ioapic.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>

#define WINDOW_SIZE 0x1000

/* Offsets in the window. */
enum { IOREGSEL = 0x00, IOWIN = 0x10, IOEOI = 0x40 };

/* Indirect registers. */
enum { REG_ID = 0, REG_VERSION = 1, REG_ARBITRATION = 2, REG_ENTRIES = 0x10 };

#define VERSION (IOAPIC_VERSION | (IOAPIC_PINS - 1) << 16)

/* Redirection entries. */
#define ENTRY_VECTOR     0xFFu
#define ENTRY_DELIVERY   (7u << 8)
#define ENTRY_LOGICAL    (1u << 11)
#define ENTRY_STATUS     (1u << 12) /* never set: delivery takes no time */
#define ENTRY_REMOTE_IRR (1u << 14)
#define ENTRY_LEVEL      (1u << 15)
#define ENTRY_MASKED     (1u << 16)
#define ENTRY_WRITABLE   0xFF0000000001AFFFULL
#define ENTRY_DEST_SHIFT 56

#define DELIVERY_LOWEST (1u << 8)

struct ioapic {
    struct dev dev;
    struct bus *bus;
    uint64_t base;
    uint8_t initial_id;
    struct msi_sink sink;
    void (*expect)(void *opaque, unsigned n, uint64_t address, uint32_t data); /* or NULL */
    void *expect_opaque;

    uint8_t select, id;
    uint32_t lines; /* active inputs */
    uint64_t entry[IOAPIC_PINS];
};

/* Only fixed and lowest-priority interrupts can be level-triggered. */
static bool is_level(uint64_t entry)
{
    return (entry & ENTRY_LEVEL) && (entry & ENTRY_DELIVERY) <= DELIVERY_LOWEST;
}

/* The message of an entry, in the format of SDM volume 3, 11.11. */
static uint64_t message_address(uint64_t entry)
{
    return 0xFEE00000 | entry >> ENTRY_DEST_SHIFT << 12 | (entry & ENTRY_LOGICAL ? 1u << 2 : 0);
}

static uint32_t message_data(uint64_t entry)
{
    return ((uint32_t)entry & (ENTRY_VECTOR | ENTRY_DELIVERY)) |
           (is_level(entry) ? 1u << 15 | 1u << 14 : 0);
}

static void send(struct ioapic *ioapic, unsigned n)
{
    uint64_t entry = ioapic->entry[n];
    if (is_level(entry))
        ioapic->entry[n] |= ENTRY_REMOTE_IRR;
    ioapic->sink.send(ioapic->sink.opaque, message_address(entry), message_data(entry));
}

static void tell_watcher(const struct ioapic *ioapic, unsigned n)
{
    uint64_t entry = ioapic->entry[n];
    bool level = is_level(entry);
    if (ioapic->expect)
        ioapic->expect(ioapic->expect_opaque, n, level ? message_address(entry) : 0,
                       level ? message_data(entry) : 0);
}

static void tell_watcher_all(const struct ioapic *ioapic)
{
    for (unsigned n = 0; n < IOAPIC_PINS; n++)
        tell_watcher(ioapic, n);
}

void ioapic_watch(struct ioapic *ioapic,
                  void (*expect)(void *opaque, unsigned n, uint64_t address, uint32_t data),
                  void *opaque)
{
    ioapic->expect = expect;
    ioapic->expect_opaque = opaque;
    tell_watcher_all(ioapic);
}

/* A level-triggered input sends when it is active, not masked, and not being served already. */
static void check_level(struct ioapic *ioapic, unsigned n)
{
    uint64_t entry = ioapic->entry[n];
    if (is_level(entry) && (ioapic->lines >> n & 1) && !(entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        send(ioapic, n);
}

static void pin(void *opaque, unsigned n, bool active)
{
    struct ioapic *ioapic = opaque;
    bool was_active = ioapic->lines >> n & 1;
    ioapic->lines = (ioapic->lines & ~(1u << n)) | (uint32_t)active << n;
    if (is_level(ioapic->entry[n]))
        check_level(ioapic, n);
    else if (active && !was_active && !(ioapic->entry[n] & ENTRY_MASKED))
        send(ioapic, n); /* an edge on a masked input is lost */
}

struct irq_line ioapic_pin(struct ioapic *ioapic, unsigned n)
{
    return (struct irq_line){.set = pin, .opaque = ioapic, .n = n};
}

void ioapic_eoi(struct ioapic *ioapic, unsigned vector)
{
    for (unsigned n = 0; n < IOAPIC_PINS; n++) {
        uint64_t *entry = &ioapic->entry[n];
        if ((*entry & ENTRY_REMOTE_IRR) && (*entry & ENTRY_VECTOR) == vector) {
            *entry &= ~(uint64_t)ENTRY_REMOTE_IRR;
            check_level(ioapic, n);
        }
    }
}

/* --- registers --- */

/* Writes the half of an entry that starts at bit SHIFT. */
static void write_entry(struct ioapic *ioapic, unsigned n, unsigned shift, uint32_t value)
{
    uint64_t *entry = &ioapic->entry[n];
    uint64_t mask = ENTRY_WRITABLE & (uint64_t)UINT32_MAX << shift;
    *entry = (*entry & ~mask) | ((uint64_t)value << shift & mask);
    tell_watcher(ioapic, n);
    if (!is_level(*entry)) /* software without the EOI register gets rid of it this way */
        *entry &= ~(uint64_t)ENTRY_REMOTE_IRR;
    check_level(ioapic, n);
}

static uint32_t register_read(const struct ioapic *ioapic)
{
    unsigned n = ioapic->select - REG_ENTRIES;
    switch (ioapic->select) {
    case REG_ID:
    case REG_ARBITRATION: return (uint32_t)ioapic->id << 24;
    case REG_VERSION: return VERSION;
    default: return n / 2 < IOAPIC_PINS ? (uint32_t)(ioapic->entry[n / 2] >> 32 * (n % 2)) : 0;
    }
}

static void register_write(struct ioapic *ioapic, uint32_t value)
{
    unsigned n = ioapic->select - REG_ENTRIES;
    if (ioapic->select == REG_ID)
        ioapic->id = value >> 24 & 0xF;
    else if (n / 2 < IOAPIC_PINS)
        write_entry(ioapic, n / 2, 32 * (n % 2), value);
}

static uint64_t window_read(void *dev, uint64_t offset, unsigned size)
{
    const struct ioapic *ioapic = dev;
    uint32_t value = 0;
    if (ALIGN_DOWN(offset, 4) == IOREGSEL)
        value = ioapic->select;
    else if (ALIGN_DOWN(offset, 4) == IOWIN)
        value = register_read(ioapic);
    return value >> 8 * (offset % 4);
}

static void window_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *ioapic = dev;
    if (offset == IOREGSEL)
        ioapic->select = (uint8_t)value;
    else if (offset == IOWIN && size == 4)
        register_write(ioapic, (uint32_t)value);
    else if (offset == IOEOI)
        ioapic_eoi(ioapic, value & ENTRY_VECTOR);
}

static const struct bus_ops window_ops = {window_read, window_write, 4};

/* --- the device --- */

static void reset(struct dev *dev)
{
    struct ioapic *ioapic = container_of(dev, struct ioapic, dev);
    ioapic->select = 0;
    ioapic->id = ioapic->initial_id;
    for (unsigned n = 0; n < IOAPIC_PINS; n++)
        ioapic->entry[n] = ENTRY_MASKED;
    tell_watcher_all(ioapic);
}

static void state(struct dev *dev, struct state *s)
{
    struct ioapic *ioapic = container_of(dev, struct ioapic, dev);
    state_section(s, "ioapic", 0, 1);
    state_field(s, ioapic->select);
    state_field(s, ioapic->id);
    state_field(s, ioapic->lines);
    state_field(s, ioapic->entry);
    /* What the guest cannot bring about, a damaged file must not either. */
    ioapic->id &= 0xF;
    ioapic->lines &= (1u << IOAPIC_PINS) - 1;
    for (unsigned n = 0; n < IOAPIC_PINS; n++)
        ioapic->entry[n] &= ENTRY_WRITABLE | (is_level(ioapic->entry[n]) ? ENTRY_REMOTE_IRR : 0);
    tell_watcher_all(ioapic);
}

static void destroy(struct dev *dev)
{
    struct ioapic *ioapic = container_of(dev, struct ioapic, dev);
    bus_release(ioapic->bus, BUS_MMIO, ioapic->base);
    free(ioapic);
}

static const struct dev_ops ops = {
    .name = "ioapic",
    .reset = reset,
    .state = state,
    .free = destroy,
};

struct ioapic *ioapic_create(struct bus *bus, uint64_t base, unsigned id, struct msi_sink sink,
                             struct error *err)
{
    struct ioapic *ioapic = calloc(1, sizeof(*ioapic));
    if (!ioapic) {
        error_set(err, ENOMEM, "I/O APIC: out of memory");
        return NULL;
    }
    ioapic->dev.ops = &ops;
    ioapic->bus = bus;
    ioapic->base = base;
    ioapic->initial_id = id & 0xF;
    ioapic->sink = sink;
    if (bus_claim(bus, BUS_MMIO, base, WINDOW_SIZE, "I/O APIC", &window_ops, ioapic, err) < 0) {
        free(ioapic);
        return NULL;
    }
    reset(&ioapic->dev);
    return ioapic;
}

struct dev *ioapic_dev(struct ioapic *ioapic)
{
    return &ioapic->dev;
}
