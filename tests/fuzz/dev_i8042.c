/*
 * Fuzz target: the keyboard controller.
 */
#include "dev.h"

#include "dev/pc/i8042.h"

static struct dev *create(struct fuzz_board *board)
{
    return i8042_create(board->bus, fuzz_no_line(), fuzz_no_line(), fuzz_no_line(), NULL);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0x60, 1}, {BUS_PORT, 0x64, 1}},
};
