/*
 * What tests of firmware tables share: looking at guest memory.
 */
#ifndef DOPPEL_TESTS_UNIT_TABLES_H
#define DOPPEL_TESTS_UNIT_TABLES_H

#include "mem/mem.h"

#include <string.h>

static inline uint64_t get(struct mem *mem, uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    assert_int_equal(mem_read(mem, gpa, &value, size), 0);
    return value;
}

static inline uint8_t sum(struct mem *mem, uint64_t gpa, uint64_t size)
{
    uint8_t total = 0;

    for (uint64_t i = 0; i < size; i++)
        total += (uint8_t)get(mem, gpa + i, 1);
    return total;
}

static inline void assert_signature(struct mem *mem, uint64_t gpa, const char *signature)
{
    char found[9] = {0};

    mem_read(mem, gpa, found, strlen(signature));
    assert_string_equal(found, signature);
}

/* Where SIGNATURE stands in F0000h to FFFFFh on a boundary of 16 bytes, as kernels look for it. */
static inline uint64_t find_signature(struct mem *mem, const char *signature)
{
    char found[16];

    for (uint64_t at = 0xF0000; at < 0x100000; at += 16) {
        assert_int_equal(mem_read(mem, at, found, sizeof(found)), 0);
        if (memcmp(found, signature, strlen(signature)) == 0)
            return at;
    }
    fail_msg("no %s", signature);
    return 0;
}

#endif
