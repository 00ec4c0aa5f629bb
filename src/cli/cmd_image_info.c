/*
 * `doppel image info`: what an image is and what it takes.
 */
#include "cli/image.h"
#include "cli/json_text.h"
#include "cli/snapshots.h"

#include "base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CHAIN_MOST 64 /* images that stand on each other */

enum { OPT_FORMAT, OPT_CHAIN, OPT_JSON, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_FORMAT] = {"format", "FORMAT", "(-f) raw or qcow2; the default is what the name says"},
    [OPT_CHAIN] = {"backing-chain", NULL, "also show the images that it stands on"},
    [OPT_JSON] = {"json", NULL, "print JSON instead of text: an object, an array for a chain"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

/* An image, and what was found out about it. */
struct shown {
    struct blk_options options;
    uint64_t size, taken; /* bytes: of the disk, of the host's */
    bool counted;         /* TAKEN is known */
    dev_t device;
    ino_t inode;
    struct qcow2_info info; /* qcow2 */
    struct qcow2_snapshot *snapshots;
    unsigned snapshot_count;
};

static const struct arguments command = {
    .name = "image info",
    .usage =
        "Usage: doppel image info [OPTION...] FILE\n"
        "Shows format, sizes and snapshots of the image in FILE. What it stands on is named, and "
        "only\n"
        "looked at if --backing-chain says so.\n",
    .specs = specs,
    .letters = "f   "};

/* ---- Looking ---- */

static int look_at_qcow2(struct shown *shown, struct blk *file, struct error *err)
{
    struct qcow2_how how = {.readonly = true, .offline = true};
    int result = qcow2_inspect(file, &shown->info, err);
    struct blk *image = result ? NULL : qcow2_open(file, &how, err);

    if (!image) {
        blk_close(file);
        return result ? result : -EIO;
    }
    shown->size = shown->info.size;
    result = qcow2_snapshots(image, &shown->snapshots, &shown->snapshot_count, err);
    blk_close(image);
    return result;
}

/* Fills in SHOWN, whose options are set. */
static int look(struct shown *shown, struct error *err)
{
    struct blk *file = image_open_bytes(&shown->options, true, err);
    struct stat st;

    if (!file)
        return -EIO;
    if (shown->options.source == BLK_FILE && stat(shown->options.file, &st) == 0) {
        shown->counted = true;
        shown->taken = (uint64_t)st.st_blocks * 512;
        shown->device = st.st_dev;
        shown->inode = st.st_ino;
    }
    if (shown->options.format == BLK_QCOW2)
        return look_at_qcow2(shown, file, err);
    shown->size = blk_info(file).size;
    blk_close(file);
    return 0;
}

/* Asks whether the image, which is read as raw only because of its name, is a qcow2 image. */
static void hint_at_qcow2(const struct shown *shown)
{
    struct error err = {0};
    struct blk *file = image_open_bytes(&shown->options, true, &err);
    struct qcow2_info info;

    if (file && qcow2_inspect(file, &info, &err) == 0)
        complain("%s begins like a qcow2 image, and is shown as a raw one: -f qcow2?",
                 shown->options.file);
    blk_close(file);
}

/* Whether SHOWN stands on itself. */
static bool is_circle(const struct shown *chain, unsigned count)
{
    for (unsigned i = 0; i + 1 < count; i++)
        if (chain[i].counted && chain[count - 1].counted &&
            chain[i].device == chain[count - 1].device && chain[i].inode == chain[count - 1].inode)
            return true;
    return false;
}

/* Sets the options of the image that ABOVE stands on. */
static int next_options(const struct shown *above, struct blk_options *options, struct error *err)
{
    *options = (struct blk_options){.readonly = true};
    options->file = image_beside(above->options.file, above->info.backing);
    if (!options->file)
        return error_set(err, ENOMEM, "out of memory");
    options->format = blk_format_of(options->file);
    if (above->info.backing_format[0])
        return blk_format_parse(options->file, above->info.backing_format, &options->format, err);
    return 0;
}

/* Looks at CHAIN[0] and, with FOLLOW, at what it stands on. */
static int look_at_chain(struct shown *chain, bool follow, unsigned *count, struct error *err)
{
    for (*count = 1;; ++*count) {
        struct shown *last = &chain[*count - 1];
        int result = look(last, err);

        if (result || !follow || !last->info.backing[0])
            return result;
        if (is_circle(chain, *count))
            return error_set(err, ELOOP, "%s stands on itself", chain[0].options.file);
        if (*count == CHAIN_MOST)
            return error_set(err, ELOOP, "%s stands on more than %u images", chain[0].options.file,
                             CHAIN_MOST - 1);
        result = next_options(last, &chain[*count].options, err);
        if (result)
            return ++*count, result;
    }
}

static void forget(struct shown *chain, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        qcow2_snapshots_free(chain[i].snapshots, chain[i].snapshot_count);
        blk_options_free(&chain[i].options);
    }
    free(chain);
}

/* ---- Showing ---- */

static void print_line(const char *what, const char *text)
{
    char *clean = image_clean(text);

    printf("%s: %s\n", what, clean ? clean : "?");
    free(clean);
}

static void print_qcow2(const struct shown *shown)
{
    const struct qcow2_info *info = &shown->info;

    printf("cluster_size: %u\n", info->cluster_size);
    if (info->backing[0])
        print_line("backing file", info->backing);
    if (info->backing_format[0])
        print_line("backing file format", info->backing_format);
    snapshots_print(shown->snapshots, shown->snapshot_count);
    printf("Format specific information:\n"
           "    compat: %s\n"
           "    compression type: %s\n"
           "    lazy refcounts: %s\n"
           "    refcount bits: %u\n"
           "    dirty: %s\n"
           "    corrupt: %s\n"
           "    extended l2: %s\n",
           info->version == 2 ? "0.10" : "1.1", info->compression == QCOW2_ZSTD ? "zstd" : "zlib",
           info->lazy_refcounts ? "true" : "false", info->refcount_bits,
           info->dirty ? "true" : "false", info->corrupt ? "true" : "false",
           info->extended_l2 ? "true" : "false");
}

static void print_text(const struct shown *shown)
{
    char text[32];

    print_line("image", shown->options.file);
    print_line("file format", blk_format_name(shown->options.format));
    image_size_text(text, sizeof(text), shown->size);
    printf("virtual size: %s (%" PRIu64 " bytes)\n", text, shown->size);
    image_size_text(text, sizeof(text), shown->taken);
    print_line("disk size", shown->counted ? text : "unavailable");
    if (shown->options.format == BLK_QCOW2)
        print_qcow2(shown);
}

static void json_qcow2(struct json_text *json, const struct shown *shown)
{
    const struct qcow2_info *info = &shown->info;

    json_text_number(json, "cluster-size", info->cluster_size);
    if (info->backing[0])
        image_json_text(json, "backing-filename", info->backing);
    if (info->backing_format[0])
        image_json_text(json, "backing-filename-format", info->backing_format);
    json_text_bool(json, "dirty-flag", info->dirty);
    snapshots_json(json, shown->snapshots, shown->snapshot_count);
    json_text_open(json, "format-specific", '{');
    json_text_string(json, "type", "qcow2");
    json_text_open(json, "data", '{');
    json_text_string(json, "compat", info->version == 2 ? "0.10" : "1.1");
    json_text_string(json, "compression-type", info->compression == QCOW2_ZSTD ? "zstd" : "zlib");
    json_text_bool(json, "lazy-refcounts", info->lazy_refcounts);
    json_text_number(json, "refcount-bits", info->refcount_bits);
    json_text_bool(json, "corrupt", info->corrupt);
    json_text_bool(json, "extended-l2", info->extended_l2);
    json_text_close(json, '}');
    json_text_close(json, '}');
}

static void json_image(struct json_text *json, const struct shown *shown)
{
    json_text_open(json, NULL, '{');
    image_json_text(json, "filename", shown->options.file);
    json_text_string(json, "format", blk_format_name(shown->options.format));
    json_text_number(json, "virtual-size", shown->size);
    if (shown->counted)
        json_text_number(json, "actual-size", shown->taken);
    if (shown->options.format == BLK_QCOW2)
        json_qcow2(json, shown);
    json_text_close(json, '}');
}

static void print(const struct shown *chain, unsigned count, bool as_json, bool follow)
{
    struct json_text json = {stdout, false};

    if (as_json && follow)
        json_text_open(&json, NULL, '[');
    for (unsigned i = 0; i < count; i++) {
        if (as_json)
            json_image(&json, &chain[i]);
        else
            print_text(&chain[i]);
        if (!as_json && i + 1 < count)
            putchar('\n');
    }
    if (as_json && follow)
        json_text_close(&json, ']');
    if (as_json)
        putchar('\n');
}

static int show(const char *text, const char *format, bool json, bool follow)
{
    struct shown *chain = calloc(CHAIN_MOST, sizeof(*chain));
    struct error err = {0};
    unsigned count;
    int result;

    if (!chain) {
        complain("out of memory");
        return STATUS_ERROR;
    }
    result = image_parse(text, format, &chain[0].options, &err);
    if (result) {
        free(chain);
        return image_complain(&err);
    }
    result = look_at_chain(chain, follow, &count, &err);
    if (!result)
        print(chain, count, json, follow);
    if (!result && !format && chain[0].options.format == BLK_RAW)
        hint_at_qcow2(&chain[0]);
    forget(chain, count);
    return result ? image_complain(&err) : finish_output(0);
}

int image_info(char **argv)
{
    struct argument_words words = {.names = "FILE", .least = 1, .most = 1};
    bool json = false, chain = false;
    const char *format = NULL;
    const struct argument_setting settings[] = {[OPT_FORMAT] = {.value = &format},
                                                [OPT_CHAIN] = {.flag = &chain},
                                                [OPT_JSON] = {.flag = &json},
                                                [OPT_HELP] = {0}};
    int status;

    status = arguments_read(&command, settings, argv, &words);
    if (status != ARGUMENTS_GO_ON)
        return status;
    return show(words.word[0], format, json, chain);
}
