/*
 * `doppel image create`: makes an empty image.
 */
#include "cli/image.h"
#include "cli/image_target.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    OPT_FORMAT,
    OPT_BACKING,
    OPT_BACKING_FORMAT,
    OPT_CLUSTER_SIZE,
    OPT_LAZY_REFCOUNTS,
    OPT_COMPRESSION,
    OPT_HELP
};

static const struct option_spec specs[] = {
    [OPT_FORMAT] = {"format", "FORMAT", "(-f) raw or qcow2; the default is what the name says"},
    [OPT_BACKING] =
        {"backing", "FILE",
         "(-b) the image holds what differs from FILE; qcow2 only. Relative to the image"},
    [OPT_BACKING_FORMAT] = {"backing-format", "FORMAT", "(-F) the format of that"},
    [OPT_CLUSTER_SIZE] = {"cluster-size", "SIZE", "a power of two, 512 to 2M; the default is 64K"},
    [OPT_LAZY_REFCOUNTS] = {"lazy-refcounts", NULL,
                            "write less metadata, and repair it after a power cut"},
    [OPT_COMPRESSION] = {"compression", "TYPE", "of clusters that will be compressed: zlib, zstd"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

struct request {
    const char *backing, *backing_format;
    struct qcow2_create what;
    bool sized;
};

static const struct arguments command = {
    .name = "image create",
    .usage =
        "Usage: doppel image create [OPTION...] FILE [SIZE]\n"
        "Makes an empty disk of SIZE bytes, or with a unit K, M, G or T. With a backing file, the\n"
        "default is its size. A FILE that exists is left alone.\n",
    .specs = specs,
    .letters = "fbF    "};

/* The size of the disk that the backing file holds; it must be there and be what it is said to be.
 */
static int backing_size(const char *path, struct request *request, uint64_t *size,
                        struct error *err)
{
    struct blk_options options = {.file = image_beside(path, request->backing), .readonly = true};
    struct qcow2_info info;
    struct blk *file;
    int result;

    if (!options.file)
        return error_set(err, ENOMEM, "out of memory");
    options.format = blk_format_of(options.file);
    result = request->backing_format
                 ? blk_format_parse(options.file, request->backing_format, &options.format, err)
                 : 0;
    request->what.backing_format = blk_format_name(options.format);
    file = result ? NULL : image_open_bytes(&options, true, err);
    if (file && options.format == BLK_QCOW2) {
        result = qcow2_inspect(file, &info, err);
        *size = info.size;
    } else if (file) {
        *size = blk_info(file).size;
    } else if (!result) {
        result = -EIO;
    }
    blk_close(file);
    free(options.file);
    return result;
}

static int fill_qcow2(struct target *target, const struct request *request, struct error *err)
{
    struct blk_options options = {.file = target->file};
    struct blk *file = image_open_bytes(&options, false, err);
    struct qcow2_create what = request->what;
    int result;

    if (!file)
        return -EIO;
    what.name = target->path;
    result = qcow2_create(file, &what, err);
    if (!result)
        result = image_flush(file, target->path, err);
    blk_close(file);
    return result;
}

static int fill_raw(struct target *target, uint64_t size, struct error *err)
{
    if (size > INT64_MAX || ftruncate(target->fd, (off_t)size) < 0)
        return error_set(err, size > INT64_MAX ? EFBIG : errno, "cannot make %s that large: %s",
                         target->path, strerror(size > INT64_MAX ? EFBIG : errno));
    return 0;
}

static int create(const struct blk_options *options, struct request *request, struct error *err)
{
    struct target target = {0};
    uint64_t size = 0;
    int result;

    if (request->backing) {
        result = backing_size(options->file, request, &size, err);
        if (result)
            return result;
        request->what.backing = request->backing;
    }
    if (!request->sized)
        request->what.size = size;
    result = target_begin(&target, options->file, false, err);
    if (result)
        return result;
    result = options->format == BLK_QCOW2 ? fill_qcow2(&target, request, err)
                                          : fill_raw(&target, request->what.size, err);
    if (!result)
        result = target_commit(&target, false, err);
    target_end(&target);
    return result;
}

/* Reads the values that options and words have. */
static bool read_values(struct request *request, const struct argument_words *words,
                        const char *cluster_size, const char *compression)
{
    uint64_t size;

    if (cluster_size && !image_cluster_size(cluster_size, &request->what.cluster_size))
        return false;
    if (words->count > 1) {
        if (!parse_bytes(words->word[1], &size) || size > INT64_MAX - 511) {
            complain("%s is no size (a number, perhaps with K, M, G or T)", words->word[1]);
            return false;
        }
        request->what.size = ALIGN_UP(size, 512);
        request->sized = true;
    }
    return !compression || image_compression(compression, &request->what.compression);
}

/* What fits together and what does not. */
static bool consistent(const struct request *request, enum blk_format format)
{
    const struct qcow2_create *what = &request->what;
    const char *wrong = what->lazy_refcounts              ? "--lazy-refcounts"
                        : request->backing                ? "--backing"
                        : what->cluster_size              ? "--cluster-size"
                        : what->compression != QCOW2_ZLIB ? "--compression"
                                                          : NULL;

    if (format == BLK_RAW && wrong) {
        complain("%s is for qcow2 images, and this one is raw (--format qcow2)", wrong);
        return false;
    }
    if (request->backing_format && !request->backing) {
        complain("--backing-format without --backing");
        return false;
    }
    if (!request->backing && !request->sized) {
        complain("no size");
        return false;
    }
    return true;
}

int image_create(char **argv)
{
    struct argument_words words = {.names = "FILE [SIZE]", .least = 1, .most = 2};
    const char *format = NULL, *cluster_size = NULL, *compression = NULL;
    struct request request = {0};
    const struct argument_setting settings[] = {
        [OPT_FORMAT] = {.value = &format},
        [OPT_BACKING] = {.value = &request.backing},
        [OPT_BACKING_FORMAT] = {.value = &request.backing_format},
        [OPT_CLUSTER_SIZE] = {.value = &cluster_size},
        [OPT_LAZY_REFCOUNTS] = {.flag = &request.what.lazy_refcounts},
        [OPT_COMPRESSION] = {.value = &compression},
        [OPT_HELP] = {0}};
    struct blk_options image;
    struct error err = {0};
    int result, status;

    status = arguments_read(&command, settings, argv, &words);
    if (status != ARGUMENTS_GO_ON)
        return status;
    if (!read_values(&request, &words, cluster_size, compression))
        return STATUS_ERROR;
    if (image_parse_new(words.word[0], format, &image, &err))
        return image_complain(&err);
    result = consistent(&request, image.format) ? create(&image, &request, &err) : 1;
    blk_options_free(&image);
    return result < 0 ? image_complain(&err) : result ? STATUS_ERROR : 0;
}
