/*
 * The bzImage loader on images built here: what it leaves in memory and registers, and how it
 * refuses what is damaged, hostile or too large.
 */
#include "boot_build.h"

#include <errno.h>

#define MEMORY    (64 * MiB)
#define KASLR_MAX ((1 * GiB - VMLINUX_BASE - VMLINUX_INIT) / (2 * MiB) + 1)

struct loaded {
    struct boot_image *image;
    struct mem *mem;
    struct x86_cpu cpu;
    struct error err;
    int result; /* of prepare or load */
};

static struct loaded load(const struct boot_source *source, uint64_t memory)
{
    struct loaded l = {0};

    l.image = boot_prepare(source, &l.err);
    l.result = l.image ? 0 : -l.err.code;
    if (!l.image)
        return l;
    l.mem = mem_create(memory, &l.err);
    assert_non_null(l.mem);
    x86_cpu_reset(&l.cpu);
    l.result = boot_load(l.image, l.mem, &l.cpu, &l.err);
    return l;
}

static void unload(struct loaded *l)
{
    if (l->mem)
        mem_destroy(l->mem);
    boot_free(l->image);
}

/* Loads, expects failure, and gives the message back. */
static const char *refuse(const struct boot_source *source, uint64_t memory, int code)
{
    static struct loaded l;

    l = load(source, memory);
    assert_int_equal(l.result, -code);
    assert_int_equal(l.err.code, code);
    assert_null(strchr(l.err.text, '\n'));
    unload(&l);
    return l.err.text;
}

#define refuse_with(source, memory, code, words)                                                   \
    assert_non_null(strstr(refuse(source, memory, code), words))

static uint64_t read64(struct mem *mem, uint64_t gpa)
{
    uint64_t value = 0;

    assert_int_equal(mem_read(mem, gpa, &value, sizeof(value)), 0);
    return value;
}

static struct boot_params params_of(struct loaded *l)
{
    struct boot_params params;

    assert_int_equal(mem_read(l->mem, l->cpu.reg[X86_RSI], &params, sizeof(params)), 0);
    return params;
}

/* The physical address of VA by the page tables that CR3 names. */
static uint64_t translate(struct loaded *l, uint64_t va)
{
    uint64_t table = l->cpu.cr3;

    for (unsigned shift = 39;; shift -= 9) {
        uint64_t entry = read64(l->mem, (table & ~0xFFFULL) + (va >> shift & 511) * 8);

        assert_true(entry & 1);
        assert_true(entry & 2);
        if (shift == 12 || entry & 0x80)
            return (entry & ~((1ULL << shift) - 1) & ~(1ULL << 63)) | (va & ((1ULL << shift) - 1));
        table = entry;
    }
}

static void check_segments(struct loaded *l, unsigned code_attr)
{
    /* What GDTR describes is what the hidden parts hold. */
    for (unsigned i = 0; i < X86_SEGMENTS; i++) {
        const struct x86_seg *seg = &l->cpu.seg[i];
        uint64_t descriptor = read64(l->mem, l->cpu.gdtr.base + seg->selector);

        assert_int_equal(seg->selector, i == X86_CS ? 0x10 : 0x18);
        assert_int_equal(seg->attr, i == X86_CS ? code_attr : 0xC093);
        assert_int_equal(seg->attr, descriptor >> 40 & 0xF0FF);
        assert_int_equal(seg->base, 0);
        assert_int_equal(seg->limit, UINT32_MAX);
        assert_true(seg->selector + 7 <= l->cpu.gdtr.limit);
    }
    assert_false(l->cpu.rflags & X86_FLAG_IF);
}

static void check_words(struct mem *mem, uint64_t base, bool is64, uint64_t delta, bool inverse)
{
    uint64_t target = (is64 ? VMLINUX_MAP64 : VMLINUX_MAP32) + VMLINUX_BASE + VMLINUX_ADDEND;

    assert_int_equal((uint32_t)read64(mem, base + VMLINUX_ADD32), (uint32_t)(target + delta));
    if (!is64)
        return;
    assert_int_equal(read64(mem, base + VMLINUX_WORD64), target + delta);
    assert_int_equal((uint32_t)read64(mem, base + VMLINUX_SUB32),
                     0x12345678 - (inverse ? (uint32_t)delta : 0));
}

static void test_unpacked(void **unused)
{
    static const enum compression all[] = {
        COMPRESSION_GZIP, COMPRESSION_BZIP2, COMPRESSION_LZMA, COMPRESSION_XZ,
        COMPRESSION_LZO,  COMPRESSION_LZ4,   COMPRESSION_ZSTD,
    };

    for (unsigned i = 0; i < 2 * ARRAY_SIZE(all); i++) {
        bool is64 = i % 2;
        struct blob vmlinux = build_vmlinux(is64, is64 ? 3 : 1), code = build_vmlinux_code(is64);
        struct blob bz = build_bzimage(is64, all[i / 2], &vmlinux);
        struct boot_source source = source_of(&bz);
        struct loaded l = load(&source, MEMORY);
        uint8_t *got = malloc(code.size);

        assert_string_equal(l.err.text, "");
        assert_int_equal(l.result, 0);
        assert_string_equal(boot_kind(l.image),
                            is64 ? "Linux bzImage (64-bit)" : "Linux bzImage (32-bit)");
        assert_int_equal(mem_read(l.mem, VMLINUX_BASE, got, code.size), 0);
        assert_memory_equal(got, code.data, code.size);
        assert_int_equal(l.cpu.reg[X86_RIP], VMLINUX_BASE + VMLINUX_ENTRY);
        assert_int_equal(params_of(&l).hdr.loadflags, LOADED_HIGH);
        free(got);
        unload(&l);
        free(bz.data);
        free(code.data);
        free(vmlinux.data);
    }
}

static void test_entry_state(void **unused)
{
    for (unsigned is64 = 0; is64 < 2; is64++) {
        struct blob vmlinux = build_vmlinux(is64, 0);
        struct blob bz = build_bzimage(is64, COMPRESSION_ZSTD, &vmlinux);
        struct boot_source source = source_of(&bz);
        struct loaded l = load(&source, MEMORY);

        assert_int_equal(l.result, 0);
        check_segments(&l, is64 ? 0xA09B : 0xC09B);
        if (is64) {
            assert_int_equal(l.cpu.cr0, X86_CR0_PG | X86_CR0_PE | X86_CR0_ET);
            assert_int_equal(l.cpu.cr4, X86_CR4_PAE);
            assert_int_equal(l.cpu.efer, X86_EFER_LME | X86_EFER_LMA);
            assert_int_equal(translate(&l, VMLINUX_BASE + 0x1234), VMLINUX_BASE + 0x1234);
            assert_int_equal(translate(&l, l.cpu.reg[X86_RSI]), l.cpu.reg[X86_RSI]);
            assert_int_equal(translate(&l, 0xFFFFFFFF), 0xFFFFFFFF);
        } else {
            assert_int_equal(l.cpu.cr0, X86_CR0_PE | X86_CR0_ET);
            assert_int_equal(l.cpu.reg[X86_RBP] | l.cpu.reg[X86_RDI] | l.cpu.reg[X86_RBX], 0);
        }
        unload(&l);
        free(bz.data);
        free(vmlinux.data);
    }
}

static void test_params(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 3), initrd = blob_zero(0);
    struct blob bz = build_bzimage(true, COMPRESSION_GZIP, &vmlinux);
    struct boot_source source = source_of(&bz);
    struct boot_params params;
    struct loaded l;
    char text[32] = {0};
    struct setup_data data;
    uint8_t seed[32] = {0}, zero[32] = {0};
    uint16_t ebda;

    blob_add(&initrd, "070701", 7);
    source.initrd = initrd.data;
    source.initrd_size = initrd.size;
    source.command_line = "console=ttyS0 quiet";
    l = load(&source, 5 * GiB);
    assert_int_equal(l.result, 0);
    params = params_of(&l);
    assert_int_equal(params.hdr.type_of_loader, 0xFF);
    assert_int_equal(params.sentinel, 0);
    assert_int_equal(params.acpi_rsdp_addr, source.rsdp);
    mem_read(l.mem, params.hdr.cmd_line_ptr, text, sizeof(text) - 1);
    assert_string_equal(text, source.command_line);

    /* As high as the kernel can take it, on a page of its own. */
    assert_int_equal(params.hdr.ramdisk_image, 0x80000000 - 0x1000);
    assert_int_equal(params.hdr.ramdisk_size, initrd.size);
    mem_read(l.mem, params.hdr.ramdisk_image, text, initrd.size);
    assert_memory_equal(text, initrd.data, initrd.size);

    assert_int_equal(params.e820_entries, 5);
    assert_int_equal(params.e820_table[0].addr, 0);
    assert_int_equal(params.e820_table[0].size, BOOT_EBDA_START);
    assert_int_equal(params.e820_table[0].type, 1);
    assert_int_equal(params.e820_table[2].addr, BOOT_TABLES_START);
    assert_int_equal(params.e820_table[2].type, 2);
    assert_int_equal(params.e820_table[3].size, MEM_HOLE_START - 1 * MiB);
    assert_int_equal(params.e820_table[4].addr, 4 * GiB);
    assert_int_equal(params.e820_table[4].size, 2 * GiB);

    mem_read(l.mem, params.hdr.setup_data, &data, sizeof(data));
    assert_int_equal(data.next, 0);
    assert_int_equal(data.type, SETUP_RNG_SEED);
    assert_int_equal(data.len, sizeof(seed));
    mem_read(l.mem, params.hdr.setup_data + sizeof(data), seed, sizeof(seed));
    assert_memory_not_equal(seed, zero, sizeof(seed));

    mem_read(l.mem, 0x40E, &ebda, sizeof(ebda));
    assert_int_equal(ebda << 4, BOOT_EBDA_START);
    unload(&l);
    free(bz.data);
    free(initrd.data);
    free(vmlinux.data);
}

/* No two things that were loaded may share a byte, and all below 1 MiB is below the EBDA. */
static void test_low_memory(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 0);
    struct blob bz = build_bzimage(true, COMPRESSION_GZIP, &vmlinux);
    struct boot_source source = source_of(&bz);
    struct loaded l = load(&source, MEMORY);
    struct boot_params params = params_of(&l);
    const struct {
        uint64_t start, size;
    } part[] = {
        {0, 0x1000},
        {l.cpu.cr3, 6 * 4096},
        {l.cpu.gdtr.base, l.cpu.gdtr.limit + 1},
        {l.cpu.reg[X86_RSI], sizeof(params)},
        {params.hdr.cmd_line_ptr, 1},
        {params.hdr.setup_data, sizeof(struct setup_data) + 32},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(part); i++) {
        assert_true(part[i].start + part[i].size <= BOOT_EBDA_START);
        for (unsigned j = 0; j < i; j++)
            assert_true(part[i].start >= part[j].start + part[j].size ||
                        part[j].start >= part[i].start + part[i].size);
    }
    unload(&l);
    free(bz.data);
    free(vmlinux.data);
}

static void test_own_decompressor(void **unused)
{
    for (unsigned i = 0; i < 4; i++) {
        bool is64 = i & 1, relocatable = i & 2;
        struct blob vmlinux = build_vmlinux(is64, 0);
        struct blob bz = build_bzimage(is64, COMPRESSION_GZIP, &vmlinux);
        struct boot_source source = source_of(&bz);
        uint64_t base = relocatable ? VMLINUX_BASE : 1 * MiB;
        struct loaded l;

        bz_header(&bz)->relocatable_kernel = relocatable;
        source.no_host_decompress = true;
        l = load(&source, MEMORY);
        assert_int_equal(l.result, 0);
        assert_int_equal(read64(l.mem, base), 0x9090909090909090);
        assert_int_equal(l.cpu.reg[X86_RIP], base + (is64 ? 0x200 : 0));
        assert_int_equal(params_of(&l).hdr.code32_start, base);
        unload(&l);
        free(bz.data);
        free(vmlinux.data);
    }
}

/* A payload that is no known kernel is the decompressor's business. */
static void test_not_understood(void **unused)
{
    struct blob noise = blob_zero(0x3000), elf = build_vmlinux(false, 1);
    struct blob foreign = build_vmlinux(true, 3);
    const struct {
        enum compression compression;
        const struct blob *payload;
    } kinds[] = {
        {COMPRESSION_NONE, &noise},   /* unknown packing */
        {COMPRESSION_GZIP, &noise},   /* no ELF file in it */
        {COMPRESSION_GZIP, &elf},     /* a 32-bit one in a 64-bit bzImage */
        {COMPRESSION_GZIP, &foreign}, /* a relocation table that is not understood */
    };

    foreign.data[foreign.size - 24] = 1;
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct blob bz = build_bzimage(true, kinds[i].compression, kinds[i].payload);
        struct boot_source source = source_of(&bz);
        struct loaded l = load(&source, MEMORY);

        assert_int_equal(l.result, 0);
        assert_int_equal(l.cpu.reg[X86_RIP], VMLINUX_BASE + 0x200);
        unload(&l);
        free(bz.data);
    }
    free(noise.data);
    free(elf.data);
    free(foreign.data);
}

static void test_kaslr64(void **unused)
{
    for (unsigned lists = 2; lists <= 3; lists++) {
        struct blob vmlinux = build_vmlinux(true, lists);
        struct blob bz = build_bzimage(true, COMPRESSION_XZ, &vmlinux);
        struct boot_source source = source_of(&bz);
        struct loaded l;

        for (unsigned i = 0; i < 3; i++) {
            const uint64_t seeds[] = {5, KASLR_MAX - 1, KASLR_MAX + 7};
            const uint64_t slots[] = {5, KASLR_MAX - 1, 7};

            source.kaslr_seed = seeds[i];
            l = load(&source, MEMORY);
            assert_int_equal(l.result, 0);
            check_words(l.mem, VMLINUX_BASE, true, slots[i] * 2 * MiB, lists == 3);
            assert_int_equal(l.cpu.reg[X86_RIP], VMLINUX_BASE + VMLINUX_ENTRY);
            assert_true(params_of(&l).hdr.loadflags & KASLR_FLAG);
            unload(&l);
        }
        source.command_line = "quiet\tnokaslr";
        l = load(&source, MEMORY);
        check_words(l.mem, VMLINUX_BASE, true, 0, lists == 3);
        assert_false(params_of(&l).hdr.loadflags & KASLR_FLAG);
        unload(&l);
        source.command_line = "nokaslrx xnokaslr";
        l = load(&source, MEMORY);
        assert_true(params_of(&l).hdr.loadflags & KASLR_FLAG);
        unload(&l);
        bz_header(&bz)->relocatable_kernel = 0;
        l = load(&source, MEMORY);
        check_words(l.mem, VMLINUX_BASE, true, 0, lists == 3);
        unload(&l);
        free(bz.data);
        free(vmlinux.data);
    }
}

/* A 32-bit kernel moves physically: into free memory, below the initrd. */
static void test_kaslr32(void **unused)
{
    struct blob vmlinux = build_vmlinux(false, 1), initrd = blob_zero(8 * MiB);
    struct blob bz = build_bzimage(false, COMPRESSION_GZIP, &vmlinux);
    struct boot_source source = source_of(&bz);
    /* From 16 MiB to 56 MiB there are 20 places of 2 MiB. */
    const unsigned places = 20;

    source.initrd = initrd.data;
    source.initrd_size = initrd.size;
    for (uint64_t seed = 1; seed <= 2 * places; seed += 3) {
        struct loaded l;
        uint64_t base = VMLINUX_BASE + seed % places * 2 * MiB;

        source.kaslr_seed = seed;
        l = load(&source, MEMORY);
        assert_int_equal(l.result, 0);
        assert_int_equal(l.cpu.reg[X86_RIP], base + VMLINUX_ENTRY);
        check_words(l.mem, base, false, base - VMLINUX_BASE, false);
        unload(&l);
    }
    free(bz.data);
    free(initrd.data);
    free(vmlinux.data);
}

static void test_reload(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 3);
    struct blob bz = build_bzimage(true, COMPRESSION_GZIP, &vmlinux);
    struct boot_source source = source_of(&bz);
    struct loaded l;

    source.kaslr_seed = 9;
    l = load(&source, MEMORY);
    mem_clear(l.mem, NULL);
    x86_cpu_reset(&l.cpu);
    assert_int_equal(boot_load(l.image, l.mem, &l.cpu, &l.err), 0);
    check_words(l.mem, VMLINUX_BASE, true, 9 * 2 * MiB, true);
    unload(&l);
    free(bz.data);
    free(vmlinux.data);
}

static void test_too_large(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 3), initrd = blob_zero(48 * MiB);
    struct blob bz = build_bzimage(true, COMPRESSION_GZIP, &vmlinux);
    struct boot_source source = source_of(&bz);
    struct boot_params params;
    struct loaded l;

    refuse_with(&source, 16 * MiB, ENOMEM, "kernel: the kernel ends at 17 MiB");
    refuse_with(&source, 1 * MiB, ENOMEM, "at least 17 MiB");
    source.initrd = initrd.data;
    source.initrd_size = initrd.size;
    refuse_with(&source, MEMORY, ENOMEM, "initrd: the initrd (48 MiB) is too large for memory");
    /* What the message asks for is enough. */
    refuse_with(&source, MEMORY, ENOMEM, "at least 66 MiB");
    l = load(&source, 66 * MiB);
    assert_int_equal(l.result, 0);
    unload(&l);

    /* Above 4 GiB when it may not lie where there is room below. */
    bz_header(&bz)->initrd_addr_max = 32 * MiB - 1;
    refuse_with(&source, 1 * GiB, EFBIG, "only below 32 MiB");
    l = load(&source, 5 * GiB);
    assert_int_equal(l.result, 0);
    params = params_of(&l);
    assert_int_equal((uint64_t)params.ext_ramdisk_image << 32 | params.hdr.ramdisk_image,
                     6 * GiB - 48 * MiB);
    unload(&l);
    bz_header(&bz)->xloadflags = XLF_KERNEL_64;
    refuse_with(&source, 5 * GiB, EFBIG, "only below 32 MiB");
    free(bz.data);
    free(initrd.data);
    free(vmlinux.data);
}

static void count_progress(void *opaque, const char *what, int percent)
{
    ++*(unsigned *)opaque;
}

static void refuse_in(struct boot_source *source, int code, const char *words)
{
    unsigned unpacked = 0;
    struct error err = {0};

    source->progress = count_progress;
    source->progress_opaque = &unpacked;
    source->mem = mem_create(16 * MiB, &err);
    assert_null(boot_prepare(source, &err));
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.text, words));
    assert_int_equal(unpacked, 0);
    mem_destroy(source->mem);
    source->progress = NULL;
}

/* A small file that grows: what cannot fit in the machine's memory is not unpacked at all, or no
 * further than that. */
static void test_bomb(void **unused)
{
    struct blob zero = blob_zero(48 * MiB);
    struct blob bz = build_bzimage(true, COMPRESSION_GZIP, &zero);
    struct blob wrapped = pack_gzip(&zero);
    struct boot_source source = source_of(&bz);

    bz_header(&bz)->init_size = 1 * GiB;
    refuse_in(&source, ENOMEM, "at least 1040 MiB");
    bz_header(&bz)->pref_address = 1 * MiB;
    bz_header(&bz)->init_size = 8 * MiB; /* it fits, but what is in it does not */
    source.mem = mem_create(16 * MiB, NULL);
    refuse_with(&source, 16 * MiB, EBADMSG, "more than its header allows");
    mem_destroy(source.mem);
    source = source_of(&wrapped);
    refuse_in(&source, EFBIG, "larger than the machine's memory (16 MiB)");
    free(wrapped.data);
    free(bz.data);
    free(zero.data);
}

static void test_command_line(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 3);
    struct blob bz = build_bzimage(true, COMPRESSION_GZIP, &vmlinux);
    struct boot_source source = source_of(&bz);
    char text[257] = {0};
    struct loaded l;

    memset(text, 'x', 255);
    source.command_line = text;
    l = load(&source, MEMORY);
    assert_int_equal(l.result, 0);
    unload(&l);
    text[255] = 'x';
    refuse_with(&source, MEMORY, E2BIG, "256 characters");
    free(bz.data);
    free(vmlinux.data);
}

static void test_truncated(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 3);
    struct blob bz = build_bzimage(true, COMPRESSION_GZIP, &vmlinux);

    for (size_t size = 0; size < bz.size - 16; size += 37) {
        struct blob part = blob_zero(0);
        struct boot_source source;
        const char *text;

        blob_add(&part, bz.data, size);
        source = source_of(&part);
        text = refuse(&source, MEMORY, size < 0x208 ? ENOEXEC : EBADMSG);
        assert_non_null(strstr(text, "truncated"));
        free(part.data);
    }
    free(bz.data);
    free(vmlinux.data);
}

static void test_corrupted_payload(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 3);
    struct blob bz = build_bzimage(true, COMPRESSION_ZSTD, &vmlinux);
    struct boot_source source = source_of(&bz);
    size_t start = BZ_SETUP + BZ_PAYLOAD;

    /* From behind the magic, by which the packing is known. */
    for (size_t at = start + 4; at < bz.size; at += 11) {
        bz.data[at] ^= 0x40;
        refuse_with(&source, MEMORY, EBADMSG, "corrupted");
        bz.data[at] ^= 0x40;
    }
    free(bz.data);
    free(vmlinux.data);
}

/* The image's own CRC-32 covers what LZ4 does not check, also after signing. */
static void test_crc(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 3);
    struct blob bz = build_bzimage(true, COMPRESSION_LZ4, &vmlinux);
    struct boot_source source;
    struct loaded l;
    uint32_t crc;

    blob_put(&bz, 0x400, "6.1.0-test (x)", 15);
    blob_put(&bz, 0x3C, &(uint32_t){0x80}, 4);
    blob_put(&bz, 0x80, "PE\0\0", 4);
    blob_put(&bz, 0x98, "\x0B\x02", 2);
    bz_header(&bz)->kernel_version = 0x200;
    while (bz.size % 16 != 12)
        blob_add(&bz, "", 1);
    bz_header(&bz)->syssize = (uint32_t)((bz.size + 4 - BZ_SETUP) / 16);
    crc = (uint32_t)crc32(0, bz.data, (uInt)bz.size) ^ UINT32_MAX;
    blob_add(&bz, &crc, sizeof(crc));

    /* Signing: checksum, place and size of the certificates, and the certificates behind. */
    blob_put(&bz, 0xD8, "\x12\x34\x56\x78", 4);
    blob_put(&bz, 0x128, "\1\2\3\4\5\6\7\0", 8);
    blob_add(&bz, "certificates", 12);
    source = source_of(&bz);
    l = load(&source, MEMORY);
    assert_string_equal(l.err.text, "");
    assert_int_equal(l.result, 0);
    unload(&l);

    bz.data[BZ_SETUP + BZ_PAYLOAD + 0x800] ^= 1;
    refuse_with(&source, MEMORY, EBADMSG, "checksum");
    /* Since 6.15 there is no CRC. */
    blob_put(&bz, 0x400, "6.15", 4);
    bz.data[BZ_SETUP + BZ_PAYLOAD + 0x800] ^= 1;
    l = load(&source, MEMORY);
    assert_int_equal(l.result, 0);
    unload(&l);
    free(bz.data);
    free(vmlinux.data);
}

static void test_hostile_headers(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 3);
    struct blob bz = build_bzimage(true, COMPRESSION_GZIP, &vmlinux);
    struct boot_source source = source_of(&bz);
    struct setup_header *header = bz_header(&bz), good = *header;

#define REFUSE(code, words, change)                                                                \
    do {                                                                                           \
        *header = good;                                                                            \
        change;                                                                                    \
        refuse_with(&source, MEMORY, code, words);                                                 \
    } while (0)
    REFUSE(ENOTSUP, "too old", header->version = 0x209);
    REFUSE(ENOTSUP, "zImage", header->loadflags = 0);
    REFUSE(EBADMSG, "shorter", header->syssize = UINT32_MAX);
    REFUSE(EBADMSG, "shorter", header->setup_sects = 255);
    REFUSE(EBADMSG, "no code", header->syssize = 0x20);
    REFUSE(EBADMSG, "payload", header->payload_offset = UINT32_MAX);
    REFUSE(EBADMSG, "payload", header->payload_length = UINT32_MAX - BZ_PAYLOAD + 1);
    REFUSE(EBADMSG, "header", header->kernel_alignment = 0);
    REFUSE(EBADMSG, "header", header->kernel_alignment = 3 << 20);
    REFUSE(EBADMSG, "header", header->pref_address = 0x1000);
    REFUSE(EBADMSG, "header", header->pref_address = UINT64_MAX - 0xFFF);
    /* Unpacked it is larger than the memory it asks for. */
    REFUSE(EBADMSG, "more than its header", header->init_size = 0x1000);
    REFUSE(EFBIG, "no RAM", header->init_size = 0xFFFFFFFF);
    REFUSE(E2BIG, "command line", (header->cmdline_size = 0, source.command_line = "x"));
#undef REFUSE
    free(bz.data);
    free(vmlinux.data);
}

/* An image without that CRC, by whatever tool, loads if its payload has a checksum of its own. */
static void test_no_crc(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 3);
    struct blob bz = build_bzimage(true, COMPRESSION_ZSTD, &vmlinux);
    struct boot_source source = source_of(&bz);
    struct loaded l;

    blob_put(&bz, 0x400, "6.1.0", 6);
    bz_header(&bz)->kernel_version = 0x200;
    l = load(&source, MEMORY);
    assert_int_equal(l.result, 0);
    unload(&l);
    free(bz.data);
    free(vmlinux.data);
}

/* Whatever the header says, loading ends with an error or in a state that holds together. */
static void test_random_headers(void **unused)
{
    struct blob vmlinux = build_vmlinux(true, 3);
    struct blob bz = build_bzimage(true, COMPRESSION_LZ4, &vmlinux);
    struct setup_header good = *bz_header(&bz);
    struct boot_source source = source_of(&bz);
    uint32_t random = 12345;
    unsigned loaded = 0, refused = 0;

    source.kaslr_seed = 77;
    for (unsigned i = 0; i < 3000; i++) {
        struct loaded l;

        *bz_header(&bz) = good;
        for (unsigned n = 0; n < 3; n++) {
            random = random * 1664525 + 1013904223;
            bz.data[BZ_HEADER + (random >> 8) % sizeof(good)] = (uint8_t)(random >> 24);
        }
        l = load(&source, 32 * MiB);
        if (l.result == 0) {
            loaded++;
            params_of(&l);
            assert_true(mem_is_ram(l.mem, l.cpu.gdtr.base, l.cpu.gdtr.limit + 1));
        } else {
            refused++;
            assert_int_not_equal(l.err.text[0], '\0');
        }
        unload(&l);
    }
    assert_true(loaded > 100);
    assert_true(refused > 100);
    free(bz.data);
    free(vmlinux.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unpacked),
        cmocka_unit_test(test_entry_state),
        cmocka_unit_test(test_params),
        cmocka_unit_test(test_low_memory),
        cmocka_unit_test(test_own_decompressor),
        cmocka_unit_test(test_not_understood),
        cmocka_unit_test(test_kaslr64),
        cmocka_unit_test(test_kaslr32),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_command_line),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_corrupted_payload),
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_no_crc),
        cmocka_unit_test(test_hostile_headers),
        cmocka_unit_test(test_random_headers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
