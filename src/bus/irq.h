/*
 * Interrupt lines and messages, as values: a device raises its line without knowing what is at the
 * other end.
 */
#ifndef DOPPEL_BUS_IRQ_H
#define DOPPEL_BUS_IRQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A line has a level that its device must not change twice at once: board lock held. */
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

/* Where message-signalled interrupts go (SDM volume 3, 11.11). A message is whole in itself, so it
 * may be sent from any thread, with or without the board lock. The sink takes no lock but those of
 * local APICs, one at a time. */
struct msi_sink {
    void (*send)(void *opaque, uint64_t address, uint32_t data);
    void *opaque;
};

#endif
