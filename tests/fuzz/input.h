/*
 * What fuzz targets without a harness share: checks, and the input as numbers.
 */
#ifndef DOPPEL_TESTS_FUZZ_INPUT_H
#define DOPPEL_TESTS_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static inline void check(bool holds)
{
    if (!holds)
        abort();
}

struct input {
    const uint8_t *data;
    size_t left;
};

/* The next SIZE bytes as a number, little-endian; zeros after the end. */
static inline uint64_t take(struct input *in, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size && in->left; i++, in->left--)
        value |= (uint64_t)*in->data++ << 8 * i;
    return value;
}

#endif
