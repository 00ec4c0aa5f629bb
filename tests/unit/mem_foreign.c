/*
 * Memory that two processes map: here both sides are in one.
 */
#include "test.h"

#include "base/util.h"
#include "mem/change.h"
#include "mem/foreign.h"
#include "mem/log.h"
#include "mem/pin.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Imports all that EXPORTER has. */
static struct mem *import(struct mem *exporter)
{
    struct mem_export parts[8];
    unsigned count = 8;
    struct mem *mem = mem_create_empty(NULL);

    assert_non_null(mem);
    assert_int_equal(mem_export_ram(exporter, parts, &count, NULL), 0);
    assert_true(count >= 2);
    for (unsigned i = 0; i < count; i++) {
        const struct mem_region_config config = {
            .name = "foreign", .gpa = parts[i].gpa, .size = parts[i].size, .kind = MEM_RAM};

        assert_non_null(mem_region_import(mem, &config, dup(parts[i].fd), parts[i].offset, NULL));
    }
    return mem;
}

static void one_memory(void **state)
{
    struct mem *ours = mem_create(8 * MiB, NULL), *theirs = import(ours);
    uint64_t value = 0x1122334455667788, got = 0;
    struct iovec piece[2];
    unsigned pieces = 2;
    struct mem_pin pin;

    assert_true(mem_is_exported(ours));
    assert_false(mem_is_exported(theirs));
    assert_int_equal(mem_write(ours, 7 * MiB + 4, &value, 8), 0);
    assert_int_equal(mem_read(theirs, 7 * MiB + 4, &got, 8), 0);
    assert_int_equal(got, value);
    value = 99;
    assert_int_equal(mem_write(theirs, 0x1000, &value, 8), 0);
    assert_int_equal(mem_read(ours, 0x1000, &got, 8), 0);
    assert_int_equal(got, 99);
    /* There is nothing where there is no RAM. */
    assert_int_equal(mem_read(theirs, MEM_VGA_START, &got, 8), -EFAULT);
    assert_int_equal(mem_read(theirs, 8 * MiB, &got, 8), -EFAULT);

    assert_int_equal(mem_pin(theirs, 0x1000, 8192, MEM_WRITE, &pin, piece, &pieces), 0);
    memset(piece[0].iov_base, 7, piece[0].iov_len);
    mem_unpin(theirs, &pin);
    assert_int_equal(mem_read(ours, 0x2FFC, &got, 4), 0);
    assert_int_equal(got, 0x07070707);
    mem_destroy(theirs);
    mem_destroy(ours);
}

/* Exported pages stay where they are, but for the balloon. */
static void exempt(void **state)
{
    struct mem *mem = mem_create(8 * MiB, NULL);
    struct mem_export parts[8];
    unsigned count = 1;
    struct mem_change change[] = {{.kind = MEM_SHARE, .gpn = 300},
                                  {.kind = MEM_SWAP_OUT, .gpn = 301},
                                  {.kind = MEM_PROTECT, .gpn = 302},
                                  {.kind = MEM_BALLOON, .gpn = 303}};
    uint64_t value = 1;

    for (unsigned i = 0; i < ARRAY_SIZE(change); i++)
        assert_int_equal(mem_write(mem, change[i].gpn << MEM_PAGE_SHIFT, &value, 8), 0);
    assert_int_equal(mem_export_ram(mem, parts, &count, NULL), -ENOSPC);
    assert_false(mem_is_exported(mem));
    assert_int_equal(mem_change(mem, &change[0], 1), 1);
    count = 8;
    assert_int_equal(mem_export_ram(mem, parts, &count, NULL), -EBUSY);
    assert_int_equal(mem_write(mem, change[0].gpn << MEM_PAGE_SHIFT, &value, 8), 0);
    assert_int_equal(mem_export_ram(mem, parts, &count, NULL), 0);

    assert_int_equal(mem_change(mem, change, ARRAY_SIZE(change)), 1);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(change[i].status, -EPERM);
    assert_int_equal(change[3].status, 0);
    mem_destroy(mem);
}

/* Who maps exported RAM cannot make it shorter or longer. */
static void sealed(void **state)
{
    struct mem *mem = mem_create(8 * MiB, NULL);
    struct mem_change change = {.kind = MEM_BALLOON, .gpn = 300};
    struct mem_export parts[8];
    uint64_t value = 5;
    unsigned count;

    for (unsigned round = 0; round < 2; round++) {
        count = ARRAY_SIZE(parts);
        assert_int_equal(mem_export_ram(mem, parts, &count, NULL), 0);
    }
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(ftruncate(parts[i].fd, 0), -1);
        assert_int_equal(ftruncate(parts[i].fd, 16 * MiB), -1);
        assert_int_equal(fcntl(parts[i].fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    }
    /* The balloon still gives the host its page back. */
    assert_int_equal(mem_write(mem, 300 << MEM_PAGE_SHIFT, &value, 8), 0);
    value = mem_resident(mem);
    assert_int_equal(mem_change(mem, &change, 1), 1);
    assert_int_equal(change.status, 0);
    assert_true(mem_resident(mem) < value);
    assert_int_equal(mem_clear(mem, NULL), 0);
    mem_destroy(mem);
}

struct heard {
    uint64_t gpa, size;
};

static void hear(void *opaque, uint64_t gpa, uint64_t size)
{
    *(struct heard *)opaque = (struct heard){gpa, size};
}

/* What is written from outside is in the dirty log, and listeners hear of it. */
static void written(void **state)
{
    static const struct mem_listener_ops ops = {.written = hear};
    struct heard heard = {0, 0};
    struct mem_listener listener = {.ops = &ops, .opaque = &heard};
    struct mem *mem = mem_create(8 * MiB, NULL);
    uint64_t bits[4] = {0};

    mem_listen(mem, &listener);
    assert_int_equal(mem_log_start(mem, NULL), 0);
    mem_log_fetch(mem, 256, 256, bits);
    memset(bits, 0, sizeof(bits));
    mem_foreign_written(mem, (256 + 65) * 4096 + 4095, 2);
    assert_int_equal(heard.gpa, (256 + 65) * 4096 + 4095);
    assert_int_equal(heard.size, 2);
    mem_log_fetch(mem, 256, 256, bits);
    assert_int_equal(bits[0], 0);
    assert_int_equal(bits[1], 6);
    mem_log_stop(mem);
    mem_unlisten(mem, &listener);
    mem_destroy(mem);
}

static _Atomic unsigned losses;

static void lose(void *opaque)
{
    losses++;
}

/* A file that is too short, and one that becomes so. */
static void short_files(void **state)
{
    struct mem *mem = mem_create_empty(NULL);
    struct mem_region_config config = {
        .name = "foreign", .gpa = 0, .size = 64 * KiB, .kind = MEM_RAM};
    struct error err = {0};
    int fd = memfd_create("foreign", MFD_CLOEXEC);
    uint64_t value = 5, gpa = 0;

    mem_on_lost(mem, lose, NULL);
    assert_int_equal(ftruncate(fd, 128 * KiB), 0);
    assert_null(mem_region_import(mem, &config, dup(fd), 68 * KiB, &err));
    assert_non_null(strstr(err.text, "does not have"));
    assert_null(mem_region_import(mem, &config, dup(fd), 2048, NULL));
    assert_null(mem_region_import(mem, &config, dup(fd), UINT64_MAX - 4095, NULL));
    config.size = UINT64_MAX - 4095;
    assert_null(mem_region_import(mem, &config, dup(fd), 0, NULL));
    config.size = 64 * KiB;
    assert_non_null(mem_region_import(mem, &config, dup(fd), 64 * KiB, NULL));
    assert_null(mem_region_import(mem, &config, dup(fd), 0, &err));
    assert_non_null(strstr(err.text, "in the way"));

    assert_int_equal(mem_write(mem, 60 * KiB, &value, 8), 0);
    assert_int_equal(ftruncate(fd, 64 * KiB), 0);
    assert_int_equal(mem_read(mem, 60 * KiB, &value, 8), 0);
    assert_int_equal(value, 0);
    assert_int_equal(losses, 1);
    assert_true(mem_lost(mem, &gpa));
    assert_int_equal(gpa, 60 * KiB);
    mem_destroy(mem);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_memory), cmocka_unit_test(exempt),      cmocka_unit_test(sealed),
        cmocka_unit_test(written),    cmocka_unit_test(short_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
