/*
 * The harness that all fuzz targets for devices share.
 */
#include "dev.h"

#include "../unit/fake_clock.h"
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

static struct state *save(struct fuzz_board *board, struct dev *dev)
{
    struct state *s = state_create_save();
    fuzz_check(s);
    bus_lock(board->bus);
    dev->ops->state(dev, s);
    bus_unlock(board->bus);
    fuzz_check(!state_error(s));
    return s;
}

static void save_and_restore(struct fuzz_board *board, struct dev *dev)
{
    size_t size, size_again;
    struct state *first = save(board, dev);
    const void *data = state_data(first, &size);
    struct state *load = state_create_load(data, size);
    fuzz_check(load);
    bus_lock(board->bus);
    dev->ops->reset(dev);
    dev->ops->state(dev, load);
    bus_unlock(board->bus);
    fuzz_check(!state_error(load));
    struct state *second = save(board, dev);
    const void *again = state_data(second, &size_again);
    fuzz_check(size == size_again && !memcmp(data, again, size));
    state_free(first);
    state_free(second);
    state_free(load);
}

/* A damaged snapshot: bytes of the input in place of the state's own. */
static void restore_damaged(struct fuzz_board *board, struct dev *dev, struct fuzz_input *in)
{
    size_t size;
    struct state *s = save(board, dev);
    const void *data = state_data(s, &size);
    uint8_t *copy = malloc(size);
    fuzz_check(copy);
    memcpy(copy, data, size);
    for (unsigned n = fuzz_u8(in) % 8 + 1; n; n--) {
        size_t at = fuzz_uint(in, 2) % size;
        copy[at] = fuzz_u8(in);
    }
    struct state *load = state_create_load(copy, size);
    bus_lock(board->bus);
    dev->ops->state(dev, load);
    bus_unlock(board->bus);
    state_free(load);
    state_free(s);
    free(copy);
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
    case 11: save_and_restore(board, dev); break;
    case 12: restore_damaged(board, dev, in); break;
    case 13:
        bus_lock(board->bus);
        dev->ops->reset(dev);
        bus_unlock(board->bus);
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
