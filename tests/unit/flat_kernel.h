/*
 * Guests of a few instructions: a Multiboot file without ELF.
 */
#ifndef DOPPEL_TESTS_UNIT_FLAT_KERNEL_H
#define DOPPEL_TESTS_UNIT_FLAT_KERNEL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLAT_KERNEL_LOAD 0x100000u

/* Makes a file that is loaded at FLAT_KERNEL_LOAD and starts with CODE, 32-bit. PATH ends in
 * "-XXXXXX", or what that has become, and becomes its name. */
static inline void write_flat_kernel(char *path, const uint8_t *code, size_t size)
{
    const uint32_t load = FLAT_KERNEL_LOAD;
    const uint32_t header[8] = {0x1BADB002, 0x10000, 0u - 0x1BADB002 - 0x10000, load, load,
                                0,          0,       load + sizeof(header)};
    FILE *file;

    memcpy(strrchr(path, '-') + 1, "XXXXXX", 6);
    file = fdopen(mkstemp(path), "wb");
    assert_non_null(file);
    fwrite(header, 1, sizeof(header), file);
    fwrite(code, 1, size, file);
    fclose(file);
}

#endif
