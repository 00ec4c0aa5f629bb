/*
 * A virtio balloon (virtio 1.2, 5.5): by it a guest gives memory back to the host, and says how
 * much it could spare.
 *
 * The guest inflates the balloon by as many pages as the target says, and reports pages that are
 * free by itself; both are given back by the memory manager's thread (mem/change.h), in batches. A
 * page that the guest uses again is there again, empty, whether it has told so (deflated) or not.
 * Who sets the target decides the policy.
 */
#ifndef DOPPEL_DEV_VIRTIO_BALLOON_H
#define DOPPEL_DEV_VIRTIO_BALLOON_H

#include "dev/virtio/pci.h"
#include "mem/change.h"

/* What a guest says of its memory (5.5.6.3), in bytes or as counts since it began. */
enum virtio_balloon_stat {
    BALLOON_SWAPPED_IN,
    BALLOON_SWAPPED_OUT,
    BALLOON_MAJOR_FAULTS,
    BALLOON_MINOR_FAULTS,
    BALLOON_FREE,
    BALLOON_TOTAL,
    BALLOON_AVAILABLE,
    BALLOON_CACHES,
    BALLOON_HUGE_PAGES,
    BALLOON_HUGE_PAGES_FAILED,
    BALLOON_STATS,
};

struct virtio_balloon_state {
    uint64_t target, actual;      /* bytes that the guest is asked for, and that it has given */
    unsigned answers;             /* how often STAT was filled in */
    uint64_t stat[BALLOON_STATS]; /* UINT64_MAX: the guest has not said */
};

struct virtio_balloon_config {
    uint64_t target; /* at first; bytes, cut to pages */
    /* Has a batch of changes made: mem_change_post. */
    int (*post)(struct mem *mem, struct mem_batch *batch);
};

struct dev *virtio_balloon_create(const struct virtio_slot *slot,
                                  const struct virtio_balloon_config *config, struct error *err);

/* DEV was made by virtio_balloon_create. Any thread. */

/* Asks the guest for BYTES of its memory in all. Board lock not held. */
void virtio_balloon_set_target(struct dev *dev, uint64_t bytes);
/* Asks the guest for new statistics; `answers` says when they have come. */
void virtio_balloon_ask(struct dev *dev);
void virtio_balloon_look(struct dev *dev, struct virtio_balloon_state *state);

#endif
