/*
 * Fuzz target: the bzImage loader, with and without unpacking on the host. The magic numbers and
 * the protocol version are given, so that mutations reach what lies behind them.
 */
#include "boot_load.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *file = malloc(size ? size : 1);

    if (!file)
        return 0;
    memcpy(file, data, size);
    if (size > 0x210) {
        memcpy(file + 0x1FE, "\x55\xAA", 2);
        memcpy(file + 0x202, "HdrS\x0F\x02", 6);
    }
    boot_fuzz_load(file, size, false);
    boot_fuzz_load(file, size, true);
    free(file);
    return 0;
}
