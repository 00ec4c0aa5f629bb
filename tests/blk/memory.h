/*
 * A driver of disks for tests: a medium (medium.h), which may be the file that an image format
 * stands on.
 */
#ifndef DOPPEL_TESTS_BLK_MEMORY_H
#define DOPPEL_TESTS_BLK_MEMORY_H

#include "blk/blk.h"
#include "medium.h"

struct memory_options {
    bool readonly;
    bool owns;     /* the medium is destroyed when the disk is closed */
    bool threaded; /* a thread of its own does what was submitted, in any order */
    bool lies;     /* flushes are confirmed and not carried out: a test must notice */
    bool sparse;   /* it may be made larger than MOST, but not be written there */
    uint64_t most; /* bytes that the disk can grow to; beyond that, -ENOSPC. 0: no limit */
    uint64_t seed; /* of the order */
};

/* MEDIUM outlives it, unless OWNS. */
struct blk *memory_open(struct medium *medium, const struct memory_options *options);

/* Takes away the limit. */
void memory_make_room(struct blk *blk);

#endif
