/*
 * Fuzz target: the ELF loaders, PVH and Multiboot 1, plain or in gzip.
 */
#include "boot_load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    boot_fuzz_load(data, size, false);
    return 0;
}
