/*
 * Copies a disk, with several threads: each takes the next piece of it, reads it, looks for zeros,
 * perhaps compresses, and writes it.
 */
#include "cli/image_copy.h"
#include "cli/image.h"
#include "cli/image_target.h"
#include "cli/progress.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "blk/qcow2/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE       (1 * MiB) /* at least a cluster */
#define PIECE_LARGE (2 * MiB)
#define TICK_NS     (200 * NS_PER_MS)
#define THREADS     64

struct copy {
    const struct image_copy *how;
    uint64_t size;
    int holes;            /* a descriptor that says where a raw file has holes; -1: nothing says */
    pthread_mutex_t lock; /* guards what follows; held while the map of FROM is read */
    pthread_cond_t ended;
    uint64_t next;
    unsigned running;
    bool stopped;
    int result;
    struct error err; /* of the first failure */
};

/* ---- What need not be read ---- */

/* Where a raw file has data at or behind AT. */
static uint64_t skip_hole(const struct copy *copy, uint64_t at)
{
    uint64_t start = copy->how->from_options->offset;
    off_t data = lseek(copy->holes, (off_t)(start + at), SEEK_DATA);

    if (data < 0)
        return errno == ENXIO ? copy->size : at;
    return MAX((uint64_t)data - start, at);
}

/* Where a qcow2 image without a backing file has data at or behind AT. */
static uint64_t skip_empty(const struct copy *copy, uint64_t at)
{
    struct qcow2_extent extent;

    while (at < copy->size) {
        if (qcow2_map(copy->how->from, at, &extent, NULL) || !extent.size ||
            (extent.kind != QCOW2_UNALLOCATED && extent.kind != QCOW2_ZERO))
            return at;
        at += MIN(extent.size, copy->size - at);
    }
    return at;
}

/* Takes the next piece that may hold data. False: there is none, or the copy has failed. */
static bool take(struct copy *copy, uint64_t *at, uint64_t *size)
{
    uint64_t piece = copy->how->unit > PIECE ? PIECE_LARGE : PIECE;
    uint64_t next;

    pthread_mutex_lock(&copy->lock);
    next = copy->next;
    if (copy->stopped) {
        pthread_mutex_unlock(&copy->lock);
        return false;
    }
    if (copy->holes >= 0)
        next = skip_hole(copy, next);
    else if (copy->how->from_options->format == BLK_QCOW2 && !copy->how->from_options->backing)
        next = skip_empty(copy, next);
    next = ALIGN_DOWN(next, piece);
    *at = MAX(next, copy->next);
    *size = *at < copy->size ? MIN(piece, copy->size - *at) : 0;
    copy->next = *at + *size;
    pthread_mutex_unlock(&copy->lock);
    return *size;
}

/* ---- Pieces ---- */

static void fail(struct copy *copy, int result, const struct error *err)
{
    pthread_mutex_lock(&copy->lock);
    if (!copy->result) {
        copy->result = result;
        copy->err = *err;
    }
    copy->stopped = true;
    pthread_mutex_unlock(&copy->lock);
}

static bool is_zero(const uint8_t *data, uint64_t size)
{
    return !data[0] && !memcmp(data, data + 1, size - 1);
}

static int write_run(struct copy *copy, uint64_t at, const uint8_t *data, uint64_t size,
                     struct error *err)
{
    int result;

    if (copy->how->compress)
        return qcow2_write_compressed(copy->how->to, at, data, size, err);
    result = blk_write(copy->how->to, at, data, size);
    if (result)
        error_set(err, -result, "cannot write %s: %s", copy->how->to_name, strerror(-result));
    return result;
}

/* Writes what is not zero of SIZE bytes at AT: cluster by cluster if they are compressed, else in
 * runs as long as they are. */
static int write_piece(struct copy *copy, uint64_t at, const uint8_t *data, uint64_t size,
                       struct error *err)
{
    uint64_t unit = copy->how->unit, from = 0;
    int result = 0;

    for (uint64_t i = 0; i < size && !result; i += unit) {
        uint64_t end = MIN(i + unit, size);
        bool zero = is_zero(data + i, end - i);

        if (zero && from < i)
            result = write_run(copy, at + from, data + from, i - from, err);
        if (zero) {
            from = end;
        } else if (copy->how->compress || end == size) {
            result = result ? result : write_run(copy, at + from, data + from, end - from, err);
            from = end;
        }
    }
    return result;
}

static int copy_piece(struct copy *copy, uint8_t *buffer, uint64_t at, uint64_t size,
                      struct error *err)
{
    int result = blk_read(copy->how->from, at, buffer, size);

    if (result)
        return error_set(err, -result, "cannot read %s: %s", copy->how->from_options->file,
                         strerror(-result));
    return write_piece(copy, at, buffer, size, err);
}

static void *run(void *opaque)
{
    struct copy *copy = opaque;
    uint8_t *buffer = aligned_alloc(4096, PIECE_LARGE);
    struct error err = {0};
    uint64_t at, size;
    int result = buffer ? 0 : error_set(&err, ENOMEM, "out of memory");

    while (!result && take(copy, &at, &size))
        result = copy_piece(copy, buffer, at, size, &err);
    free(buffer);
    if (result)
        fail(copy, result, &err);
    pthread_mutex_lock(&copy->lock);
    copy->running--;
    pthread_cond_signal(&copy->ended);
    pthread_mutex_unlock(&copy->lock);
    return NULL;
}

/* ---- The whole ---- */

/* Waits until all threads have ended; shows how far they are. */
static void watch(struct copy *copy)
{
    struct progress progress;

    progress_begin(&progress, "copying");
    pthread_mutex_lock(&copy->lock);
    while (copy->running) {
        struct timespec until = time_spec(time_now_ns() + TICK_NS);
        int percent = copy->size ? (int)((double)copy->next * 100 / (double)copy->size) : 100;

        pthread_cond_clockwait(&copy->ended, &copy->lock, CLOCK_MONOTONIC, &until);
        if (target_interrupted(copy->how->target)) {
            copy->stopped = true;
            copy->result = copy->result ? copy->result
                                        : error_set(&copy->err, EINTR, "interrupted by a signal");
        }
        progress_tick(&progress, NULL, percent);
    }
    pthread_mutex_unlock(&copy->lock);
    progress_end(&progress);
}

static void start(struct copy *copy, pthread_t thread[THREADS], unsigned *started)
{
    struct error err = {0};

    for (*started = 0; *started < MIN(copy->how->threads, (unsigned)THREADS); ++*started) {
        pthread_mutex_lock(&copy->lock);
        copy->running++;
        pthread_mutex_unlock(&copy->lock);
        if (!thread_start(&thread[*started], "image copy", run, copy, &err))
            continue;
        pthread_mutex_lock(&copy->lock);
        copy->running--;
        pthread_mutex_unlock(&copy->lock);
        if (!*started)
            fail(copy, -err.code, &err);
        return; /* those that there are do it */
    }
}

/* A descriptor for looking for holes, if what is copied is a raw file. */
static int open_holes(const struct blk_options *options)
{
    if (options->source != BLK_FILE || options->format != BLK_RAW)
        return -1;
    return open(options->file, O_RDONLY | O_CLOEXEC);
}

int image_copy(const struct image_copy *how, struct error *err)
{
    struct copy copy = {.how = how,
                        .size = blk_info(how->from).size,
                        .holes = open_holes(how->from_options),
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .ended = PTHREAD_COND_INITIALIZER};
    pthread_t thread[THREADS];
    unsigned started;

    start(&copy, thread, &started);
    watch(&copy);
    for (unsigned i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    if (copy.holes >= 0)
        close(copy.holes);
    if (copy.result) {
        *err = copy.err;
        return copy.result;
    }
    return image_flush(how->to, how->to_name, err);
}
