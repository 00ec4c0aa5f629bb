/*
 * Recognizing what is to be booted and handing it to its loader.
 */
#include "vm/boot/loader.h"

#include "base/util.h"
#include "vm/boot/decompress.h"
#include "vm/boot/elf.h"

#include <errno.h>
#include <stdlib.h>

/* No kernel is larger; a gzip file that grows beyond it is a mistake or a trap. */
#define UNPACKED_LIMIT (512 * MiB)

struct boot_image {
    struct boot_source source;
    const struct boot_format *format;
    void *prepared;
    uint8_t *unpacked; /* the kernel file without its gzip wrapper, or NULL */
};

/* In the order of preference: PVH tells a kernel more than Multiboot does. */
static const struct boot_format *const formats[] = {&boot_bzimage, &boot_pvh, &boot_multiboot};

static const struct boot_format *recognize(const struct boot_source *source)
{
    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
        if (formats[i]->recognize(source->kernel, source->kernel_size))
            return formats[i];
    return NULL;
}

/* Takes a gzip wrapper around the whole file off, if there is one. */
static int unwrap(struct boot_image *image, struct error *err)
{
    struct boot_source *source = &image->source;
    uint64_t limit = MIN(source->mem ? mem_ram_size(source->mem) : UINT64_MAX, UNPACKED_LIMIT);
    enum compression compression = compression_identify(source->kernel, source->kernel_size);
    struct error why = {0};

    if (compression != COMPRESSION_GZIP)
        return 0;
    image->unpacked = decompress(compression, source->kernel, source->kernel_size, limit,
                                 &source->kernel_size, &why);
    if (!image->unpacked && why.code == EFBIG && limit < UNPACKED_LIMIT)
        return error_set(err, EFBIG,
                         "%s: unpacked it is larger than the machine's memory (%llu MiB): give the "
                         "machine more, or remove debugging symbols from the kernel",
                         source->kernel_name, (unsigned long long)(limit / MiB));
    if (!image->unpacked)
        return error_set(err, why.code, "%s: %s", source->kernel_name, why.text);
    source->kernel = image->unpacked;
    return 0;
}

static void unrecognized(const struct boot_source *source, struct error *err)
{
    struct elf_image elf;
    int r = elf_parse(source->kernel, source->kernel_size, source->kernel_name, &elf, err);

    if (r == 0)
        error_set(err, ENOEXEC,
                  "%s: this ELF file has neither a PVH entry note nor a Multiboot 1 header: use "
                  "a kernel built with CONFIG_PVH, or its bzImage",
                  source->kernel_name);
    else if (r != -EBADMSG)
        error_set(err, ENOEXEC,
                  "%s: not a kernel that can be booted (Linux bzImage, ELF with a PVH note, "
                  "Multiboot 1), or truncated",
                  source->kernel_name);
}

struct boot_image *boot_prepare(const struct boot_source *source, struct error *err)
{
    struct boot_image *image = calloc(1, sizeof(*image));

    if (!image) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    image->source = *source;
    if (unwrap(image, err) < 0) {
        boot_free(image);
        return NULL;
    }
    image->format = recognize(&image->source);
    if (image->format)
        image->prepared = image->format->prepare(&image->source, err);
    else
        unrecognized(&image->source, err);
    if (!image->prepared) {
        boot_free(image);
        return NULL;
    }
    return image;
}

void boot_free(struct boot_image *image)
{
    if (!image)
        return;
    if (image->prepared)
        image->format->free(image->prepared);
    free(image->unpacked);
    free(image);
}

const char *boot_kind(const struct boot_image *image)
{
    return image->format->kind(image->prepared);
}

/* What firmware leaves in the BIOS data area and kernels look for there: the EBDA's segment (40Eh)
 * and the KiB of RAM below it (413h). */
static int write_bios_data(struct mem *mem)
{
    const uint16_t ebda_segment = BOOT_EBDA_START >> 4;
    const uint16_t base_kib = BOOT_EBDA_START / KiB;
    int r = mem_write(mem, 0x40E, &ebda_segment, sizeof(ebda_segment));

    return r < 0 ? r : mem_write(mem, 0x413, &base_kib, sizeof(base_kib));
}

int boot_load(const struct boot_image *image, struct mem *mem, struct x86_cpu *cpu,
              struct error *err)
{
    int r = write_bios_data(mem);

    if (r < 0)
        return error_set(err, -r, "the machine has no memory for the BIOS data area");
    return image->format->load(image->prepared, &image->source, mem, cpu, err);
}
