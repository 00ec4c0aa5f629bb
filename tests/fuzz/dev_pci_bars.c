/*
 * Fuzz target: base address registers of three functions, which a guest moves about, on top of each
 * other and of another device, and their interrupt pins. After each step what the bus decodes must
 * be what the registers say, and the interrupts those that are asked for.
 */
#include "dev.h"

#include "base/util.h"
#include "dev/pci/host.h"

#include <stdlib.h>

#define CARDS  3
#define FIRST  5u /* device number of the first */
#define FIXED  0xFEC00000u
#define REGION 0xFEB00000u /* where most addresses are made to fall */

struct card {
    struct pci_function function;
    uint8_t tag;
    bool asks; /* for an interrupt */
};

struct machine {
    struct dev dev;
    struct bus *bus;
    struct pci_host *host;
    struct card cards[CARDS];
    struct card fixed;
    unsigned rings;
    bool pirq[PCI_PIRQS], isa[16];
};

static uint64_t card_read(void *dev, uint64_t offset, unsigned size)
{
    return ((struct card *)dev)->tag;
}

static void card_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
}

static void card_ring(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    fuzz_check(offset + size <= 8);
}

static const struct bus_ops card_ops = {.read = card_read, .write = card_write, .max_size = 4};

static void add_bar(struct card *card, unsigned n, struct pci_bar bar)
{
    bar.name = "card";
    bar.ops = &card_ops;
    bar.dev = card;
    pci_function_add_bar(&card->function, n, &bar);
}

static void init_card(struct machine *m, unsigned i)
{
    struct card *card = &m->cards[i];

    card->tag = (uint8_t)(0x50 + i);
    pci_function_init(&card->function, 0x1234, (uint16_t)i, 0xFF0000, 1);
    add_bar(card, 0, (struct pci_bar){.size = 0x1000u << i});
    add_bar(card, 1, (struct pci_bar){.size = 16u << i, .ports = true});
    add_bar(card, 2,
            (struct pci_bar){.size = 0x4000,
                             .wide = true,
                             .doorbell = 0x1000,
                             .doorbell_size = 8,
                             .ring = card_ring});
    pci_function_add_pin(&card->function);
    fuzz_check(!pci_attach(m->host, FIRST + i, 0, &card->function, NULL));
}

/* What the bus should answer at ADDRESS: the tag of the first card that decodes it. */
static uint8_t expected(struct machine *m, bool ports, uint64_t address)
{
    if (!ports && address >= FIXED && address < FIXED + 0x1000)
        return m->fixed.tag;
    for (unsigned i = 0; i < CARDS; i++)
        for (unsigned n = 0; n < PCI_BARS; n++) {
            struct pci_function *f = &m->cards[i].function;
            uint64_t base = pci_bar_address(f, n);
            bool beyond = ports && base + f->bar[n].size > 0x10000;

            if (base != PCI_NOT_DECODED && f->bar[n].ports == ports && !beyond && address >= base &&
                address - base < f->bar[n].size)
                return m->cards[i].tag;
        }
    return 0xFF;
}

static void check_at(struct machine *m, bool ports, uint64_t address)
{
    /* The host bridge's own ports. */
    if (ports && (address > 0xFFFF || (address >= 0xCF8 && address <= 0xCFF)))
        return;
    fuzz_check(bus_read(m->bus, ports ? BUS_PORT : BUS_MMIO, address, 1) ==
               expected(m, ports, address));
}

/* What is decoded lies where its register says, and answers there, at each edge. */
static void check(struct machine *m)
{
    for (unsigned i = 0; i < CARDS; i++) {
        struct pci_function *f = &m->cards[i].function;

        for (unsigned n = 0; n < PCI_BARS; n++) {
            uint64_t base = pci_bar_address(f, n), size = f->bar[n].size;

            if (base == PCI_NOT_DECODED)
                continue;
            check_at(m, f->bar[n].ports, base - 1);
            check_at(m, f->bar[n].ports, base);
            check_at(m, f->bar[n].ports, base + size / 2);
            check_at(m, f->bar[n].ports, base + size - 1);
            check_at(m, f->bar[n].ports, base + size);
        }
    }
    check_at(m, false, FIXED);
    check_at(m, false, FIXED + 0x1000);
}

static void set_level(void *opaque, unsigned n, bool level)
{
    bool *levels = opaque;

    fuzz_check(levels[n] != level); /* changes only */
    levels[n] = level;
}

static uint8_t config_byte(struct machine *m, unsigned device, unsigned reg)
{
    bus_write(m->bus, BUS_PORT, 0xCF8, 4, 1u << 31 | device << 11 | (reg & 0xFC));
    return (uint8_t)bus_read(m->bus, BUS_PORT, 0xCFC + (reg & 3), 1);
}

static void check_interrupts(struct machine *m)
{
    bool pirq[PCI_PIRQS] = {false}, isa[16] = {false};

    for (unsigned i = 0; i < CARDS; i++)
        if ((config_byte(m, FIRST + i, PCI_STATUS) & PCI_STATUS_INT) &&
            !(config_byte(m, FIRST + i, PCI_COMMAND + 1) & PCI_COMMAND_NO_INT >> 8))
            pirq[PCI_PIRQ(FIRST + i, 0)] = true;
    for (unsigned n = 0; n < PCI_PIRQS; n++) {
        uint8_t route = config_byte(m, 1, 0x60 + n), irq = route & 15;

        fuzz_check(pirq[n] == m->pirq[n]);
        if (pirq[n] && !(route & 0x80) && irq > 2 && irq != 8 && irq != 13)
            isa[irq] = true;
    }
    for (unsigned n = 0; n < 16; n++)
        fuzz_check(isa[n] == m->isa[n]);
}

static void reset_card(struct card *card)
{
    pci_function_reset(&card->function);
    card->asks = false;
}

static void reset(struct dev *dev)
{
    struct machine *m = container_of(dev, struct machine, dev);

    pci_host_dev(m->host)->ops->reset(pci_host_dev(m->host));
    for (unsigned i = 0; i < CARDS; i++)
        reset_card(&m->cards[i]);
    pci_host_remap(m->host);
}

static void ask(struct card *card, bool level)
{
    card->asks = level;
    pci_function_interrupt(&card->function, level);
}

static void state_card(struct card *card, struct state *s)
{
    pci_function_state(&card->function, s);
    state_bool(s, &card->asks);
    ask(card, card->asks);
}

static void state(struct dev *dev, struct state *s)
{
    struct machine *m = container_of(dev, struct machine, dev);

    pci_host_dev(m->host)->ops->state(pci_host_dev(m->host), s);
    for (unsigned i = 0; i < CARDS; i++)
        state_card(&m->cards[i], s);
    pci_host_remap(m->host);
}

static void destroy(struct dev *dev)
{
    struct machine *m = container_of(dev, struct machine, dev);

    for (unsigned i = 0; i < CARDS; i++)
        pci_detach(m->host, FIRST + i, 0);
    pci_host_dev(m->host)->ops->free(pci_host_dev(m->host));
    bus_release(m->bus, BUS_MMIO, FIXED);
    free(m);
}

static const struct dev_ops ops = {
    .name = "cards", .reset = reset, .state = state, .free = destroy};

static struct dev *create(struct fuzz_board *board)
{
    struct machine *m = calloc(1, sizeof(*m));
    const struct pci_host_config config = {.pirq = {.set = set_level, .opaque = m ? m->pirq : NULL},
                                           .isa = {.set = set_level, .opaque = m ? m->isa : NULL},
                                           .high = pci_high_window(0, 40)};

    fuzz_check(m);
    m->dev.ops = &ops;
    m->bus = board->bus;
    m->fixed.tag = 0xFE;
    m->host = pci_host_create(board->bus, &config, NULL);
    fuzz_check(m->host);
    fuzz_check(
        !bus_claim(board->bus, BUS_MMIO, FIXED, 0x1000, "fixed", &card_ops, &m->fixed, NULL));
    for (unsigned i = 0; i < CARDS; i++)
        init_card(m, i);
    board->device = m;
    return &m->dev;
}

/* One register of a card is written: anything, or an address among the others'. */
static void configure(struct fuzz_board *board, struct fuzz_input *in)
{
    struct machine *m = board->device;
    uint8_t how = fuzz_u8(in);
    unsigned reg = how & 0x80 ? PCI_COMMAND : PCI_BAR0 + 4 * (how % PCI_BARS);
    unsigned size = how & 0x40 ? 1u << fuzz_u8(in) % 3 : 4;
    uint32_t value = (uint32_t)fuzz_uint(in, size);

    bus_write(board->bus, BUS_PORT, 0xCF8, 4,
              1u << 31 | (FIRST + how / 8 % CARDS) << 11 | (reg & 0xFC));
    if (size == 4 && value >> 28 == 0)
        value = REGION + (value & 0x1FFFFF);
    bus_write(board->bus, BUS_PORT, 0xCFC, size, value);
    check(m);
    check_interrupts(m);
    /* All that any of them may decode, written and read. */
    bus_write(board->bus, BUS_MMIO, REGION + (fuzz_uint(in, 3) & 0x1FFFFF), 4, value);
}

/* A card asks for an interrupt or no longer, firmware is run, or interrupts are routed. */
static void line(struct fuzz_board *board, unsigned n, bool level)
{
    struct machine *m = board->device;

    if (n < 8)
        pci_host_firmware_setup(m->host);
    else
        ask(&m->cards[n % CARDS], level);
}

static void route(struct machine *m, uint8_t reg, uint8_t value)
{
    bus_write(m->bus, BUS_PORT, 0xCF8, 4, 1u << 31 | 1u << 11 | 0x60);
    bus_write(m->bus, BUS_PORT, 0xCFC + reg, 1, value);
    check_interrupts(m);
}

static void other(struct fuzz_board *board, struct fuzz_input *in)
{
    struct fuzz_input before = *in;
    uint8_t how = fuzz_u8(in);

    if (how % 8 == 7) {
        route(board->device, how >> 6, fuzz_u8(in));
        return;
    }
    *in = before;
    configure(board, in);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0xCF8, 8}, {BUS_MMIO, REGION, 0x10000}, {BUS_PORT, 0xC000, 0x100}},
    .line = line,
    .other = other,
};
