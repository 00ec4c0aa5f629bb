/*
 * Disks of the host: what is behind a disk of the guest, or behind `doppel image`.
 *
 * A struct blk is an array of bytes that is read, written and flushed by requests. Behind it are
 * a raw file, a block device, an NBD server, or an image format, which stands on a struct blk of
 * its own:
 *
 *      virtio-blk, doppel image                        doppel image
 *             |  blk_submit, blk_kick ... done()            |  blk_read, blk_write, ...
 *             v                                             v
 *      struct blk  rate limits, checks of each request
 *             |
 *      driver   file (io_uring or threads) | nbd | qcow2 --> struct blk of its file
 *
 * Threads: blk_submit, blk_kick, the calls that wait and blk_info may be called on any threads at
 * once. blk_open, blk_close and blk_resize are called on one thread at a time; blk_close while
 * nothing is in flight. A caller may hold locks of its own, but none that its done() takes, since
 * done() may be called inside blk_submit.
 *
 * Processes: blk_open opens files, sockets and rings, takes the lock of the image and starts
 * the first threads. Nothing is opened later, so a process may confine itself after blk_open.
 *
 * Order: requests in flight at once are done in any order, also where they overlap. A flush covers
 * the writes, discards and zeroes whose done() had been called before the flush was submitted: when
 * its done() says 0, they are on stable storage.
 */
#ifndef DOPPEL_BLK_BLK_H
#define DOPPEL_BLK_BLK_H

#include "base/error.h"
#include "base/log.h"
#include "base/pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct blk;
struct blk_options;
struct where;

enum blk_kind {
    BLK_READ,
    BLK_WRITE,
    BLK_FLUSH,   /* what is done reaches stable storage */
    BLK_DISCARD, /* the range is needed no more: its contents are undefined afterwards. Those of a
                  * raw file read as zeroes. A hint: 0 is also the result where nothing was done */
    BLK_ZEROES,  /* the range reads as zeroes afterwards */
};

/* One request. Embedded by the caller, who sets the first members, and alive until done() is
 * called. done() may free it or submit it again. */
struct blk_request {
    enum blk_kind kind;
    bool unmap;              /* ZEROES: the range's space may be given back to the host */
    uint64_t offset, size;   /* in bytes, multiples of blk_info.block. FLUSH: not looked at */
    const struct iovec *iov; /* READ, WRITE: the buffers, SIZE bytes in all. They and the array */
    unsigned iovs;           /* stay until done() is called */
    /* RESULT is 0 or a negative errno: -EINVAL for a request that is malformed, -EIO outside of the
     * disk, -EPERM for a write to a read-only disk, -ENOSPC when the host's disk is full; or what
     * the host said. After a failed write, the range holds old and new bytes in any mixture.
     * Called once, on any thread, with none of blk's locks held; perhaps inside blk_submit or
     * blk_kick. It must not wait for another request. If it submits one, that may be done before
     * blk_submit returns, so a chain of requests that each submit the next one needs a bound. */
    void (*done)(struct blk_request *request, int result);

    /* blk's own from blk_submit on. */
    struct {
        struct blk *blk;
        struct blk_request *next; /* in a list (list.h) */
        uint64_t at;     /* the offset in what the driver has: OFFSET and where the part begins */
        uint64_t moved;  /* bytes of READ and WRITE that are done */
        int result;      /* of pieces that are done */
        unsigned pieces; /* of one request that are in flight */
        uint64_t since;  /* when the driver was given it, if it counts how long that is */
        struct pool_job job;
        void *driver; /* the driver's */
    } own;
};

struct blk_info {
    uint64_t size;      /* in bytes, a multiple of BLOCK */
    unsigned block;     /* 512 or 4096: all offsets and sizes are multiples of it */
    unsigned optimal;   /* requests of multiples of so many bytes, a power of two, cost least */
    bool readonly;      /* WRITE, DISCARD and ZEROES fail */
    bool discards;      /* DISCARD gives space back to the host */
    bool zeroes;        /* ZEROES takes less time than writing zeroes */
    const char *format; /* "raw", "qcow2" */
    const char *file;   /* what the user named. Both live as long as the struct blk */
    const char *folder; /* where a file without a name has what is written, and not FILE; else NULL.
                         * It lives as long */
};

/* The time that rate limits go by. */
struct blk_clock {
    uint64_t (*now)(void *opaque); /* in nanoseconds, never goes back */
    /* Waits until UNTIL, or until COND is signalled, or for a shorter time. LOCK is held, and is
     * released meanwhile. */
    void (*wait)(void *opaque, pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until);
    void *opaque;
};

enum blk_lane {
    BLK_LANE_AUTO,    /* io_uring where the host allows it, else threads */
    BLK_LANE_URING,   /* io_uring, or blk_open fails */
    BLK_LANE_THREADS, /* no io_uring */
};

/* What the host gives to disks. All zero is the rule; most members are for tests. Lives as long as
 * the disks that were opened with it. */
struct blk_host {
    const struct log *log; /* NULL: nothing is logged */
    enum blk_lane lane;
    unsigned align; /* offsets and buffers of cache=none are multiples of it, at least */
    const struct blk_clock *clock; /* NULL: the host's */
    bool hasty;           /* an image in use is refused at once, and not after half a second */
    bool maintains;       /* a tool opens it and no guest: messages do not advise to add readonly */
    uint64_t patience_ns; /* how long a server may not answer, a tenth of how long it may have a
                           * request, and half of what a disk's process may; 0: 30 s */
    /* For disks with isolate: returns a socket at whose other end a process of its own serves the
     * disk FILE (isolated/isolated.h), and is started anew when it has died; or a negative errno.
     * NULL: there can be no such disks. */
    int (*isolate)(void *opaque, const char *file);
    void *isolate_opaque;
    bool isolated; /* this is that process */
};

/* Opens what OPTIONS name (options.h). HOST NULL: all is zero. Returns NULL on failure, with
 * nothing changed on disk. */
struct blk *blk_open(const struct blk_options *options, const struct blk_host *host,
                     struct error *err);
/* Does not flush: call blk_flush before. BLK may be NULL. */
void blk_close(struct blk *blk);

struct blk_info blk_info(struct blk *blk);

/* Takes REQUEST. It may begin at once, or when blk_kick is called after the last of a batch. Never
 * waits for the disk. */
void blk_submit(struct blk *blk, struct blk_request *request);
void blk_kick(struct blk *blk);

/* Ends with -ECANCELED what rate limits hold back at this moment, of all callers: nothing of it has
 * been done. Calls their done(). What has begun goes on. */
void blk_recall(struct blk *blk);

/* These wait until it is done, on the calling thread, and return what done() would be told. Not
 * on a thread that calls done(). */
int blk_perform(struct blk *blk, struct blk_request *request); /* its done() is not called */
int blk_read(struct blk *blk, uint64_t offset, void *buffer, uint64_t size);
int blk_write(struct blk *blk, uint64_t offset, const void *buffer, uint64_t size);
int blk_flush(struct blk *blk);
int blk_discard(struct blk *blk, uint64_t offset, uint64_t size);
int blk_zeroes(struct blk *blk, uint64_t offset, uint64_t size, bool unmap);

/* Makes the disk SIZE bytes long, a multiple of blk_info.block. What is added reads as zeroes; what
 * is cut off is lost, and is not in use by requests. */
int blk_resize(struct blk *blk, uint64_t size, struct error *err);

/* How many of SIZE bytes at OFFSET, from the first on, are known to read as zeroes because the host
 * has nothing there; 0: the first is not. Reads no bytes. May wait for the host. */
uint64_t blk_hole(struct blk *blk, uint64_t offset, uint64_t size);

/* For asking where the threads are (base/where.h): thread N, or NULL if there are no more. */
struct where *blk_where(struct blk *blk, unsigned n);

#endif
