/*
 * Raw files and block devices: carrying out requests on the calling thread.
 */
#include "blk/file/file.h"

#include "base/buffers.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW_IOVS 64    /* of a request of which a part is done */
#define BOUNCE_MOST (MiB) /* bytes of a buffer, for one request at a time */
#define ZEROES_MOST (MiB)

int file_result(int result)
{
    return result == -EDQUOT ? -ENOSPC : result;
}

/* ---- Through the kernel as it is ---- */

bool file_is_aligned(const struct file *file, const struct blk_request *request)
{
    uint64_t addresses = 0, sizes = request->own.at;

    if (!file->direct)
        return true;
    for (unsigned i = 0; i < request->iovs; i++) {
        addresses |= (uintptr_t)request->iov[i].iov_base;
        sizes |= request->iov[i].iov_len;
    }
    return addresses % file->align_memory == 0 && sizes % file->align == 0;
}

/* Finds the buffers from own.moved on, no more than fit into WINDOW or into one system call. */
static const struct iovec *rest_of(const struct blk_request *request, struct iovec *window,
                                   unsigned *count)
{
    uint64_t skip = request->own.moved;
    unsigned i = 0, n = 0;

    if (skip == 0 && request->iovs <= IOV_MAX) {
        *count = request->iovs;
        return request->iov;
    }
    while (skip >= request->iov[i].iov_len)
        skip -= request->iov[i++].iov_len;
    for (; i < request->iovs && n < WINDOW_IOVS; i++, skip = 0)
        window[n++] = (struct iovec){.iov_base = (char *)request->iov[i].iov_base + skip,
                                     .iov_len = request->iov[i].iov_len - skip};
    *count = n;
    return window;
}

/* Reads or writes once. Returns the number of bytes, or a negative errno. */
static ssize_t move_once(struct file *file, const struct blk_request *request, int flags)
{
    struct iovec window[WINDOW_IOVS];
    unsigned count;
    const struct iovec *iov = rest_of(request, window, &count);
    off_t at = (off_t)(request->own.at + request->own.moved);
    ssize_t n;

    do
        n = request->kind == BLK_READ ? preadv2(file->fd, iov, (int)count, at, flags)
                                      : pwritev2(file->fd, iov, (int)count, at, flags);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* The file has ended in the middle of REQUEST. It may end within the last block, of which the rest
 * reads as zeroes; more is missing only if another program has cut the file off. */
static int read_tail(const struct file *file, struct blk_request *request)
{
    uint64_t rest = request->size - request->own.moved;

    if (request->kind != BLK_READ || rest >= file->blk.info.block)
        return -EIO;
    buffers_clear(request->iov, request->own.moved, rest);
    request->own.moved += rest;
    return 0;
}

static int move(struct file *file, struct blk_request *request)
{
    while (request->own.moved < request->size) {
        ssize_t n = move_once(file, request, 0);

        if (n < 0)
            return (int)n;
        request->own.moved += (uint64_t)n;
        /* With O_DIRECT only the end of the file leaves something that is not aligned. */
        if (n == 0 || (file->direct && request->own.moved % file->align))
            return request->own.moved < request->size ? read_tail(file, request) : 0;
    }
    return 0;
}

int file_try(struct file *file, struct blk_request *request)
{
    _Atomic bool *without =
        request->kind == BLK_READ ? &file->no_nowait_read : &file->no_nowait_write;
    ssize_t n;

    if (atomic_load_explicit(without, memory_order_relaxed))
        return -EAGAIN;
    n = move_once(file, request, RWF_NOWAIT);
    if (n == -EOPNOTSUPP)
        atomic_store_explicit(without, true, memory_order_relaxed);
    if (n == -EOPNOTSUPP || n == -EAGAIN)
        return -EAGAIN;
    if (n < 0)
        return (int)n;
    request->own.moved += (uint64_t)n;
    return request->own.moved == request->size ? 0 : -EAGAIN;
}

/* ---- Through a buffer ---- */

/* Reads the aligned bytes from AT on. Returns how many there are before the end of the file; the
 * rest becomes zeroes. */
static ssize_t read_aligned(const struct file *file, char *buffer, uint64_t at, uint64_t size)
{
    uint64_t got = 0;

    while (got < size && got % file->align == 0) {
        ssize_t n = pread(file->fd, buffer + got, size - got, (off_t)(at + got));

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            break;
        got += n > 0 ? (uint64_t)n : 0;
    }
    memset(buffer + got, 0, size - got);
    return (ssize_t)got;
}

static int cut_file(const struct file *file, uint64_t size)
{
    int ret;

    do
        ret = ftruncate(file->fd, (off_t)size);
    while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

/* Writes the aligned bytes from AT on, of which those up to END are wanted: the file does not grow
 * beyond them. */
static int write_aligned(const struct file *file, const char *buffer, uint64_t at, uint64_t size,
                         uint64_t end)
{
    struct stat before = {0};

    if (!file->device && end < at + size && fstat(file->fd, &before) < 0)
        return -errno;
    while (size > 0) {
        ssize_t n = pwrite(file->fd, buffer, size, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0 || (uint64_t)n % file->align)
            return -EIO;
        buffer += n;
        at += (uint64_t)n;
        size -= (uint64_t)n;
    }
    if (!file->device && end < at && (uint64_t)before.st_size < at)
        return cut_file(file, MAX(end, (uint64_t)before.st_size));
    return 0;
}

/* The next bytes of a request that go through a buffer: from AT to END, which lie in the aligned
 * bytes from LOW to HIGH. */
struct piece {
    uint64_t low, at, end, high;
};

static int read_piece(const struct file *file, struct blk_request *request, char *buffer,
                      const struct piece *p)
{
    ssize_t got = read_aligned(file, buffer, p->low, p->high - p->low);

    if (got < 0)
        return (int)got;
    /* As in read_tail. */
    if (p->low + (uint64_t)got + file->blk.info.block <= p->end)
        return -EIO;
    buffers_scatter(request->iov, request->own.moved, buffer + (p->at - p->low), p->end - p->at);
    return 0;
}

static int write_piece(const struct file *file, struct blk_request *request, char *buffer,
                       const struct piece *p)
{
    ssize_t got = 0;

    if (p->low < p->at)
        got = read_aligned(file, buffer, p->low, file->align);
    if (got >= 0 && p->end < p->high && (p->low == p->at || p->high - p->low > file->align))
        got = read_aligned(file, buffer + (p->high - p->low) - file->align, p->high - file->align,
                           file->align);
    if (got < 0)
        return (int)got;
    buffers_gather(request->iov, request->own.moved, buffer + (p->at - p->low), p->end - p->at);
    return write_aligned(file, buffer, p->low, p->high - p->low, p->end);
}

static int bounce(const struct file *file, struct blk_request *request)
{
    uint64_t size = MIN(ALIGN_UP(request->size, file->align) + file->align, BOUNCE_MOST);
    uint64_t end = request->own.at + request->size;
    void *buffer;
    int ret = 0;

    if (posix_memalign(&buffer, MAX(file->align, 4096U), size))
        return -ENOMEM;
    while (ret == 0 && request->own.moved < request->size) {
        struct piece p = {.at = request->own.at + request->own.moved};

        p.low = ALIGN_DOWN(p.at, file->align);
        p.end = MIN(end, p.low + size);
        p.high = ALIGN_UP(p.end, file->align);
        ret = request->kind == BLK_READ ? read_piece(file, request, buffer, &p)
                                        : write_piece(file, request, buffer, &p);
        request->own.moved += p.end - p.at;
    }
    free(buffer);
    return ret;
}

static int read_or_write(struct file *file, struct blk_request *request)
{
    if (request->own.moved % file->align || !file_is_aligned(file, request))
        return bounce(file, request);
    return move(file, request);
}

/* ---- Holes and zeroes ---- */

static int write_zeroes(struct file *file, struct blk_request *request)
{
    uint64_t size = MIN(request->size, ZEROES_MOST);
    struct iovec iov;
    void *buffer;
    int ret = 0;

    if (posix_memalign(&buffer, 4096, size))
        return -ENOMEM;
    memset(buffer, 0, size);
    for (uint64_t done = 0; ret == 0 && done < request->size; done += iov.iov_len) {
        struct blk_request part = {.kind = BLK_WRITE, .iov = &iov, .iovs = 1};

        iov = (struct iovec){.iov_base = buffer, .iov_len = MIN(size, request->size - done)};
        part.size = iov.iov_len;
        part.own.at = request->own.at + done;
        ret = read_or_write(file, &part);
    }
    free(buffer);
    return ret;
}

/* Calls fallocate(2) for the range of REQUEST. Returns -EOPNOTSUPP, now and, by WITHOUT, ever
 * after, if the file system or the device cannot do that. */
static int allocate(struct file *file, const struct blk_request *request, int mode,
                    _Atomic bool *without)
{
    int ret;

    if (atomic_load_explicit(without, memory_order_relaxed))
        return -EOPNOTSUPP;
    do
        ret = fallocate(file->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)request->own.at,
                        (off_t)request->size);
    while (ret < 0 && errno == EINTR);
    if (ret == 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return -errno;
    atomic_store_explicit(without, true, memory_order_relaxed);
    return -EOPNOTSUPP;
}

static int device_range(const struct file *file, const struct blk_request *request,
                        unsigned long number)
{
    uint64_t range[2] = {request->own.at, request->size};

    return ioctl(file->fd, number, range) < 0 ? -errno : 0;
}

/* A hint: what cannot be done is not done. */
static int discard(struct file *file, const struct blk_request *request)
{
    int ret;

    if (file->keep)
        return 0;
    if (file->device)
        ret = device_range(file, request, BLKDISCARD);
    else
        ret = allocate(file, request, FALLOC_FL_PUNCH_HOLE, &file->no_punch);
    return ret == -EOPNOTSUPP ? 0 : ret;
}

static int zeroes(struct file *file, struct blk_request *request)
{
    int ret = -EOPNOTSUPP;

    if (request->unmap && !file->keep)
        ret = allocate(file, request, FALLOC_FL_PUNCH_HOLE, &file->no_punch);
    if (ret == -EOPNOTSUPP && file->device)
        ret = device_range(file, request, BLKZEROOUT);
    else if (ret == -EOPNOTSUPP)
        ret = allocate(file, request, FALLOC_FL_ZERO_RANGE, &file->no_zero_range);
    return ret == -EOPNOTSUPP ? write_zeroes(file, request) : ret;
}

static int flush(struct file *file)
{
    int ret;

    if (atomic_load(&file->lost))
        return -EIO;
    do
        ret = fdatasync(file->fd);
    while (ret < 0 && errno == EINTR);
    if (ret == 0)
        return 0;
    ret = -errno;
    if (!atomic_exchange(&file->lost, true))
        log_tell(file->blk.host->log, LOG_LEVEL_ERROR,
                 "disk '%s': the host lost what was written (%s); from now on each flush fails",
                 file->name, strerror(-ret));
    return -EIO;
}

/* ---- All of it ---- */

static int perform(struct file *file, struct blk_request *request)
{
    switch (request->kind) {
    case BLK_READ:
    case BLK_WRITE: return read_or_write(file, request);
    case BLK_FLUSH: return flush(file);
    case BLK_DISCARD: return discard(file, request);
    case BLK_ZEROES: return zeroes(file, request);
    }
    return -EINVAL;
}

int file_perform(struct blk *blk, struct blk_request *request)
{
    struct file *file = container_of(blk, struct file, blk);
    bool changes = request->kind != BLK_READ && request->kind != BLK_FLUSH;
    bool edges = (request->own.at | request->size) % file->align != 0;
    int ret;

    if (!changes || file->align <= blk->info.block)
        return file_result(perform(file, request));
    if (edges)
        pthread_rwlock_wrlock(&file->edges);
    else
        pthread_rwlock_rdlock(&file->edges);
    ret = perform(file, request);
    pthread_rwlock_unlock(&file->edges);
    return file_result(ret);
}
