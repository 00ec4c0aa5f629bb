/*
 * ELF images as loaders see them: 32- and 64-bit headers checked and brought to one form.
 */
#ifndef DOPPEL_VM_BOOT_ELF_H
#define DOPPEL_VM_BOOT_ELF_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct boot_space;

#define ELF_SEGMENTS 32

struct elf_segment {
    uint32_t type;
    uint64_t offset, file_size; /* within the file, checked */
    uint64_t vaddr, paddr, memory_size;
    uint64_t align;
};

struct elf_image {
    bool is64;
    uint64_t entry;
    struct elf_segment load[ELF_SEGMENTS]; /* not empty; file_size <= memory_size */
    unsigned loads;
    struct elf_segment note[ELF_SEGMENTS];
    unsigned notes;
    uint64_t file_end; /* what headers, sections' headers and segments span in the file */
};

/* Reads the headers of DATA, an executable for x86. -ENOEXEC when it is no such ELF file; EBADMSG
 * when it is one but damaged. NAME is for messages. */
int elf_parse(const uint8_t *data, size_t size, const char *name, struct elf_image *elf,
              struct error *err);

/* Writes the segments of DATA where their physical addresses say. */
int elf_load(const struct elf_image *elf, const uint8_t *data, const char *name,
             struct boot_space *space, struct error *err);

#endif
