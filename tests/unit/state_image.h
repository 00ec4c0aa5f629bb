/*
 * Saved states in memory, for tests: made, loaded, damaged, and made to look whole again.
 */
#ifndef DOPPEL_TESTS_UNIT_STATE_IMAGE_H
#define DOPPEL_TESTS_UNIT_STATE_IMAGE_H

#include "base/state.h"
#include "base/util.h"
#include "bus/bus.h"
#include "bus/dev.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* As docs/state.md has them. */
#define IMAGE_HEADER          64
#define IMAGE_FORMAT          8 /* offset in the header */
#define IMAGE_SECTION         48
#define IMAGE_VERSION         28 /* offsets in a section's header */
#define IMAGE_LENGTH          32
#define IMAGE_CHECKSUM        40
#define IMAGE_HEADER_CHECKSUM 56

struct state_image {
    uint8_t *data;
    size_t size, capacity;
    size_t at; /* of the reader */
};

static inline int image_write(void *opaque, const void *data, size_t size, struct error *err)
{
    struct state_image *image = opaque;

    (void)err;
    if (image->size + size > image->capacity) {
        image->capacity = MAX(2 * image->capacity, image->size + size);
        image->data = realloc(image->data, image->capacity);
        if (!image->data)
            abort();
    }
    if (size)
        memcpy(image->data + image->size, data, size);
    image->size += size;
    return 0;
}

static inline ssize_t image_read(void *opaque, void *data, size_t size, struct error *err)
{
    struct state_image *image = opaque;
    size_t got = MIN(size, image->size - image->at);

    (void)err;
    if (got)
        memcpy(data, image->data + image->at, got);
    image->at += got;
    return (ssize_t)got;
}

static inline struct state_writer image_writer(struct state_image *image)
{
    return (struct state_writer){.write = image_write, .opaque = image};
}

/* From the beginning. */
static inline struct state_reader image_reader(struct state_image *image)
{
    image->at = 0;
    return (struct state_reader){.read = image_read, .opaque = image};
}

static inline void image_free(struct state_image *image)
{
    free(image->data);
    *image = (struct state_image){0};
}

static inline struct state_image image_copy(const struct state_image *image)
{
    struct state_image copy = {0};

    image_write(&copy, image->data, image->size, NULL);
    return copy;
}

/* Saving: into IMAGE, which is empty. Ends the test on failure. */
static inline struct state *image_save(struct state_image *image)
{
    struct state_writer writer = image_writer(image);
    struct state *s = state_create_save(&writer, "a test", NULL);

    if (!s)
        abort();
    return s;
}

static inline struct state *image_load(struct state_image *image)
{
    struct state_reader reader = image_reader(image);
    struct error err = {0};
    struct state *s = state_create_load(&reader, &err);

    if (!s) {
        fprintf(stderr, "state: %s\n", err.text);
        abort();
    }
    return s;
}

/* The end of both. 0 or a negative errno. */
static inline int image_done(struct state *s)
{
    int ret = state_finish(s);

    if (ret < 0)
        fprintf(stderr, "state: %s\n", state_failure(s)->text);
    state_free(s);
    return ret;
}

/* A device alone. The board lock is held if the device wants that. */
static inline int image_save_dev(struct state_image *image, struct dev *dev)
{
    struct state *s = image_save(image);

    dev->ops->state(dev, s);
    return image_done(s);
}

static inline int image_load_dev(struct state_image *image, struct dev *dev)
{
    struct state *s = image_load(image);

    dev->ops->state(dev, s);
    return image_done(s);
}

static inline uint64_t image_get64(const struct state_image *image, size_t at)
{
    uint64_t value;

    memcpy(&value, image->data + at, sizeof(value));
    return value;
}

static inline void image_put64(struct state_image *image, size_t at, uint64_t value)
{
    memcpy(image->data + at, &value, sizeof(value));
}

/* The offset of the section behind the one at AT; SIZE when there is none, or not all of it. */
static inline size_t image_next(const struct state_image *image, size_t at)
{
    uint64_t length, left = image->size - at;

    if (left < IMAGE_SECTION)
        return image->size;
    length = image_get64(image, at + IMAGE_LENGTH);
    return length > left - IMAGE_SECTION ? image->size : at + IMAGE_SECTION + (size_t)length;
}

/* Makes all checksums right again, as far as lengths lead to sections. */
static inline void image_seal(struct state_image *image)
{
    if (image->size < IMAGE_HEADER)
        return;
    image_put64(image, IMAGE_HEADER_CHECKSUM, XXH3_64bits(image->data, IMAGE_HEADER_CHECKSUM));
    for (size_t at = IMAGE_HEADER, next; at < image->size; at = next) {
        next = image_next(image, at);
        if (next - at < IMAGE_SECTION)
            return;
        image_put64(image, at + IMAGE_CHECKSUM,
                    XXH3_64bits_withSeed(image->data + at + IMAGE_SECTION,
                                         next - at - IMAGE_SECTION,
                                         XXH3_64bits(image->data + at, IMAGE_CHECKSUM)));
    }
}

/* Has DEV, which is paused, load IMAGE with byte AT of it damaged, behind checksums that are right.
 */
static inline void image_load_damaged(const struct state_image *image, size_t at, struct bus *bus,
                                      struct dev *dev)
{
    struct state_image copy = image_copy(image);
    struct state *load;

    copy.data[at] ^= 0x15;
    image_seal(&copy);
    load = image_load(&copy);
    bus_lock(bus);
    dev->ops->state(dev, load);
    bus_unlock(bus);
    state_free(load);
    image_free(&copy);
}

#endif
