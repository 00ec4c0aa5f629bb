/*
 * Fuzz target: the test device.
 */
#include "dev.h"

#include "dev/pc/test_device.h"

static void check_line(void *opaque, unsigned n, bool level)
{
    fuzz_check(n < TEST_DEVICE_LINES);
}

static struct dev *create(struct fuzz_board *board)
{
    return test_device_create(board->bus, check_line, NULL, NULL);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0xE0, 8}, {BUS_PORT, 0x2000, 24}, {BUS_MMIO, 0xFF000000, 0x10000}},
};
