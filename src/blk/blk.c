/*
 * Disks of the host: what is done with every request, whatever the driver.
 */
#include "blk/blk.h"

#include "blk/driver.h"
#include "blk/limit.h"
#include "blk/options.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Requests ---- */

/* Whether the buffers of REQUEST are SIZE bytes in all. */
static bool buffers_fit(const struct blk_request *request)
{
    uint64_t size = 0;

    for (unsigned i = 0; i < request->iovs; i++)
        if (__builtin_add_overflow(size, request->iov[i].iov_len, &size))
            return false;
    return size == request->size;
}

/* Returns 0 if REQUEST may be handed to the driver, 1 if there is nothing to do, or what is wrong.
 */
static int check(const struct blk *blk, const struct blk_request *request)
{
    bool moves = request->kind == BLK_READ || request->kind == BLK_WRITE;
    uint64_t size = atomic_load_explicit(&blk->size, memory_order_relaxed);

    if (request->kind == BLK_FLUSH)
        return blk->info.readonly;
    if (request->kind > BLK_ZEROES || (request->offset | request->size) % blk->info.block)
        return -EINVAL;
    if (moves && !buffers_fit(request))
        return -EINVAL;
    if (request->size > size || request->offset > size - request->size)
        return -EIO;
    if (blk->info.readonly && request->kind != BLK_READ)
        return -EPERM;
    return request->size == 0;
}

/* Makes REQUEST ready for the driver. Returns what check() says. */
static int prepare(struct blk *blk, struct blk_request *request)
{
    request->own.blk = blk;
    request->own.at = blk->start + request->offset;
    request->own.moved = 0;
    request->own.result = 0;
    request->own.pieces = 0;
    return check(blk, request);
}

void blk_submit(struct blk *blk, struct blk_request *request)
{
    int ret = prepare(blk, request);

    if (ret != 0)
        request->done(request, MIN(ret, 0));
    else if (blk->limit)
        limit_submit(blk->limit, request);
    else
        blk->driver->submit(blk, request);
}

void blk_kick(struct blk *blk)
{
    if (blk->driver->kick)
        blk->driver->kick(blk);
}

void blk_recall(struct blk *blk)
{
    if (blk->limit)
        limit_recall(blk->limit);
}

void blk_complete(struct blk_request *request, int result)
{
    request->done(request, result);
}

/* ---- Waiting ---- */

struct waiter {
    struct blk_request request;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    int result;
};

static void end_wait(struct blk_request *request, int result)
{
    struct waiter *waiter = container_of(request, struct waiter, request);

    pthread_mutex_lock(&waiter->lock);
    waiter->result = result;
    waiter->done = true;
    pthread_cond_signal(&waiter->changed);
    pthread_mutex_unlock(&waiter->lock);
}

static int submit_and_wait(struct blk *blk, const struct blk_request *request)
{
    struct waiter waiter = {.request = *request};

    waiter.request.done = end_wait;
    pthread_mutex_init(&waiter.lock, NULL);
    pthread_cond_init(&waiter.changed, NULL);
    blk_submit(blk, &waiter.request);
    blk_kick(blk);
    pthread_mutex_lock(&waiter.lock);
    while (!waiter.done)
        pthread_cond_wait(&waiter.changed, &waiter.lock);
    pthread_mutex_unlock(&waiter.lock);
    pthread_cond_destroy(&waiter.changed);
    pthread_mutex_destroy(&waiter.lock);
    return waiter.result;
}

int blk_perform(struct blk *blk, struct blk_request *request)
{
    int ret;

    if (blk->limit || !blk->driver->perform)
        return submit_and_wait(blk, request);
    ret = prepare(blk, request);
    return ret == 0 ? blk->driver->perform(blk, request) : MIN(ret, 0);
}

static int move(struct blk *blk, enum blk_kind kind, uint64_t offset, void *buffer, uint64_t size)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = size};
    struct blk_request request = {
        .kind = kind, .offset = offset, .size = size, .iov = &iov, .iovs = 1};

    return blk_perform(blk, &request);
}

int blk_read(struct blk *blk, uint64_t offset, void *buffer, uint64_t size)
{
    return move(blk, BLK_READ, offset, buffer, size);
}

int blk_write(struct blk *blk, uint64_t offset, const void *buffer, uint64_t size)
{
    return move(blk, BLK_WRITE, offset, (void *)buffer, size);
}

int blk_flush(struct blk *blk)
{
    return blk_perform(blk, &(struct blk_request){.kind = BLK_FLUSH});
}

int blk_discard(struct blk *blk, uint64_t offset, uint64_t size)
{
    return blk_perform(blk,
                       &(struct blk_request){.kind = BLK_DISCARD, .offset = offset, .size = size});
}

int blk_zeroes(struct blk *blk, uint64_t offset, uint64_t size, bool unmap)
{
    return blk_perform(
        blk,
        &(struct blk_request){.kind = BLK_ZEROES, .unmap = unmap, .offset = offset, .size = size});
}

/* ---- The disk ---- */

void blk_begin(struct blk *blk, const struct blk_driver *driver, const struct blk_options *options,
               const struct blk_host *host, const char *name)
{
    blk->driver = driver;
    blk->host = host;
    blk->info.readonly = options->readonly;
    blk->info.format = blk_format_name(BLK_RAW);
    blk->info.file = name;
}

struct blk_info blk_info(struct blk *blk)
{
    struct blk_info info = blk->info;

    info.size = atomic_load(&blk->size);
    return info;
}

int blk_limit(struct blk *blk, uint64_t iops, uint64_t bps, struct error *err)
{
    const struct limit_exit way_out = {.submit = blk->driver->submit, .kick = blk_kick, .blk = blk};

    if (!iops && !bps)
        return 0;
    blk->limit = limit_create(iops, bps, blk->host->clock, &way_out, err);
    return blk->limit ? 0 : -ENOMEM;
}

int blk_resize(struct blk *blk, uint64_t size, struct error *err)
{
    int ret;

    if (size == atomic_load(&blk->size))
        return 0;
    if (size % blk->info.block || size > INT64_MAX - blk->start)
        return error_set(err, EINVAL, "disk '%s': the size must be a multiple of %u bytes",
                         blk->info.file, blk->info.block);
    if (blk->info.readonly)
        return error_set(err, EPERM, "disk '%s' is read-only", blk->info.file);
    if (blk->bounded)
        return error_set(err, EINVAL, "disk '%s': a part whose size= is given cannot be resized",
                         blk->info.file);
    if (!blk->driver->resize)
        return error_set(err, ENOTSUP, "disk '%s' cannot be resized", blk->info.file);
    ret = blk->driver->resize(blk, blk->start + size, err);
    if (ret == 0)
        atomic_store(&blk->size, size);
    return ret;
}

uint64_t blk_hole(struct blk *blk, uint64_t offset, uint64_t size)
{
    uint64_t end = atomic_load(&blk->size);

    if (!blk->driver->hole || offset >= end)
        return 0;
    return blk->driver->hole(blk, blk->start + offset, MIN(size, end - offset));
}

struct where *blk_where(struct blk *blk, unsigned n)
{
    if (blk->limit && n == 0)
        return limit_where(blk->limit);
    return blk->driver->where ? blk->driver->where(blk, blk->limit ? n - 1 : n) : NULL;
}

void blk_close(struct blk *blk)
{
    if (!blk)
        return;
    limit_destroy(blk->limit);
    free(blk->folder);
    blk->driver->close(blk);
}
