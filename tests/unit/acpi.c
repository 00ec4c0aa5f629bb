/*
 * The ACPI tables: every one is where its parent says, sums to zero, and is understood by Intel's
 * compiler, which also shows what the definition block says.
 */
#include "test.h"

#include "base/util.h"
#include "mem/mem.h"
#include "vm/acpi.h"
#include "vm/acpi_aml.h"
#include "vm/boot/boot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tables.h"

static struct mem *with_tables(unsigned cpus)
{
    struct mem *mem = mem_create(2 * MiB, NULL);

    assert_non_null(mem);
    assert_int_equal(acpi_write(mem, cpus, 39, NULL), 0);
    return mem;
}

/* A table's length, after its signature, place and checksum have been found right. */
static uint32_t assert_table(struct mem *mem, uint64_t gpa, const char *signature)
{
    uint32_t length = (uint32_t)get(mem, gpa + 4, 4);

    assert_signature(mem, gpa, signature);
    assert_in_range(gpa, BOOT_TABLES_START, BOOT_TABLES_END - length);
    assert_int_equal(sum(mem, gpa, length), 0);
    return length;
}

/* The table that the XSDT lists with SIGNATURE. */
static uint64_t find(struct mem *mem, const char *signature)
{
    uint64_t xsdt = get(mem, ACPI_RSDP_ADDRESS + 24, 8);
    uint32_t length = assert_table(mem, xsdt, "XSDT");

    for (uint64_t at = xsdt + 36; at < xsdt + length; at += 8) {
        uint64_t table = get(mem, at, 8);
        uint32_t found = (uint32_t)get(mem, table, 4);

        if (memcmp(&found, signature, 4) == 0)
            return table;
    }
    fail_msg("no %s", signature);
    return 0;
}

static void test_root(void **unused)
{
    struct mem *mem = with_tables(1);
    uint64_t rsdt = get(mem, ACPI_RSDP_ADDRESS + 16, 4), xsdt;

    assert_int_equal(ACPI_RSDP_ADDRESS % 16, 0);
    assert_in_range(ACPI_RSDP_ADDRESS, 0xF0000, 0xFFFFF);
    assert_signature(mem, ACPI_RSDP_ADDRESS, "RSD PTR ");
    assert_int_equal(sum(mem, ACPI_RSDP_ADDRESS, 20), 0);
    assert_int_equal(sum(mem, ACPI_RSDP_ADDRESS, 36), 0);
    assert_int_equal(get(mem, ACPI_RSDP_ADDRESS + 15, 1), 2);
    /* Both roots list the same tables. */
    xsdt = get(mem, ACPI_RSDP_ADDRESS + 24, 8);
    assert_int_equal(assert_table(mem, rsdt, "RSDT"), 36 + 2 * 4);
    assert_int_equal(assert_table(mem, xsdt, "XSDT"), 36 + 2 * 8);
    assert_int_equal(get(mem, rsdt + 36, 4), get(mem, xsdt + 36, 8));
    assert_int_equal(get(mem, rsdt + 40, 4), get(mem, xsdt + 44, 8));
    mem_destroy(mem);
}

static void test_fadt(void **unused)
{
    struct mem *mem = with_tables(1);
    uint64_t fadt = find(mem, "FACP"), facs, dsdt;

    assert_int_equal(assert_table(mem, fadt, "FACP"), 276);
    facs = get(mem, fadt + 36, 4);
    assert_signature(mem, facs, "FACS");
    assert_int_equal(facs % 64, 0);
    dsdt = get(mem, fadt + 40, 4);
    assert_table(mem, dsdt, "DSDT");
    assert_int_equal(get(mem, fadt + 140, 8), dsdt);
    assert_int_equal(get(mem, fadt + 46, 2), 9);      /* SCI */
    assert_int_equal(get(mem, fadt + 56, 4), 0x600);  /* PM1a events */
    assert_int_equal(get(mem, fadt + 76, 4), 0x608);  /* PM timer */
    assert_int_equal(get(mem, fadt + 108, 1), 0x32);  /* century */
    assert_int_equal(get(mem, fadt + 120, 8), 0xCF9); /* reset register */
    assert_int_equal(get(mem, fadt + 128, 1), 6);     /* what to write there */
    assert_int_equal(get(mem, fadt + 152, 8), 0x600); /* extended PM1a events */
    assert_true(get(mem, fadt + 112, 4) & 1u << 10);  /* reset register supported */
    assert_false(get(mem, fadt + 112, 4) & 1u << 6);  /* the RTC's alarm is a fixed event */
    assert_int_equal(get(mem, fadt + 106, 2), 0);     /* without registers for day and month */
    assert_false(get(mem, fadt + 112, 4) & 1u << 4);  /* the power button is fixed hardware */
    mem_destroy(mem);
}

static void test_madt(void **unused)
{
    struct mem *mem = with_tables(5);
    uint64_t madt = find(mem, "APIC"), end = madt + assert_table(mem, madt, "APIC");
    unsigned lapics = 0, overrides = 0, ioapics = 0;

    for (uint64_t at = madt + 44; at < end; at += get(mem, at + 1, 1)) {
        switch (get(mem, at, 1)) {
        case 0:
            assert_int_equal(get(mem, at + 3, 1), lapics++);
            assert_int_equal(get(mem, at + 4, 4), 1);
            break;
        case 1:
            ioapics++;
            assert_int_equal(get(mem, at + 4, 4), 0xFEC00000);
            break;
        case 2:
            overrides++;
            if (get(mem, at + 3, 1) == 0) {
                assert_int_equal(get(mem, at + 4, 4), 2);
            } else {
                assert_int_equal(get(mem, at + 3, 1), 9);
                assert_int_equal(get(mem, at + 4, 4), 9);
                assert_int_equal(get(mem, at + 8, 2), 0xD); /* level, active high */
            }
            break;
        case 4: assert_int_equal(get(mem, at + 5, 1), 1); break;
        default: fail_msg("entry of type %d", (int)get(mem, at, 1));
        }
    }
    assert_int_equal(lapics, 5);
    assert_int_equal(ioapics, 1);
    assert_int_equal(overrides, 2);
    mem_destroy(mem);
}

/* IDs that do not fit an APIC ID byte are given in x2APIC entries. */
static void test_many_processors(void **unused)
{
    struct mem *mem = with_tables(300);
    uint64_t madt = find(mem, "APIC"), end = madt + assert_table(mem, madt, "APIC");
    unsigned lapics = 0, x2apics = 0;

    for (uint64_t at = madt + 44; at < end; at += get(mem, at + 1, 1)) {
        if (get(mem, at, 1) == 0)
            lapics++;
        if (get(mem, at, 1) == 9)
            assert_int_equal(get(mem, at + 4, 4), 255 + x2apics++);
    }
    assert_int_equal(lapics, 255);
    assert_int_equal(x2apics, 45);
    mem_destroy(mem);
}

static void test_does_not_fit(void **unused)
{
    struct mem *mem = mem_create(2 * MiB, NULL);
    struct error err;

    assert_int_equal(acpi_write(mem, 4000, 39, &err), -EFBIG);
    mem_destroy(mem);
}

/* Lengths take one, two or three bytes, and count themselves. */
static void test_package_length(void **unused)
{
    static const struct {
        size_t content, size;
        uint8_t first;
    } cases[] = {{62, 64, 63}, {63, 66, 0x41}, {4093, 4096, 0x4F}, {4094, 4098, 0x81}};
    uint8_t buf[8192];

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct aml a = {.data = buf, .capacity = sizeof(buf)};

        aml_package(&a, 0);
        for (size_t n = 1; n < cases[i].content; n++)
            aml_integer(&a, 0);
        aml_end(&a);
        assert_false(a.overflow);
        assert_int_equal(a.size, cases[i].size);
        assert_int_equal(buf[1], cases[i].first);
    }
}

static void test_aml_overflow(void **unused)
{
    uint8_t buf[16];
    struct aml a = {.data = buf, .capacity = sizeof(buf)};

    aml_device(&a, "DEV0");
    aml_name_integer(&a, "_UID", UINT64_MAX);
    aml_end(&a);
    assert_true(a.overflow);
}

/* Writes the DSDT to a file, has it disassembled, and returns the text. */
static char *disassemble(struct mem *mem, const char *dir)
{
    uint64_t dsdt = get(mem, find(mem, "FACP") + 40, 4);
    uint32_t length = (uint32_t)get(mem, dsdt + 4, 4);
    char *table = malloc(length), *text = calloc(1, 1 << 20), command[512], path[256];
    FILE *file;

    mem_read(mem, dsdt, table, length);
    snprintf(path, sizeof(path), "%s/dsdt.aml", dir);
    file = fopen(path, "wb");
    assert_int_equal(fwrite(table, 1, length, file), length);
    fclose(file);
    free(table);
    /* Back to source and through the compiler: that checks what the source means, too. */
    snprintf(command, sizeof(command),
             "cd %s && iasl -d dsdt.aml >log 2>&1 && iasl -we -p again dsdt.dsl >>log 2>&1", dir);
    if (system(command) != 0) {
        snprintf(command, sizeof(command), "cat %s/log", dir);
        (void)!system(command);
        fail_msg("iasl refuses the DSDT");
    }
    snprintf(path, sizeof(path), "%s/dsdt.dsl", dir);
    file = fopen(path, "rb");
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

static void test_iasl(void **unused)
{
    char dir[] = P_tmpdir "/doppel-acpi-XXXXXX", command[64], *text;
    struct mem *mem;

    if (system("command -v iasl >/dev/null 2>&1") != 0)
        skip();
    assert_non_null(mkdtemp(dir));
    mem = with_tables(3);
    text = disassemble(mem, dir);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    (void)!system(command);

    assert_non_null(strstr(text, "Name (\\_S5"));
    assert_non_null(strstr(text, "\"ACPI0007\""));
    assert_non_null(strstr(text, "Device (C002)"));
    assert_null(strstr(text, "Device (C003)"));
    assert_non_null(strstr(text, "EisaId (\"PNP0A03\")"));
    assert_non_null(strstr(text, "0x03E8,"));
    assert_non_null(strstr(text, "{10}"));
    assert_non_null(strstr(text, "{11}"));
    assert_non_null(strstr(text, "Method (_PIC, 1"));
    assert_non_null(strstr(text, "PICF = Arg0"));
    assert_non_null(strstr(text, "Return (PRTA)"));
    assert_non_null(strstr(text, "Return (PRTP)"));
    assert_non_null(strstr(text, "0x001FFFFF"));         /* the last device */
    assert_non_null(strstr(text, "0x0000006000000000")); /* the last quarter of 39 bits */
    assert_non_null(strstr(text, "0x0000007FFFFFFFFF"));
    free(text);
    mem_destroy(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_root),         cmocka_unit_test(test_fadt),
        cmocka_unit_test(test_madt),         cmocka_unit_test(test_many_processors),
        cmocka_unit_test(test_does_not_fit), cmocka_unit_test(test_package_length),
        cmocka_unit_test(test_aml_overflow), cmocka_unit_test(test_iasl),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
