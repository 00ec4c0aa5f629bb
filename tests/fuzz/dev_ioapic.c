/*
 * Fuzz target: the I/O APIC.
 */
#include "dev.h"

#include "dev/pc/ioapic.h"

static void take(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque;
    (void)data;
    fuzz_check(address >> 20 == 0xFEE);
}

static struct dev *create(struct fuzz_board *board)
{
    struct ioapic *ioapic =
        ioapic_create(board->bus, IOAPIC_BASE, 0, (struct msi_sink){.send = take}, NULL);
    board->device = ioapic;
    return ioapic ? ioapic_dev(ioapic) : NULL;
}

static void line(struct fuzz_board *board, unsigned n, bool level)
{
    struct irq_line pin = ioapic_pin(board->device, n % IOAPIC_PINS);
    irq_set(&pin, level);
}

static void eoi(struct fuzz_board *board, struct fuzz_input *in)
{
    bus_lock(board->bus);
    ioapic_eoi(board->device, fuzz_u8(in));
    bus_unlock(board->bus);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_MMIO, IOAPIC_BASE, 0x50}},
    .line = line,
    .other = eoi,
};
