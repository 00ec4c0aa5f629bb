/*
 * Fuzz target: the real-time clock.
 */
#include "dev.h"

#include "dev/pc/rtc.h"

static struct dev *create(struct fuzz_board *board)
{
    return rtc_create(board->bus, board->clock, fuzz_no_line(), fuzz_no_line(), 1 << 30, 0, NULL);
}

/* A register is written: index and data in one step. */
static void set(struct fuzz_board *board, struct fuzz_input *in)
{
    bus_write(board->bus, BUS_PORT, 0x70, 1, fuzz_u8(in) % 0x10);
    bus_write(board->bus, BUS_PORT, 0x71, 1, fuzz_u8(in));
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0x70, 2}},
    .other = set,
};
