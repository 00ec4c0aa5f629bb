/*
 * The PCI host bridge (PCI Local Bus Specification 3.0, 3.2.2.3 and chapter 6), in the shape of an
 * Intel 440FX with its PIIX3 ISA bridge (82441FX and 82371SB data sheets), which every PC operating
 * system knows. The PIIX3's reset control register shares the configuration ports.
 */
#include "dev/pci/host.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PORT_ADDRESS 0xCF8
#define PORTS        8

/* Offsets from PORT_ADDRESS. */
#define REG_ADDRESS 0
#define REG_RESET   1 /* 0xCF9, byte accesses only */
#define REG_DATA    4

#define ADDRESS_ENABLE (1u << 31)
#define ADDRESS_BITS   0x80FFFFFCu

#define RESET_SYSTEM 0x02 /* hard rather than soft; here they are the same */
#define RESET_CPU    0x04 /* its rising edge resets */

#define HEADER_MULTI 0x80

#define PIIX3_PIRQ          0x60 /* routing of PIRQA to PIRQD */
#define PIIX3_PIRQ_DISABLED 0x80

struct pci_host {
    struct dev dev;
    struct bus *bus;
    struct irq_line reset;
    uint32_t address;
    uint8_t reset_control;
    struct pci_function *functions[PCI_DEVICES][PCI_FUNCTIONS];
    struct pci_function host_bridge, isa_bridge;
};

/* ---- What is decoded ---- */

#define MOST_BARS (PCI_DEVICES * PCI_FUNCTIONS * PCI_BARS)

/* A BAR and where it belongs now. */
struct place {
    struct pci_bar *bar;
    uint64_t address;
};

static bool overlap(const struct place *a, const struct place *b)
{
    return a->bar->ports == b->bar->ports && a->address <= b->address + (b->bar->size - 1) &&
           b->address <= a->address + (a->bar->size - 1);
}

/* Adds the BARs of F that are decoded, but for those whose addresses an earlier one has. */
static unsigned add_places(struct place *places, unsigned count, struct pci_function *f)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        struct place place = {&f->bar[n], pci_bar_address(f, n)};
        unsigned i = 0;

        if (place.address == PCI_NOT_DECODED)
            continue;
        while (i < count && !overlap(&places[i], &place))
            i++;
        if (i == count)
            places[count++] = place;
    }
    return count;
}

static enum bus_space space_of(const struct pci_bar *bar)
{
    return bar->ports ? BUS_PORT : BUS_MMIO;
}

static void unmap(struct pci_host *h, struct pci_bar *bar)
{
    if (bar->base == PCI_NOT_DECODED)
        return;
    if (bar->ring)
        bus_release_doorbell(h->bus, space_of(bar), bar->base + bar->doorbell);
    bus_release(h->bus, space_of(bar), bar->base);
    bar->base = PCI_NOT_DECODED;
}

static void map(struct pci_host *h, struct pci_bar *bar, uint64_t address)
{
    enum bus_space space = space_of(bar);

    if (bar->base == address ||
        bus_claim(h->bus, space, address, bar->size, bar->name, bar->ops, bar->dev, NULL) < 0)
        return;
    if (bar->ring && bus_claim_doorbell(h->bus, space, address + bar->doorbell, bar->doorbell_size,
                                        bar->name, bar->ring, bar->dev, NULL) < 0) {
        bus_release(h->bus, space, address);
        return;
    }
    bar->base = address;
}

/* Releases what F's BARs decode at another address than PLACES says. */
static void unmap_moved(struct pci_host *h, struct pci_function *f, const struct place *places,
                        unsigned count)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        unsigned i = 0;

        while (i < count && places[i].bar != &f->bar[n])
            i++;
        if (i == count || places[i].address != f->bar[n].base)
            unmap(h, &f->bar[n]);
    }
}

/* BARs that stay where they are remain on the bus all the time: other vCPUs are using them. */
void pci_host_remap(struct pci_host *h)
{
    struct pci_function *const *functions = &h->functions[0][0];
    struct place places[MOST_BARS];
    unsigned count = 0;

    for (unsigned i = 0; i < PCI_DEVICES * PCI_FUNCTIONS; i++)
        if (functions[i])
            count = add_places(places, count, functions[i]);
    for (unsigned i = 0; i < PCI_DEVICES * PCI_FUNCTIONS; i++)
        if (functions[i])
            unmap_moved(h, functions[i], places, count);
    for (unsigned i = 0; i < count; i++)
        map(h, places[i].bar, places[i].address);
}

/* Gives F's BARs for memory the next addresses from NEXT on. Returns where those end. */
static uint64_t assign(struct pci_function *f, uint64_t next)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        const struct pci_bar *bar = &f->bar[n];
        uint64_t address = ALIGN_UP(next, bar->size ? bar->size : 1);

        if (!bar->size || bar->ports || bar->size > PCI_MMIO_END - address)
            continue;
        pci_function_write(f, PCI_BAR0 + 4 * n, 4, (uint32_t)address);
        next = address + bar->size;
    }
    if (f->writable[PCI_COMMAND] & PCI_COMMAND_MEMORY)
        pci_function_write(f, PCI_COMMAND, 1, PCI_COMMAND_MEMORY);
    return next;
}

void pci_host_firmware_setup(struct pci_host *h)
{
    struct pci_function *const *functions = &h->functions[0][0];
    uint64_t next = PCI_MMIO_START;

    for (unsigned i = 0; i < PCI_DEVICES * PCI_FUNCTIONS; i++)
        if (functions[i])
            next = assign(functions[i], next);
    pci_host_remap(h);
}

/* ---- Plugging in ---- */

bool pci_host_is_free(const struct pci_host *h, unsigned device)
{
    return device < PCI_DEVICES && !h->functions[device][0];
}

unsigned pci_host_free_device(const struct pci_host *h)
{
    unsigned device = 0;

    while (device < PCI_DEVICES && !pci_host_is_free(h, device))
        device++;
    return device;
}

int pci_attach(struct pci_host *h, unsigned device, unsigned number, struct pci_function *f,
               struct error *err)
{
    if (device >= PCI_DEVICES || number >= PCI_FUNCTIONS)
        return error_set(err, EINVAL, "no PCI slot %u.%u", device, number);
    if (h->functions[device][number])
        return error_set(err, EBUSY, "PCI slot %u.%u is taken", device, number);
    h->functions[device][number] = f;
    if (number > 0 && h->functions[device][0])
        h->functions[device][0]->config[PCI_HEADER_TYPE] |= HEADER_MULTI;
    return 0;
}

void pci_detach(struct pci_host *h, unsigned device, unsigned number)
{
    struct pci_function *f;

    if (device >= PCI_DEVICES || number >= PCI_FUNCTIONS || !h->functions[device][number])
        return;
    f = h->functions[device][number];
    h->functions[device][number] = NULL;
    unmap_moved(h, f, NULL, 0);
    pci_host_remap(h);
}

/* ---- Configuration ports ---- */

/* The function that the address register names, if the cycle is for bus 0 and there is one. */
static struct pci_function *addressed(const struct pci_host *h)
{
    if (!(h->address & ADDRESS_ENABLE) || (h->address >> 16 & 0xFF) != 0)
        return NULL;
    return h->functions[h->address >> 11 & 31][h->address >> 8 & 7];
}

static uint64_t data_read(const struct pci_host *h, unsigned at, unsigned size)
{
    struct pci_function *f = addressed(h);

    return f ? pci_function_read(f, at, size) : UINT64_MAX;
}

static void data_write(struct pci_host *h, unsigned at, unsigned size, uint64_t value)
{
    struct pci_function *f = addressed(h);

    if (!f)
        return;
    pci_function_write(f, at, size, (uint32_t)value);
    if (pci_config_moves_bars(at, size))
        pci_host_remap(h);
}

static void reset_write(struct pci_host *h, uint8_t value)
{
    bool rising = (value & RESET_CPU) && !(h->reset_control & RESET_CPU);

    h->reset_control = value & (RESET_SYSTEM | RESET_CPU);
    if (rising)
        irq_set(&h->reset, true);
}

static uint64_t pci_read(void *dev, uint64_t offset, unsigned size)
{
    const struct pci_host *h = dev;

    if (offset >= REG_DATA && offset + size <= PORTS)
        return data_read(h, (h->address & 0xFC) + (unsigned)(offset - REG_DATA), size);
    if (offset == REG_ADDRESS && size == 4)
        return h->address;
    if (offset == REG_RESET && size == 1)
        return h->reset_control;
    return UINT64_MAX;
}

static void pci_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_host *h = dev;

    if (offset >= REG_DATA && offset + size <= PORTS)
        data_write(h, (h->address & 0xFC) + (unsigned)(offset - REG_DATA), size, value);
    else if (offset == REG_ADDRESS && size == 4)
        h->address = (uint32_t)value & ADDRESS_BITS;
    else if (offset == REG_RESET && size == 1)
        reset_write(h, (uint8_t)value);
}

static const struct bus_ops pci_ports = {.read = pci_read, .write = pci_write, .max_size = 4};

static void init_bridges(struct pci_host *h)
{
    pci_function_init(&h->host_bridge, 0x8086, 0x1237, 0x060000, 2);
    pci_function_init(&h->isa_bridge, 0x8086, 0x7000, 0x060100, 0);
    h->host_bridge.config[PCI_COMMAND] = 0x06; /* memory and bus master, always on */
    h->isa_bridge.config[PCI_COMMAND] = 0x07;
    h->isa_bridge.config[PCI_HEADER_TYPE] = HEADER_MULTI; /* as the chip has it */
    memset(h->isa_bridge.writable + PIIX3_PIRQ, 0x8F, 4);
}

static void pci_host_reset(struct dev *dev)
{
    struct pci_host *h = container_of(dev, struct pci_host, dev);

    h->address = 0;
    h->reset_control = 0;
    memset(h->isa_bridge.config + PIIX3_PIRQ, PIIX3_PIRQ_DISABLED, 4);
}

static void pci_host_state(struct dev *dev, struct state *s)
{
    struct pci_host *h = container_of(dev, struct pci_host, dev);

    state_section(s, "pci_host", 0, 1);
    state_field(s, h->address);
    state_field(s, h->reset_control);
    h->address &= ADDRESS_BITS;
    pci_function_state(&h->host_bridge, s);
    pci_function_state(&h->isa_bridge, s);
}

static void pci_host_free(struct dev *dev)
{
    struct pci_host *h = container_of(dev, struct pci_host, dev);

    bus_release(h->bus, BUS_PORT, PORT_ADDRESS);
    free(h);
}

static const struct dev_ops pci_host_ops = {
    .name = "pci_host", .reset = pci_host_reset, .state = pci_host_state, .free = pci_host_free};

struct pci_host *pci_host_create(struct bus *bus, struct irq_line reset, struct error *err)
{
    struct pci_host *h = calloc(1, sizeof(*h));

    if (!h) {
        error_set(err, ENOMEM, "no memory for the PCI host bridge");
        return NULL;
    }
    h->dev.ops = &pci_host_ops;
    h->bus = bus;
    h->reset = reset;
    h->functions[0][0] = &h->host_bridge;
    h->functions[1][0] = &h->isa_bridge;
    init_bridges(h);
    if (bus_claim(bus, BUS_PORT, PORT_ADDRESS, PORTS, "PCI configuration", &pci_ports, h, err) <
        0) {
        free(h);
        return NULL;
    }
    pci_host_reset(&h->dev);
    return h;
}

struct dev *pci_host_dev(struct pci_host *h)
{
    return &h->dev;
}
