/*
 * A disk that carries out its requests in a random order, some of them late, on two threads: what a
 * fast disk never shows.
 */
#ifndef DOPPEL_TESTS_UNIT_BLK_JUMBLED_H
#define DOPPEL_TESTS_UNIT_BLK_JUMBLED_H

#include "blk/blk.h"

/* Stands on BELOW, which it closes when it is closed. NULL: no memory or threads. */
struct blk *jumbled_open(struct blk *below, uint64_t seed);

#endif
