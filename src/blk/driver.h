/*
 * What a driver of disks is: what stands behind a struct blk. Private to src/blk/.
 *
 * A driver embeds a struct blk as its first member and fills it in when it opens. blk.c checks each
 * request and hands it to the driver, which calls blk_complete sooner or later.
 *
 * A format's driver is given the struct blk of its file (open.c) and reads and writes that like any
 * other: by requests of its own, or, on a thread that may wait (base/pool.h), by blk_read and
 * blk_write, which a file carries out on the calling thread.
 */
#ifndef DOPPEL_BLK_DRIVER_H
#define DOPPEL_BLK_DRIVER_H

#include "blk/blk.h"

#include <stdatomic.h>

struct limit;

struct blk_driver {
    /* Takes REQUEST, which has been checked: it lies within the disk, is aligned to BLOCK, is no
     * change of a read-only disk, and its buffers are SIZE bytes, more than none. own.at is the
     * offset to use; own.moved, own.result and own.pieces are 0. Any threads at once. Does not wait
     * for the disk. */
    void (*submit)(struct blk *blk, struct blk_request *request);
    /* Begins what was submitted. NULL: submit does. */
    void (*kick)(struct blk *blk);
    /* Carries REQUEST out on the calling thread and returns its result, without blk_complete. NULL:
     * it is submitted and waited for. */
    int (*perform)(struct blk *blk, struct blk_request *request);
    /* Makes the whole disk SIZE bytes long; the caller sets blk->size. NULL: it cannot. */
    int (*resize)(struct blk *blk, uint64_t size, struct error *err);
    /* blk_hole for SIZE bytes at AT of what the driver has. NULL: it does not know. */
    uint64_t (*hole)(struct blk *blk, uint64_t at, uint64_t size);
    struct where *(*where)(struct blk *blk, unsigned n); /* NULL: no threads */
    /* Frees all, BLK with it. Nothing is in flight. */
    void (*close)(struct blk *blk);
};

/* The head of every driver's structure. */
struct blk {
    const struct blk_driver *driver;
    struct blk_info info;  /* but for SIZE, which may change: */
    _Atomic uint64_t size; /* of what users see, in bytes */
    uint64_t start;        /* where that begins in what the driver has */
    bool bounded;          /* it is a part of given size, which cannot be changed */
    struct limit *limit;   /* NULL: no rate limits */
    char *folder;          /* info.folder, freed with the disk */
    const struct blk_host *host;
};

/* Sets the head of a driver's structure, BLK, for a raw disk that OPTIONS name; NAME is the
 * driver's copy of the file's name. Sizes and what the disk can do are left to the driver. */
void blk_begin(struct blk *blk, const struct blk_driver *driver, const struct blk_options *options,
               const struct blk_host *host, const char *name);

/* Ends REQUEST, which a driver has been given: calls its done(). With no lock held. */
void blk_complete(struct blk_request *request, int result);

/* Limits the rates of BLK, before the first request; 0: no limit. */
int blk_limit(struct blk *blk, uint64_t iops, uint64_t bps, struct error *err);

#endif
