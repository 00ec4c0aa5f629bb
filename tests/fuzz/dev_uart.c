/*
 * Fuzz target: the serial port, with its input queue.
 */
#include "dev.h"

#include "dev/pc/uart.h"

static void swallow(void *opaque, const void *data, size_t size)
{
    fuzz_check(size > 0);
}

static struct dev *create(struct fuzz_board *board)
{
    struct uart_backend backend = {.sent.output = swallow};
    struct uart *uart =
        uart_create(board->bus, board->clock, 0x3F8, fuzz_no_line(), &backend, NULL);

    board->device = uart;
    return uart ? uart_dev(uart) : NULL;
}

static void type(struct fuzz_board *board, struct fuzz_input *in)
{
    static const uint8_t bytes[512];
    size_t size = fuzz_u8(in) * 2;

    fuzz_check(uart_input(board->device, bytes, size) <= size);
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .ranges = {{BUS_PORT, 0x3F8, 8}},
    .other = type,
};
