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

/* Header fields (chapter 6.1). */
#define CONFIG_VENDOR      0x00
#define CONFIG_DEVICE      0x02
#define CONFIG_COMMAND     0x04
#define CONFIG_REVISION    0x08
#define CONFIG_HEADER_TYPE 0x0E
#define HEADER_MULTI       0x80

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

void pci_function_init(struct pci_function *f, uint16_t vendor, uint16_t device, uint32_t class,
                       uint8_t revision)
{
    memset(f->config, 0, sizeof(f->config));
    memset(f->writable, 0, sizeof(f->writable));
    memcpy(f->config + CONFIG_VENDOR, &vendor, 2);
    memcpy(f->config + CONFIG_DEVICE, &device, 2);
    class = class << 8 | revision;
    memcpy(f->config + CONFIG_REVISION, &class, 4);
}

void pci_function_state(struct pci_function *f, struct state *s)
{
    uint8_t config[PCI_CONFIG_SIZE];

    memcpy(config, f->config, sizeof(config));
    state_bytes(s, config, sizeof(config));
    /* Only what a guest could have changed: the rest is what this machine is. */
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        f->config[i] ^= (f->config[i] ^ config[i]) & f->writable[i];
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
        h->functions[device][0]->config[CONFIG_HEADER_TYPE] |= HEADER_MULTI;
    return 0;
}

void pci_detach(struct pci_host *h, unsigned device, unsigned number)
{
    if (device < PCI_DEVICES && number < PCI_FUNCTIONS)
        h->functions[device][number] = NULL;
}

/* The function that the address register names, if the cycle is for bus 0 and there is one. */
static struct pci_function *addressed(const struct pci_host *h)
{
    if (!(h->address & ADDRESS_ENABLE) || (h->address >> 16 & 0xFF) != 0)
        return NULL;
    return h->functions[h->address >> 11 & 31][h->address >> 8 & 7];
}

static uint64_t data_read(const struct pci_host *h, unsigned at, unsigned size)
{
    const struct pci_function *f = addressed(h);
    uint64_t value = UINT64_MAX;

    if (f) {
        value = 0;
        memcpy(&value, f->config + at, size);
    }
    return value;
}

static void data_write(const struct pci_host *h, unsigned at, unsigned size, uint64_t value)
{
    struct pci_function *f = addressed(h);

    if (!f)
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t writable = f->writable[at + i], byte = (uint8_t)(value >> 8 * i);

        f->config[at + i] = (f->config[at + i] & ~writable) | (byte & writable);
    }
    if (f->written)
        f->written(f, at, size);
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
    h->host_bridge.config[CONFIG_COMMAND] = 0x06; /* memory and bus master, always on */
    h->isa_bridge.config[CONFIG_COMMAND] = 0x07;
    h->isa_bridge.config[CONFIG_HEADER_TYPE] = HEADER_MULTI; /* as the chip has it */
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

    state_section(s, "pci_host", 1);
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
