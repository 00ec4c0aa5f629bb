/*
 * Fuzz target: the 8259 pair.
 */
#include "dev.h"

#include "dev/pc/pic.h"

static struct dev *create(struct fuzz_board *board)
{
    struct pic *pic = pic_create(board->bus, fuzz_no_line(), NULL);
    board->device = pic;
    return pic ? pic_dev(pic) : NULL;
}

static void line(struct fuzz_board *board, unsigned n, bool level)
{
    struct irq_line pin = pic_pin(board->device, n % 16);
    if (n % 16 != 2)
        irq_set(&pin, level);
}

static void acknowledge(struct fuzz_board *board, struct fuzz_input *in)
{
    (void)in;
    bus_lock(board->bus);
    fuzz_check(pic_acknowledge(board->device) < 256);
    bus_unlock(board->bus);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0x20, 2}, {BUS_PORT, 0xA0, 2}, {BUS_PORT, 0x4D0, 2}},
    .line = line,
    .other = acknowledge,
};
