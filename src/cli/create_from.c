/*
 * Base images of other disk images and archives.
 */
#include "cli/create.h"

#include "cli/image.h"
#include "cli/image_copy.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define PIECE (1 << 20)

/* Takes the base image of what FD holds, SIZE bytes of disk, of the kind WORD. */
static int take_by_content(int fd, const char *from, const char *word, uint64_t size,
                           struct base_image *base, struct error *err)
{
    XXH3_state_t *state = XXH3_createState();
    char *piece = malloc(PIECE), name[HOME_NAME_MOST + 1];
    struct {
        uint64_t size;
        XXH128_hash_t content;
    } key = {.size = size};
    ssize_t n = -1;

    if (state && piece && XXH3_128bits_reset(state) == XXH_OK)
        while ((n = read(fd, piece, PIECE)) > 0 || (n < 0 && errno == EINTR))
            XXH3_128bits_update(state, piece, n > 0 ? (size_t)n : 0);
    if (n == 0)
        key.content = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    free(piece);
    if (n < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return error_set(err, errno, "cannot read %s: %s", from, strerror(errno));
    base_image_name(name, word, &key, sizeof(key));
    return base_image_take(name, base, err);
}

static int open_regular(const char *path, struct error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0) {
        error_set(err, errno, "cannot open %s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        error_set(err, EINVAL, "%s is not a regular file", path);
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -err->code;
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
            create_disk_begin(&disk, base, size, true, options->from, "reading the archive", err);
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
    int fd, result = image_parse(options->from, options->format, &from, err);

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
