/*
 * `doppel image check`: looks for mistakes in an image's metadata, and repairs them.
 */
#include "cli/image.h"
#include "cli/json_text.h"
#include "cli/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* Exit statuses, as qemu-img has them. */
#define STATUS_CORRUPT   2
#define STATUS_LEAKS     3
#define STATUS_NO_CHECKS 63

enum { OPT_FORMAT, OPT_REPAIR, OPT_JSON, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_FORMAT] = {"format", "FORMAT", "(-f) raw or qcow2; the default is what the name says"},
    [OPT_REPAIR] = {"repair", NULL, "repair what is found"},
    [OPT_JSON] = {"json", NULL, "print one JSON object instead of text"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

/* Who hears of the check while it runs. */
struct listener {
    struct progress progress;
    bool quiet;
};

static const struct arguments command = {
    .name = "image check",
    .usage =
        "Usage: doppel image check [OPTION...] FILE\n"
        "Looks for mistakes in the metadata of a qcow2 image. Exits with 0 if there are none "
        "left, 2 if\n"
        "there are errors, 3 if there are only clusters that nothing uses, and 63 if the format "
        "has\n"
        "no metadata.\n",
    .specs = specs,
    .letters = "f   "};

static void report(void *opaque, const char *line)
{
    const struct listener *listener = opaque;

    if (!listener->quiet)
        puts(line);
}

static void show_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct listener *listener = opaque;

    progress_tick(&listener->progress, NULL,
                  total ? (int)((double)done * 100 / (double)total) : -1);
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? (double)part * 100 / (double)whole : 0;
}

/* What there is to say of errors that are left, and of the mark. */
static void print_state(const struct qcow2_checked *checked, bool repair)
{
    if (repair && checked->errors > checked->errors_fixed)
        puts("What is left cannot be repaired: copy what can be read with doppel image convert.");
    if (checked->unmarked)
        puts("The image was marked as corrupt. The mark was cleared.");
    else if (checked->marked)
        printf("The image is marked as corrupt%s.\n", repair ? "" : " (--repair clears it)");
}

static void print_text(const struct qcow2_checked *checked, bool repair)
{
    uint64_t errors = checked->errors - checked->errors_fixed;
    uint64_t leaks = checked->leaks - checked->leaks_fixed;

    if (checked->errors_fixed || checked->leaks_fixed)
        printf("%" PRIu64 " errors and %" PRIu64 " leaked clusters were repaired.\n",
               checked->errors_fixed, checked->leaks_fixed);
    if (errors)
        printf("%" PRIu64 " errors were found on the image. Data may be corrupt, or become so by "
               "writing to it.\n",
               errors);
    if (leaks)
        printf("%" PRIu64 " leaked clusters were found on the image. They only waste space.\n",
               leaks);
    if (!errors && !leaks)
        puts("No errors were found on the image.");
    print_state(checked, repair);
    printf("%" PRIu64 "/%" PRIu64
           " = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n"
           "Image end offset: %" PRIu64 "\n",
           checked->allocated, checked->clusters, percent(checked->allocated, checked->clusters),
           percent(checked->fragmented, checked->allocated),
           percent(checked->compressed, checked->allocated), checked->end);
}

static void print_json(const char *file, const struct qcow2_checked *checked)
{
    struct json_text json = {stdout, false};

    json_text_open(&json, NULL, '{');
    image_json_text(&json, "filename", file);
    json_text_string(&json, "format", "qcow2");
    json_text_number(&json, "check-errors", 0);
    json_text_number(&json, "corruptions", checked->errors - checked->errors_fixed);
    json_text_number(&json, "corruptions-fixed", checked->errors_fixed);
    json_text_number(&json, "leaks", checked->leaks - checked->leaks_fixed);
    json_text_number(&json, "leaks-fixed", checked->leaks_fixed);
    json_text_number(&json, "total-clusters", checked->clusters);
    json_text_number(&json, "allocated-clusters", checked->allocated);
    json_text_number(&json, "compressed-clusters", checked->compressed);
    json_text_number(&json, "fragmented-clusters", checked->fragmented);
    json_text_number(&json, "image-end-offset", checked->end);
    json_text_bool(&json, "marked-corrupt", checked->marked && !checked->unmarked);
    json_text_close(&json, '}');
    putchar('\n');
}

static int check(const struct blk_options *options, bool repair, bool json)
{
    struct listener listener = {.quiet = json};
    struct qcow2_check how = {.repair_leaks = repair,
                              .repair_errors = repair,
                              .report = report,
                              .progress = show_progress,
                              .opaque = &listener};
    struct qcow2_checked checked = {0};
    struct error err = {0};
    struct blk *image;
    int result;

    if (options->format != BLK_QCOW2) {
        complain("%s is a raw image, which has no metadata to check", options->file);
        return STATUS_NO_CHECKS;
    }
    image = image_open_offline(options, !repair, true, &err);
    if (!image)
        return image_complain(&err);
    progress_begin(&listener.progress, "checking");
    result = qcow2_check(image, &how, &checked, &err);
    progress_end(&listener.progress);
    blk_close(image);
    if (result)
        return image_complain(&err);
    if (json)
        print_json(options->file, &checked);
    else
        print_text(&checked, repair);
    return finish_output(checked.errors > checked.errors_fixed ? STATUS_CORRUPT
                         : checked.leaks > checked.leaks_fixed ? STATUS_LEAKS
                                                               : 0);
}

int image_check(char **argv)
{
    struct argument_words words = {.names = "FILE", .least = 1, .most = 1};
    bool repair = false, json = false;
    const char *format = NULL;
    const struct argument_setting settings[] = {[OPT_FORMAT] = {.value = &format},
                                                [OPT_REPAIR] = {.flag = &repair},
                                                [OPT_JSON] = {.flag = &json},
                                                [OPT_HELP] = {0}};
    struct blk_options image;
    int status = image_arguments_of_one(&command, settings, argv, &words, &format, &image);

    if (status != ARGUMENTS_GO_ON)
        return status;
    status = check(&image, repair, json);
    blk_options_free(&image);
    return status;
}
