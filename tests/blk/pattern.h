/*
 * What the tests of disks write: a sector holds its own number and a version, and the rest follows
 * from the two. A sector that is torn, stale, or somebody else's shows when it is read.
 */
#ifndef DOPPEL_TESTS_BLK_PATTERN_H
#define DOPPEL_TESTS_BLK_PATTERN_H

#include <stddef.h>
#include <stdint.h>

#define SECTOR 512u

/* Version 0 is a sector of zeros. */
#define PATTERN_NONE UINT32_MAX /* no version: the sector was not written so */

/* Writes COUNT sectors of VERSION to DATA; the first has the number FIRST. */
void pattern_fill(void *data, uint64_t first, size_t count, uint32_t version);
/* The version of the sector NUMBER that DATA holds, or PATTERN_NONE. */
uint32_t pattern_version(const void *data, uint64_t number);

/* The next of a sequence of random numbers, which STATE, any number at first, chooses. */
uint64_t pattern_random(uint64_t *state);
/* A random number below LIMIT, which is not 0. */
uint64_t pattern_below(uint64_t *state, uint64_t limit);

#endif
