/*
 * Raw files and block devices: opening them. What a file is, whether it is free to be used, and how
 * requests must be aligned.
 */
#include "blk/file/file.h"

#include "blk/file/lock.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LOCK_WAIT_NS (500 * NS_PER_MS)

/* ---- What it is ---- */

/* What a user may do about it that a file cannot be opened, by errno. */
static const char *advice(const struct file *file, int code)
{
    bool readable =
        !file->blk.info.readonly && !file->blk.host->maintains && access(file->name, R_OK) == 0;

    if (code == ENOENT)
        return " ('doppel image create' makes one)";
    return (code == EROFS || code == EACCES) && readable ? " (with ',readonly' it can be read)"
                                                         : "";
}

static int open_it(struct file *file, struct error *err)
{
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK; /* a FIFO is not waited for */
    int code;

    flags |= file->blk.info.readonly ? O_RDONLY : O_RDWR;
    flags |= file->direct ? O_DIRECT : 0;
    file->fd = open(file->name, flags);
    if (file->fd >= 0)
        return 0;
    code = errno;
    if (code == EINVAL && file->direct)
        return error_set(err, code,
                         "disk '%s': its file system has no direct I/O, which cache=none needs; "
                         "use cache=writeback",
                         file->name);
    if (code == ENXIO)
        return error_set(err, code, "disk '%s' is not a file or a block device", file->name);
    return error_set(err, code, "cannot open the disk '%s': %s%s", file->name, strerror(code),
                     advice(file, code));
}

static int look_at_device(struct file *file, struct error *err)
{
    struct blk_info *info = &file->blk.info;
    uint64_t size;
    int readonly = 0, block = 512;
    unsigned physical = 512;

    if (ioctl(file->fd, BLKGETSIZE64, &size) < 0 || ioctl(file->fd, BLKSSZGET, &block) < 0)
        return error_set(err, errno, "disk '%s': cannot ask the device for its size: %s",
                         file->name, strerror(errno));
    if (block != 512 && block != 4096)
        return error_set(err, EINVAL, "disk '%s': its blocks are of %d bytes, not 512 or 4096",
                         file->name, block);
    if (!info->readonly && ioctl(file->fd, BLKROGET, &readonly) == 0 && readonly)
        return error_set(err, EROFS, "disk '%s': the device is read-only; add ',readonly'",
                         file->name);
    if (ioctl(file->fd, BLKPBSZGET, &physical) < 0)
        physical = (unsigned)block;
    file->device = true;
    info->block = (unsigned)block;
    info->optimal = MAX(physical, 4096U);
    file->blk.size = ALIGN_DOWN(size, block);
    return 0;
}

/* Whether the device says that it cannot discard. Behind the number of a partition, what is asked
 * for is in the folder of its disk. */
static bool has_no_discards(dev_t device)
{
    static const char *const folders[] = {"queue", "../queue"};
    unsigned long long most;
    char name[96];
    FILE *file;

    for (unsigned i = 0; i < ARRAY_SIZE(folders); i++) {
        snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/%s/discard_max_bytes", major(device),
                 minor(device), folders[i]);
        file = fopen(name, "re");
        if (file) {
            bool none = fscanf(file, "%llu", &most) == 1 && most == 0;

            fclose(file);
            return none;
        }
    }
    return false;
}

/* Sets what FILE is by what it is asked. */
static int look_at(struct file *file, struct error *err)
{
    struct blk_info *info = &file->blk.info;
    struct stat status;

    if (fstat(file->fd, &status) < 0)
        return error_set(err, errno, "disk '%s': %s", file->name, strerror(errno));
    if (S_ISBLK(status.st_mode)) {
        info->discards = !has_no_discards(status.st_rdev);
        return look_at_device(file, err);
    }
    info->discards = true;
    if (!S_ISREG(status.st_mode))
        return error_set(err, EINVAL, "disk '%s' is %s, not a file or a block device", file->name,
                         S_ISDIR(status.st_mode) ? "a directory" : "of an odd kind");
    info->block = 512;
    info->optimal = status.st_blksize >= 4096 && status.st_blksize <= (long)MiB &&
                            (status.st_blksize & (status.st_blksize - 1)) == 0
                        ? (unsigned)status.st_blksize
                        : 4096;
    file->blk.size = ALIGN_UP((uint64_t)status.st_size, 512);
    return 0;
}

/* Finds the least alignment with which FILE can be read. Where nothing can be read, the largest
 * that is in use is right for all. */
static unsigned try_alignments(const struct file *file)
{
    unsigned align = 512;
    void *buffer;

    if (posix_memalign(&buffer, 4096, 4096))
        return 4096;
    while (align < 4096 && pread(file->fd, buffer, align, 0) != (ssize_t)align)
        align *= 2;
    free(buffer);
    return align;
}

/* Sets how requests must be aligned for O_DIRECT. */
static int find_alignment(struct file *file, struct error *err)
{
    struct statx status = {0};

    file->align = file->align_memory = 1;
    if (!file->direct)
        return 0;
    if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
        status.stx_mask & STATX_DIOALIGN) {
        file->align = status.stx_dio_offset_align;
        file->align_memory = status.stx_dio_mem_align;
    } else {
        file->align = file->align_memory = try_alignments(file);
    }
    if (file->align == 0)
        return error_set(err, EINVAL,
                         "disk '%s': there is no direct I/O to it, which cache=none needs; use "
                         "cache=writeback",
                         file->name);
    if (file->blk.host->align) {
        file->align = MAX(file->align, file->blk.host->align);
        file->align_memory = MAX(file->align_memory, file->blk.host->align);
    }
    return 0;
}

/* ---- Whether it is free ---- */

static int lock_it(const struct file *file, const struct blk_options *options, struct error *err)
{
    const uint64_t most = (1ULL << 62) - 1;
    struct lock_use use = {.writes = !file->blk.info.readonly, .offset = options->offset};

    if (options->offset || options->size)
        use.size = options->size ? options->size : most - MIN(options->offset, most - 1);
    if (use.offset >= most || use.size > most - use.offset)
        return error_set(err, EINVAL, "disk '%s': offset= and size= are too large", file->name);
    return lock_image(file->fd, file->name, &use, file->blk.host->hasty ? 0 : LOCK_WAIT_NS,
                      file->blk.host->log, err);
}

/* Fails if FILE is a whole device, to be written to, that the host itself uses. */
static int find_holder(const struct file *file, const struct blk_options *options,
                       struct error *err)
{
    int fd;

    if (!file->device || file->blk.info.readonly || options->offset || options->size)
        return 0;
    fd = open(file->name, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == EBUSY)
        return error_set(err, EBUSY,
                         "disk '%s' is in use by the host: it is mounted, or a part of it is",
                         file->name);
    if (fd >= 0)
        close(fd);
    return 0;
}

/* ---- All of it ---- */

static int begin(struct file *file, const struct blk_options *options, struct error *err)
{
    int ret = open_it(file, err);

    if (ret == 0)
        ret = look_at(file, err);
    if (ret == 0)
        ret = lock_it(file, options, err);
    if (ret == 0)
        ret = find_holder(file, options, err);
    if (ret == 0)
        ret = find_alignment(file, err);
    if (ret < 0)
        return ret;
    fcntl(file->fd, F_SETFL, fcntl(file->fd, F_GETFL) & ~O_NONBLOCK);
    file->blk.info.discards &= !file->keep && !file->blk.info.readonly;
    file->blk.info.zeroes = !file->blk.info.readonly;
    return file_start(file, err);
}

/* A thread that wants the lock for writing gets it, however many threads want it for reading. */
static void init_edges(pthread_rwlock_t *edges)
{
    pthread_rwlockattr_t fair;

    pthread_rwlockattr_init(&fair);
    pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(edges, &fair);
    pthread_rwlockattr_destroy(&fair);
}

struct blk *file_open(const struct blk_options *options, const struct blk_host *host,
                      struct error *err)
{
    struct file *file = calloc(1, sizeof(*file));

    if (!file || !(file->name = strdup(options->file))) {
        free(file);
        error_set(err, ENOMEM, "disk '%s': out of memory", options->file);
        return NULL;
    }
    blk_begin(&file->blk, &file_driver, options, host, file->name);
    file->fd = -1;
    file->direct = options->cache == BLK_CACHE_NONE;
    file->keep = options->keep;
    pthread_mutex_init(&file->lock, NULL);
    init_edges(&file->edges);
    if (begin(file, options, err) < 0) {
        blk_close(&file->blk);
        return NULL;
    }
    return &file->blk;
}
