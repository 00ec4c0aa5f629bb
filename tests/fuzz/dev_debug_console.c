/*
 * Fuzz target: the debug console.
 */
#include "dev.h"

#include "dev/pc/debug_console.h"

static void swallow(void *opaque, const void *data, size_t size)
{
    fuzz_check(size > 0);
}

static struct dev *create(struct fuzz_board *board)
{
    const struct burst_backend backend = {.output = swallow};

    return debug_console_create(board->bus, board->clock, &backend, NULL);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0xE9, 1}},
};
