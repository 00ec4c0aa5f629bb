/*
 * Multiboot 1 (Multiboot Specification version 0.6.96): a header with a checksum in the first
 * 8192 bytes; an ELF file, or any file whose header says where its parts go; entry in 32-bit
 * protected mode with EAX the magic and EBX the information structure.
 *
 * The specification knows 32-bit ELF files only. 64-bit ones are taken too, as GRUB does, because
 * there are such kernels (Debian's GNU Mach for amd64): they start in 32-bit code all the same.
 */
#include "vm/boot/elf.h"
#include "vm/boot/loader.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_AREA  8192
#define HEADER_MAGIC 0x1BADB002u
#define LOADER_MAGIC 0x2BADB002u

/* Header flags. Of the first sixteen, which a loader must obey, the three known ones ask for
 * page-aligned modules, for memory information and for a video mode; there is no display, and the
 * information structure says so. */
#define NEED_KNOWN    0x0007u
#define NEED_MASK     0xFFFFu
#define HAS_ADDRESSES (1u << 16)

/* Information flags. */
#define INFO_MEMORY       (1u << 0)
#define INFO_COMMAND_LINE (1u << 2)
#define INFO_MODULES      (1u << 3)
#define INFO_MEMORY_MAP   (1u << 6)
#define INFO_LOADER_NAME  (1u << 9)

struct mb_header {
    uint32_t magic, flags, checksum;
    /* With HAS_ADDRESSES. */
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};
#define HEADER_WITHOUT_ADDRESSES 12

struct mb_info {
    uint32_t flags;
    uint32_t mem_lower, mem_upper; /* KiB */
    uint32_t boot_device;
    uint32_t command_line;
    uint32_t modules, module_list;
    uint32_t symbols[4];
    uint32_t map_size, map;
    uint32_t drives_size, drives;
    uint32_t config_table;
    uint32_t loader_name;
    uint32_t apm_table;
    uint32_t vbe[4]; /* and what follows: all absent */
};

struct mb_module {
    uint32_t start, end, string, reserved;
};

struct mb_range {
    uint32_t size; /* of what follows it */
    uint64_t start, length;
    uint32_t type;
} __attribute__((packed));

/* An address-field kernel is loaded as an ELF image of one segment. */
struct multiboot {
    struct elf_image elf;
    uint64_t end;
};

/* Finds the header; returns its offset or -1. */
static long find_header(const uint8_t *file, size_t size, struct mb_header *header)
{
    size_t end = MIN(size, HEADER_AREA);

    *header = (struct mb_header){0};
    for (size_t at = 0; at + HEADER_WITHOUT_ADDRESSES <= end; at += 4) {
        memcpy(header, file + at, HEADER_WITHOUT_ADDRESSES);
        if (header->magic != HEADER_MAGIC || header->magic + header->flags + header->checksum != 0)
            continue;
        if (!(header->flags & HAS_ADDRESSES))
            return (long)at;
        if (at + sizeof(*header) > end)
            continue;
        memcpy(header, file + at, sizeof(*header));
        return (long)at;
    }
    return -1;
}

static bool mb_recognize(const uint8_t *file, size_t size)
{
    struct mb_header header;

    return find_header(file, size, &header) >= 0;
}

/* The image that the header's address fields describe. */
static int read_addresses(struct elf_image *elf, const struct boot_source *source,
                          const struct mb_header *header, uint64_t header_at, struct error *err)
{
    struct elf_segment *load = &elf->load[0];
    uint64_t before = (uint64_t)header->header_addr - header->load_addr;

    *elf = (struct elf_image){.entry = header->entry_addr, .loads = 1};
    if (header->load_addr > header->header_addr || before > header_at)
        goto bad;
    load->offset = header_at - before;
    load->paddr = header->load_addr;
    load->file_size = header->load_end_addr ? (uint64_t)header->load_end_addr - header->load_addr
                                            : source->kernel_size - load->offset;
    if (!boot_range_fits(load->offset, load->file_size, source->kernel_size))
        goto bad;
    load->memory_size = load->file_size;
    if (header->bss_end_addr)
        load->memory_size = MAX(load->file_size, (uint64_t)header->bss_end_addr - load->paddr);
    if (header->bss_end_addr && header->bss_end_addr < header->load_addr)
        goto bad;
    return 0;
bad:
    return error_set(err, EBADMSG,
                     "%s: the addresses in the Multiboot header are impossible: the file is "
                     "truncated or corrupted",
                     source->kernel_name);
}

/* A kernel that runs in high memory gives its entry point as a virtual address; the processor
 * starts without paging. */
static uint64_t physical_entry(const struct elf_image *elf)
{
    for (unsigned i = 0; i < elf->loads; i++) {
        const struct elf_segment *load = &elf->load[i];

        if (elf->entry >= load->vaddr && elf->entry - load->vaddr < load->memory_size)
            return elf->entry - load->vaddr + load->paddr;
    }
    return elf->entry;
}

static int read_image(struct multiboot *mb, const struct boot_source *source, struct error *err)
{
    struct mb_header header;
    long at = find_header(source->kernel, source->kernel_size, &header);
    const char *name = source->kernel_name;
    int r;

    if (header.flags & NEED_MASK & ~NEED_KNOWN)
        return error_set(err, ENOTSUP,
                         "%s: the Multiboot header asks for features (%#x) that version 0.6.96 "
                         "does not have",
                         name, header.flags & NEED_MASK & ~NEED_KNOWN);
    if (header.flags & HAS_ADDRESSES)
        return read_addresses(&mb->elf, source, &header, (uint64_t)at, err);
    r = elf_parse(source->kernel, source->kernel_size, name, &mb->elf, err);
    if (r == 0)
        mb->elf.entry = physical_entry(&mb->elf);
    return r;
}

static void *mb_prepare(const struct boot_source *source, struct error *err)
{
    struct multiboot *mb = calloc(1, sizeof(*mb));
    bool inside = false;

    if (!mb) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    if (read_image(mb, source, err) < 0) {
        free(mb);
        return NULL;
    }
    for (unsigned i = 0; i < mb->elf.loads; i++) {
        const struct elf_segment *load = &mb->elf.load[i];

        inside |= mb->elf.entry >= load->paddr && mb->elf.entry - load->paddr < load->file_size;
        mb->end = MAX(mb->end, load->paddr + load->memory_size);
    }
    if (!inside) {
        error_set(err, EBADMSG,
                  "%s: the entry point %#llx lies outside the kernel: the file is "
                  "corrupted",
                  source->kernel_name, (unsigned long long)mb->elf.entry);
        free(mb);
        return NULL;
    }
    return mb;
}

static int put_string(struct boot_space *space, const char *text, uint32_t *address,
                      struct error *err)
{
    uint64_t gpa;
    int r = boot_space_put(space, text, strlen(text) + 1, &gpa, err);

    if (r == 0)
        *address = (uint32_t)gpa;
    return r;
}

static int put_memory_map(struct boot_space *space, struct mb_info *info, struct error *err)
{
    struct boot_range map[BOOT_RANGES];
    struct mb_range ranges[BOOT_RANGES];
    unsigned count = boot_memory_map(space->mem, map);
    uint64_t gpa;
    int r;

    for (unsigned i = 0; i < count; i++)
        ranges[i] = (struct mb_range){
            .size = sizeof(ranges[i]) - sizeof(ranges[i].size),
            .start = map[i].start,
            .length = map[i].size,
            .type = map[i].type,
        };
    r = boot_space_put(space, ranges, count * sizeof(ranges[0]), &gpa, err);
    if (r < 0)
        return r;
    info->map = (uint32_t)gpa;
    info->map_size = count * (uint32_t)sizeof(ranges[0]);
    info->mem_lower = BOOT_EBDA_START / KiB;
    info->mem_upper = (uint32_t)((mem_low_end(space->mem) - BOOT_TABLES_END) / KiB);
    info->flags |= INFO_MEMORY | INFO_MEMORY_MAP;
    return 0;
}

/* The initrd is the one module, as low as possible: small kernels map only their first MiBs. */
static int put_module(struct boot_space *space, const struct multiboot *mb,
                      const struct boot_source *source, struct mb_info *info, struct error *err)
{
    struct mb_module module = {0};
    uint64_t start, gpa;
    int r;

    if (!source->initrd)
        return 0;
    start = boot_space_place(space, BOOT_BOTTOM_UP, source->initrd_size, MEM_PAGE_SIZE,
                             MAX(mb->end, BOOT_TABLES_END), MEM_HOLE_START);
    if (start == BOOT_NOWHERE)
        return boot_initrd_error(source, MAX(mb->end, BOOT_TABLES_END), MEM_HOLE_START, err);
    if (mem_write(space->mem, start, source->initrd, source->initrd_size) < 0)
        return error_set(err, EFAULT, "%s: cannot write the module to guest memory",
                         source->initrd_name);
    module.start = (uint32_t)start;
    module.end = (uint32_t)(start + source->initrd_size);
    r = put_string(space, source->initrd_name ? source->initrd_name : "", &module.string, err);
    if (r == 0)
        r = boot_space_put(space, &module, sizeof(module), &gpa, err);
    if (r < 0)
        return r;
    info->modules = 1;
    info->module_list = (uint32_t)gpa;
    info->flags |= INFO_MODULES;
    return 0;
}

static int mb_load(const void *prepared, const struct boot_source *source, struct mem *mem,
                   struct x86_cpu *cpu, struct error *err)
{
    const struct multiboot *mb = prepared;
    struct mb_info info = {.flags = INFO_COMMAND_LINE | INFO_LOADER_NAME};
    struct boot_space space;
    uint64_t info_gpa;
    int r;

    boot_space_init(&space, mem);
    r = elf_load(&mb->elf, source->kernel, source->kernel_name, &space, err);
    if (r == 0)
        r = put_memory_map(&space, &info, err);
    if (r == 0)
        r = put_module(&space, mb, source, &info, err);
    if (r == 0)
        r = put_string(&space, source->command_line, &info.command_line, err);
    if (r == 0)
        r = put_string(&space, "doppel", &info.loader_name, err);
    if (r == 0)
        r = boot_space_put(&space, &info, sizeof(info), &info_gpa, err);
    if (r == 0)
        r = boot_enter_flat32(&space, cpu, mb->elf.entry, err);
    if (r < 0)
        return r;
    cpu->reg[X86_RAX] = LOADER_MAGIC;
    cpu->reg[X86_RBX] = info_gpa;
    return 0;
}

static const char *mb_kind(const void *prepared)
{
    (void)prepared;
    return "Multiboot 1 kernel";
}

const struct boot_format boot_multiboot = {
    .recognize = mb_recognize,
    .prepare = mb_prepare,
    .load = mb_load,
    .kind = mb_kind,
    .free = free,
};
