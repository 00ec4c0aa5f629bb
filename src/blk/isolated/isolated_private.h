/*
 * Inside of a disk that another process serves, on the side that uses it: shared by isolated.c (the
 * disk, its thread, and processes that die) and parts.c (requests).
 */
#ifndef DOPPEL_BLK_ISOLATED_ISOLATED_PRIVATE_H
#define DOPPEL_BLK_ISOLATED_ISOLATED_PRIVATE_H

#include "base/kept_user.h"
#include "blk/driver.h"
#include "blk/isolated/ring.h"
#include "blk/list.h"

/* A part of a request: what the disk's process gets as one. */
struct isolated_part {
    struct blk_request *request; /* NULL: free */
    uint64_t skip;               /* where it begins in the request's buffers */
    struct isolated_request as;
    unsigned pages;
};

struct isolated {
    struct blk blk;
    char *file;
    char name[300]; /* for messages */
    struct kept_user user;
    struct isolated_memory *memory; /* the user's */

    pthread_mutex_t lock; /* guards the rest */
    bool broken;          /* all requests fail */
    struct kept_side requests, results;
    struct blk_list waiting;                      /* not wholly sent yet */
    struct isolated_part part[ISOLATED_REQUESTS]; /* by number */
    struct kept_pages pages;
};

/* ---- parts.c: with the lock ---- */

/* Sends what can be sent. Returns whether the process is to be woken. */
bool isolated_pump(struct isolated *i);
/* Sends all parts that were in flight once more. */
bool isolated_send_all(struct isolated *i);
/* Takes a result of part NUMBER. Returns false if there is no such part. *ENDED: a request that has
 * ended with it, or NULL. */
bool isolated_end_part(struct isolated *i, const struct isolated_result *result,
                       struct blk_request **ended);
/* Forgets all requests, and returns them: they are to be completed with -EIO. */
struct blk_list isolated_forget_all(struct isolated *i);

#endif
