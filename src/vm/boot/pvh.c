/*
 * ELF kernels by their PVH entry: Xen's x86/HVM direct boot ABI (docs/misc/pvh.pandoc and
 * xen/include/public/arch-x86/hvm/start_info.h). An ELF note of type XEN_ELFNOTE_PHYS32_ENTRY gives
 * a physical entry point in 32-bit protected mode without paging; EBX points to the start info.
 */
#include "vm/boot/elf.h"
#include "vm/boot/loader.h"

#include "base/util.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XEN_NOTE_NAME         "Xen"
#define XEN_NOTE_PHYS32_ENTRY 18

#define START_INFO_MAGIC 0x336EC578u
#define INITRD_LIMIT     (2 * GiB) /* 32-bit kernels too must reach it */

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp;
    uint64_t memory_map; /* since version 1 */
    uint32_t memory_map_entries, reserved;
};

struct start_module {
    uint64_t address, size, command_line, reserved;
};

struct start_memory {
    uint64_t address, size;
    uint32_t type, reserved;
};

struct pvh {
    struct elf_image elf;
    uint64_t entry, end;
};

static uint64_t note_padded(uint64_t size, uint64_t align)
{
    return ALIGN_UP(size, align == 8 ? 8 : 4);
}

/* Looks for the entry note in one PT_NOTE segment. */
static bool find_entry(const uint8_t *data, const struct elf_segment *segment, uint64_t *entry)
{
    const uint8_t *notes = data + segment->offset;
    uint64_t at = 0;
    Elf32_Nhdr note; /* the same in both classes */

    while (boot_range_fits(at, sizeof(note), segment->file_size)) {
        uint64_t name_at = at + sizeof(note), desc_at, next;

        memcpy(&note, notes + at, sizeof(note));
        desc_at = name_at + note_padded(note.n_namesz, segment->align);
        next = desc_at + note_padded(note.n_descsz, segment->align);
        if (!boot_range_fits(desc_at, note.n_descsz, segment->file_size))
            return false;
        if (note.n_type == XEN_NOTE_PHYS32_ENTRY && note.n_namesz == sizeof(XEN_NOTE_NAME) &&
            memcmp(notes + name_at, XEN_NOTE_NAME, sizeof(XEN_NOTE_NAME)) == 0 &&
            (note.n_descsz == 4 || note.n_descsz == 8)) {
            *entry = 0;
            memcpy(entry, notes + desc_at, note.n_descsz);
            return true;
        }
        at = next;
    }
    return false;
}

static bool find_entry_note(const uint8_t *data, const struct elf_image *elf, uint64_t *entry)
{
    for (unsigned i = 0; i < elf->notes; i++)
        if (find_entry(data, &elf->note[i], entry))
            return true;
    return false;
}

static bool pvh_recognize(const uint8_t *file, size_t size)
{
    struct elf_image elf;
    uint64_t entry;

    return elf_parse(file, size, "", &elf, NULL) == 0 && find_entry_note(file, &elf, &entry);
}

static void *pvh_prepare(const struct boot_source *source, struct error *err)
{
    struct pvh *pvh = calloc(1, sizeof(*pvh));
    bool inside = false;

    if (!pvh) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    if (elf_parse(source->kernel, source->kernel_size, source->kernel_name, &pvh->elf, err) < 0) {
        free(pvh);
        return NULL;
    }
    find_entry_note(source->kernel, &pvh->elf, &pvh->entry);
    for (unsigned i = 0; i < pvh->elf.loads; i++) {
        const struct elf_segment *load = &pvh->elf.load[i];

        inside |= pvh->entry >= load->paddr && pvh->entry - load->paddr < load->file_size;
        pvh->end = MAX(pvh->end, load->paddr + load->memory_size);
    }
    if (!inside) {
        error_set(err, EBADMSG,
                  "%s: the PVH entry point %#llx lies outside the kernel: the file is corrupted",
                  source->kernel_name, (unsigned long long)pvh->entry);
        free(pvh);
        return NULL;
    }
    return pvh;
}

static int put_memory_map(struct boot_space *space, struct start_info *info, struct error *err)
{
    struct boot_range map[BOOT_RANGES];
    struct start_memory entries[BOOT_RANGES] = {0};
    unsigned count = boot_memory_map(space->mem, map);

    for (unsigned i = 0; i < count; i++)
        entries[i] = (struct start_memory){map[i].start, map[i].size, map[i].type, 0};
    info->memory_map_entries = count;
    return boot_space_put(space, entries, count * sizeof(entries[0]), &info->memory_map, err);
}

static int put_initrd(struct boot_space *space, const struct pvh *pvh,
                      const struct boot_source *source, struct start_info *info, struct error *err)
{
    struct start_module module = {.size = source->initrd_size};

    if (!source->initrd)
        return 0;
    module.address = boot_space_place(space, BOOT_TOP_DOWN, module.size, MEM_PAGE_SIZE,
                                      BOOT_TABLES_END, INITRD_LIMIT);
    if (module.address == BOOT_NOWHERE)
        return boot_initrd_error(source, pvh->end, INITRD_LIMIT, err);
    if (mem_write(space->mem, module.address, source->initrd, module.size) < 0)
        return error_set(err, EFAULT, "%s: cannot write the initrd to guest memory",
                         source->initrd_name);
    info->modules = 1;
    return boot_space_put(space, &module, sizeof(module), &info->module_list, err);
}

static int pvh_load(const void *prepared, const struct boot_source *source, struct mem *mem,
                    struct x86_cpu *cpu, struct error *err)
{
    const struct pvh *pvh = prepared;
    struct start_info info = {
        .magic = START_INFO_MAGIC,
        .version = 1,
        .rsdp = source->rsdp,
    };
    struct boot_space space;
    uint64_t info_gpa;
    int r;

    boot_space_init(&space, mem);
    r = elf_load(&pvh->elf, source->kernel, source->kernel_name, &space, err);
    if (r == 0)
        r = put_memory_map(&space, &info, err);
    if (r == 0)
        r = put_initrd(&space, pvh, source, &info, err);
    if (r == 0)
        r = boot_space_put(&space, source->command_line, strlen(source->command_line) + 1,
                           &info.command_line, err);
    if (r == 0)
        r = boot_space_put(&space, &info, sizeof(info), &info_gpa, err);
    if (r == 0)
        r = boot_enter_flat32(&space, cpu, pvh->entry, err);
    if (r < 0)
        return r;
    cpu->reg[X86_RBX] = info_gpa;
    return 0;
}

static const char *pvh_kind(const void *prepared)
{
    const struct pvh *pvh = prepared;

    return pvh->elf.is64 ? "ELF with PVH entry (64-bit)" : "ELF with PVH entry (32-bit)";
}

const struct boot_format boot_pvh = {
    .recognize = pvh_recognize,
    .prepare = pvh_prepare,
    .load = pvh_load,
    .kind = pvh_kind,
    .free = free,
};
