/*
 * Interrupt lines and messages, as values: a device raises its line without knowing what is at the
 * other end. Called with the board lock held.
 */
#ifndef DOPPEL_BUS_IRQ_H
#define DOPPEL_BUS_IRQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct irq_line {
    void (*set)(void *opaque, unsigned n, bool level);
    void *opaque;
    unsigned n;
};

static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->opaque, line->n, level);
}

/* Where message-signalled interrupts go (SDM volume 3, 11.11). */
struct msi_sink {
    void (*send)(void *opaque, uint64_t address, uint32_t data);
    void *opaque;
};

#endif
