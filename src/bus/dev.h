/*
 * What every device model has in common. A device embeds struct dev as its first member.
 */
#ifndef DOPPEL_BUS_DEV_H
#define DOPPEL_BUS_DEV_H

#include "base/state.h"

struct dev;

struct dev_ops {
    const char *name;
    void (*reset)(struct dev *dev); /* to the state after power-on; board lock held */
    void (*state)(struct dev *dev, struct state *s); /* save and restore; board lock held */
    void (*free)(struct dev *dev); /* gives back ranges and timers too; board lock not held */
};

struct dev {
    const struct dev_ops *ops;
};

#endif
