/*
 * Fuzz target: the memory of a saved machine, with RAM that was added, ROM, and memory of a device
 * that is mapped nowhere. The input is changes to a good file, whose checksums are made right
 * again; or, if it begins with 0, the file itself.
 *
 * Whatever is loaded changes nothing outside of its regions, and is saved and loaded in turn to the
 * same bytes.
 */
#include "../unit/state_image.h"

#include "base/util.h"
#include "mem/mem.h"

#include "take.h"

#include <stdlib.h>
#include <string.h>

#define RAM      (1 * MiB)
#define ROM      0xFFFF0000u
#define ROM_SIZE (64 * KiB)
#define VRAM     (1200 * KiB) /* more pages than one section has */
#define MORE     0x200000000ULL
#define CHANGES  16 /* at most */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct machine {
    struct mem *mem;
    struct mem_region *rom, *vram;
};

static void check(bool condition)
{
    if (!condition)
        abort();
}

static struct mem_region *add(struct mem *mem, const char *name, uint64_t gpa, uint64_t size,
                              enum mem_kind kind)
{
    const struct mem_region_config config = {.name = name, .gpa = gpa, .size = size, .kind = kind};
    struct mem_region *r = mem_region_add(mem, &config, NULL);

    check(r);
    return r;
}

static struct machine build(void)
{
    struct machine m = {.mem = mem_create(RAM, NULL)};

    check(m.mem);
    m.rom = add(m.mem, "firmware", ROM, ROM_SIZE, MEM_ROM);
    m.vram = add(m.mem, "video memory", MEM_NOWHERE, VRAM, MEM_DEVICE);
    add(m.mem, "more memory", MORE, 64 * KiB, MEM_RAM);
    return m;
}

static struct state_image save(struct mem *mem)
{
    struct state_image image = {0};
    struct state *s = image_save(&image);

    mem_state(mem, s);
    check(state_finish(s) == 0);
    state_free(s);
    return image;
}

/* Returns whether IMAGE was loaded. */
static bool load(struct state_image *image, struct mem *mem)
{
    struct state_reader reader = image_reader(image);
    struct error err = {0};
    struct state *s = state_create_load(&reader, &err);
    bool loaded = false;

    check(s || (err.code > 0 && err.text[0]));
    if (s) {
        mem_state(mem, s);
        loaded = state_finish(s) == 0;
        check(loaded || state_failure(s)->text[0]);
        state_free(s);
    }
    return loaded;
}

/* A good file, made once. */
static const struct state_image *good_file(void)
{
    static struct state_image image;
    struct machine m;

    if (image.size)
        return &image;
    m = build();
    for (uint64_t at = 0; at < ROM_SIZE; at += 3 * MEM_PAGE_SIZE)
        memset((uint8_t *)mem_region_host(m.rom) + at, 0x90, 100);
    for (uint64_t at = 0; at < VRAM; at += MEM_PAGE_SIZE)
        ((uint8_t *)mem_region_host(m.vram))[at] = 1;
    check(mem_fill(m.mem, 0x5000, 0xCC, 0x2000) == 0);
    check(mem_fill(m.mem, MORE + 0x1000, 0xCC, 1) == 0);
    image = save(m.mem);
    mem_destroy(m.mem);
    return &image;
}

/* Changes some bytes in the first fields of a section, where names, counts and numbers of pages
 * are; or cuts a section off. */
static void change(struct state_image *image, const uint8_t **data, size_t *size)
{
    size_t at = IMAGE_HEADER, end;
    unsigned where;
    uint8_t how;

    for (unsigned skip = take(data, size) % 8; skip; skip--)
        at = image_next(image, at) < image->size ? image_next(image, at) : at;
    if (image->size - at < IMAGE_SECTION)
        return; /* an earlier change has cut it off */
    end = image_next(image, at);
    how = take(data, size);
    where = take(data, size) | (how & 7u) << 8;
    for (unsigned i = 0; i < 1u + (how >> 6); i++) {
        uint8_t byte = take(data, size);

        if (at + IMAGE_SECTION + where + i < end)
            image->data[at + IMAGE_SECTION + where + i] = byte;
    }
    if ((how & 0x38) == 0x38)
        image_put64(image, at + IMAGE_LENGTH, where);
}

/* What was loaded is saved again, and is the same when that is loaded. */
static void save_again(struct mem *mem)
{
    struct state_image image = save(mem), again;
    struct machine other = build();

    memset(mem_region_host(other.rom), 0xEE, ROM_SIZE);
    check(load(&image, other.mem));
    again = save(other.mem);
    check(again.size == image.size && memcmp(again.data, image.data, image.size) == 0);
    image_free(&image);
    image_free(&again);
    mem_destroy(other.mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t how = take(&data, &size);
    struct state_image image = {0};
    struct machine m = build();

    if (how == 0) {
        image_write(&image, data, size, NULL);
    } else {
        image = image_copy(good_file());
        for (unsigned n = how % CHANGES; n && size; n--)
            change(&image, &data, &size);
        image_seal(&image);
    }
    if (load(&image, m.mem))
        save_again(m.mem);
    mem_destroy(m.mem);
    image_free(&image);
    return 0;
}
