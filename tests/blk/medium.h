/*
 * A disk in memory, with a cache that loses power: it notes what is done to it, and makes the
 * states in which a cut may leave it.
 *
 * What a flush covered is there after the cut: all that was done before the flush was submitted.
 * Each sector of each write after that may be there or not, in any order: disks reorder, drop, and
 * tear between sectors. Discards, and changes of size, are writes in this respect.
 *
 * Any thread may call medium_begin and medium_finish; the rest is for when nobody does.
 */
#ifndef DOPPEL_TESTS_BLK_MEDIUM_H
#define DOPPEL_TESTS_BLK_MEDIUM_H

#include "history.h"

#include <sys/uio.h>

enum medium_kind { MEDIUM_WRITE, MEDIUM_ZEROES, MEDIUM_FLUSH, MEDIUM_RESIZE };

struct medium;

/* Contents of a disk. */
struct medium_image {
    uint8_t *data;
    uint64_t size, room;
};

/* A disk that holds SIZE bytes of DATA. HISTORY counts the moments; NULL: nothing is noted. */
struct medium *medium_create(const void *data, uint64_t size, struct history *history);
void medium_destroy(struct medium *medium);

/* Notes that a request was submitted; returns its number. RESIZE: SIZE is the new size. */
size_t medium_begin(struct medium *medium, enum medium_kind kind, uint64_t offset, uint64_t size,
                    const struct iovec *iov, unsigned iovs);
/* Does it. */
void medium_finish(struct medium *medium, size_t number);
/* What lies beyond the end reads as zeros. */
void medium_read(struct medium *medium, uint64_t offset, const struct iovec *iov, unsigned iovs);
uint64_t medium_size(struct medium *medium);
/* Its contents, in an IMAGE that medium_image_free frees. */
void medium_now(struct medium *medium, struct medium_image *image);

/* How often it was flushed; and the moment in which flush N was done. */
unsigned medium_flushes(struct medium *medium);
uint64_t medium_flush_moment(struct medium *medium, unsigned n);

enum medium_style {
    MEDIUM_NOTHING,    /* only what was flushed */
    MEDIUM_EVERYTHING, /* all that was submitted */
    MEDIUM_SOME,       /* as chance wants */
};

/* Makes IMAGE, which medium_image_free frees, the contents after a cut right after moment CUT. */
void medium_cut(struct medium *medium, uint64_t cut, enum medium_style style, uint64_t *random,
                struct medium_image *image);
void medium_image_free(struct medium_image *image);

#endif
