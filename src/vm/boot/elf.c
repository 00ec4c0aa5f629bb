/*
 * ELF headers (Tool Interface Standard, Executable and Linking Format 1.2, and its 64-bit form),
 * read without trust: every offset and size is checked against the file.
 */
#include "vm/boot/elf.h"

#include "base/util.h"
#include "vm/boot/loader.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

static int damaged(const char *name, const char *what, struct error *err)
{
    return error_set(err, EBADMSG, "%s: %s: the ELF file is truncated or corrupted; get it again",
                     name, what);
}

/* The header in its 64-bit form; false when there is not enough of it. */
static bool read_header(const uint8_t *data, size_t size, Elf64_Ehdr *header)
{
    Elf32_Ehdr small;

    if (size < EI_NIDENT || memcmp(data, ELFMAG, SELFMAG) != 0)
        return false;
    if (data[EI_CLASS] == ELFCLASS64) {
        if (size < sizeof(*header))
            return false;
        memcpy(header, data, sizeof(*header));
        return true;
    }
    if (size < sizeof(small))
        return false;
    memcpy(&small, data, sizeof(small));
    memcpy(header->e_ident, small.e_ident, EI_NIDENT);
    header->e_type = small.e_type;
    header->e_machine = small.e_machine;
    header->e_entry = small.e_entry;
    header->e_phoff = small.e_phoff;
    header->e_shoff = small.e_shoff;
    header->e_phentsize = small.e_phentsize;
    header->e_phnum = small.e_phnum;
    header->e_shentsize = small.e_shentsize;
    header->e_shnum = small.e_shnum;
    return true;
}

static struct elf_segment read_segment(const uint8_t *at, bool is64)
{
    Elf64_Phdr p64;
    Elf32_Phdr p32;

    if (is64) {
        memcpy(&p64, at, sizeof(p64));
        return (struct elf_segment){p64.p_type,  p64.p_offset, p64.p_filesz, p64.p_vaddr,
                                    p64.p_paddr, p64.p_memsz,  p64.p_align};
    }
    memcpy(&p32, at, sizeof(p32));
    return (struct elf_segment){p32.p_type,  p32.p_offset, p32.p_filesz, p32.p_vaddr,
                                p32.p_paddr, p32.p_memsz,  p32.p_align};
}

static int add_segment(struct elf_image *elf, const struct elf_segment *segment, size_t size,
                       const char *name, struct error *err)
{
    bool load = segment->type == PT_LOAD;
    unsigned *count = load ? &elf->loads : &elf->notes;

    if (!load && segment->type != PT_NOTE)
        return 0;
    if (load && segment->memory_size == 0)
        return 0;
    if (!boot_range_fits(segment->offset, segment->file_size, size))
        return damaged(name, "a segment lies beyond the end of the file", err);
    if (load && (segment->file_size > segment->memory_size ||
                 !boot_range_fits(segment->paddr, segment->memory_size, UINT64_MAX)))
        return damaged(name, "a segment has an impossible size", err);
    if (*count == ELF_SEGMENTS)
        return damaged(name, "too many segments", err);
    (load ? elf->load : elf->note)[(*count)++] = *segment;
    elf->file_end = MAX(elf->file_end, segment->offset + segment->file_size);
    return 0;
}

int elf_parse(const uint8_t *data, size_t size, const char *name, struct elf_image *elf,
              struct error *err)
{
    Elf64_Ehdr header;
    size_t entry_size, sections;

    *elf = (struct elf_image){0};
    if (!read_header(data, size, &header) || header.e_ident[EI_DATA] != ELFDATA2LSB)
        return error_set(err, ENOEXEC, "%s: not a little-endian ELF file, or truncated", name);
    elf->is64 = header.e_ident[EI_CLASS] == ELFCLASS64;
    /* Class 32 for x86-64 is how 64-bit test kernels are linked: the entry is 32-bit code. */
    if (header.e_machine != EM_X86_64 && (elf->is64 || header.e_machine != EM_386))
        return error_set(err, ENOEXEC, "%s: this ELF file is not for x86", name);
    if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
        return error_set(err, ENOEXEC, "%s: this ELF file is not an executable", name);

    entry_size = elf->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (header.e_phentsize != entry_size || header.e_phnum == 0 ||
        !boot_range_fits(header.e_phoff, header.e_phnum * entry_size, size))
        return damaged(name, "the program headers are not in the file", err);
    elf->entry = header.e_entry;
    elf->file_end = header.e_phoff + header.e_phnum * entry_size;
    for (unsigned i = 0; i < header.e_phnum; i++) {
        struct elf_segment segment =
            read_segment(data + header.e_phoff + i * entry_size, elf->is64);
        int r = add_segment(elf, &segment, size, name, err);

        if (r < 0)
            return r;
    }
    if (elf->loads == 0)
        return damaged(name, "there is nothing to load in it", err);
    sections = (size_t)header.e_shnum * header.e_shentsize;
    if (header.e_shoff && boot_range_fits(header.e_shoff, sections, size))
        elf->file_end = MAX(elf->file_end, header.e_shoff + sections);
    return 0;
}

int elf_load(const struct elf_image *elf, const uint8_t *data, const char *name,
             struct boot_space *space, struct error *err)
{
    for (unsigned i = 0; i < elf->loads; i++) {
        const struct elf_segment *load = &elf->load[i];
        int r = boot_space_claim(space, load->paddr, load->memory_size, name, "a segment", err);

        if (r < 0)
            return r;
        if (mem_write(space->mem, load->paddr, data + load->offset, load->file_size) < 0)
            return error_set(err, EFAULT, "%s: cannot write to guest memory", name);
    }
    return 0;
}
