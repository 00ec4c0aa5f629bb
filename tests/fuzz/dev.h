/*
 * What a fuzz target for a device's registers gives to the harness (dev.c).
 *
 * The input is a program: accesses to the device's registers, changes of its input lines, time that
 * passes, resets, and saving and restoring. A device must take all of it without crashing, and what
 * was restored must save as the same bytes again.
 */
#ifndef DOPPEL_TESTS_FUZZ_DEV_H
#define DOPPEL_TESTS_FUZZ_DEV_H

#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/dev.h"
#include "bus/irq.h"

#include <stddef.h>
#include <stdint.h>

struct fuzz_input {
    const uint8_t *data;
    size_t left;
};

/* The next bytes of the input, little-endian; zeros after its end. */
uint8_t fuzz_u8(struct fuzz_input *in);
uint64_t fuzz_uint(struct fuzz_input *in, unsigned size);

/* What a device is made on. The clock is the one that tests move (fake_clock.h). */
struct fuzz_board {
    struct bus *bus;
    struct clock *clock;
    void *device; /* for the target's own use */
};

struct fuzz_range {
    enum bus_space space;
    uint64_t base, size;
};

struct fuzz_device {
    struct dev *(*create)(struct fuzz_board *board);
    struct fuzz_range ranges[4]; /* the registers; those past the last have size 0 */
    /* Input line N (any value) changes; may be NULL. Board lock held. */
    void (*line)(struct fuzz_board *board, unsigned n, bool level);
    /* What else can be done to the device; takes its operands from IN; may be NULL. Board lock not
     * held. */
    void (*other)(struct fuzz_board *board, struct fuzz_input *in);
};

extern const struct fuzz_device fuzz_device;

/* A line that leads nowhere, for the device's outputs. */
static inline struct irq_line fuzz_no_line(void)
{
    return (struct irq_line){.set = NULL};
}

/* Fails the target when CONDITION does not hold. */
#define fuzz_check(condition) ((condition) ? (void)0 : __builtin_trap())

#endif
