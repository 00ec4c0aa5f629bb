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
#define PIIX3_PIRQ_ISA      0x0F
#define PIIX3_ISA_ALLOWED   0xDEF8u /* not 0, 1, 2, 8 and 13 */

struct pci_host {
    struct dev dev;
    struct bus *bus;
    struct irq_line reset, pirq, isa;
    struct pci_window high;
    uint32_t address;
    uint8_t reset_control;
    struct pci_function *functions[PCI_DEVICES][PCI_FUNCTIONS];
    struct pci_function host_bridge, isa_bridge;
    unsigned asserted[PCI_PIRQS]; /* how many functions drive each interrupt */
    uint16_t isa_levels;          /* of what is routed to ISA interrupts */
};

/* ---- What is decoded ---- */

static enum bus_space space_of(const struct pci_bar *bar)
{
    return bar->ports ? BUS_PORT : BUS_MMIO;
}

/* Of BARs that overlap, the first function's has the addresses that both decode. */
static unsigned rank_of(unsigned function, unsigned n)
{
    return function * PCI_BARS + n;
}

static void stop_ringing(struct pci_host *h, struct pci_bar *bar)
{
    if (bar->rings)
        bus_release_doorbell(h->bus, space_of(bar), bar->base + bar->doorbell);
    bar->rings = false;
}

static void unmap(struct pci_host *h, struct pci_bar *bar, unsigned rank)
{
    stop_ringing(h, bar);
    bus_release_ranked(h->bus, space_of(bar), rank);
    bar->base = PCI_NOT_DECODED;
}

/* Has the bus decode what F's registers say. */
static void map(struct pci_host *h, struct pci_function *f, unsigned function)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        struct pci_bar *bar = &f->bar[n];
        unsigned rank = rank_of(function, n);
        uint64_t address = pci_bar_address(f, n);

        if (bar->base == address)
            continue;
        unmap(h, bar, rank);
        if (address != PCI_NOT_DECODED &&
            bus_claim_ranked(h->bus, space_of(bar), address, bar->size, rank, bar->name, bar->ops,
                             bar->dev, NULL) == 0)
            bar->base = address;
    }
}

/* A BAR's doorbell is one as long as none of its addresses is another BAR's. RING: takes those into
 * use that are; else, those out of use that are not. */
static void update_doorbells(struct pci_host *h, struct pci_function *f, unsigned function,
                             bool ring)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        struct pci_bar *bar = &f->bar[n];
        bool whole = bar->ring && bar->base != PCI_NOT_DECODED &&
                     bus_has_ranked(h->bus, space_of(bar), bar->base + bar->doorbell,
                                    bar->doorbell_size, rank_of(function, n));

        if (!whole && !ring)
            stop_ringing(h, bar);
        if (whole && ring && !bar->rings)
            bar->rings =
                bus_claim_doorbell(h->bus, space_of(bar), bar->base + bar->doorbell,
                                   bar->doorbell_size, bar->name, bar->ring, bar->dev, NULL) == 0;
    }
}

/* BARs and doorbells that stay where they are remain on the bus all the time: other vCPUs are using
 * them. */
void pci_host_remap(struct pci_host *h)
{
    struct pci_function *const *functions = &h->functions[0][0];

    for (unsigned i = 0; i < PCI_DEVICES * PCI_FUNCTIONS; i++)
        if (functions[i])
            map(h, functions[i], i);
    for (unsigned i = 0; i < PCI_DEVICES * PCI_FUNCTIONS; i++)
        if (functions[i])
            update_doorbells(h, functions[i], i, false);
    for (unsigned i = 0; i < PCI_DEVICES * PCI_FUNCTIONS; i++)
        if (functions[i])
            update_doorbells(h, functions[i], i, true);
}

/* ---- Firmware ---- */

/* Takes SIZE bytes, a power of two, from the front of the window, aligned to their size. Returns
 * where they are, or 0 if there is no room. */
static uint64_t take(struct pci_window *window, uint64_t size)
{
    uint64_t address = ALIGN_UP(window->start, size);

    if (address < window->start || address > window->end || size > window->end - address)
        return 0;
    window->start = address + size;
    return address;
}

/* Gives F's BARs for memory addresses, in the low window if there is room. */
static void assign(struct pci_function *f, struct pci_window *low, struct pci_window *high)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        const struct pci_bar *bar = &f->bar[n];
        uint64_t address = 0;

        if (!bar->size || bar->ports)
            continue;
        address = take(low, bar->size);
        if (!address && bar->wide)
            address = take(high, bar->size);
        pci_function_write(f, PCI_BAR0 + 4 * n, 4, (uint32_t)address);
        if (bar->wide)
            pci_function_write(f, PCI_BAR0 + 4 * (n + 1), 4, (uint32_t)(address >> 32));
    }
    if (f->writable[PCI_COMMAND] & PCI_COMMAND_MEMORY)
        pci_function_write(f, PCI_COMMAND, 1, PCI_COMMAND_MEMORY);
}

void pci_host_firmware_setup(struct pci_host *h)
{
    struct pci_window low = {PCI_MMIO_START, PCI_MMIO_END}, high = h->high;

    for (unsigned n = 0; n < PCI_PIRQS; n++)
        pci_function_write(&h->isa_bridge, PIIX3_PIRQ + n, 1, PCI_FIRMWARE_ISA(n));
    for (unsigned i = 0; i < PCI_DEVICES * PCI_FUNCTIONS; i++) {
        struct pci_function *f = h->functions[i / PCI_FUNCTIONS][i % PCI_FUNCTIONS];

        if (!f)
            continue;
        assign(f, &low, &high);
        if (f->config[PCI_INTERRUPT_PIN])
            pci_function_write(f, PCI_INTERRUPT_LINE, 1,
                               PCI_FIRMWARE_ISA(PCI_PIRQ(i / PCI_FUNCTIONS, 0)));
    }
    pci_host_remap(h);
}

struct pci_window pci_high_window(uint64_t ram_end, unsigned physical_bits)
{
    uint64_t end = UINT64_C(1) << physical_bits;
    uint64_t start = MAX(end / 4 * 3, ALIGN_UP(ram_end, GiB));

    return start < end ? (struct pci_window){start, end} : (struct pci_window){end, end};
}

/* ---- Interrupts ---- */

static void set_nth(const struct irq_line *line, unsigned n, bool level)
{
    struct irq_line nth = {.set = line->set, .opaque = line->opaque, .n = line->n + n};

    irq_set(&nth, level);
}

/* Drives the ISA interrupts as the routing registers say. */
static void drive_isa(struct pci_host *h)
{
    uint16_t levels = 0, changed;

    for (unsigned n = 0; n < PCI_PIRQS; n++) {
        uint8_t route = h->isa_bridge.config[PIIX3_PIRQ + n];

        if (!(route & PIIX3_PIRQ_DISABLED) && h->asserted[n])
            levels |= (uint16_t)(1u << (route & PIIX3_PIRQ_ISA));
    }
    levels &= PIIX3_ISA_ALLOWED;
    changed = levels ^ h->isa_levels;
    h->isa_levels = levels;
    for (unsigned n = 0; n < 16; n++)
        if (changed >> n & 1)
            set_nth(&h->isa, n, levels >> n & 1);
}

/* A function drives PIRQ number N, or no longer. */
static void pin_changed(void *opaque, unsigned n, bool level)
{
    struct pci_host *h = opaque;
    bool before = h->asserted[n];

    h->asserted[n] += level ? 1 : -1u;
    if (before == (h->asserted[n] != 0))
        return;
    set_nth(&h->pirq, n, level);
    drive_isa(h);
}

static void isa_bridge_written(struct pci_function *f, unsigned offset, unsigned size)
{
    struct pci_host *h = container_of(f, struct pci_host, isa_bridge);

    drive_isa(h);
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
    if (f->config[PCI_INTERRUPT_PIN])
        f->line = (struct irq_line){.set = pin_changed,
                                    .opaque = h,
                                    .n = PCI_PIRQ(device, f->config[PCI_INTERRUPT_PIN] - 1u)};
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
    pci_function_interrupt(f, false);
    f->line = (struct irq_line){.set = NULL};
    for (unsigned n = 0; n < PCI_BARS; n++)
        unmap(h, &f->bar[n], rank_of(device * PCI_FUNCTIONS + number, n));
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
    memset(h->isa_bridge.writable + PIIX3_PIRQ, PIIX3_PIRQ_DISABLED | PIIX3_PIRQ_ISA, PCI_PIRQS);
    h->isa_bridge.written = isa_bridge_written;
}

static void pci_host_reset(struct dev *dev)
{
    struct pci_host *h = container_of(dev, struct pci_host, dev);

    h->address = 0;
    h->reset_control = 0;
    memset(h->isa_bridge.config + PIIX3_PIRQ, PIIX3_PIRQ_DISABLED, PCI_PIRQS);
    drive_isa(h);
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
    drive_isa(h);
}

static void pci_host_free(struct dev *dev)
{
    struct pci_host *h = container_of(dev, struct pci_host, dev);

    bus_release(h->bus, BUS_PORT, PORT_ADDRESS);
    free(h);
}

static const struct dev_ops pci_host_ops = {
    .name = "pci_host", .reset = pci_host_reset, .state = pci_host_state, .free = pci_host_free};

struct pci_host *pci_host_create(struct bus *bus, const struct pci_host_config *config,
                                 struct error *err)
{
    struct pci_host *h = calloc(1, sizeof(*h));

    if (!h) {
        error_set(err, ENOMEM, "no memory for the PCI host bridge");
        return NULL;
    }
    h->dev.ops = &pci_host_ops;
    h->bus = bus;
    h->reset = config->reset;
    h->pirq = config->pirq;
    h->isa = config->isa;
    h->high = config->high;
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
