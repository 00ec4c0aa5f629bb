/*
 * The disk of a base image while it is made.
 */
#include "cli/create.h"

#include "cli/image.h"

#include "base/time.h"
#include "base/util.h"
#include "image/ext4.h"
#include "image/kernel.h"
#include "image/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int begin_files(struct create_disk *disk, uint64_t size, struct error *err)
{
    struct ext4_options options = {.size = ALIGN_DOWN(size, 4096),
                                   .label = "doppel-root",
                                   .now = time(NULL),
                                   .name = disk->name};

    if (getrandom(options.uuid, sizeof(options.uuid), 0) != sizeof(options.uuid))
        return error_set(err, EIO, "no random numbers for a file system's identity");
    /* RFC 9562, 4.4: a random one. */
    options.uuid[6] = (options.uuid[6] & 0x0F) | 0x40;
    options.uuid[8] = (options.uuid[8] & 0x3F) | 0x80;
    disk->ext4 = ext4_create(disk->blk, &options, err);
    return disk->ext4 ? 0 : -EIO;
}

int create_disk_begin(struct create_disk *disk, struct base_image *base, uint64_t size, bool files,
                      const char *name, const char *what, struct error *err)
{
    struct blk_options options = {0};
    char path[PATH_MAX];
    int result = base_image_file(base, BASE_DISK, path, err);

    *disk = (struct create_disk){.base = base};
    snprintf(disk->name, sizeof(disk->name), "%s", name);
    progress_begin_lines(&disk->progress, what);
    if (!result)
        result = target_begin(&disk->target, path, false, err);
    if (result)
        return result;
    if (ftruncate(disk->target.fd, (off_t)size) < 0)
        return error_set(err, errno, "cannot make %s that large: %s", path, strerror(errno));
    options.file = disk->target.file;
    disk->blk = image_open_bytes(&options, false, err);
    if (!disk->blk)
        return -EIO;
    return files ? begin_files(disk, size, err) : 0;
}

bool create_disk_tick(struct create_disk *disk)
{
    if (disk->tick && disk->tick(disk->opaque))
        return true;
    progress_tick(&disk->progress, NULL, -1);
    return target_interrupted(&disk->target);
}

static bool tick(void *opaque, uint64_t bytes)
{
    (void)bytes;
    return create_disk_tick(opaque);
}

int create_disk_unpack(struct create_disk *disk, int fd, const char *name, bool layer,
                       struct error *err)
{
    struct tar_options options = {.name = name, .layer = layer, .tick = tick, .opaque = disk};

    return tar_unpack(disk->ext4, fd, &options, err);
}

static int open_new(const struct base_image *base, const char *file, struct error *err)
{
    char path[PATH_MAX];
    int fd, result = base_image_file(base, file, path, err);

    if (result)
        return result;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 ? error_set(err, errno, "cannot create %s: %s", path, strerror(errno)) : fd;
}

/* Has the file reach the disk. An empty one is removed: there is no such file. */
static int close_new(const struct base_image *base, const char *file, int fd, struct error *err)
{
    bool empty = lseek(fd, 0, SEEK_END) == 0;
    char path[PATH_MAX];
    int result = 0;

    if (fsync(fd) < 0)
        result = error_set(err, errno, "cannot write %s: %s", file, strerror(errno));
    close(fd);
    if (!result && empty && !base_image_file(base, file, path, err))
        unlink(path);
    return result;
}

/* Copies the kernel beside the disk. Without one the image is of no use, unless another is given.
 */
static int take_kernel(struct create_disk *disk, struct error *err)
{
    struct kernel_found found;
    int kernel, initrd, end, result;

    if (kernel_find(disk->blk, disk->name, &found, err))
        return disk->kernel_given ? 0 : -ENOENT;
    if (disk->initrd_needed && !found.initrd[0])
        return error_set(err, ENOENT, "%s: its kernel has no initramfs", disk->name);
    kernel = open_new(disk->base, BASE_KERNEL, err);
    if (kernel < 0)
        return kernel;
    initrd = open_new(disk->base, BASE_INITRD, err);
    if (initrd < 0) {
        close(kernel);
        return initrd;
    }
    result = kernel_copy(disk->blk, disk->name, &found, kernel, initrd, err);
    end = close_new(disk->base, BASE_KERNEL, kernel, result ? NULL : err);
    result = result ? result : end;
    end = close_new(disk->base, BASE_INITRD, initrd, result ? NULL : err);
    return result ? result : end;
}

int create_disk_commit(struct create_disk *disk, struct error *err)
{
    int result = disk->ext4 ? ext4_finish(disk->ext4, err) : 0;

    if (!result && (result = blk_flush(disk->blk)))
        error_set(err, -result, "cannot write %s: %s", disk->target.path, strerror(-result));
    if (!result)
        result = take_kernel(disk, err);
    if (!result && target_interrupted(&disk->target))
        result = error_set(err, EINTR, "%s: interrupted", disk->name);
    if (!result && fchmod(disk->target.fd, 0400) < 0)
        result = error_set(err, errno, "cannot change %s: %s", disk->target.path, strerror(errno));
    if (!result)
        result = target_commit(&disk->target, false, err);
    return result ? result : base_image_commit(disk->base, err);
}

void create_disk_end(struct create_disk *disk)
{
    progress_end(&disk->progress);
    ext4_free(disk->ext4);
    blk_close(disk->blk);
    if (!disk->base->there)
        base_image_give_back(disk->base);
    target_end(&disk->target); /* a signal that has waited ends the process here */
}
