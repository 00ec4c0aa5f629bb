/*
 * Inside of a disk that another process serves, on the side that uses it: shared by isolated.c (the
 * disk, its thread, and processes that die) and parts.c (requests).
 */
#ifndef DOPPEL_BLK_ISOLATED_ISOLATED_PRIVATE_H
#define DOPPEL_BLK_ISOLATED_ISOLATED_PRIVATE_H

#include "base/event.h"
#include "base/where.h"
#include "blk/driver.h"
#include "blk/isolated/link.h"
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
    int link, wake;
    int files[ISOLATED_FILES];
    struct event_sender sender; /* its process may have the event files block */
    struct isolated_memory *memory;

    pthread_mutex_t lock; /* guards the rest */
    bool broken;          /* all requests fail */
    struct isolated_side requests, results;
    struct blk_list waiting;                      /* not wholly sent yet */
    struct isolated_part part[ISOLATED_REQUESTS]; /* by number */
    uint64_t page_used[ISOLATED_PAGES / 64];
    uint32_t next_page; /* where to look first */

    pthread_t thread;
    bool started, ends;
    struct where where;

    /* The thread's: how long requests have waited without any result. */
    uint64_t patience, waited; /* ns */
    uint64_t looked;           /* when the thread last looked, ns */
    uint64_t taken;            /* results, so far */
    uint64_t taken_then;       /* the same when the thread last looked */
    int process;               /* the disk's process, a pidfd; -1: it is not known */
    bool answered;             /* it has: PROCESS is not one that got its number later */
    bool killed;               /* PROCESS was, since the last result */
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
