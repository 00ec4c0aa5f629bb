/*
 * The ELF loaders: PVH and Multiboot 1, on files built here.
 */
#include "boot_build.h"

#include <errno.h>

#define MEMORY (16 * MiB)
#define BASE   0x200000

static struct boot_image *image;
static struct mem *mem;
static struct x86_cpu cpu;
static struct error err;

static int load(const struct boot_source *source)
{
    err = (struct error){0};
    image = boot_prepare(source, &err);
    mem = image ? mem_create(MEMORY, &err) : NULL;
    x86_cpu_reset(&cpu);
    return image ? boot_load(image, mem, &cpu, &err) : -err.code;
}

static void unload(void)
{
    if (mem)
        mem_destroy(mem);
    boot_free(image);
}

#define refuse_with(source, code, words)                                                           \
    do {                                                                                           \
        assert_int_equal(load(source), -(code));                                                   \
        assert_non_null(strstr(err.text, words));                                                  \
        unload();                                                                                  \
    } while (0)

static uint32_t read32(uint64_t gpa)
{
    uint32_t value = 0;

    assert_int_equal(mem_read(mem, gpa, &value, sizeof(value)), 0);
    return value;
}

static uint64_t read64(uint64_t gpa)
{
    return read32(gpa) | (uint64_t)read32(gpa + 4) << 32;
}

static const char *read_text(uint64_t gpa)
{
    static char text[64];

    assert_int_equal(mem_read(mem, gpa, text, sizeof(text) - 1), 0);
    return text;
}

static struct blob build_code(void)
{
    struct blob code = blob_zero(0x1800);

    for (size_t i = 0; i < code.size; i++)
        code.data[i] = (uint8_t)(i * 31 + (i >> 8));
    return code;
}

static void check_code(uint64_t gpa, const struct blob *code)
{
    uint8_t *got = malloc(code->size);

    assert_int_equal(mem_read(mem, gpa, got, code->size), 0);
    assert_memory_equal(got, code->data, code->size);
    free(got);
}

static void check_flat32(uint64_t entry)
{
    assert_int_equal(cpu.reg[X86_RIP], entry);
    assert_int_equal(cpu.cr0, X86_CR0_PE | X86_CR0_ET);
    assert_int_equal(cpu.cr4 | cpu.efer, 0);
    assert_int_equal(cpu.seg[X86_CS].attr, 0xC09B);
    assert_int_equal(cpu.seg[X86_SS].attr, 0xC093);
    assert_int_equal(cpu.seg[X86_DS].limit, UINT32_MAX);
    assert_int_equal(cpu.rflags, X86_FLAG_ONE);
}

static void test_pvh(void **unused)
{
    const uint32_t entry = BASE + 0x80;
    struct blob code = build_code();
    const uint8_t initrd[] = "an initrd";

    for (unsigned is64 = 0; is64 < 2; is64++) {
        struct blob elf = build_elf(is64, BASE, BASE, BASE, &code, code.size + 0x100, &entry);
        struct boot_source source = source_of(&elf);
        uint64_t info, module;

        source.initrd = initrd;
        source.initrd_size = sizeof(initrd);
        source.command_line = "hello";
        assert_int_equal(load(&source), 0);
        assert_string_equal(boot_kind(image),
                            is64 ? "ELF with PVH entry (64-bit)" : "ELF with PVH entry (32-bit)");
        check_flat32(entry);
        check_code(BASE, &code);
        info = cpu.reg[X86_RBX];
        assert_int_equal(read32(info), 0x336EC578);
        assert_int_equal(read32(info + 4), 1);
        assert_int_equal(read32(info + 12), 1);
        module = read64(info + 16);
        assert_string_equal(read_text(read64(module)), "an initrd");
        assert_int_equal(read64(module + 8), sizeof(initrd));
        assert_string_equal(read_text(read64(info + 24)), "hello");
        assert_int_equal(read64(info + 32), source.rsdp);
        assert_int_equal(read32(info + 48), 4);
        assert_int_equal(read64(read64(info + 40) + 3 * 24), 1 * MiB);
        assert_int_equal(read64(read64(info + 40) + 3 * 24 + 8), MEMORY - 1 * MiB);
        unload();
        free(elf.data);
    }
    free(code.data);
}

/* Class 32 with machine x86-64, as test suites link their 64-bit kernels; the reverse is not a
 * thing. */
static void test_pvh_class32(void **unused)
{
    const uint32_t entry = BASE + 0x80;
    struct blob code = build_code();
    struct blob elf = build_elf(false, BASE, BASE, BASE, &code, code.size, &entry);
    struct boot_source source = source_of(&elf);
    Elf32_Ehdr *header = (Elf32_Ehdr *)elf.data;
    struct blob elf64 = build_elf(true, BASE, BASE, BASE, &code, code.size, &entry);
    struct boot_source source64 = source_of(&elf64);

    header->e_machine = EM_X86_64;
    assert_int_equal(load(&source), 0);
    check_flat32(entry);
    check_code(BASE, &code);
    unload();
    header->e_machine = EM_ARM;
    refuse_with(&source, ENOEXEC, "not a kernel");
    ((Elf64_Ehdr *)elf64.data)->e_machine = EM_386;
    refuse_with(&source64, ENOEXEC, "not a kernel");
    free(elf.data);
    free(elf64.data);
    free(code.data);
}

static void test_pvh_refused(void **unused)
{
    const uint32_t entry = BASE, outside = BASE + 0x1800;
    struct blob code = build_code();
    struct blob elf = build_elf(true, BASE, BASE, BASE, &code, code.size, &entry);
    struct boot_source source = source_of(&elf);
    Elf64_Ehdr *header = (Elf64_Ehdr *)elf.data;
    Elf64_Phdr *segment = (Elf64_Phdr *)(elf.data + sizeof(*header)), good = *segment;
    uint8_t *note = elf.data + 0x200;
    uint8_t initrd[1] = {0};

    for (size_t size = 0; size < elf.size; size += 61) {
        struct blob part = blob_zero(0);

        blob_add(&part, elf.data, size);
        source = source_of(&part);
        refuse_with(&source, size < sizeof(Elf64_Ehdr) ? ENOEXEC : EBADMSG, "truncated");
        free(part.data);
    }
    source = source_of(&elf);

#define REFUSE(code, words, change)                                                                \
    do {                                                                                           \
        *segment = good;                                                                           \
        change;                                                                                    \
        refuse_with(&source, code, words);                                                         \
    } while (0)
    REFUSE(EBADMSG, "beyond the end", segment->p_offset = UINT64_MAX);
    REFUSE(EBADMSG, "impossible size", segment->p_memsz = 0x100);
    REFUSE(EBADMSG, "impossible size", segment->p_paddr = UINT64_MAX - 0x1000);
    REFUSE(ENOMEM, "at least 1025 MiB", segment->p_memsz = 1023 * MiB);
    REFUSE(EFBIG, "no RAM", segment->p_memsz = UINT64_MAX / 2);
    *segment = good;
    memcpy(note + 16, &outside, 4);
    refuse_with(&source, EBADMSG, "outside the kernel");
    memcpy(note + 16, &entry, 4);
    /* In the firmware's tables, the VGA window, or the first page. */
    for (uint64_t at = 0x9F000; at <= 0xFF000; at += 0x10000) {
        segment->p_paddr = at;
        memcpy(note + 16, &segment->p_paddr, 4);
        refuse_with(&source, EFBIG, "no RAM");
    }
    memcpy(note + 16, &entry, 4);
    *segment = good;
    source.initrd = initrd;
    source.initrd_size = 64 * MiB;
    refuse_with(&source, ENOMEM, "initrd: the initrd (64 MiB) is too large for memory");
    source.initrd = NULL;
    note[8] = 17;
    refuse_with(&source, ENOEXEC, "neither a PVH entry note nor");
    header->e_machine = EM_AARCH64;
    refuse_with(&source, ENOEXEC, "not a kernel");
#undef REFUSE
    free(elf.data);
    free(code.data);
}

/* Two segments in one place. */
static void test_overlap(void **unused)
{
    const uint32_t entry = BASE;
    struct blob code = build_code();
    struct blob elf = build_elf(false, BASE, BASE, BASE, &code, code.size, &entry);
    struct boot_source source = source_of(&elf);
    Elf32_Ehdr *header = (Elf32_Ehdr *)elf.data;
    Elf32_Phdr *segment = (Elf32_Phdr *)(elf.data + sizeof(*header));

    header->e_phnum = 3;
    segment[2] = segment[0];
    segment[2].p_paddr += 0x17FF;
    refuse_with(&source, EINVAL, "overlaps");
    segment[2].p_paddr += 1;
    assert_int_equal(load(&source), 0);
    unload();
    free(elf.data);
    free(code.data);
}

/* Puts a Multiboot header into CODE at AT. */
static void put_header(struct blob *code, size_t at, uint32_t flags)
{
    const uint32_t header[] = {0x1BADB002, flags, -(0x1BADB002 + flags)};

    blob_put(code, at, header, sizeof(header));
}

static void check_multiboot(const struct boot_source *source, uint64_t entry)
{
    uint64_t info, map, module;

    assert_int_equal(load(source), 0);
    assert_string_equal(boot_kind(image), "Multiboot 1 kernel");
    check_flat32(entry);
    assert_int_equal(cpu.reg[X86_RAX], 0x2BADB002);
    info = cpu.reg[X86_RBX];
    assert_int_equal(read32(info), 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
    assert_int_equal(read32(info + 4), 639);
    assert_int_equal(read32(info + 8), (MEMORY - 1 * MiB) / KiB);
    assert_string_equal(read_text(read32(info + 16)), "console=com0");
    assert_int_equal(read32(info + 20), 1);
    module = read32(info + 24);
    assert_int_equal(read32(module) % 4096, 0);
    assert_true(read32(module) >= BASE + 0x1900);
    assert_int_equal(read32(module + 4) - read32(module), 6);
    assert_string_equal(read_text(read32(module)), "hello");
    assert_string_equal(read_text(read32(module + 8)), "initrd");
    assert_int_equal(read32(info + 44), 4 * 24);
    map = read32(info + 48);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(read32(map + i * 24), 20);
    assert_int_equal(read64(map + 4), 0);
    assert_int_equal(read64(map + 12), BOOT_EBDA_START);
    assert_int_equal(read32(map + 20), 1);
    assert_string_equal(read_text(read32(info + 64)), "doppel");
}

static void test_multiboot(void **unused)
{
    struct blob code = build_code(), elf, packed;
    struct boot_source source;

    put_header(&code, 0x10, 3);
    for (unsigned i = 0; i < 8; i++) {
        bool high = i & 1, gzip = i & 2, is64 = i & 4;
        /* A kernel for high memory gives its entry point as a virtual address. */
        uint64_t vaddr = BASE + (high ? 0xC0000000 : 0);

        elf = build_elf(is64, vaddr, BASE, vaddr + 0x40, &code, code.size + 0x100, NULL);
        packed = pack(gzip ? COMPRESSION_GZIP : COMPRESSION_NONE, &elf);
        source = source_of(&packed);
        source.command_line = "console=com0";
        source.initrd = (const uint8_t *)"hello";
        source.initrd_size = 6;
        check_multiboot(&source, BASE + 0x40);
        check_code(BASE, &code);
        unload();
        if (gzip) {
            packed.data[packed.size / 2] ^= 1;
            refuse_with(&source, EBADMSG, "kernel: the gzip data is corrupted");
        }
        free(packed.data);
        free(elf.data);
    }
    free(code.data);
}

/* The header's address fields rule, whatever the file is. */
static void test_multiboot_addresses(void **unused)
{
    struct blob code = build_code();
    uint32_t address[] = {BASE + 0x20, BASE, BASE + 0x1000, BASE + 0x1900, BASE + 0x44};
    struct boot_source source;

    memset(code.data, 0xCC, 0x100);
    put_header(&code, 0x120, 1u << 16);
    blob_put(&code, 0x120 + 12, address, sizeof(address));
    source = source_of(&code);
    source.command_line = "console=com0";
    source.initrd = (const uint8_t *)"hello";
    source.initrd_size = 6;
    check_multiboot(&source, BASE + 0x44);
    assert_int_equal(read32(BASE + 0x20), 0x1BADB002);
    assert_int_equal(read32(BASE + 0xFFC), *(uint32_t *)(code.data + 0x10FC));
    assert_int_equal(read32(BASE + 0x1000), 0); /* load_end_addr */
    unload();

#define REFUSE(field, value)                                                                       \
    do {                                                                                           \
        uint32_t bad[] = {address[0], address[1], address[2], address[3], address[4]};             \
        bad[field] = value;                                                                        \
        blob_put(&code, 0x120 + 12, bad, sizeof(bad));                                             \
        assert_int_equal(load(&source), -EBADMSG);                                                 \
        assert_non_null(strstr(err.text, "corrupted"));                                            \
        unload();                                                                                  \
    } while (0)
    REFUSE(0, BASE - 1);       /* the header before the start */
    REFUSE(0, BASE + 0x121);   /* the start before the file */
    REFUSE(2, BASE + 0x10000); /* more than there is */
    REFUSE(2, BASE - 1);
    REFUSE(3, BASE - 1);
    REFUSE(4, BASE + 0x1000);
    REFUSE(4, 0);
#undef REFUSE
    free(code.data);
}

static void test_multiboot_refused(void **unused)
{
    struct blob code = build_code();
    struct boot_source source = source_of(&code);

    /* Not recognized: misaligned, a wrong checksum, or beyond the first 8192 bytes. */
    put_header(&code, 0x22, 0);
    refuse_with(&source, ENOEXEC, "not a kernel");
    put_header(&code, 0x20, 0);
    code.data[0x28]++;
    refuse_with(&source, ENOEXEC, "not a kernel");
    put_header(&code, 8192 - 8, 0);
    source = source_of(&code);
    refuse_with(&source, ENOEXEC, "not a kernel");
    put_header(&code, 8192 - 12, 0);
    source = source_of(&code);
    refuse_with(&source, ENOEXEC, "not a little-endian ELF file");
    put_header(&code, 0, 8);
    refuse_with(&source, ENOTSUP, "features (0x8)");
    free(code.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pvh),
        cmocka_unit_test(test_pvh_class32),
        cmocka_unit_test(test_pvh_refused),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_multiboot),
        cmocka_unit_test(test_multiboot_addresses),
        cmocka_unit_test(test_multiboot_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
