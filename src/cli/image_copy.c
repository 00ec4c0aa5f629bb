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
#include <stdlib.h>
#include <string.h>

#define PIECE       (1 * MiB) /* at least a cluster */
#define PIECE_LARGE (2 * MiB)
#define TICK_NS     (200 * NS_PER_MS)
#define THREADS     64

struct copy {
    const struct image_copy *how;
    uint64_t size;
    pthread_mutex_t lock; /* guards what follows; held while the map of FROM is read */
    pthread_cond_t ended;
    uint64_t next;
    unsigned running;
    bool stopped;
    int result;
    struct error err; /* of the first failure */
};

/* ---- What need not be read ---- */

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

/* What a thread does next: a piece that may hold data, and GAP bytes before it that do not. */
struct piece {
    uint64_t gap, at, size;
};

/* Takes the next piece. False: there is none, or the copy has failed. */
static bool take(struct copy *copy, struct piece *piece)
{
    const struct image_copy *how = copy->how;
    uint64_t most = how->unit > PIECE ? PIECE_LARGE : PIECE;
    uint64_t next;

    pthread_mutex_lock(&copy->lock);
    next = copy->next;
    if (copy->stopped) {
        pthread_mutex_unlock(&copy->lock);
        return false;
    }
    if (how->from_options->format == BLK_QCOW2 && !how->from_options->backing)
        next = skip_empty(copy, next);
    else
        next += blk_hole(how->from, next, copy->size - next);
    if (next < copy->size)
        next = MAX(ALIGN_DOWN(next, most), copy->next);
    piece->at = next;
    piece->gap = next - copy->next;
    piece->size = MIN(most, copy->size - next);
    copy->next = next + piece->size;
    pthread_mutex_unlock(&copy->lock);
    return piece->size || piece->gap;
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

/* Makes SIZE bytes at AT zeros, if they may not be. */
static int write_zeroes(struct copy *copy, uint64_t at, uint64_t size, struct error *err)
{
    int result = 0;

    if (!copy->how->over)
        return 0;
    for (uint64_t n; size && !result; at += n, size -= n) {
        n = MIN(size, (uint64_t)GiB);
        result = blk_zeroes(copy->how->to, at, n, true);
    }
    if (result)
        error_set(err, -result, "cannot write %s: %s", copy->how->to_name, strerror(-result));
    return result;
}

/* Writes SIZE bytes at AT, in runs of zeros and of other bytes that are as long as can be; those
 * that are compressed, cluster by cluster. */
static int write_piece(struct copy *copy, uint64_t at, const uint8_t *data, uint64_t size,
                       struct error *err)
{
    uint64_t unit = copy->how->unit, from = 0;
    int result = 0;

    for (uint64_t i = 0; i < size && !result; i += unit) {
        uint64_t end = MIN(i + unit, size);
        bool zero = is_zero(data + i, end - i);
        bool goes_on = end < size && !copy->how->compress &&
                       zero == is_zero(data + end, MIN(unit, size - end));

        if (goes_on)
            continue;
        result = zero ? write_zeroes(copy, at + from, end - from, err)
                      : write_run(copy, at + from, data + from, end - from, err);
        from = end;
    }
    return result;
}

static int copy_piece(struct copy *copy, uint8_t *buffer, const struct piece *piece,
                      struct error *err)
{
    int result = write_zeroes(copy, piece->at - piece->gap, piece->gap, err);

    if (result || !piece->size)
        return result;
    result = blk_read(copy->how->from, piece->at, buffer, piece->size);
    if (result)
        return error_set(err, -result, "cannot read %s: %s", copy->how->from_options->file,
                         strerror(-result));
    return write_piece(copy, piece->at, buffer, piece->size, err);
}

static void *run(void *opaque)
{
    struct copy *copy = opaque;
    uint8_t *buffer = aligned_alloc(4096, PIECE_LARGE);
    struct error err = {0};
    struct piece piece;
    int result = buffer ? 0 : error_set(&err, ENOMEM, "out of memory");

    while (!result && take(copy, &piece))
        result = copy_piece(copy, buffer, &piece, &err);
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
        if (copy->how->target && target_interrupted(copy->how->target)) {
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

int image_copy(const struct image_copy *how, struct error *err)
{
    struct copy copy = {.how = how,
                        .size = blk_info(how->from).size,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .ended = PTHREAD_COND_INITIALIZER};
    pthread_t thread[THREADS];
    unsigned started;

    start(&copy, thread, &started);
    watch(&copy);
    for (unsigned i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    if (copy.result) {
        *err = copy.err;
        return copy.result;
    }
    return image_flush(how->to, how->to_name, err);
}
