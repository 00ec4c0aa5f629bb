/*
 * What the boot loaders' fuzz targets share: load a file and check what must hold whatever the
 * file says.
 */
#ifndef DOPPEL_TESTS_FUZZ_BOOT_LOAD_H
#define DOPPEL_TESTS_FUZZ_BOOT_LOAD_H

#include "base/util.h"
#include "vm/boot/boot.h"

#include <stdlib.h>

#define BOOT_FUZZ_MEMORY (32 * MiB)

static inline void boot_fuzz_require(bool condition)
{
    if (!condition)
        abort();
}

static inline void boot_fuzz_load(const uint8_t *file, size_t size, bool no_host_decompress)
{
    static const uint8_t initrd[] = "initrd";
    struct error err = {0};
    struct mem *mem = mem_create(BOOT_FUZZ_MEMORY, &err);
    const struct boot_source source = {
        .kernel = file,
        .kernel_size = size,
        .kernel_name = "kernel",
        .initrd = initrd,
        .initrd_size = sizeof(initrd),
        .initrd_name = "initrd",
        .command_line = "x",
        .mem = mem,
        .kaslr_seed = 0x123456789ABCDEF,
        .no_host_decompress = no_host_decompress,
    };
    struct boot_image *image = boot_prepare(&source, &err);
    struct x86_cpu cpu = {0};
    int r;

    boot_fuzz_require(mem);
    if (!image) {
        boot_fuzz_require(err.code > 0 && err.text[0]);
        mem_destroy(mem);
        return;
    }
    x86_cpu_reset(&cpu);
    r = boot_load(image, mem, &cpu, &err);
    if (r < 0) {
        boot_fuzz_require(err.code == -r && err.text[0]);
    } else {
        boot_fuzz_require(cpu.cr0 & X86_CR0_PE);
        boot_fuzz_require(mem_is_ram(mem, cpu.gdtr.base, cpu.gdtr.limit + 1u));
        boot_fuzz_require(mem_is_ram(mem, cpu.reg[X86_RSI] | cpu.reg[X86_RBX], 32));
    }
    mem_destroy(mem);
    boot_free(image);
}

#endif
