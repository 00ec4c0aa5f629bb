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
    /* For a device that has work done on other threads than a vCPU's or the clock's; else NULL,
     * both. After pause has returned, nothing of the device touches guest memory or sends an
     * interrupt until resume: what its workers were doing is finished or taken back, and belongs to
     * its state. It may be reset, saved, restored and freed in between, and its registers accessed;
     * doorbells and timers are remembered. Neither call nests. Board lock not held, because pause
     * waits for workers that may take it. */
    void (*pause)(struct dev *dev);
    void (*resume)(struct dev *dev);
    void (*free)(struct dev *dev); /* gives back ranges and timers too; board lock not held */
};

struct dev {
    const struct dev_ops *ops;
};

#endif
