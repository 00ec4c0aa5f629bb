/*
 * `doppel image resize`: makes a disk larger or smaller.
 */
#include "cli/image.h"

#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { OPT_FORMAT, OPT_SHRINK, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_FORMAT] = {"format", "FORMAT", "(-f) raw or qcow2; the default is what the name says"},
    [OPT_SHRINK] = {"shrink", NULL,
                    "the disk may become smaller; what lies behind its end is lost"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const struct arguments command = {
    .name = "image resize",
    .usage = "Usage: doppel image resize [OPTION...] FILE [+|-]SIZE\n"
             "Gives the disk in FILE a new size, or so much more or less. What is added reads as "
             "zeros.\n",
    .specs = specs,
    .letters = "f  "};

/* What SIZE ("8G", "+1G", "-1G") makes of a disk of NOW bytes. */
static int new_size(const char *text, uint64_t now, uint64_t *size, struct error *err)
{
    uint64_t by;

    if (!parse_bytes(text + (*text == '+' || *text == '-'), &by))
        return error_set(err, EINVAL, "%s is no size (a number, perhaps with K, M, G or T)", text);
    if (*text == '-' ? by > now : by > INT64_MAX - (*text == '+' ? now : 0))
        return error_set(err, EINVAL, "%s: no disk can have that size", text);
    *size = *text == '+' ? now + by : *text == '-' ? now - by : by;
    *size = ALIGN_UP(*size, 512);
    return 0;
}

/* A larger disk shows no more of its backing file than before, so that file may be needed. */
static int resize(const struct blk_options *options, const char *text, bool shrink,
                  struct error *err)
{
    bool offline = options->format == BLK_QCOW2 && !options->backing;
    struct blk *blk = offline ? image_open_offline(options, false, false, err)
                              : blk_open(options, &image_host, err);
    uint64_t now, size = 0;
    int result;

    if (!blk)
        return -EIO;
    now = blk_info(blk).size;
    result = new_size(text, now, &size, err);
    if (!result && size < now && !shrink)
        result = error_set(err, EINVAL,
                           "%s would lose what lies behind its new end (--shrink allows that)",
                           options->file);
    if (!result)
        result = blk_resize(blk, size, err);
    if (!result)
        result = image_flush(blk, options->file, err);
    blk_close(blk);
    return result;
}

int image_resize(char **argv)
{
    struct argument_words words = {.names = "FILE [+|-]SIZE", .least = 2, .most = 2};
    bool shrink = false;
    const char *format = NULL;
    const struct argument_setting settings[] = {
        [OPT_FORMAT] = {.value = &format}, [OPT_SHRINK] = {.flag = &shrink}, [OPT_HELP] = {0}};
    struct blk_options image;
    struct error err = {0};
    int status = image_arguments_of_one(&command, settings, argv, &words, &format, &image);

    if (status != ARGUMENTS_GO_ON)
        return status;
    status = resize(&image, words.word[1], shrink, &err) ? image_complain(&err) : 0;
    blk_options_free(&image);
    return status;
}
