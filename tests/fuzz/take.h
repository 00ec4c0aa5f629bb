/*
 * The input of a fuzz target, taken byte by byte.
 */
#ifndef DOPPEL_TESTS_FUZZ_TAKE_H
#define DOPPEL_TESTS_FUZZ_TAKE_H

#include <stddef.h>
#include <stdint.h>

/* Takes the next of *SIZE bytes at *DATA; 0 behind the last one. */
static inline uint8_t take(const uint8_t **data, size_t *size)
{
    if (!*size)
        return 0;
    --*size;
    return *(*data)++;
}

#endif
