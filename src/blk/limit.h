/*
 * Rate limits of a disk: so many requests and so many bytes a second.
 *
 * A bucket fills at the rate and holds what a tenth of a second brings. A request passes when no
 * bucket is empty, and takes out what it costs, even if that is more than there is: the next one
 * waits until that is made up for. What must wait stands in a queue in order; a thread of the
 * limit's own lets it pass. Reads and writes cost their bytes; every request costs one request.
 *
 * The limit's lock is a leaf. Nothing is called with it held but the clock.
 */
#ifndef DOPPEL_BLK_LIMIT_H
#define DOPPEL_BLK_LIMIT_H

#include "blk/blk.h"

struct limit;

/* What a limit lets pass goes to submit(), and after some of them comes a kick(). */
struct limit_exit {
    void (*submit)(struct blk *blk, struct blk_request *request);
    void (*kick)(struct blk *blk);
    struct blk *blk;
};

/* IOPS requests and BPS bytes a second; 0: as many as there are. CLOCK NULL: the host's. */
struct limit *limit_create(uint64_t iops, uint64_t bps, const struct blk_clock *clock,
                           const struct limit_exit *way_out, struct error *err);
/* Nothing waits. LIMIT may be NULL. */
void limit_destroy(struct limit *limit);

/* Lets REQUEST pass, on this thread if it may do so at once. */
void limit_submit(struct limit *limit, struct blk_request *request);

/* Ends all requests that wait with -ECANCELED, on this thread. */
void limit_recall(struct limit *limit);

/* For asking where the thread is (base/where.h). */
struct where *limit_where(struct limit *limit);

#endif
