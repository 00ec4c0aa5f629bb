/*
 * What the actions of `doppel image` share.
 */
#include "cli/image.h"

#include "base/log.h"
#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Errors are what an action fails with. */
static void take_line(void *opaque, enum log_level level, const char *text)
{
    if (level == LOG_LEVEL_WARNING)
        complain("%s", text);
}

static const struct log image_log = {.most = LOG_LEVEL_WARNING, .line = take_line};
const struct blk_host image_host = {.log = &image_log, .maintains = true};

int image_complain(const struct error *err)
{
    complain("%s", err->text);
    return STATUS_ERROR;
}

int image_parse(const char *text, const char *format, struct blk_options *options,
                struct error *err)
{
    int result = blk_options_parse(text, options, err);

    if (result)
        return result;
    if (format)
        result = blk_format_parse(options->file, format, &options->format, err);
    if (!result && options->source == BLK_VHOST_USER)
        result = error_set(err, EINVAL, "%s is another program's: only a machine can use it",
                           options->file);
    if (result)
        blk_options_free(options);
    return result;
}

int image_arguments_of_one(const struct arguments *command, const struct argument_setting *settings,
                           char **argv, struct argument_words *words, const char *const *format,
                           struct blk_options *image)
{
    int status = arguments_read(command, settings, argv, words);
    struct error err = {0};

    if (status != ARGUMENTS_GO_ON)
        return status;
    return image_parse(words->word[words->subject], *format, image, &err) ? image_complain(&err)
                                                                          : ARGUMENTS_GO_ON;
}

/* The first setting in OPTIONS, besides the format, that is not as it is when it is not given. */
static const char *setting_of(const struct blk_options *options)
{
    return options->readonly                       ? "readonly"
           : options->snapshot                     ? "snapshot"
           : options->cache != BLK_CACHE_WRITEBACK ? "cache"
           : options->keep                         ? "discard"
           : options->serial                       ? "serial"
           : options->offset                       ? "offset"
           : options->size                         ? "size"
           : options->iops                         ? "iops"
           : options->bps                          ? "bps"
           : options->isolate                      ? "isolate"
           : options->queues                       ? "queues"
           : options->backing                      ? "backing"
                                                   : NULL;
}

int image_parse_new(const char *text, const char *format, struct blk_options *options,
                    struct error *err)
{
    int result = image_parse(text, format, options, err);
    const char *setting;

    if (result)
        return result;
    setting = setting_of(options);
    if (options->source != BLK_FILE)
        result = error_set(err, EINVAL, "%s is no file that can be created", options->file);
    else if (!strcmp(options->file, "-"))
        result =
            error_set(err, EINVAL, "an image cannot be written to standard output (./- is a file)");
    else if (setting)
        result = error_set(err, EINVAL, "%s: '%s' is not for a file that is made, only format is",
                           options->file, setting);
    if (result)
        blk_options_free(options);
    return result;
}

bool image_compression(const char *text, enum qcow2_compression *compression)
{
    bool zstd = !strcmp(text, "zstd");

    if (!zstd && strcmp(text, "zlib") != 0) {
        complain("--compression: %s is neither zlib nor zstd", text);
        return false;
    }
    *compression = zstd ? QCOW2_ZSTD : QCOW2_ZLIB;
    return true;
}

bool image_cluster_size(const char *text, unsigned *size)
{
    uint64_t number;

    if (!parse_bytes(text, &number) || number < 512 || number > 2 * MiB || number & (number - 1)) {
        complain("--cluster-size: %s is not a power of two from 512 to 2M", text);
        return false;
    }
    *size = (unsigned)number;
    return true;
}

int image_flush(struct blk *blk, const char *name, struct error *err)
{
    int result = blk_flush(blk);

    return result ? error_set(err, -result, "cannot write %s: %s", name, strerror(-result)) : 0;
}

struct blk *image_open_bytes(const struct blk_options *options, bool readonly, struct error *err)
{
    struct blk_options bytes = *options;

    bytes.format = BLK_RAW;
    bytes.backing = NULL;
    bytes.readonly |= readonly;
    return blk_open(&bytes, &image_host, err);
}

struct blk *image_open_offline(const struct blk_options *options, bool readonly, bool damaged,
                               struct error *err)
{
    struct qcow2_how how = {.readonly = readonly, .offline = true, .damaged = damaged};
    struct blk *file, *image;

    if (options->format != BLK_QCOW2) {
        error_set(err, EINVAL, "%s is a raw image, which has no more than its contents",
                  options->file);
        return NULL;
    }
    file = image_open_bytes(options, readonly, err);
    image = file ? qcow2_open(file, &how, err) : NULL;
    if (!image)
        blk_close(file);
    return image;
}

void image_size_text(char *text, size_t room, uint64_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)size;
    unsigned unit = 0;

    for (; value >= 1000 && unit + 1 < ARRAY_SIZE(units); unit++)
        value /= 1024;
    snprintf(text, room, "%.3g %s", value, units[unit]);
}

/* The length of the character that TEXT begins with, in UTF-8 (RFC 3629), or 0 if it is none. */
static size_t character_size(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t size = c[0] < 0x80                    ? 1
                  : c[0] >= 0xC2 && c[0] <= 0xDF ? 2
                  : (c[0] & 0xF0) == 0xE0        ? 3
                  : c[0] >= 0xF0 && c[0] <= 0xF4 ? 4
                                                 : 0;

    for (size_t i = 1; i < size; i++)
        if ((c[i] & 0xC0) != 0x80)
            return 0;
    if ((c[0] == 0xE0 && c[1] < 0xA0) || (c[0] == 0xED && c[1] > 0x9F) ||
        (c[0] == 0xF0 && c[1] < 0x90) || (c[0] == 0xF4 && c[1] > 0x8F))
        return 0;
    return size;
}

char *image_clean(const char *text)
{
    char *clean = strdup(text);

    if (!clean)
        return NULL;
    log_clean(clean);
    for (char *at = clean; *at;) {
        size_t size = character_size(at);

        if (!size)
            *at = '?';
        at += size ? size : 1;
    }
    return clean;
}

void image_json_text(struct json_text *json, const char *name, const char *text)
{
    char *clean = image_clean(text);

    json_text_string(json, name, clean ? clean : "");
    free(clean);
}

char *image_beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *text;

    if (name[0] == '/' || !slash)
        return strdup(name);
    if (asprintf(&text, "%.*s%s", (int)(slash + 1 - path), path, name) < 0)
        return NULL;
    return text;
}
