/*
 * A machine is saved, destroyed and made again.
 */
#include "restore.h"

#include "../unit/state_image.h"

#include "vm/snap/snap.h"

#include <inttypes.h>

uint64_t chance_around(struct chance *chance, uint64_t mean)
{
    uint64_t x = chance->state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    chance->state = x;
    return 1 + x % (2 * mean - 1);
}

static bool save(struct vm *vm, struct state_image *image)
{
    struct state_writer writer = image_writer(image);
    struct error err = {0};

    if (vm_save(vm, "the lockstep test", &writer, &err) == 0)
        return true;
    printf("restore: %s\n", err.text);
    return false;
}

/* Says in which sections A and B differ, and where first. */
static void show_differences(const struct state_image *a, const struct state_image *b)
{
    size_t at = IMAGE_HEADER, from = IMAGE_HEADER;

    while (at < a->size && from < b->size) {
        size_t end = image_next(a, at), other_end = image_next(b, from), i = 0;

        while (at + i < end && from + i < other_end && a->data[at + i] == b->data[from + i])
            i++;
        if (at + i < end || from + i < other_end)
            printf("restore: section %.24s %x: saved again, it differs from byte %zu of %zu on\n",
                   a->data + at, *(const uint32_t *)(a->data + at + 24), i - IMAGE_SECTION,
                   end - at - IMAGE_SECTION);
        at = end;
        from = other_end;
    }
}

static bool is_same(const struct state_image *a, const struct state_image *b)
{
    if (a->size == b->size && memcmp(a->data, b->data, a->size) == 0)
        return true;
    show_differences(a, b);
    return false;
}

static struct vm *rebuild(struct state_image *image, const struct engine_ops *engine,
                          const struct vm_config *config)
{
    struct state_reader reader = image_reader(image);
    struct error err = {0};
    struct vm *vm = vm_load(engine, config, &reader, &err);

    if (!vm)
        printf("restore: %s\n", err.text);
    return vm;
}

struct vm *restore(struct vm *vm, const struct engine_ops *engine, const struct vm_config *config)
{
    struct state_image before = {0}, after = {0};
    bool good = save(vm, &before);

    vm_destroy(vm);
    vm = good ? rebuild(&before, engine, config) : NULL;
    if (vm && !(save(vm, &after) && is_same(&before, &after))) {
        vm_destroy(vm);
        vm = NULL;
    }
    image_free(&before);
    image_free(&after);
    return vm;
}
