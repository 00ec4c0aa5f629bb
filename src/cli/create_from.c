/*
 * Base images of other disk images and archives.
 */
#include "cli/create.h"

#include "cli/image.h"
#include "cli/image_copy.h"

#include "base/field.h"
#include "base/regular.h"
#include "base/util.h"
#include "image/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool tick(void *opaque)
{
    progress_tick(opaque, NULL, -1);
    return false;
}

/* Takes the base image of what FD holds, SIZE bytes of disk, of the kind WORD. */
static int take_by_content(int fd, const char *from, const char *word, uint64_t size,
                           struct base_image *base, struct error *err)
{
    char digest[DIGEST_TEXT], key[DIGEST_TEXT + 32], name[HOME_NAME_MOST + 1];
    struct progress progress;
    uint64_t bytes;
    int result;

    progress_begin_lines(&progress, "looking at what is in it");
    result = digest_of_file(fd, from, tick, &progress, digest, &bytes, err);
    progress_end(&progress);
    if (result)
        return result;
    snprintf(key, sizeof(key), "%llu\n%s", (unsigned long long)size, digest);
    base_image_name(name, word, key, strlen(key));
    return base_image_take(name, base, err);
}

static int open_regular(const char *path, struct error *err)
{
    int fd = regular_open(AT_FDCWD, path, 0);

    if (fd >= 0)
        return fd;
    return fd == -EINVAL ? error_set(err, EINVAL, "%s is not a regular file", path)
                         : error_set(err, -fd, "cannot open %s: %s", path, strerror(-fd));
}

/* ---- Archives ---- */

int create_from_tar(const struct create_options *options, struct base_image *base,
                    struct error *err)
{
    uint64_t size = options->size ? options->size : CREATE_SIZE;
    struct create_disk disk;
    int fd = open_regular(options->from, err), result;

    if (fd < 0)
        return fd;
    result = take_by_content(fd, options->from, "tar", size, base, err);
    if (!result && !base->there) {
        result =
            create_disk_begin(&disk, base, size, true, options->from, "unpacking the archive", err);
        disk.kernel_given = options->kernel;
        if (!result)
            result = create_disk_unpack(&disk, fd, options->from, false, err);
        if (!result)
            result = create_disk_commit(&disk, err);
        create_disk_end(&disk);
        if (result)
            base_image_give_back(base);
    }
    close(fd);
    return result;
}

/* ---- Disk images ---- */

static int copy(const struct blk_options *from, struct blk *source, bool kernel_given,
                struct base_image *base, struct error *err)
{
    struct create_disk disk;
    int result = create_disk_begin(&disk, base, blk_info(source).size, false, from->file,
                                   "copying the image", err);
    struct image_copy how = {.from = source,
                             .to = disk.blk,
                             .from_options = from,
                             .to_name = disk.target.path,
                             .unit = 4096,
                             .threads = (unsigned)MAX(1, MIN(sysconf(_SC_NPROCESSORS_ONLN), 16)),
                             .target = &disk.target};

    disk.kernel_given = kernel_given;
    progress_end(&disk.progress); /* the copy has its own */
    if (!result)
        result = image_copy(&how, err);
    if (!result)
        result = create_disk_commit(&disk, err);
    create_disk_end(&disk);
    return result;
}

int create_from_image(const struct create_options *options, struct base_image *base,
                      struct error *err)
{
    struct blk_options from;
    struct blk *source = NULL;
    char *name = field_make(options->from); /* of a file, with no settings */
    int fd, result = name ? image_parse(name, options->format, &from, err)
                          : error_set(err, ENOMEM, "out of memory");

    free(name);
    if (result)
        return result;
    from.readonly = true;
    fd = open_regular(from.file, err);
    result = fd < 0 ? fd : 0;
    if (!result && !(source = blk_open(&from, &image_host, err)))
        result = -EIO;
    if (!result)
        result = take_by_content(fd, from.file, "image", blk_info(source).size, base, err);
    if (!result && !base->there) {
        result = copy(&from, source, options->kernel, base, err);
        if (result)
            base_image_give_back(base);
    }
    blk_close(source);
    if (fd >= 0)
        close(fd);
    blk_options_free(&from);
    return result;
}
