/*
 * Raw files and block devices: which thread carries out a request.
 */
#include "blk/file/file.h"

#include "blk/file/lock.h"
#include "blk/file/uring.h"

#include "base/util.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MOST 16

static struct file *file_of(struct blk *blk)
{
    return container_of(blk, struct file, blk);
}

static void run_job(struct pool_job *job)
{
    struct blk_request *request = container_of(job, struct blk_request, own.job);

    blk_complete(request, file_perform(request->own.blk, request));
}

static void post_job(struct file *file, struct blk_request *request)
{
    request->own.job = (struct pool_job){.run = run_job};
    pool_post(file->pool, &request->own.job);
}

/* The writer: carries out writes through the page cache, one after the other. In most file systems
 * each takes the lock of the file's inode, so a second thread would only wait for the first. */
static void run_writer(struct pool_job *job)
{
    struct file *file = container_of(job, struct file, writer);

    for (;;) {
        struct blk_request *request;
        struct blk_list writes;

        pthread_mutex_lock(&file->lock);
        writes = blk_list_take_all(&file->writes);
        file->writing = writes.first != NULL;
        pthread_mutex_unlock(&file->lock);
        if (!writes.first)
            return;
        while ((request = blk_list_take(&writes)))
            blk_complete(request, file_perform(&file->blk, request));
    }
}

static void post_write(struct file *file, struct blk_request *request)
{
    bool idle;

    pthread_mutex_lock(&file->lock);
    blk_list_put(&file->writes, request);
    idle = !file->writing;
    file->writing = true;
    pthread_mutex_unlock(&file->lock);
    if (idle)
        pool_post(file->pool, &file->writer);
}

/* The ring has done what it could of REQUEST; a job does the rest. */
static void end_in_ring(struct blk_request *request, int result)
{
    if (result > 0)
        request->own.moved = (uint64_t)result;
    if (result >= 0 && request->own.moved == request->size)
        blk_complete(request, 0);
    else if (result >= 0 || result == -EAGAIN || result == -EINTR)
        post_job(file_of(request->own.blk), request);
    else
        blk_complete(request, file_result(result));
}

/* Whether the ring can do REQUEST, a READ or WRITE. */
static bool is_for_ring(const struct file *file, const struct blk_request *request)
{
    if (!file->uring || request->iovs > IOV_MAX || !file_is_aligned(file, request))
        return false;
    /* The kernel would do a write through the page cache on a thread. */
    return request->kind == BLK_READ || (file->direct && file->align <= file->blk.info.block);
}

static void file_submit(struct blk *blk, struct blk_request *request)
{
    struct file *file = file_of(blk);
    bool moves = request->kind == BLK_READ || request->kind == BLK_WRITE;
    int ret = -EAGAIN;

    if (moves && !file->direct)
        ret = file_try(file, request);
    if (ret != -EAGAIN) {
        blk_complete(request, file_result(ret));
    } else if (moves && is_for_ring(file, request)) {
        request->own.moved = 0;
        uring_submit(file->uring, request);
    } else if (request->kind == BLK_WRITE && !file->direct && !file->device) {
        post_write(file, request);
    } else {
        post_job(file, request);
    }
}

static void file_kick(struct blk *blk)
{
    struct file *file = file_of(blk);

    if (file->uring)
        uring_kick(file->uring);
}

static struct where *file_where(struct blk *blk, unsigned n)
{
    struct file *file = file_of(blk);

    if (file->uring && n == 0)
        return uring_where(file->uring);
    return pool_where(file->pool, file->uring ? n - 1 : n);
}

/* ---- The driver ---- */

static int file_resize(struct blk *blk, uint64_t size, struct error *err)
{
    struct file *file = file_of(blk);

    if (file->device)
        return error_set(err, ENOTSUP, "disk '%s' is a device, which cannot be resized",
                         file->name);
    if (ftruncate(file->fd, (off_t)size) < 0)
        return error_set(err, errno, "disk '%s': cannot make it %llu bytes long: %s", file->name,
                         (unsigned long long)size, strerror(errno));
    return 0;
}

/* Where the descriptor stands is nobody else's concern. */
static uint64_t file_hole(struct blk *blk, uint64_t at, uint64_t size)
{
    struct file *file = file_of(blk);
    off_t data = lseek(file->fd, (off_t)at, SEEK_DATA);

    if (data < 0)
        return errno == ENXIO ? size : 0; /* no data from there on */
    return MIN((uint64_t)data - at, size);
}

static void file_close(struct blk *blk)
{
    struct file *file = file_of(blk);

    uring_destroy(file->uring);
    pool_destroy(file->pool);
    if (file->fd >= 0) {
        unlock_image(file->fd);
        close(file->fd);
    }
    pthread_mutex_destroy(&file->lock);
    pthread_rwlock_destroy(&file->edges);
    free(file->name);
    free(file);
}

const struct blk_driver file_driver = {
    .submit = file_submit,
    .kick = file_kick,
    .perform = file_perform,
    .resize = file_resize,
    .hole = file_hole,
    .where = file_where,
    .close = file_close,
};

int file_start(struct file *file, struct error *err)
{
    const struct blk_host *host = file->blk.host;
    struct error why = {0};

    file->writer.run = run_writer;
    file->pool = pool_create("blk", THREADS_MOST, err);
    if (!file->pool)
        return -ENOMEM;
    if (host->lane == BLK_LANE_THREADS)
        return 0;
    file->uring = uring_create(file->fd, end_in_ring, &why);
    if (file->uring)
        return 0;
    if (host->lane == BLK_LANE_URING)
        return error_set(err, why.code, "disk '%s': %s", file->name, why.text);
    log_line(host->log, LOG_LEVEL_INFO, "disk '%s': %s; threads do its work", file->name, why.text);
    return 0;
}
