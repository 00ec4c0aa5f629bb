/*
 * How long a back end of vhost-user may take to end the requests that it has, when the machine is
 * to pause or the driver resets the device. The machine waits for that, and a back end may be
 * hostile: one that ends a request now and then must not hold the machine up for long.
 *
 *      requests      o
 *      the back end    o
 *      has               o <-- each round, at most so many of those that it had at first
 *                          o
 *                0 --------------o--> rounds
 *
 * Of N requests that the back end had at first, N x K / VHOST_DRAIN_ROUNDS must have ended after
 * round K, and one in each round. So all have ended after VHOST_DRAIN_ROUNDS rounds.
 *
 * One thread at a time.
 */
#ifndef DOPPEL_DEV_VHOST_DRAIN_H
#define DOPPEL_DEV_VHOST_DRAIN_H

#include "base/time.h"

#include <stdbool.h>
#include <stdint.h>

#define VHOST_DRAIN_ROUND_NS (10 * NS_PER_S)
#define VHOST_DRAIN_ROUNDS   6u

/* Zero at first: nothing is waited for. */
struct vhost_drain {
    uint64_t round_ends; /* 0: nothing is waited for */
    unsigned round;
    unsigned first; /* the requests that the back end had at first */
    unsigned last;  /* and at the end of the last round */
};

/* Looks at a back end that has OUT requests at the time NOW. WANTED: the machine or the driver
 * waits for them. False: it takes too long, and counts as dead. */
bool vhost_drain_look(struct vhost_drain *drain, bool wanted, unsigned out, uint64_t now);
/* When to look again: UINT64_MAX if nothing is waited for. */
uint64_t vhost_drain_next(const struct vhost_drain *drain);

#endif
