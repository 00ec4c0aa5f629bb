/*
 * Fuzz target: the debug exit port.
 */
#include "dev.h"

#include "dev/pc/debug_exit.h"

static void check_status(void *opaque, int status)
{
    fuzz_check(status > 0 && (status & 1));
}

static struct dev *create(struct fuzz_board *board)
{
    return debug_exit_create(board->bus, check_status, NULL, NULL);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0xF4, 4}},
};
