/*
 * Raw files and block devices.
 *
 *      blk_submit ---- a read that the page cache has ----> done, on the submitting thread
 *           |
 *           |--- a write through the page cache ----------> the writer, one job of the pool
 *           |--- other reads and writes, with io_uring ----> the ring's thread (uring.h)
 *           '--- all else --------------------------------> a job each of the pool
 *
 * With cache=none the file is opened with O_DIRECT. Requests whose offsets or buffers are not
 * aligned as that wants go through a buffer. When what is written is smaller than the alignment,
 * what is around it is read and written back, and meanwhile no other request writes (EDGES).
 *
 * After the host has failed to write back what was written (fdatasync), it has forgotten these
 * bytes, and a later fdatasync would succeed. So every later flush fails, too.
 */
#ifndef DOPPEL_BLK_FILE_FILE_H
#define DOPPEL_BLK_FILE_FILE_H

#include "base/pool.h"
#include "blk/driver.h"
#include "blk/list.h"
#include "blk/options.h"

struct uring;

struct file {
    struct blk blk;
    char *name;
    int fd;
    bool device;           /* a block device */
    bool direct;           /* opened with O_DIRECT */
    bool keep;             /* discard=ignore */
    unsigned align;        /* O_DIRECT: offsets and sizes are multiples of it */
    unsigned align_memory; /* and addresses of this */
    /* What the file system turns out not to have, so that it is not tried for each request: */
    _Atomic bool no_nowait_read, no_nowait_write, no_punch, no_zero_range;
    _Atomic bool lost; /* written bytes have not reached the disk and never will */
    /* Held for writing while bytes around a request are read and written back, and for reading
     * while anything else is written; only if ALIGN is more than BLOCK. */
    pthread_rwlock_t edges;
    struct pool *pool;
    struct uring *uring; /* NULL: there is none */
    /* Writes for the writer, guarded by LOCK, a leaf. */
    pthread_mutex_t lock;
    struct blk_list writes;
    bool writing; /* the writer is posted or runs */
    struct pool_job writer;
};

/* open.c: opens the file or block device of OPTIONS, all of it: SIZE is what there is. */
struct blk *file_open(const struct blk_options *options, const struct blk_host *host,
                      struct error *err);

/* file.c: starts the threads, and a ring if the host has one. */
int file_start(struct file *file, struct error *err);
extern const struct blk_driver file_driver;

/* io.c: carry out what is left of REQUEST (from own.moved on) on this thread. */
int file_perform(struct blk *blk, struct blk_request *request);
/* Reads or writes as much as can be done without waiting. Returns 0 when all is done, -EAGAIN when
 * some is left, or what went wrong. */
int file_try(struct file *file, struct blk_request *request);
/* Whether REQUEST, a READ or WRITE, can be handed to the kernel as it is. */
bool file_is_aligned(const struct file *file, const struct blk_request *request);
/* Makes a request's result of a system call's RESULT, 0 or a negative errno. */
int file_result(int result);

#endif
