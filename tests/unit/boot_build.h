/*
 * Kernel images for the boot loaders' tests, built from nothing: packers, a small vmlinux, a
 * bzImage around it, and ELF files. What they return is malloc'd.
 */
#ifndef DOPPEL_TESTS_UNIT_BOOT_BUILD_H
#define DOPPEL_TESTS_UNIT_BOOT_BUILD_H

#include "test.h"

#include "base/util.h"
#include "vm/boot/boot.h"
#include "vm/boot/decompress.h"

#include <asm/bootparam.h>
#include <bzlib.h>
#include <elf.h>
#include <lz4.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

struct blob {
    uint8_t *data;
    size_t size;
};

static inline struct blob blob_zero(size_t size)
{
    return (struct blob){calloc(1, size ? size : 1), size};
}

static inline void blob_put(struct blob *blob, size_t at, const void *data, size_t size)
{
    if (at + size > blob->size) {
        blob->data = realloc(blob->data, at + size);
        memset(blob->data + blob->size, 0, at + size - blob->size);
        blob->size = at + size;
    }
    memcpy(blob->data + at, data, size);
}

static inline void blob_add(struct blob *blob, const void *data, size_t size)
{
    blob_put(blob, blob->size, data, size);
}

static inline void blob_add_be32(struct blob *blob, uint32_t value)
{
    const uint8_t bytes[] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                             (uint8_t)value};

    blob_add(blob, bytes, sizeof(bytes));
}

static inline struct blob pack_gzip(const struct blob *in)
{
    struct blob out = blob_zero(in->size + in->size / 100 + 1024);
    z_stream z = {0};

    deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
    z.next_in = in->data;
    z.avail_in = (uInt)in->size;
    z.next_out = out.data;
    z.avail_out = (uInt)out.size;
    deflate(&z, Z_FINISH);
    out.size = z.total_out;
    deflateEnd(&z);
    return out;
}

static inline struct blob pack_lzma(const struct blob *in, enum compression compression)
{
    struct blob out = blob_zero(lzma_stream_buffer_bound(in->size) + 1024);
    lzma_stream lz = LZMA_STREAM_INIT;
    lzma_options_lzma options;

    lzma_lzma_preset(&options, 6);
    if (compression == COMPRESSION_LZMA)
        (void)!lzma_alone_encoder(&lz, &options);
    else
        (void)!lzma_easy_encoder(&lz, 6, LZMA_CHECK_CRC32);
    lz.next_in = in->data;
    lz.avail_in = in->size;
    lz.next_out = out.data;
    lz.avail_out = out.size;
    while (lzma_code(&lz, LZMA_FINISH) == LZMA_OK)
        ;
    out.size = lz.total_out;
    lzma_end(&lz);
    return out;
}

/* The kernel's form: one legacy frame. */
static inline struct blob pack_lz4(const struct blob *in)
{
    struct blob out = blob_zero(0);
    int bound = LZ4_compressBound((int)in->size);
    char *block = malloc((size_t)bound);
    uint32_t size = (uint32_t)LZ4_compress_default((char *)in->data, block, (int)in->size, bound);

    blob_add(&out, "\x02\x21\x4C\x18", 4);
    blob_add(&out, &size, sizeof(size));
    blob_add(&out, block, size);
    free(block);
    return out;
}

/* What lzop writes: version 1.030, one block with Adler-32 sums, the end. */
static inline struct blob pack_lzo(const struct blob *in)
{
    struct blob out = blob_zero(0);
    uint8_t *work = malloc(LZO1X_1_MEM_COMPRESS);
    uint8_t *block = malloc(in->size + in->size / 16 + 128);
    lzo_uint size = 0;

    lzo_init();
    lzo1x_1_compress(in->data, in->size, block, &size, work);
    blob_add(&out, "\x89LZO\0\r\n\x1A\n", 9);
    blob_add(&out, "\x10\x30\x20\x80\x09\x40\x01\x05", 8);
    blob_add_be32(&out, 0x3);              /* flags: Adler-32 of both sides */
    blob_add(&out, "\0\0\0\0\0\0\0\0", 8); /* mode, time */
    blob_add(&out, "\0\0\0\0\0", 5);       /* time, no name */
    blob_add_be32(&out, adler32(1, out.data + 9, (uInt)(out.size - 9)));
    blob_add_be32(&out, (uint32_t)in->size);
    blob_add_be32(&out, (uint32_t)size);
    blob_add_be32(&out, (uint32_t)adler32(1, in->data, (uInt)in->size));
    blob_add_be32(&out, (uint32_t)adler32(1, block, (uInt)size));
    blob_add(&out, block, size);
    blob_add_be32(&out, 0);
    free(work);
    free(block);
    return out;
}

static inline struct blob pack(enum compression compression, const struct blob *in)
{
    struct blob out;
    unsigned size;

    switch (compression) {
    case COMPRESSION_GZIP: return pack_gzip(in);
    case COMPRESSION_LZMA:
    case COMPRESSION_XZ: return pack_lzma(in, compression);
    case COMPRESSION_LZ4: return pack_lz4(in);
    case COMPRESSION_LZO: return pack_lzo(in);
    case COMPRESSION_BZIP2:
        out = blob_zero(in->size + in->size / 100 + 1024);
        size = (unsigned)out.size;
        BZ2_bzBuffToBuffCompress((char *)out.data, &size, (char *)in->data, (unsigned)in->size, 9,
                                 0, 0);
        out.size = size;
        return out;
    case COMPRESSION_ZSTD: {
        ZSTD_CCtx *context = ZSTD_createCCtx();

        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
        out = blob_zero(ZSTD_compressBound(in->size));
        out.size = ZSTD_compress2(context, out.data, out.size, in->data, in->size);
        ZSTD_freeCCtx(context);
        return out;
    }
    default: break;
    }
    out = blob_zero(0);
    blob_add(&out, in->data, in->size);
    return out;
}

/* An ELF file with one segment of CODE at PADDR and, optionally, a PVH note. */
static inline struct blob build_elf(bool is64, uint64_t vaddr, uint64_t paddr, uint64_t entry,
                                    const struct blob *code, uint64_t memory_size,
                                    const uint32_t *pvh_entry)
{
    const size_t note_at = 0x200, code_at = 0x1000;
    struct blob out = blob_zero(code_at);
    Elf64_Ehdr e64 = {.e_type = ET_EXEC,
                      .e_machine = EM_X86_64,
                      .e_entry = entry,
                      .e_phoff = sizeof(e64),
                      .e_phentsize = sizeof(Elf64_Phdr),
                      .e_phnum = pvh_entry ? 2 : 1};
    Elf32_Ehdr e32 = {.e_type = ET_EXEC,
                      .e_machine = EM_386,
                      .e_entry = (uint32_t)entry,
                      .e_phoff = sizeof(e32),
                      .e_phentsize = sizeof(Elf32_Phdr),
                      .e_phnum = pvh_entry ? 2 : 1};
    Elf64_Phdr p64[2] = {{.p_type = PT_LOAD,
                          .p_offset = code_at,
                          .p_vaddr = vaddr,
                          .p_paddr = paddr,
                          .p_filesz = code->size,
                          .p_memsz = memory_size},
                         {.p_type = PT_NOTE, .p_offset = note_at, .p_filesz = 20, .p_align = 4}};
    Elf32_Phdr p32[2] = {{.p_type = PT_LOAD,
                          .p_offset = code_at,
                          .p_vaddr = (uint32_t)vaddr,
                          .p_paddr = (uint32_t)paddr,
                          .p_filesz = (uint32_t)code->size,
                          .p_memsz = (uint32_t)memory_size},
                         {.p_type = PT_NOTE, .p_offset = note_at, .p_filesz = 20, .p_align = 4}};
    const uint32_t note[] = {4, 4, 18, 0x006E6558 /* "Xen" */, pvh_entry ? *pvh_entry : 0};

    memcpy(e64.e_ident, ELFMAG, SELFMAG);
    e64.e_ident[EI_CLASS] = ELFCLASS64;
    e64.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(e32.e_ident, e64.e_ident, EI_NIDENT);
    e32.e_ident[EI_CLASS] = ELFCLASS32;
    if (is64) {
        blob_put(&out, 0, &e64, sizeof(e64));
        blob_put(&out, sizeof(e64), p64, sizeof(p64));
    } else {
        blob_put(&out, 0, &e32, sizeof(e32));
        blob_put(&out, sizeof(e32), p32, sizeof(p32));
    }
    blob_put(&out, note_at, note, sizeof(note));
    blob_put(&out, code_at, code->data, code->size);
    return out;
}

/* A vmlinux: 8 KiB linked to 16 MiB, with three words to relocate and the table that names them.
 * LISTS: how many lists the table has (0: none). */
#define VMLINUX_BASE   0x1000000ULL
#define VMLINUX_SIZE   0x2000
#define VMLINUX_MAP64  0xFFFFFFFF80000000ULL
#define VMLINUX_MAP32  0xC0000000ULL
#define VMLINUX_ENTRY  0x40
#define VMLINUX_WORD64 0x100
#define VMLINUX_SUB32  0x110
#define VMLINUX_ADD32  0x118
#define VMLINUX_ADDEND 0x200
#define VMLINUX_INIT   0x100000

static inline struct blob build_vmlinux_code(bool is64)
{
    const uint64_t map = is64 ? VMLINUX_MAP64 : VMLINUX_MAP32;
    const uint64_t target = map + VMLINUX_BASE + VMLINUX_ADDEND;
    struct blob code = blob_zero(VMLINUX_SIZE);

    /* Half noise, half repetition, so that packers have something to do. */
    for (size_t i = 0; i < code.size; i++)
        code.data[i] = i % 64 < 32 ? (uint8_t)(i * i * 7919 >> 5) : (uint8_t)(i / 512);
    memcpy(code.data + VMLINUX_WORD64, &target, 8);
    memcpy(code.data + VMLINUX_SUB32, &(uint32_t){0x12345678}, 4);
    memcpy(code.data + VMLINUX_ADD32, &(uint32_t){(uint32_t)target}, 4);
    return code;
}

static inline struct blob build_vmlinux(bool is64, unsigned lists)
{
    const uint64_t map = is64 ? VMLINUX_MAP64 : VMLINUX_MAP32;
    const uint32_t at = (uint32_t)(map + VMLINUX_BASE);
    const uint32_t table1[] = {0, at + VMLINUX_ADD32};
    const uint32_t table2[] = {0, at + VMLINUX_WORD64, 0, at + VMLINUX_ADD32};
    const uint32_t table3[] = {0, at + VMLINUX_WORD64, 0, at + VMLINUX_SUB32,
                               0, at + VMLINUX_ADD32};
    struct blob code = build_vmlinux_code(is64);
    struct blob out = build_elf(is64, map + VMLINUX_BASE, VMLINUX_BASE,
                                VMLINUX_BASE + VMLINUX_ENTRY, &code, code.size + 0x1000, NULL);

    if (lists == 1)
        blob_add(&out, table1, sizeof(table1));
    if (lists == 2)
        blob_add(&out, table2, sizeof(table2));
    if (lists == 3)
        blob_add(&out, table3, sizeof(table3));
    free(code.data);
    return out;
}

/* A bzImage around PAYLOAD, packed by COMPRESSION; UNPACKED is the size word (0: none). The header
 * starts at BZ_HEADER. */
#define BZ_HEADER  0x1F1
#define BZ_SETUP   (3 * 512)
#define BZ_PAYLOAD 0x300

static inline struct setup_header *bz_header(const struct blob *bz)
{
    return (struct setup_header *)(bz->data + BZ_HEADER);
}

static inline struct blob build_bzimage(bool is64, enum compression compression,
                                        const struct blob *vmlinux)
{
    struct blob packed = pack(compression, vmlinux);
    const uint32_t size = (uint32_t)vmlinux->size;
    struct setup_header header = {
        .setup_sects = BZ_SETUP / 512 - 1,
        .boot_flag = 0xAA55,
        .jump = (uint16_t)(0xEB | (sizeof(header) - 0x11) << 8),
        .header = 0x53726448,
        .version = 0x20F,
        .loadflags = LOADED_HIGH,
        .code32_start = 0x100000,
        .initrd_addr_max = 0x7FFFFFFF,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .min_alignment = 21,
        .xloadflags = is64 ? XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G : 0,
        .cmdline_size = 255,
        .payload_offset = BZ_PAYLOAD,
        .pref_address = VMLINUX_BASE,
        .init_size = VMLINUX_INIT,
    };
    struct blob out = blob_zero(BZ_SETUP + BZ_PAYLOAD);

    memset(out.data + BZ_SETUP, 0x90, BZ_PAYLOAD);
    blob_add(&out, packed.data, packed.size);
    if (compression != COMPRESSION_GZIP)
        blob_add(&out, &size, sizeof(size));
    header.payload_length = (uint32_t)(out.size - BZ_SETUP - BZ_PAYLOAD);
    header.syssize = (uint32_t)((out.size - BZ_SETUP + 15) / 16);
    blob_put(&out, BZ_HEADER, &header, sizeof(header));
    free(packed.data);
    return out;
}

static inline struct boot_source source_of(const struct blob *kernel)
{
    return (struct boot_source){
        .kernel = kernel->data,
        .kernel_size = kernel->size,
        .kernel_name = "kernel",
        .initrd_name = "initrd",
        .command_line = "",
        .rsdp = 0xE1230,
    };
}

#endif
