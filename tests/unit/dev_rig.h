/*
 * What a device needs around it in a test: a bus, a clock that the test moves, and lines whose
 * level and rising edges can be looked at.
 */
#ifndef DOPPEL_TESTS_UNIT_DEV_RIG_H
#define DOPPEL_TESTS_UNIT_DEV_RIG_H

#include "bus/bus.h"
#include "bus/dev.h"
#include "bus/irq.h"
#include "fake_clock.h"
#include "state_image.h"

#define RIG_LINES 16

struct rig {
    struct bus *bus;
    struct clock *clock;
    bool level[RIG_LINES];
    unsigned edges[RIG_LINES];
};

static inline struct rig *rig_create(void)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    rig->bus = bus_create(NULL);
    rig->clock = clock_create(NULL, rig->bus, NULL);
    return rig;
}

static inline void rig_destroy(struct rig *rig)
{
    clock_destroy(rig->clock);
    bus_destroy(rig->bus);
    free(rig);
}

static inline void rig_set(void *opaque, unsigned n, bool level)
{
    struct rig *rig = opaque;

    rig->edges[n] += level && !rig->level[n];
    rig->level[n] = level;
}

static inline struct irq_line rig_line(struct rig *rig, unsigned n)
{
    return (struct irq_line){.set = rig_set, .opaque = rig, .n = n};
}

static inline uint8_t rig_in(struct rig *rig, uint16_t port)
{
    return (uint8_t)bus_read(rig->bus, BUS_PORT, port, 1);
}

static inline void rig_out(struct rig *rig, uint16_t port, uint8_t value)
{
    bus_write(rig->bus, BUS_PORT, port, 1, value);
}

static inline void rig_reset(struct rig *rig, struct dev *dev)
{
    bus_lock(rig->bus);
    dev->ops->reset(dev);
    bus_unlock(rig->bus);
}

/* Saves FROM and restores it into TO; the result is 0 or a negative errno. */
static inline int rig_copy_state(struct rig *rig, struct dev *from, struct dev *to)
{
    struct state_image image = {0};
    int ret;

    bus_lock(rig->bus);
    ret = image_save_dev(&image, from);
    if (ret == 0)
        ret = image_load_dev(&image, to);
    bus_unlock(rig->bus);
    image_free(&image);
    return ret;
}

#endif
