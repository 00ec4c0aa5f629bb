/*
 * Fuzz target: the 8254.
 */
#include "dev.h"

#include "dev/pc/pit.h"

static struct dev *create(struct fuzz_board *board)
{
    return pit_create(board->bus, board->clock, fuzz_no_line(), NULL);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0x40, 4}, {BUS_PORT, 0x61, 1}},
};
