/*
 * A disk in memory in place of src/blk, which does what it is told when it is told so. A test (or
 * fuzz target) that compiles fake_blk.c in gets it in place of the library's. There is one.
 */
#ifndef DOPPEL_TESTS_UNIT_FAKE_BLK_H
#define DOPPEL_TESTS_UNIT_FAKE_BLK_H

#include "blk/blk.h"

#define FAKE_BLK_KEPT 4096

struct blk {
    struct blk_info info; /* may be changed before a device asks for it */
    uint8_t *bytes;
    uint64_t room; /* bytes that it can grow to */

    bool later; /* requests are kept until the test ends them; else they are done at once */
    struct blk_request *kept[FAKE_BLK_KEPT]; /* in the order in which they came */
    unsigned count;
    int write_fails, read_fails; /* what changes and reads result in, if not 0 */

    unsigned done[5], kicks;  /* by kind: how many were done well */
    unsigned closed, recalls; /* how often */
    char letters[64];         /* what was done well: r, w, f, d, z */
};

extern struct blk fake_blk;

/* Makes it anew: SIZE bytes of a pattern. Zeroes that are not given back to the host read as 1, so
 * that a test can tell, and what is discarded as DDh. */
void fake_blk_make(uint64_t size);
void fake_blk_free(void);
/* Ends the Nth request that is kept. */
void fake_blk_end(unsigned n);

#endif
