/*
 * Boot loaders: put a kernel into guest memory and say how the bootstrap processor starts.
 */
#ifndef DOPPEL_VM_BOOT_BOOT_H
#define DOPPEL_VM_BOOT_BOOT_H

#include "base/error.h"
#include "mem/mem.h"
#include "x86/cpu.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is to be booted: whole files in memory, owned by the caller, who keeps them and the strings
 * until boot_free. */
struct boot_source {
    const uint8_t *kernel;
    size_t kernel_size;
    const char *kernel_name; /* for messages */
    const uint8_t *initrd;   /* NULL: none */
    size_t initrd_size;
    const char *initrd_name;
    const char *command_line; /* never NULL */
    uint64_t rsdp;            /* guest physical address of the ACPI RSDP */
    /* Where it is to be loaded: nothing that cannot fit there is unpacked. NULL: not known yet. */
    struct mem *mem;
    /* Random; 0: load the kernel where it was linked. A kernel that unpacks itself does not see
     * it and obeys `nokaslr` on its command line only. */
    uint64_t kaslr_seed;
    bool no_host_decompress; /* let the kernel's own decompressor run */
    /* Called now and then with what is going on and how far (0..100, -1 unknown); may be NULL. */
    void (*progress)(void *opaque, const char *what, int percent);
    void *progress_opaque;
};

/* A prepared boot: everything that can fail because of the files has been checked and
 * decompressed; loading it can be repeated (reset). */
struct boot_image;

/* Recognizes bzImage, ELF with a PVH note, and Multiboot 1 (plain or gzip). */
struct boot_image *boot_prepare(const struct boot_source *source, struct error *err);
void boot_free(struct boot_image *image);
const char *boot_kind(const struct boot_image *image); /* "Linux bzImage (64-bit)", ... */

/* Writes the image into zeroed guest memory and sets CPU (in its state after RESET) to the entry
 * state the boot protocol asks for. ENOMEM or EFBIG with a message when MEM is too small. */
int boot_load(const struct boot_image *image, struct mem *mem, struct x86_cpu *cpu,
              struct error *err);

/* The memory map as loaders describe it (E820 types: 1 RAM, 2 reserved). Returns the number. */
struct boot_range {
    uint64_t start, size;
    uint32_t type;
};
#define BOOT_RANGES 8
unsigned boot_memory_map(const struct mem *mem, struct boot_range ranges[BOOT_RANGES]);

/* Firmware tables live in [BOOT_TABLES_START, BOOT_TABLES_END), reserved in the map; the RSDP is
 * where a scan of F0000h-FFFFFh finds it. */
#define BOOT_EBDA_START   0x9FC00ULL
#define BOOT_TABLES_START 0xE0000ULL
#define BOOT_TABLES_END   0x100000ULL

#endif
