/*
 * `doppel image import`: makes an image of another program's, by qemu-img.
 *
 * qemu-img gets descriptors and not names, no backing file, and no image that names other files: an
 * image from anywhere could have it read files of the user's.
 */
#include "cli/image.h"
#include "cli/image_target.h"
#include "cli/producer.h"

#include "base/regular.h"
#include "base/util.h"
#include "image/ova.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 200

enum { OPT_FORMAT, OPT_TARGET_FORMAT, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_FORMAT] =
        {"format", "FORMAT",
         "(-f) of SOURCE: vmdk, vhdx, vhd, vdi or ova; the default is what the name says"},
    [OPT_TARGET_FORMAT] = {"target-format", "FORMAT", "(-O) of TARGET: raw or qcow2; alike"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static const struct arguments command = {
    .name = "image import",
    .usage = "Usage: doppel image import [OPTION...] SOURCE TARGET\n"
             "Copies the disk in SOURCE, an image of another virtual machine monitor, to the new "
             "image\n"
             "TARGET. It needs qemu-img (Debian's package qemu-utils).\n",
    .specs = specs,
    .letters = "fO "};

static const struct {
    const char *name, *driver; /* driver: as qemu-img calls it */
} formats[] = {{"vmdk", "vmdk"}, {"vhdx", "vhdx"}, {"vhd", "vpc"}, {"vdi", "vdi"}, {"ova", "vmdk"}};

/* The index of the format of SOURCE; -1: none is known. */
static int format_of(const char *source, const char *format)
{
    const char *dot = strrchr(source, '.'), *name = format ? format : dot ? dot + 1 : "";

    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
        if (!strcasecmp(name, formats[i].name))
            return (int)i;
    if (format)
        complain("--format: unknown format '%s' (known: vmdk, vhdx, vhd, vdi, ova)", format);
    else if (access(source, R_OK) < 0)
        complain("cannot open %s: %s", source, strerror(errno));
    else
        complain("%s: the name does not say what it is (--format vmdk, vhdx, vhd, vdi or ova)",
                 source);
    return -1;
}

/* A VMDK image may be a text that names other files, or (with a capacity of 0) hold such a text
 * (VMware, Virtual Disk Format 5.0). */
static int check_vmdk(int fd, const char *name, struct error *err)
{
    static const uint8_t none[8];
    uint8_t head[20] = {0};

    if (pread(fd, head, sizeof(head), 0) != sizeof(head) ||
        (memcmp(head, "KDMV", 4) != 0 && memcmp(head, "COWD", 4) != 0))
        return error_set(err, EINVAL,
                         "%s: is no VMDK image in one file (an image in several files can be made "
                         "one by qemu-img convert)",
                         name);
    if (!memcmp(head, "KDMV", 4) && !memcmp(head + 12, none, sizeof(none)))
        return error_set(err, EINVAL, "%s: names other files, which are not opened", name);
    return 0;
}

/* Opens the image; that in an archive comes out of it into a file without a name. */
static int open_source(const char *source, bool archive, struct error *err)
{
    const char *folder = getenv("TMPDIR");
    int out, result, fd = regular_open(AT_FDCWD, source, 0);

    if (fd < 0)
        return error_set(err, -fd, "cannot open %s: %s", source,
                         fd == -EINVAL ? "it is not a regular file" : strerror(-fd));
    if (!archive)
        return fd;
    out = open(folder && *folder ? folder : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    result = out < 0 ? error_set(err, errno, "cannot make a temporary file: %s", strerror(errno))
                     : ova_extract(fd, source, out, err);
    close(fd);
    if (!result)
        return out;
    if (out >= 0)
        close(out);
    return result;
}

static int run_tool(const char *const *argv, struct target *target, struct error *err)
{
    struct producer producer;
    struct progress progress;
    int result = producer_start(&producer, argv, "qemu-utils", &target->signals, err);

    if (result)
        return result;
    progress_begin(&progress, "importing");
    while (!producer_wait(&producer, WAIT_MS) && !target_interrupted(target))
        producer_show(&producer, &progress);
    progress_end(&progress);
    result = producer_end(&producer, target_interrupted(target), err);
    return !result && target_interrupted(target) ? error_set(err, EINTR, "interrupted") : result;
}

static int convert(int fd, const char *driver, enum blk_format format, struct target *target,
                   struct error *err)
{
    char from[160], to[64];
    const char *const argv[] = {"qemu-img", "convert", "-q", "-O", blk_format_name(format),
                                from,       to,        NULL};

    snprintf(from, sizeof(from),
             "json:{\"driver\":\"%s\",\"backing\":null,\"file\":{\"driver\":\"file\",\"locking\":"
             "\"off\",\"filename\":\"/proc/%d/fd/%d\"}}",
             driver, (int)getpid(), fd);
    snprintf(to, sizeof(to), "/proc/%d/fd/%d", (int)getpid(), target->fd);
    return run_tool(argv, target, err);
}

static int import(const char *source, unsigned kind, const struct blk_options *options,
                  struct error *err)
{
    struct target target = {0};
    bool vmdk = !strcmp(formats[kind].driver, "vmdk");
    int result, fd = open_source(source, !strcmp(formats[kind].name, "ova"), err);

    if (fd < 0)
        return fd;
    result = vmdk ? check_vmdk(fd, source, err) : 0;
    if (!result)
        result = target_begin(&target, options->file, false, err);
    if (!result)
        result = convert(fd, formats[kind].driver, options->format, &target, err);
    if (!result)
        result = target_commit(&target, false, err);
    target_end(&target);
    close(fd);
    return result;
}

int image_import(char **argv)
{
    struct argument_words words = {.names = "SOURCE TARGET", .least = 2, .most = 2};
    const char *format = NULL, *target_format = NULL;
    const struct argument_setting settings[] = {[OPT_FORMAT] = {.value = &format},
                                                [OPT_TARGET_FORMAT] = {.value = &target_format},
                                                [OPT_HELP] = {0}};
    struct blk_options target;
    struct error err = {0};
    int kind, result, status = arguments_read(&command, settings, argv, &words);

    if (status != ARGUMENTS_GO_ON)
        return status;
    kind = format_of(words.word[0], format);
    if (kind < 0)
        return STATUS_ERROR;
    if (image_parse_new(words.word[1], target_format, &target, &err))
        return image_complain(&err);
    result = import(words.word[0], (unsigned)kind, &target, &err);
    blk_options_free(&target);
    return result ? image_complain(&err) : 0;
}
