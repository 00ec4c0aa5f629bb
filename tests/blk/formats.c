/*
 * The kinds of disks that the tests of cuts go through.
 */
#include "formats.h"

#include "base/util.h"
#include "blk/driver.h"
#include "guest.h"
#include "pattern.h"
#include "peer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct format formats[] = {
    {.name = "raw", .raw = true},
    {.name = "qcow2", .what = {.cluster_size = 4096}},
    {.name = "qcow2 with a backing image", .backing = true, .what = {.cluster_size = 4096}},
    {.name = "qcow2 with lazy refcounts", .what = {.cluster_size = 4096, .lazy_refcounts = true}},
    {.name = "qcow2 of tiny clusters", .what = {.cluster_size = 512}},
    {.name = "qcow2 of 64 KiB clusters with a backing image",
     .backing = true,
     .what = {.cluster_size = 65536, .refcount_bits = 8}},
    {.name = "qcow2 version 2", .what = {.cluster_size = 1024, .version = 2}},
    {.name = NULL},
};

static void die(const char *what, const struct error *err)
{
    printf("%s: %s\n", what, err->text);
    fflush(stdout);
    abort();
}

/* ---- A backing image ---- */

uint32_t backing_version(uint64_t sector)
{
    return sector / 24 % 3 ? 0x80000000u + (uint32_t)(sector / 24) : 0;
}

static int backing_perform(struct blk *blk, struct blk_request *request)
{
    uint64_t sector = request->own.at / SECTOR, at = 0;
    uint8_t *data = malloc(request->size);

    for (; at < request->size; at += SECTOR, sector++)
        pattern_fill(data + at, sector, 1, backing_version(sector));
    at = 0;
    for (unsigned i = 0; i < request->iovs; i++) {
        memcpy(request->iov[i].iov_base, data + at, request->iov[i].iov_len);
        at += request->iov[i].iov_len;
    }
    free(data);
    return 0;
}

static void backing_submit(struct blk *blk, struct blk_request *request)
{
    blk_complete(request, backing_perform(blk, request));
}

static void backing_close(struct blk *blk)
{
    free(blk);
}

static const struct blk_driver backing_driver = {
    .submit = backing_submit, .perform = backing_perform, .close = backing_close};

struct blk *backing_open(void)
{
    struct blk *blk = calloc(1, sizeof(*blk));

    if (!blk)
        abort();
    blk->driver = &backing_driver;
    blk->info = (struct blk_info){
        .block = SECTOR, .optimal = SECTOR, .readonly = true, .format = "raw", .file = "backing"};
    blk->size = GUEST_SECTORS * (uint64_t)SECTOR;
    return blk;
}

int backing_file(void)
{
    struct blk *blk = backing_open();
    uint8_t *data = guest_read_all(blk, GUEST_SECTORS);
    int fd = peer_file(data, GUEST_SECTORS * (uint64_t)SECTOR);

    free(data);
    blk_close(blk);
    return fd;
}

/* ---- Images ---- */

void format_create(const struct format *format, struct blk *file, uint32_t *base)
{
    struct qcow2_create what = format->what;
    struct error err = {0};

    for (uint64_t i = 0; i < GUEST_SECTORS; i++)
        base[i] = format->backing ? backing_version(i) : 0;
    what.size = GUEST_SECTORS * (uint64_t)SECTOR;
    if (format->backing) {
        what.backing = PEER_BACKING;
        what.backing_format = "raw";
    }
    if (format->raw ? blk_resize(file, what.size, &err) : qcow2_create(file, &what, &err))
        die(format->name, &err);
}

struct blk *format_open(const struct format *format, struct blk *file, bool settled)
{
    struct qcow2_how how = {.settled = settled};
    struct error err = {0};
    struct blk *image;

    if (format->raw)
        return file;
    how.backing = format->backing ? backing_open() : NULL;
    image = qcow2_open(file, &how, &err);
    if (!image)
        die(format->name, &err);
    return image;
}

/* ---- Inspection ---- */

/* Who hears what a check finds. */
static void report(void *opaque, const char *line)
{
    (void)opaque;
    puts(line);
}

static bool is_consistent(const struct inspection *how, struct blk *image)
{
    struct qcow2_check check = {0};
    struct qcow2_checked checked = {0};
    struct error err = {0};
    bool good = !qcow2_check(image, &check, &checked, &err) && !checked.errors;

    if (!good && !how->quiet) {
        check.report = report;
        qcow2_check(image, &check, &checked, NULL);
        printf("%s: %" PRIu64 " errors in the image %s\n", how->format->name, checked.errors,
               err.text);
    }
    return good;
}

/* Opens the image on a medium; NULL: it cannot be opened. */
static struct blk *open_image(const struct inspection *how, struct medium *medium, bool offline)
{
    struct qcow2_how open = {.readonly = offline, .offline = offline, .damaged = offline};
    struct blk *file = memory_open(medium, &(struct memory_options){.readonly = offline}), *image;
    struct error err = {0};

    if (how->format->backing && !offline)
        open.backing = backing_open();
    image = qcow2_open(file, &open, &err);
    if (image)
        return image;
    if (!how->quiet)
        printf("%s: %s\n", how->format->name, err.text);
    blk_close(file);
    blk_close(open.backing);
    return NULL;
}

/* Whether the metadata is consistent as it is. */
static bool check_as_it_is(const struct inspection *how, struct medium *medium)
{
    struct blk *image = open_image(how, medium, true);
    bool good = image && is_consistent(how, image);

    blk_close(image);
    return good;
}

/* Without a mark that an image is dirty, only a check finds that a change of snapshots has ended
 * midway. It must be able to repair that. */
static bool repair(const struct inspection *how, struct medium *medium)
{
    struct blk *image = open_image(how, medium, false);
    struct qcow2_check check = {.repair_leaks = true, .repair_errors = true};
    struct qcow2_checked checked = {0};
    bool good = image && !qcow2_check(image, &check, &checked, NULL);

    blk_close(image);
    return good;
}

/* Opens the image for writing, as a machine does that goes on after the cut, and reads it. */
static uint8_t *open_and_read(const struct inspection *how, struct medium *medium)
{
    struct blk *image = open_image(how, medium, false);
    uint8_t *data = image ? guest_read_all(image, GUEST_SECTORS) : NULL;

    if (data && (!is_consistent(how, image) ||
                 (how->album && !album_check(how->album, how->cut, image, how->quiet)))) {
        free(data);
        data = NULL;
    }
    blk_close(image);
    return data;
}

/* Has qemu-img look at the image on MEDIUM. DATA is what was read from it. */
static bool peer_agrees(const struct inspection *how, struct medium *medium, const uint8_t *data)
{
    int backing = how->format->backing ? backing_file() : -1, image, status;
    struct medium_image now;
    bool good;

    medium_now(medium, &now);
    image = peer_file(now.data, now.size);
    status = peer_check(image, backing);
    good = (status == 0 || status == 3) &&
           peer_compare(image, backing, data, GUEST_SECTORS * (uint64_t)SECTOR);
    if (!good && !how->quiet)
        printf("%s: qemu-img finds errors, or other contents\n", how->format->name);
    medium_image_free(&now);
    close(image);
    if (backing >= 0)
        close(backing);
    return good;
}

/* Applies a snapshot; the medium is needed no more. */
static bool snapshot_is_good(const struct inspection *how, struct medium *medium)
{
    struct blk *image = open_image(how, medium, false);
    bool good = image && album_apply(how->album, how->cut, image, how->random, how->quiet) &&
                is_consistent(how, image);

    blk_close(image);
    return good;
}

static uint8_t *inspect_raw(const struct medium_image *image)
{
    uint8_t *data = calloc(GUEST_SECTORS, SECTOR);

    if (data && image->size)
        memcpy(data, image->data, MIN(image->size, GUEST_SECTORS * (uint64_t)SECTOR));
    return data;
}

uint8_t *format_inspect(const struct inspection *how, const struct medium_image *image)
{
    struct medium *medium;
    uint8_t *data = NULL;

    if (how->format->raw)
        return inspect_raw(image);
    medium = medium_create(image->data, image->size, NULL);
    if ((how->format->what.lazy_refcounts || how->busy || check_as_it_is(how, medium)) &&
        (how->format->what.version != 2 || !how->busy || repair(how, medium)))
        data = open_and_read(how, medium);
    if (data &&
        ((how->peer && !peer_agrees(how, medium, data)) ||
         (how->album && pattern_below(how->random, 4) == 0 && !snapshot_is_good(how, medium)))) {
        free(data);
        data = NULL;
    }
    medium_destroy(medium);
    return data;
}
