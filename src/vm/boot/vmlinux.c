/*
 * The kernel proper inside a bzImage (facts: Linux, arch/x86/boot/compressed/misc.c and
 * arch/x86/tools/relocs.c).
 *
 * The payload is an ELF file without symbols and, behind it, a relocation table of 32-bit words: a
 * list of places per kind of fix-up, each list opened by a zero. In file order these are, for
 * 64-bit kernels, 64-bit words, 32-bit words from which the offset is subtracted (until Linux 6.14
 * only) and 32-bit words; for 32-bit kernels there is one list of 32-bit words. A place is the low
 * half of the virtual address at which it was linked.
 */
#include "vm/boot/vmlinux.h"

#include "base/util.h"
#include "vm/boot/decompress.h"
#include "vm/boot/elf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* No kernel maps more of itself (KERNEL_IMAGE_SIZE). */
#define VMLINUX_LIMIT (1 * GiB)

enum fixup { FIXUP_ADD32, FIXUP_SUB32, FIXUP_ADD64 };

struct fixups {
    enum fixup kind;
    const uint8_t *place; /* COUNT words */
    size_t count;
};
#define FIXUP_LISTS 3

struct vmlinux {
    uint8_t *data;
    size_t size;
    struct elf_image elf;
    uint64_t link_base, init_size;
    uint64_t map_base; /* what its virtual addresses are above its physical ones */
    struct fixups fixups[FIXUP_LISTS];
    unsigned fixup_lists;
};

static uint32_t word_at(const uint8_t *words, size_t index)
{
    uint32_t word;

    memcpy(&word, words + index * sizeof(word), sizeof(word));
    return word;
}

/* The segment that holds the entry point says how virtual and physical addresses relate; others
 * (per-CPU data) may be linked elsewhere. Checks that all lie in the memory the header asks for. */
static bool check_segments(struct vmlinux *vmlinux)
{
    const struct elf_image *elf = &vmlinux->elf;
    bool entered = false;

    for (unsigned i = 0; i < elf->loads; i++) {
        const struct elf_segment *load = &elf->load[i];

        if (load->paddr < vmlinux->link_base ||
            !boot_range_fits(load->paddr - vmlinux->link_base, load->memory_size,
                             vmlinux->init_size))
            return false;
        if (elf->entry >= load->paddr && elf->entry - load->paddr < load->file_size) {
            vmlinux->map_base = load->vaddr - load->paddr;
            entered = true;
        }
    }
    return entered;
}

static size_t fixup_width(enum fixup kind)
{
    return kind == FIXUP_ADD64 ? 8 : 4;
}

/* Where the word to be fixed lies, from link_base on. */
static uint64_t fixup_offset(const struct vmlinux *vmlinux, uint32_t place)
{
    if (vmlinux->elf.is64)
        return (uint64_t)(int64_t)(int32_t)place - vmlinux->map_base - vmlinux->link_base;
    return (uint32_t)(place - vmlinux->map_base) - vmlinux->link_base;
}

static bool check_places(const struct vmlinux *vmlinux, const struct fixups *list)
{
    size_t width = fixup_width(list->kind);

    for (size_t i = 0; i < list->count; i++)
        if (!boot_range_fits(fixup_offset(vmlinux, word_at(list->place, i)), width,
                             vmlinux->init_size))
            return false;
    return true;
}

/* Which lists the table of which kernel has. */
static const struct {
    bool is64;
    unsigned lists;
    enum fixup kind[FIXUP_LISTS];
} layouts[] = {
    {false, 1, {FIXUP_ADD32}},
    {true, 2, {FIXUP_ADD64, FIXUP_ADD32}},
    {true, 3, {FIXUP_ADD64, FIXUP_SUB32, FIXUP_ADD32}},
};

/* Gives the lists their kinds and checks them. */
static bool identify_fixups(struct vmlinux *vmlinux)
{
    for (unsigned l = 0; l < ARRAY_SIZE(layouts); l++) {
        if (layouts[l].is64 != vmlinux->elf.is64 || layouts[l].lists != vmlinux->fixup_lists)
            continue;
        for (unsigned i = 0; i < layouts[l].lists; i++) {
            vmlinux->fixups[i].kind = layouts[l].kind[i];
            if (!check_places(vmlinux, &vmlinux->fixups[i]))
                return false;
        }
        return true;
    }
    return false;
}

/* Splits what follows the ELF file into lists. False: not a relocation table that is known. */
static bool read_fixups(struct vmlinux *vmlinux)
{
    const uint8_t *words = vmlinux->data + vmlinux->elf.file_end;
    size_t count = (vmlinux->size - vmlinux->elf.file_end) / sizeof(uint32_t);
    struct fixups *list = NULL;

    if (count == 0)
        return true;
    for (size_t i = 0; i < count; i++) {
        if (word_at(words, i) == 0) {
            if (vmlinux->fixup_lists == FIXUP_LISTS)
                return false;
            list = &vmlinux->fixups[vmlinux->fixup_lists++];
            list->place = words + (i + 1) * sizeof(uint32_t);
        } else if (list) {
            list->count++;
        } else {
            return false;
        }
    }
    return identify_fixups(vmlinux);
}

/* The size of the unpacked payload stands in its last four bytes, put there by gzip itself or by
 * the kernel's build. */
static int unpack(struct vmlinux *vmlinux, const uint8_t *payload, size_t size, const char *name,
                  struct error *err)
{
    enum compression compression = compression_identify(payload, size);
    size_t packed = compression == COMPRESSION_GZIP ? size : size - sizeof(uint32_t);
    uint32_t expected = word_at(payload + size - sizeof(expected), 0);
    struct error why = {0};

    if (expected > MIN(vmlinux->init_size, VMLINUX_LIMIT))
        return error_set(err, EBADMSG,
                         "%s: the kernel image is corrupted: %u bytes unpacked is more than its "
                         "header allows",
                         name, expected);
    vmlinux->data = decompress(compression, payload, packed, expected, &vmlinux->size, &why);
    if (!vmlinux->data && why.code == ENOMEM)
        return error_set(err, ENOMEM, "%s: %s", name, why.text);
    if (!vmlinux->data)
        return error_set(err, EBADMSG, "%s: the kernel image is corrupted: %s", name, why.text);
    if (vmlinux->size != expected)
        return error_set(err, EBADMSG,
                         "%s: the kernel image is corrupted: %zu of %u bytes unpacked; get the "
                         "file again",
                         name, vmlinux->size, expected);
    return 0;
}

int vmlinux_unpack(const uint8_t *payload, size_t size, const char *name, uint64_t link_base,
                   uint64_t init_size, struct vmlinux **result, struct error *err)
{
    struct vmlinux *vmlinux;
    int r;

    *result = NULL;
    if (size < sizeof(uint32_t) || compression_identify(payload, size) == COMPRESSION_NONE)
        return 0;
    vmlinux = calloc(1, sizeof(*vmlinux));
    if (!vmlinux)
        return error_set(err, ENOMEM, "out of memory");
    vmlinux->link_base = link_base;
    vmlinux->init_size = init_size;
    r = unpack(vmlinux, payload, size, name, err);
    if (r == 0 && elf_parse(vmlinux->data, vmlinux->size, name, &vmlinux->elf, NULL) == 0 &&
        check_segments(vmlinux) && read_fixups(vmlinux)) {
        *result = vmlinux;
        return 0;
    }
    vmlinux_free(vmlinux);
    return r;
}

void vmlinux_free(struct vmlinux *vmlinux)
{
    if (!vmlinux)
        return;
    free(vmlinux->data);
    free(vmlinux);
}

bool vmlinux_is64(const struct vmlinux *vmlinux)
{
    return vmlinux->elf.is64;
}

bool vmlinux_can_move(const struct vmlinux *vmlinux)
{
    return vmlinux->fixup_lists > 0;
}

static int apply_fixups(const struct vmlinux *vmlinux, const struct fixups *list, struct mem *mem,
                        uint64_t base, uint64_t delta)
{
    size_t width = fixup_width(list->kind);

    if (list->kind == FIXUP_SUB32)
        delta = -delta;
    for (size_t i = 0; i < list->count; i++) {
        uint64_t gpa = base + fixup_offset(vmlinux, word_at(list->place, i));
        uint64_t value = 0;

        /* Addition carries upwards only, so the low WIDTH bytes of the sum are right. */
        if (mem_read(mem, gpa, &value, width) < 0)
            return -EFAULT;
        value += delta;
        if (mem_write(mem, gpa, &value, width) < 0)
            return -EFAULT;
    }
    return 0;
}

uint64_t vmlinux_load(const struct vmlinux *vmlinux, struct mem *mem, uint64_t base, uint64_t delta,
                      struct error *err)
{
    const struct elf_image *elf = &vmlinux->elf;
    int r = 0;

    for (unsigned i = 0; i < elf->loads && r == 0; i++) {
        const struct elf_segment *load = &elf->load[i];

        r = mem_write(mem, base + (load->paddr - vmlinux->link_base), vmlinux->data + load->offset,
                      load->file_size);
    }
    for (unsigned i = 0; i < vmlinux->fixup_lists && delta != 0 && r == 0; i++)
        r = apply_fixups(vmlinux, &vmlinux->fixups[i], mem, base, delta);
    if (r < 0) {
        error_set(err, -r, "cannot write the kernel to guest memory");
        return BOOT_NOWHERE;
    }
    return base + (elf->entry - vmlinux->link_base);
}
