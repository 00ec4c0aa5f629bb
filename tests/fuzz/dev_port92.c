/*
 * Fuzz target: system control port A.
 */
#include "dev.h"

#include "dev/pc/port92.h"

static struct dev *create(struct fuzz_board *board)
{
    return port92_create(board->bus, fuzz_no_line(), NULL);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0x92, 1}},
};
