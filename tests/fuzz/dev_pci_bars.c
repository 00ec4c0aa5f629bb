/*
 * Fuzz target: base address registers of three functions, which a guest moves about, on top of each
 * other and of another device. After each step what the bus decodes must be what the registers say.
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
};

struct machine {
    struct dev dev;
    struct bus *bus;
    struct pci_host *host;
    struct card cards[CARDS];
    struct card fixed;
    unsigned rings;
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
    fuzz_check(!pci_attach(m->host, FIRST + i, 0, &card->function, NULL));
}

static bool overlap(const struct pci_bar *a, const struct pci_bar *b)
{
    return a->ports == b->ports && a->base <= b->base + (b->size - 1) &&
           b->base <= a->base + (a->size - 1);
}

/* What is decoded lies where its register says, alone, and answers there. */
static void check(struct machine *m)
{
    struct pci_bar *decoded[CARDS * PCI_BARS];
    unsigned count = 0;

    for (unsigned i = 0; i < CARDS; i++) {
        struct pci_function *f = &m->cards[i].function;

        for (unsigned n = 0; n < PCI_BARS; n++) {
            struct pci_bar *bar = &f->bar[n];
            enum bus_space space = bar->ports ? BUS_PORT : BUS_MMIO;

            if (bar->base == PCI_NOT_DECODED)
                continue;
            fuzz_check(bar->base == pci_bar_address(f, n));
            fuzz_check(bus_read(m->bus, space, bar->base, 1) == m->cards[i].tag);
            for (unsigned k = 0; k < count; k++)
                fuzz_check(!overlap(decoded[k], bar));
            decoded[count++] = bar;
        }
    }
    fuzz_check(bus_read(m->bus, BUS_MMIO, FIXED, 1) == m->fixed.tag);
}

static void reset(struct dev *dev)
{
    struct machine *m = container_of(dev, struct machine, dev);

    pci_host_dev(m->host)->ops->reset(pci_host_dev(m->host));
    for (unsigned i = 0; i < CARDS; i++)
        pci_function_reset(&m->cards[i].function);
    pci_host_remap(m->host);
}

static void state(struct dev *dev, struct state *s)
{
    struct machine *m = container_of(dev, struct machine, dev);

    pci_host_dev(m->host)->ops->state(pci_host_dev(m->host), s);
    for (unsigned i = 0; i < CARDS; i++)
        pci_function_state(&m->cards[i].function, s);
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

    fuzz_check(m);
    m->dev.ops = &ops;
    m->bus = board->bus;
    m->fixed.tag = 0xFE;
    m->host = pci_host_create(board->bus, fuzz_no_line(), NULL);
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
    /* All that any of them may decode, written and read. */
    bus_write(board->bus, BUS_MMIO, REGION + (fuzz_uint(in, 3) & 0x1FFFFF), 4, value);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0xCF8, 8}, {BUS_MMIO, REGION, 0x10000}, {BUS_PORT, 0xC000, 0x100}},
    .other = configure,
};
