/*
 * `doppel image convert`: copies an image, from one format to another.
 */
#include "cli/image.h"
#include "cli/image_copy.h"
#include "cli/image_target.h"

#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MOST 64u

enum {
    OPT_FORMAT,
    OPT_TARGET_FORMAT,
    OPT_COMPRESS,
    OPT_COMPRESSION,
    OPT_CLUSTER_SIZE,
    OPT_LAZY_REFCOUNTS,
    OPT_THREADS,
    OPT_IN_PLACE,
    OPT_HELP
};

static const struct option_spec specs[] = {
    [OPT_FORMAT] = {"format", "FORMAT",
                    "(-f) of SOURCE: raw or qcow2; the default is what the name says"},
    [OPT_TARGET_FORMAT] = {"target-format", "FORMAT", "(-O) the same of TARGET"},
    [OPT_COMPRESS] = {"compress", NULL, "(-c) compress the clusters of a qcow2 image"},
    [OPT_COMPRESSION] = {"compression", "TYPE", "by which: zlib (the default) or zstd"},
    [OPT_CLUSTER_SIZE] = {"cluster-size", "SIZE", "a power of two, 512 to 2M; the default is 64K"},
    [OPT_LAZY_REFCOUNTS] = {"lazy-refcounts", NULL,
                            "write less metadata, and repair it after a power cut"},
    [OPT_THREADS] = {"threads", "N", "(-m) that copy and compress; the default is one a processor"},
    [OPT_IN_PLACE] = {"in-place", NULL, "write over what is in TARGET, a device for example"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

struct request {
    struct blk_options source, target;
    struct qcow2_create what;
    bool compress, in_place;
    unsigned threads;
};

static const struct arguments command = {
    .name = "image convert",
    .usage =
        "Usage: doppel image convert [OPTION...] SOURCE TARGET\n"
        "Copies the disk in SOURCE to TARGET. What reads as zeros takes no room there. TARGET is\n"
        "replaced when the copy is complete, and not touched before. A qcow2 SOURCE on a backing\n"
        "file is written SOURCE,backing=FILE; TARGET then has all of it and stands alone.\n"
        "With --in-place, TARGET is there already, as large as the disk at least: a block device, "
        "a\n"
        "part of one, a server's disk, a file. It is written over as a raw disk, at once; if that\n"
        "fails, what was in it is lost.\n",
    .specs = specs,
    .letters = "fOc   m  "};

/* Opens the file that TARGET will be, ready to be written as the disk. */
static struct blk *open_target(struct request *request, struct target *target, struct error *err)
{
    struct blk_options options = {.file = target->file};
    struct blk *file, *image = NULL;
    struct qcow2_how how = {.name = target->path};
    struct qcow2_create what = request->what;

    if (request->target.format == BLK_RAW && ftruncate(target->fd, (off_t)request->what.size) < 0) {
        error_set(err, errno, "cannot make %s that large: %s", target->path, strerror(errno));
        return NULL;
    }
    file = image_open_bytes(&options, false, err);
    if (!file || request->target.format == BLK_RAW)
        return file;
    what.name = target->path;
    if (!qcow2_create(file, &what, err))
        image = qcow2_open(file, &how, err);
    if (!image)
        blk_close(file);
    return image;
}

static int copy(struct request *request, struct blk *source, struct target *target,
                struct error *err)
{
    struct blk *image = open_target(request, target, err);
    struct image_copy how = {.from = source,
                             .to = image,
                             .from_options = &request->source,
                             .to_name = request->target.file,
                             .compress = request->compress,
                             .unit = request->target.format == BLK_RAW ? 4096
                                                                       : request->what.cluster_size,
                             .threads = request->threads,
                             .target = target};
    int result;

    if (!image)
        return -EIO;
    result = image_copy(&how, err);
    blk_close(image);
    return result;
}

/* Locks the file that will be replaced, so that no other program uses it meanwhile. *HELD is NULL
 * if there is none. */
static int hold_old(const struct blk_options *options, struct blk **held, struct error *err)
{
    *held = NULL;
    if (access(options->file, F_OK) < 0)
        return 0;
    *held = image_open_bytes(options, false, err);
    return *held ? 0 : -EIO;
}

/* Whether the disk of SIZE bytes can be written to TO. */
static int check_room(const char *name, struct blk *to, uint64_t size, struct error *err)
{
    struct blk_info info = blk_info(to);

    if (info.readonly)
        return error_set(err, EROFS, "%s can only be read", name);
    if (info.size < size)
        return error_set(err, ENOSPC, "%s has %llu bytes, and the disk %llu", name,
                         (unsigned long long)info.size, (unsigned long long)size);
    if (size % info.block)
        return error_set(err, EINVAL, "%s has blocks of %u bytes, and the disk %llu bytes", name,
                         info.block, (unsigned long long)size);
    return 0;
}

static int write_over(struct request *request, struct blk *source, struct error *err)
{
    struct blk *to = blk_open(&request->target, &image_host, err);
    struct image_copy how = {.from = source,
                             .to = to,
                             .over = true,
                             .from_options = &request->source,
                             .to_name = request->target.file,
                             .unit = 4096,
                             .threads = request->threads};
    int result;

    if (!to)
        return -EIO;
    result = check_room(request->target.file, to, blk_info(source).size, err);
    if (!result)
        result = image_copy(&how, err);
    blk_close(to);
    return result;
}

static int replace(struct request *request, struct blk *source, struct error *err)
{
    struct target target = {0};
    struct blk *old = NULL;
    int result;

    request->what.size = blk_info(source).size;
    result = target_begin(&target, request->target.file, true, err);
    if (!result)
        result = hold_old(&request->target, &old, err);
    if (!result)
        result = copy(request, source, &target, err);
    if (!result)
        result = target_commit(&target, true, err);
    blk_close(old);
    target_end(&target);
    return result;
}

static int convert(struct request *request, struct error *err)
{
    struct blk *source;
    int result;

    request->source.readonly = true;
    source = blk_open(&request->source, &image_host, err);
    if (!source)
        return -EIO;
    result = request->in_place ? write_over(request, source, err) : replace(request, source, err);
    blk_close(source);
    return result;
}

/* Reads the values that options have, and checks that they fit together. */
static bool read_values(struct request *request, const char *cluster_size, const char *compression,
                        const char *threads)
{
    bool raw = request->target.format == BLK_RAW;
    const char *wrong = request->compress              ? "--compress"
                        : compression                  ? "--compression"
                        : cluster_size                 ? "--cluster-size"
                        : request->what.lazy_refcounts ? "--lazy-refcounts"
                                                       : NULL;

    if (raw && wrong) {
        complain("%s is for qcow2 images, and %s is raw (--target-format qcow2)", wrong,
                 request->target.file);
        return false;
    }
    request->threads = (unsigned)MAX(1, MIN(sysconf(_SC_NPROCESSORS_ONLN), 16));
    if (threads && !parse_unsigned(threads, 1, THREADS_MOST, &request->threads)) {
        complain("--threads: %s is no number from 1 to %u", threads, THREADS_MOST);
        return false;
    }
    request->what.cluster_size = 64 * KiB;
    if (cluster_size && !image_cluster_size(cluster_size, &request->what.cluster_size))
        return false;
    return !compression || image_compression(compression, &request->what.compression);
}

/* Parses TARGET: a file that will be made, or with --in-place a disk that is there. */
static int read_target(struct request *request, const char *text, const char *format,
                       struct error *err)
{
    struct blk_options *target = &request->target;
    int result;

    if (!request->in_place)
        return image_parse_new(text, format, target, err);
    result = image_parse(text, format, target, err);
    if (result)
        return result;
    if (target->format != BLK_RAW)
        result =
            error_set(err, EINVAL, "--in-place writes a raw disk, and %s is qcow2", target->file);
    else if (target->readonly || target->snapshot || target->isolate)
        result = error_set(err, EINVAL, "%s: '%s' is not for what is written over", target->file,
                           target->readonly   ? "readonly"
                           : target->snapshot ? "snapshot"
                                              : "isolate");
    if (result)
        blk_options_free(target);
    return result;
}

/* Parses SOURCE and TARGET and does it. */
static int run(struct request *request, const struct argument_words *words,
               const char *const value[])
{
    struct error err = {0};
    int status = STATUS_ERROR;

    if (image_parse(words->word[0], value[OPT_FORMAT], &request->source, &err))
        return image_complain(&err);
    if (read_target(request, words->word[1], value[OPT_TARGET_FORMAT], &err)) {
        blk_options_free(&request->source);
        return image_complain(&err);
    }
    if (read_values(request, value[OPT_CLUSTER_SIZE], value[OPT_COMPRESSION], value[OPT_THREADS]))
        status = convert(request, &err) ? image_complain(&err) : 0;
    blk_options_free(&request->source);
    blk_options_free(&request->target);
    return status;
}

int image_convert(char **argv)
{
    struct argument_words words = {.names = "SOURCE TARGET", .least = 2, .most = 2};
    const char *value[OPT_HELP + 1] = {NULL};
    struct request request = {0};
    const struct argument_setting settings[] = {
        [OPT_FORMAT] = {.value = &value[OPT_FORMAT]},
        [OPT_TARGET_FORMAT] = {.value = &value[OPT_TARGET_FORMAT]},
        [OPT_COMPRESS] = {.flag = &request.compress},
        [OPT_COMPRESSION] = {.value = &value[OPT_COMPRESSION]},
        [OPT_CLUSTER_SIZE] = {.value = &value[OPT_CLUSTER_SIZE]},
        [OPT_LAZY_REFCOUNTS] = {.flag = &request.what.lazy_refcounts},
        [OPT_THREADS] = {.value = &value[OPT_THREADS]},
        [OPT_IN_PLACE] = {.flag = &request.in_place},
        [OPT_HELP] = {0}};
    int status;

    status = arguments_read(&command, settings, argv, &words);
    return status == ARGUMENTS_GO_ON ? run(&request, &words, value) : status;
}
