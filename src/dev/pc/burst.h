/*
 * Collects single bytes of output for a moment, so that the host side is called once for many.
 */
#ifndef DOPPEL_DEV_PC_BURST_H
#define DOPPEL_DEV_PC_BURST_H

#include "bus/clock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct burst;

/* Where the bytes go. Both are called with the board lock held and must not wait. */
struct burst_backend {
    /* Takes all of it. NULL: bytes vanish. */
    void (*output)(void *opaque, const void *data, size_t size);
    /* Whether there is no room for more. NULL: there always is. Also without the board lock. */
    bool (*full)(void *opaque);
    void *opaque;
};

struct burst *burst_create(struct clock *clock, const struct burst_backend *backend);
void burst_free(struct burst *burst); /* hands out the rest; board lock not held */

/* Board lock held. Returns whether the backend has become full, for bus_hold. */
bool burst_put(struct burst *burst, uint8_t byte);
void burst_flush(struct burst *burst);
/* Whether the backend is full. Any thread, without locks. */
bool burst_full(const struct burst *burst);

#endif
