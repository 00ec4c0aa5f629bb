/*
 * Snapshots that a test makes of a disk, and which of them may be there after a cut.
 *
 * Making, applying and deleting a snapshot is whole or has not happened. Once it is done, it is on
 * the disk.
 */
#ifndef DOPPEL_TESTS_BLK_ALBUM_H
#define DOPPEL_TESTS_BLK_ALBUM_H

#include "guest.h"

#define ALBUM_NAMES   3u
#define ALBUM_MOST    32u
#define ALBUM_CHANGES 64u

/* One that was made at some time. Moments (history.h) of its life; 0: not yet. */
struct picture {
    unsigned name; /* "snapshot-N" */
    _Atomic uint64_t begun, made, dropping, dropped;
};

/* A time in which one was made, applied or deleted, by moments. END 0: it was never done. */
struct change {
    _Atomic uint64_t begin, end;
};

/* Zero at first. May lie in memory that processes share. */
struct album {
    _Atomic unsigned count;
    struct picture picture[ALBUM_MOST];
    _Atomic unsigned changes;
    struct change change[ALBUM_CHANGES];
    uint32_t version[ALBUM_MOST][GUEST_SECTORS]; /* what they hold; REPLACE names these by number */
};

/* Makes, applies or deletes one, as RANDOM chooses, and notes it. Nothing else is under way. What
 * fails ends the process with a message. */
void album_change(struct album *album, struct guest *guest, uint64_t *random);

/* Whether one was being made, applied or deleted at CUT: until the end of that an image may be
 * marked dirty, and has to be repaired. */
bool album_busy(const struct album *album, uint64_t cut);
/* Checks which ones IMAGE has after a cut right after moment CUT. False: a message has been
 * printed, unless QUIET. */
bool album_check(const struct album *album, uint64_t cut, struct blk *image, bool quiet);
/* Gives IMAGE, a copy, the contents of one that it has, which RANDOM chooses, and compares. */
bool album_apply(const struct album *album, uint64_t cut, struct blk *image, uint64_t *random,
                 bool quiet);
/* Forgets all but those that were there at CUT, and begins anew: they were made at moment 1. */
void album_turn(struct album *album, uint64_t cut, struct blk *image);

/* As history.h takes them. */
void album_tables(const struct album *album, const uint32_t *tables[ALBUM_MOST]);

#endif
