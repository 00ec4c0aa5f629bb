/*
 * Collects single bytes of output for a moment, so that the host side is called once for many.
 */
#ifndef DOPPEL_DEV_BURST_H
#define DOPPEL_DEV_BURST_H

#include "bus/clock.h"

#include <stddef.h>
#include <stdint.h>

struct burst;

/* OUTPUT may be NULL: then bytes vanish. It is called with the board lock held. */
struct burst *burst_create(struct clock *clock,
                           void (*output)(void *opaque, const void *data, size_t size),
                           void *opaque);
void burst_free(struct burst *burst); /* hands out the rest; board lock not held */

/* Board lock held. */
void burst_put(struct burst *burst, uint8_t byte);
void burst_flush(struct burst *burst);

#endif
