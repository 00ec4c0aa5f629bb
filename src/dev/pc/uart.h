/*
 * A 16550A serial port.
 */
#ifndef DOPPEL_DEV_PC_UART_H
#define DOPPEL_DEV_PC_UART_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/dev.h"
#include "bus/irq.h"
#include "dev/pc/burst.h"

#include <stddef.h>
#include <stdint.h>

struct uart;

/* What is plugged in; called with the board lock held, from which uart_input may be called. None of
 * it may wait. */
struct uart_backend {
    struct burst_backend sent;         /* sent.output NULL: nothing is plugged in */
    void (*input_ready)(void *opaque); /* may be NULL */
    void *opaque;                      /* of input_ready */
};

/* Claims the ports BASE to BASE + 7. */
struct uart *uart_create(struct bus *bus, struct clock *clock, uint16_t base, struct irq_line irq,
                         const struct uart_backend *backend, struct error *err);
struct dev *uart_dev(struct uart *uart);

/* Puts bytes on the wire towards the guest and returns how many the queue took; after it took
 * fewer than SIZE, input_ready is called once there is room. Any thread, with or without the
 * board lock. */
size_t uart_input(struct uart *uart, const void *data, size_t size);

/* Hands output that is still buffered to the backend. Board lock held. */
void uart_flush(struct uart *uart);
/* Whether the backend has no room for more output. Any thread, without locks. */
bool uart_full(const struct uart *uart);

#endif
