/*
 * The harness that all fuzz targets for devices share.
 */
#include "dev.h"

#include "../unit/fake_clock.h"
#include "../unit/state_image.h"
#include "base/util.h"

#include <stdlib.h>
#include <string.h>

/* At most this much time passes at once: 2^24 ns, 17 ms. */
#define LONGEST_SHIFT 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

uint8_t fuzz_u8(struct fuzz_input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->data++;
}

uint64_t fuzz_uint(struct fuzz_input *in, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)fuzz_u8(in) << 8 * i;
    return value;
}

/* One access of 1, 2, 4 or 8 bytes somewhere in the device's registers. */
static void access(struct fuzz_board *board, struct fuzz_input *in, bool write)
{
    unsigned count = 0;
    while (count < ARRAY_SIZE(fuzz_device.ranges) && fuzz_device.ranges[count].size)
        count++;
    if (!count)
        return;
    uint8_t how = fuzz_u8(in);
    unsigned size = 1u << (how & 3);
    const struct fuzz_range *range = &fuzz_device.ranges[(how >> 2) % count];
    uint64_t address = range->base + fuzz_uint(in, range->size > 256 ? 2 : 1) % range->size;
    if (write)
        bus_write(board->bus, range->space, address, size, fuzz_uint(in, size));
    else
        bus_read(board->bus, range->space, address, size);
}

/* Has the device stand still, or go on, as whoever saves a machine does. */
static void hold(struct dev *dev)
{
    if (dev->ops->pause)
        dev->ops->pause(dev);
}

static void go_on(struct dev *dev)
{
    if (dev->ops->resume)
        dev->ops->resume(dev);
}

static struct state_image save(struct fuzz_board *board, struct dev *dev)
{
    struct state_image image = {0};
    bus_lock(board->bus);
    fuzz_check(image_save_dev(&image, dev) == 0);
    bus_unlock(board->bus);
    return image;
}

static void save_and_restore(struct fuzz_board *board, struct dev *dev)
{
    struct state_image first = save(board, dev), second;
    bus_lock(board->bus);
    dev->ops->reset(dev);
    fuzz_check(image_load_dev(&first, dev) == 0);
    bus_unlock(board->bus);
    second = save(board, dev);
    fuzz_check(first.size == second.size && !memcmp(first.data, second.data, first.size));
    image_free(&first);
    image_free(&second);
}

/* A damaged snapshot: bytes of the input in place of the state's own, under right checksums. */
static void restore_damaged(struct fuzz_board *board, struct dev *dev, struct fuzz_input *in)
{
    struct state_image image = save(board, dev);
    for (unsigned n = fuzz_u8(in) % 8 + 1; n; n--) {
        size_t at = IMAGE_HEADER + fuzz_uint(in, 2) % (image.size - IMAGE_HEADER);
        image.data[at] = fuzz_u8(in);
    }
    image_seal(&image);
    struct state *load = image_load(&image);
    bus_lock(board->bus);
    dev->ops->state(dev, load);
    bus_unlock(board->bus);
    state_free(load);
    image_free(&image);
}

static void step(struct fuzz_board *board, struct dev *dev, struct fuzz_input *in)
{
    switch (fuzz_u8(in) % 16) {
    case 0:
    case 1:
    case 2: access(board, in, false); break;
    case 3:
    case 4:
    case 5:
    case 6: access(board, in, true); break;
    case 7:
    case 8: fake_clock_advance(board->clock, 1ULL << fuzz_u8(in) % (LONGEST_SHIFT + 1)); break;
    case 9:
    case 10:
        if (fuzz_device.line) {
            uint8_t n = fuzz_u8(in);
            bus_lock(board->bus);
            fuzz_device.line(board, n & 127, n >> 7);
            bus_unlock(board->bus);
        }
        break;
    case 11:
        hold(dev);
        save_and_restore(board, dev);
        go_on(dev);
        break;
    case 12:
        hold(dev);
        restore_damaged(board, dev, in);
        go_on(dev);
        break;
    case 13:
        hold(dev);
        bus_lock(board->bus);
        dev->ops->reset(dev);
        bus_unlock(board->bus);
        go_on(dev);
        break;
    default:
        if (fuzz_device.other)
            fuzz_device.other(board, in);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct fuzz_board board = {.bus = bus_create(NULL)};
    fuzz_check(board.bus);
    board.clock = clock_create(NULL, board.bus, NULL);
    struct dev *dev = fuzz_device.create(&board);
    fuzz_check(dev);
    while (in.left)
        step(&board, dev, &in);
    dev->ops->free(dev);
    clock_destroy(board.clock);
    bus_destroy(board.bus);
    return 0;
}
