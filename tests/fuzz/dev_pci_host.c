/*
 * Fuzz target: the PCI host bridge and its configuration spaces.
 */
#include "dev.h"

#include "dev/pci/host.h"

static struct dev *create(struct fuzz_board *board)
{
    struct pci_host *host =
        pci_host_create(board->bus, &(struct pci_host_config){.reset = fuzz_no_line()}, NULL);

    return host ? pci_host_dev(host) : NULL;
}

/* A register of a function on bus 0 is written: address and data in one step. */
static void configure(struct fuzz_board *board, struct fuzz_input *in)
{
    uint32_t address = (uint32_t)fuzz_uint(in, 2) & 0x9FC;
    uint8_t how = fuzz_u8(in);

    bus_write(board->bus, BUS_PORT, 0xCF8, 4, 1u << 31 | address);
    bus_write(board->bus, BUS_PORT, 0xCFC + (how & 3), 1u << (how >> 2 & 3), fuzz_uint(in, 4));
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0xCF8, 8}},
    .other = configure,
};
