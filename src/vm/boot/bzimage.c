/*
 * Linux by its own boot protocol (Documentation/arch/x86/boot.rst), version 2.10 and later: the
 * 64-bit entry where the kernel has one, else the 32-bit one.
 *
 * By default the payload is unpacked on the host and the kernel proper is entered as its
 * decompressor would (vmlinux.c); under an engine that is slower than hardware this saves most of
 * the time to the first message. What is not understood is left to the kernel's own decompressor.
 */
#include "vm/boot/loader.h"

#include "base/util.h"
#include "vm/boot/decompress.h"
#include "vm/boot/vmlinux.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zlib.h>

#define SECTOR          512
#define HEADER_OFFSET   0x1F1
#define HEADER_MAGIC    0x53726448u /* "HdrS" */
#define BOOT_FLAG       0xAA55
#define OLDEST_PROTOCOL 0x20A /* pref_address and init_size */
#define LOADER_UNKNOWN  0xFF  /* type_of_loader: none of the registered ones */
#define NORMAL_VIDEO    0xFFFF
#define ENTRY64         0x200 /* from the start of the protected-mode code */
#define LOAD_HIGH       (1 * MiB)

#define IMAGE_SIZE64 (1 * GiB)   /* KERNEL_IMAGE_SIZE: what virtual addresses there are */
#define IMAGE_SIZE32 (512 * MiB) /* and how far up the 32-bit kernel may lie */

#define RNG_SEED_SIZE 32

struct bzimage {
    struct setup_header header;
    const uint8_t *code; /* protected-mode part, in the caller's file */
    size_t code_size;
    struct vmlinux *vmlinux; /* NULL: leave it to the kernel's decompressor */
};

static bool is64(const struct bzimage *bz)
{
    return bz->header.xloadflags & XLF_KERNEL_64;
}

/* Reads as much of the header as the image has; the rest stays 0. Its end is the target of the
 * short jump at its start. */
static bool read_header(const uint8_t *file, size_t size, struct setup_header *header)
{
    size_t jump = offsetof(struct setup_header, jump);
    size_t length;

    *header = (struct setup_header){0};
    if (size < HEADER_OFFSET + offsetof(struct setup_header, realmode_swtch))
        return false;
    length = jump + 2 + file[HEADER_OFFSET + jump + 1];
    length = MIN(MIN(length, sizeof(*header)), size - HEADER_OFFSET);
    memcpy(header, file + HEADER_OFFSET, length);
    return header->boot_flag == BOOT_FLAG && header->header == HEADER_MAGIC;
}

static bool bz_recognize(const uint8_t *file, size_t size)
{
    struct setup_header header;

    return read_header(file, size, &header);
}

static int corrupted(const char *name, const char *what, struct error *err)
{
    return error_set(err, EBADMSG,
                     "%s: the kernel image is truncated or corrupted (%s): get the file again",
                     name, what);
}

/* Checks the header and finds the protected-mode code. */
static int check_header(struct bzimage *bz, const struct boot_source *source, struct error *err)
{
    struct setup_header *header = &bz->header;
    const char *name = source->kernel_name;
    size_t setup, need;

    if (header->version < OLDEST_PROTOCOL)
        return error_set(err, ENOTSUP,
                         "%s: boot protocol %u.%02u is too old: use Linux 2.6.31 or later", name,
                         header->version >> 8, header->version & 0xFF);
    if (!(header->loadflags & LOADED_HIGH))
        return error_set(err, ENOTSUP, "%s: a zImage: use a bzImage", name);
    setup = ((size_t)(header->setup_sects ? header->setup_sects : 4) + 1) * SECTOR;
    need = (size_t)header->syssize * 16;
    /* syssize counts whole paragraphs; the file need not fill the last one. */
    if (setup >= source->kernel_size || ALIGN_UP(source->kernel_size - setup, 16) < need)
        return corrupted(name, "the file is shorter than its header says", err);
    bz->code = source->kernel + setup;
    bz->code_size = MIN(need, source->kernel_size - setup);
    if (bz->code_size <= ENTRY64)
        return corrupted(name, "it holds no code", err);
    if (!boot_range_fits(header->payload_offset, header->payload_length, bz->code_size))
        return corrupted(name, "the payload lies outside the file", err);
    if (header->pref_address == 0)
        header->pref_address = LOAD_HIGH;
    if (header->pref_address < LOAD_HIGH || header->pref_address >= MEM_HOLE_START ||
        (header->relocatable_kernel && (header->kernel_alignment == 0 ||
                                        header->kernel_alignment & (header->kernel_alignment - 1))))
        return corrupted(name, "impossible values in its header", err);
    header->init_size = MAX(header->init_size, MEM_PAGE_SIZE);
    if (strlen(source->command_line) > header->cmdline_size)
        return error_set(err, E2BIG,
                         "%s: the command line has %zu characters and this kernel takes at most "
                         "%u: shorten it",
                         name, strlen(source->command_line), header->cmdline_size);
    if (source->initrd_size > UINT32_MAX && !(header->xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G))
        return error_set(err, EFBIG, "%s: the initrd is too large for this kernel",
                         source->initrd_name);
    return 0;
}

/* Kernels before 6.15 end in a checksum that makes the CRC-32 of the whole image 0. It was made
 * before the image was signed for Secure Boot, which changes two fields of the PE header: the
 * checksum and the certificate table's place. */
static bool crc_is_right(const struct bzimage *bz, const uint8_t *file)
{
    size_t size = (size_t)(bz->code - file) + bz->code_size, at = 0;
    static const uint8_t zero[8];
    uint32_t pe;
    size_t field[2], width[2] = {4, 8};
    uLong crc = crc32(0, NULL, 0);

    memcpy(&pe, file + 0x3C, sizeof(pe));
    if (boot_range_fits(pe, 0xB0, size) && memcmp(file + pe, "PE\0\0", 4) == 0) {
        /* The optional header is 16 bytes longer up to its directories in PE32+ (20Bh). */
        bool plus = file[pe + 0x18] == 0x0B && file[pe + 0x19] == 0x02;

        field[0] = pe + 0x58;
        field[1] = pe + (plus ? 0xA8 : 0x98);
        for (unsigned i = 0; i < 2; i++) {
            crc = crc32_z(crc, file + at, field[i] - at);
            crc = crc32_z(crc, zero, width[i]);
            at = field[i] + width[i];
        }
    }
    return (crc32_z(crc, file + at, size - at) ^ 0xFFFFFFFF) == 0;
}

/* The version string that the header points to names a kernel whose build appends the CRC. */
static bool has_crc(const struct bzimage *bz, const uint8_t *file)
{
    size_t setup = (size_t)(bz->code - file);
    size_t at = bz->header.kernel_version + (size_t)SECTOR;
    char text[32] = {0};
    unsigned major, minor;

    if (bz->header.kernel_version == 0 || !boot_range_fits(at, sizeof(text) - 1, setup))
        return false;
    memcpy(text, file + at, sizeof(text) - 1);
    if (sscanf(text, "%u.%u", &major, &minor) != 2)
        return false;
    return major < 6 || (major == 6 && minor < 15);
}

/* Whether the memory that the kernel asks for is there at all: the host unpacks no more than that.
 * bz_load looks again, when it is known where all the rest goes. */
static int check_room(const struct bzimage *bz, const struct boot_source *source, struct error *err)
{
    struct boot_space space;

    if (!source->mem)
        return 0;
    boot_space_init(&space, source->mem);
    return boot_space_check(&space, bz->header.pref_address, bz->header.init_size,
                            source->kernel_name, "the kernel", err);
}

static int unpack(struct bzimage *bz, const struct boot_source *source, struct error *err)
{
    const struct setup_header *header = &bz->header;
    const uint8_t *payload = bz->code + header->payload_offset;
    size_t size = header->payload_length;
    int r = check_room(bz, source, err);

    if (r < 0)
        return r;
    if (!compression_has_checksum(compression_identify(payload, size)) &&
        has_crc(bz, source->kernel) && !crc_is_right(bz, source->kernel))
        return corrupted(source->kernel_name, "its checksum is wrong", err);
    if (source->progress)
        source->progress(source->progress_opaque, "unpacking the kernel", -1);
    r = vmlinux_unpack(payload, size, source->kernel_name, header->pref_address, header->init_size,
                       &bz->vmlinux, err);
    if (r == 0 && bz->vmlinux && vmlinux_is64(bz->vmlinux) != is64(bz)) {
        vmlinux_free(bz->vmlinux);
        bz->vmlinux = NULL;
    }
    return r;
}

static void bz_free(void *prepared)
{
    struct bzimage *bz = prepared;

    vmlinux_free(bz->vmlinux);
    free(bz);
}

static void *bz_prepare(const struct boot_source *source, struct error *err)
{
    struct bzimage *bz = calloc(1, sizeof(*bz));
    int r;

    if (!bz) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    read_header(source->kernel, source->kernel_size, &bz->header);
    r = check_header(bz, source, err);
    if (r == 0 && !source->no_host_decompress && bz->header.payload_length)
        r = unpack(bz, source, err);
    if (r < 0) {
        bz_free(bz);
        return NULL;
    }
    return bz;
}

/* The kernel's early parsers take every control character for white space, and so the end too. */
static bool is_gap(char c)
{
    return (unsigned char)c <= ' ';
}

/* Whether WORD stands in the command line by itself. */
static bool has_option(const char *command_line, const char *word)
{
    size_t length = strlen(word);

    for (const char *at = command_line; (at = strstr(at, word)); at += length)
        if ((at == command_line || is_gap(at[-1])) && is_gap(at[length]))
            return true;
    return false;
}

/* The memory that the kernel takes up, and what it is relocated by. */
struct placement {
    uint64_t start, size;
    uint64_t delta; /* what its virtual addresses are above those it was linked for */
    bool random;
};

static struct placement default_placement(const struct bzimage *bz)
{
    const struct setup_header *header = &bz->header;
    struct placement place = {.start = header->pref_address, .size = header->init_size};

    if (bz->vmlinux)
        return place;
    /* The decompressor moves itself to the preferred address if it is not there already. */
    if (!header->relocatable_kernel) {
        place.start = LOAD_HIGH;
        place.size += header->pref_address - LOAD_HIGH;
    }
    place.size = MAX(place.size, bz->code_size);
    return place;
}

/* A 32-bit kernel's virtual addresses follow from its physical one: picks one of the free places
 * at random; the first pass counts them. The preferred place is always among them. */
static uint64_t random_start32(const struct boot_space *space, const struct setup_header *header,
                               uint64_t seed)
{
    uint64_t step = MAX(header->kernel_alignment, 2 * MEM_PAGE_SIZE);
    uint64_t count = 0, pick = UINT64_MAX;

    for (;;) {
        uint64_t n = 0;

        for (uint64_t at = header->pref_address; at + header->init_size <= IMAGE_SIZE32; at += step)
            if (boot_space_is_free(space, at, header->init_size) && n++ == pick)
                return at;
        if (n == 0 || count != 0)
            return header->pref_address;
        count = n;
        pick = seed % count;
    }
}

/* What the kernel's own decompressor does for KASLR, with the host's seed. */
static void randomize(struct placement *place, const struct bzimage *bz,
                      const struct boot_source *source, const struct boot_space *space)
{
    const struct setup_header *header = &bz->header;
    uint64_t end = place->start + place->size;

    if (source->kaslr_seed == 0 || !bz->vmlinux || !vmlinux_can_move(bz->vmlinux) ||
        !header->relocatable_kernel || has_option(source->command_line, "nokaslr"))
        return;
    place->random = true;
    if (!is64(bz)) {
        place->start = random_start32(space, header, source->kaslr_seed);
        place->delta = place->start - header->pref_address;
    } else if (end <= IMAGE_SIZE64) {
        uint64_t step = MAX(header->kernel_alignment, 2 * MiB);

        place->delta = source->kaslr_seed % ((IMAGE_SIZE64 - end) / step + 1) * step;
    }
}

static int put_initrd(struct boot_space *space, const struct bzimage *bz,
                      const struct boot_source *source, uint64_t kernel_end,
                      struct boot_params *params, struct error *err)
{
    uint64_t limit = MIN((uint64_t)bz->header.initrd_addr_max + 1, MEM_HOLE_START);
    uint64_t size = source->initrd_size, gpa;

    if (!source->initrd)
        return 0;
    gpa = boot_space_place(space, BOOT_TOP_DOWN, size, MEM_PAGE_SIZE, kernel_end, limit);
    if (gpa == BOOT_NOWHERE && bz->header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G)
        gpa = boot_space_place(space, BOOT_TOP_DOWN, size, MEM_PAGE_SIZE, MEM_HOLE_END, UINT64_MAX);
    if (gpa == BOOT_NOWHERE)
        return boot_initrd_error(source, kernel_end, limit, err);
    if (mem_write(space->mem, gpa, source->initrd, size) < 0)
        return error_set(err, EFAULT, "%s: cannot write the initrd to guest memory",
                         source->initrd_name);
    params->hdr.ramdisk_image = (uint32_t)gpa;
    params->hdr.ramdisk_size = (uint32_t)size;
    params->ext_ramdisk_image = (uint32_t)(gpa >> 32);
    params->ext_ramdisk_size = (uint32_t)(size >> 32);
    return 0;
}

/* The seed that spares the guest the wait for entropy. */
static int put_setup_data(struct boot_space *space, struct boot_params *params, struct error *err)
{
    const struct setup_data head = {.type = SETUP_RNG_SEED, .len = RNG_SEED_SIZE};
    uint8_t data[sizeof(head) + RNG_SEED_SIZE];
    uint64_t gpa;
    int r;

    memcpy(data, &head, sizeof(head));
    if (getrandom(data + sizeof(head), RNG_SEED_SIZE, 0) != RNG_SEED_SIZE)
        return 0;
    r = boot_space_put(space, data, sizeof(data), &gpa, err);
    if (r == 0)
        params->hdr.setup_data = gpa;
    return r;
}

static int put_params(struct boot_space *space, const struct boot_source *source,
                      struct boot_params *params, uint64_t *gpa, struct error *err)
{
    struct boot_range map[BOOT_RANGES];
    uint64_t command_line;
    int r = boot_space_put(space, source->command_line, strlen(source->command_line) + 1,
                           &command_line, err);

    if (r == 0)
        r = put_setup_data(space, params, err);
    if (r < 0)
        return r;
    params->hdr.cmd_line_ptr = (uint32_t)command_line;
    params->hdr.type_of_loader = LOADER_UNKNOWN;
    params->hdr.vid_mode = NORMAL_VIDEO;
    params->acpi_rsdp_addr = source->rsdp;
    params->e820_entries = (uint8_t)boot_memory_map(space->mem, map);
    for (unsigned i = 0; i < params->e820_entries; i++)
        params->e820_table[i] = (struct boot_e820_entry){map[i].start, map[i].size, map[i].type};
    return boot_space_put(space, params, sizeof(*params), gpa, err);
}

/* Writes the kernel; returns its entry point or BOOT_NOWHERE. */
static uint64_t put_kernel(const struct bzimage *bz, const struct boot_source *source,
                           const struct placement *place, struct mem *mem,
                           struct setup_header *header, struct error *err)
{
    if (bz->vmlinux) {
        header->loadflags &= (uint8_t)~KASLR_FLAG;
        if (place->random)
            header->loadflags |= KASLR_FLAG;
        return vmlinux_load(bz->vmlinux, mem, place->start, place->delta, err);
    }
    if (mem_write(mem, place->start, bz->code, bz->code_size) < 0) {
        error_set(err, EFAULT, "%s: cannot write the kernel to guest memory", source->kernel_name);
        return BOOT_NOWHERE;
    }
    if (header->relocatable_kernel)
        header->code32_start = (uint32_t)place->start;
    return is64(bz) ? place->start + ENTRY64 : header->code32_start;
}

static int bz_load(const void *prepared, const struct boot_source *source, struct mem *mem,
                   struct x86_cpu *cpu, struct error *err)
{
    const struct bzimage *bz = prepared;
    struct boot_params params = {.hdr = bz->header};
    struct placement place = default_placement(bz);
    const char *name = source->kernel_name;
    struct boot_space space;
    uint64_t entry, params_gpa;
    int r;

    boot_space_init(&space, mem);
    r = boot_space_check(&space, place.start, place.size, name, "the kernel", err);
    if (r == 0)
        r = put_initrd(&space, bz, source, place.start + place.size, &params, err);
    if (r < 0)
        return r;
    randomize(&place, bz, source, &space);
    r = boot_space_claim(&space, place.start, place.size, name, "the kernel", err);
    if (r < 0)
        return r;
    entry = put_kernel(bz, source, &place, mem, &params.hdr, err);
    if (entry == BOOT_NOWHERE)
        return -EFAULT;
    r = put_params(&space, source, &params, &params_gpa, err);
    if (r == 0)
        r = (is64(bz) ? boot_enter_long64 : boot_enter_flat32)(&space, cpu, entry, err);
    if (r < 0)
        return r;
    cpu->reg[X86_RSI] = params_gpa;
    return 0;
}

static const char *bz_kind(const void *prepared)
{
    const struct bzimage *bz = prepared;

    return is64(bz) ? "Linux bzImage (64-bit)" : "Linux bzImage (32-bit)";
}

const struct boot_format boot_bzimage = {
    .recognize = bz_recognize,
    .prepare = bz_prepare,
    .load = bz_load,
    .kind = bz_kind,
    .free = bz_free,
};
