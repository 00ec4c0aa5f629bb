/*
 * Fuzz target: a qcow2 image that somebody has changed, and a guest that goes on with it. The first
 * byte says how:
 *
 * - The rest, but for its end, is the file.
 * - The rest is changes to a good image of one of several makes: a place (a field of the header, an
 *   entry of a table) and a value.
 *
 * Then it is opened, read, written, discarded, resized, checked and repaired, and snapshots come
 * and go. Nothing of that may hurt the monitor or take forever. An image whose check finds nothing
 * stays so, holds what was written to it, and a file that is only read does not change.
 */
#include "../blk/medium.h"
#include "../blk/memory.h"
#include "../blk/pattern.h"

#include "base/util.h"
#include "blk/qcow2/qcow2.h"

#include <stdlib.h>
#include <string.h>

#define DISK    (128 * KiB)
#define MOST    (512 * KiB) /* what a file can grow to */
#define CHANGES 6
#define STEPS   24
#define BUFFER  (16 * KiB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition)
{
    if (!condition)
        abort();
}

struct input {
    const uint8_t *data;
    size_t size;
};

static uint64_t take(struct input *in, unsigned bytes)
{
    uint64_t value = 0;

    for (; bytes && in->size; bytes--, in->size--)
        value = value << 8 | *in->data++;
    return value;
}

/* ---- Good images ---- */

static const struct qcow2_create makes[] = {
    {.size = DISK, .cluster_size = 512},
    {.size = DISK, .cluster_size = 4096, .lazy_refcounts = true},
    {.size = DISK, .cluster_size = 1024, .version = 2, .backing = "b", .backing_format = "raw"},
    {.size = DISK, .cluster_size = 2048, .refcount_bits = 1, .compression = QCOW2_ZSTD},
    {.size = DISK, .cluster_size = 8192, .refcount_bits = 64},
};
#define MAKES ARRAY_SIZE(makes)

static struct blk *open_memory(struct medium *medium, bool readonly)
{
    return memory_open(medium, &(struct memory_options){.readonly = readonly, .most = MOST});
}

/* What images with a backing file may stand on. */
static struct blk *open_backing(void)
{
    static const uint8_t bytes[8 * KiB] = "backing";

    return memory_open(medium_create(bytes, sizeof(bytes), NULL),
                       &(struct memory_options){.readonly = true, .owns = true});
}

/* Fills a new image: data, zeroes, compressed clusters, and snapshots where refcounts go beyond 1.
 */
static void fill(struct blk *image, const struct qcow2_create *what)
{
    static uint8_t data[64 * KiB];

    pattern_fill(data, 0, sizeof(data) / SECTOR, 1);
    check(!blk_write(image, 5 * SECTOR, data, 20 * SECTOR));
    memset(data, 'c', sizeof(data));
    for (unsigned i = 1; i < 3; i++)
        check(!qcow2_write_compressed(image, i * 32 * KiB, data, what->cluster_size, NULL));
    check(!blk_zeroes(image, 96 * KiB, what->cluster_size, false));
    if (what->refcount_bits != 1)
        check(!qcow2_snapshot_create(image, "s", NULL));
    check(!blk_write(image, 0, data, 9 * SECTOR));
    check(!blk_flush(image));
}

static const struct medium_image *good_image(unsigned make)
{
    static struct medium_image images[MAKES];

    if (!images[make].data) {
        struct medium *medium = medium_create(NULL, 0, NULL);
        struct blk *file = open_memory(medium, false), *image;
        struct qcow2_how how = {.backing = makes[make].backing ? open_backing() : NULL};

        check(!qcow2_create(file, &makes[make], NULL));
        image = qcow2_open(file, &how, NULL);
        check(image);
        fill(image, &makes[make]);
        blk_close(image);
        medium_now(medium, &images[make]);
        medium_destroy(medium);
    }
    return &images[make];
}

/* ---- Changes ---- */

/* Where the changes go: the header's fields, and the tables that they lead to. */
static uint64_t place(const struct medium_image *image, uint8_t table, uint8_t entry)
{
    static const uint8_t leads[] = {40, 48, 64}; /* L1, refcounts, snapshots */
    uint64_t at = entry, lead = 0;

    if (table % 8 == 0)
        return entry % 120;
    for (unsigned i = 0; i < 8; i++)
        lead = lead << 8 | image->data[leads[table % 3] + i];
    if (table % 8 > 4 && lead + 8 <= image->size) { /* what the first entry leads to */
        uint64_t next = 0;

        for (unsigned i = 0; i < 8; i++)
            next = next << 8 | image->data[lead + i];
        lead = next & 0x00FFFFFFFFFFFE00;
    }
    return lead + 8 * at;
}

static void change(struct medium_image *image, struct input *in)
{
    uint8_t table = (uint8_t)take(in, 1), entry = (uint8_t)take(in, 1), how = (uint8_t)take(in, 1);
    uint64_t at = place(image, table, entry), value = take(in, 1 + how % 8);

    if (how & 8)
        value <<= 9 + (how >> 4); /* a cluster's place */
    if (how & 128)
        value |= 1ull << 63; /* which nothing else uses */
    for (unsigned i = 0; i < 8 && at + i < image->size; i++)
        if (how & 8 || i >= 7 - how % 8u)
            image->data[at + i] = (uint8_t)(value >> (56 - 8 * i));
}

/* ---- What a guest and its owner do ---- */

struct disk {
    struct blk *image;
    uint64_t size;
    bool clean;    /* its check has found nothing */
    bool writable; /* it is opened for writing */
};

static bool is_clean(struct blk *image)
{
    struct qcow2_checked checked = {0};

    return !qcow2_check(image, &(struct qcow2_check){0}, &checked, NULL) && !checked.errors &&
           !checked.leaks;
}

/* What a repair says that it has repaired is repaired. */
static void repair(struct disk *disk)
{
    struct qcow2_check how = {.repair_leaks = true, .repair_errors = true};
    struct qcow2_checked checked = {0};

    if (!disk->writable || qcow2_check(disk->image, &how, &checked, NULL))
        return;
    if (checked.errors == checked.errors_fixed && checked.leaks == checked.leaks_fixed)
        check(is_clean(disk->image));
}

static void move(struct disk *disk, uint64_t offset, uint64_t size, uint8_t how)
{
    static uint8_t data[BUFFER], again[BUFFER];

    memset(data, how, size);
    if (how % 2 && blk_write(disk->image, offset, data, size) == 0 && disk->clean) {
        check(!blk_read(disk->image, offset, again, size));
        check(!memcmp(data, again, size));
    } else {
        blk_read(disk->image, offset, again, size);
    }
}

static void snapshot(struct disk *disk, uint8_t how)
{
    struct qcow2_snapshot *list;
    unsigned count;
    char name[2] = {(char)('r' + how % 3), '\0'};

    if (how & 8)
        qcow2_snapshot_create(disk->image, name, NULL);
    else if (how & 16)
        qcow2_snapshot_apply(disk->image, name, NULL);
    else if (how & 32)
        qcow2_snapshot_delete(disk->image, name, NULL);
    else if (!qcow2_snapshots(disk->image, &list, &count, NULL))
        qcow2_snapshots_free(list, count);
    disk->size = blk_info(disk->image).size;
}

static void step(struct disk *disk, struct input *in)
{
    uint8_t what = (uint8_t)take(in, 1), how = (uint8_t)take(in, 1);
    uint64_t sectors = disk->size / SECTOR, first, count;
    struct qcow2_extent extent;

    if (!sectors)
        return;
    first = (what & 8 ? take(in, 8) : take(in, 2)) % sectors;
    count = MIN(1 + how % (BUFFER / SECTOR), sectors - first);
    switch (what % 8) {
    case 0:
    case 1: move(disk, first * SECTOR, count * SECTOR, how); break;
    case 2: blk_discard(disk->image, first * SECTOR, count * SECTOR); break;
    case 3: blk_zeroes(disk->image, first * SECTOR, count * SECTOR, how & 64); break;
    case 4: snapshot(disk, how); break;
    case 5:
        if (!qcow2_map(disk->image, first * SECTOR, &extent, NULL))
            check(extent.size > 0);
        break;
    case 6:
        if (how & 1)
            blk_resize(disk->image, (how & 2 ? first + 1 : sectors + first) * SECTOR, NULL);
        disk->size = blk_info(disk->image).size;
        break;
    default: blk_flush(disk->image); break;
    }
}

/* Opens the image as HOW says; NULL if it cannot be opened. */
static struct blk *open_image(struct medium *medium, uint8_t how)
{
    bool readonly = how & 1;
    struct qcow2_how open = {.readonly = readonly,
                             .offline = how & 2,
                             .settled = how & 4,
                             .temporary =
                                 (how & 0xC8) == 8, /* nobody repairs what is thrown away */
                             .damaged = how & 64};
    struct blk *file = open_memory(medium, readonly), *image;
    struct error err = {0};

    if (how & 16)
        open.backing = open_backing();
    image = qcow2_open(file, &open, &err);
    if (!image) {
        check(err.code > 0 && err.text[0]);
        blk_close(file);
        blk_close(open.backing);
    }
    return image;
}

static void use(struct medium *medium, struct input *in)
{
    uint8_t how = (uint8_t)take(in, 1);
    struct disk disk = {.image = open_image(medium, how), .writable = !(how & 1)};

    if (!disk.image)
        return;
    disk.size = blk_info(disk.image).size;
    disk.clean = how & 32 && is_clean(disk.image);
    for (unsigned i = 0; i < STEPS && in->size; i++)
        step(&disk, in);
    if (disk.clean)
        check(is_clean(disk.image));
    if (how & 128)
        repair(&disk);
    blk_close(disk.image);
}

static struct medium *make(struct input *in)
{
    uint8_t how = (uint8_t)take(in, 1);
    struct medium_image image = {0};
    struct medium *medium;

    if (how == 0) {
        medium = medium_create(in->data, in->size - MIN(in->size, 16u), NULL);
        in->data += in->size - MIN(in->size, 16u);
        in->size = MIN(in->size, 16u);
        return medium;
    }
    medium = medium_create(good_image(how % MAKES)->data, good_image(how % MAKES)->size, NULL);
    medium_now(medium, &image);
    medium_destroy(medium);
    for (unsigned i = how / MAKES % CHANGES; i; i--)
        change(&image, in);
    medium = medium_create(image.data, image.size, NULL);
    medium_image_free(&image);
    return medium;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct medium *medium = make(&in);
    bool readonly = in.size && in.data[0] & 1;
    struct medium_image before, after;

    medium_now(medium, &before);
    use(medium, &in);
    medium_now(medium, &after);
    if (readonly)
        check(before.size == after.size &&
              (!before.size || !memcmp(before.data, after.data, before.size)));
    medium_image_free(&before);
    medium_image_free(&after);
    use(medium, &in);
    medium_destroy(medium);
    return 0;
}
