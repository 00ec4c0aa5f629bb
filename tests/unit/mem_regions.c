/*
 * Regions of guest memory: where they may be, what may be done in each kind, who is told.
 */
#include "test.h"

#include "base/util.h"
#include "mem/log.h"
#include "mem/mem.h"

#include <errno.h>
#include <string.h>

#define BAR 0xE0000000ULL

static struct mem *mem;
static struct told {
    unsigned invalidated, written, regions;
    uint64_t gpa, size;
    enum mem_access access;
} told;

static void on_invalidated(void *opaque, const struct mem_range *ranges, unsigned count,
                           enum mem_access access)
{
    told.invalidated++;
    told.gpa = ranges[0].gpa;
    told.size = ranges[0].size;
    told.access = access;
}

static void on_written(void *opaque, uint64_t gpa, uint64_t size)
{
    told.written++;
}

static void on_regions(void *opaque)
{
    told.regions++;
}

static const struct mem_listener_ops ops = {
    .invalidated = on_invalidated, .written = on_written, .regions_changed = on_regions};
static struct mem_listener listener = {.ops = &ops};

static int set_up(void **unused)
{
    mem = mem_create(4 * MiB, NULL);
    mem_listen(mem, &listener);
    told = (struct told){0};
    return mem ? 0 : -1;
}

static int tear_down(void **unused)
{
    mem_destroy(mem);
    return 0;
}

static struct mem_region *add(uint64_t gpa, uint64_t size, enum mem_kind kind)
{
    struct mem_region_config config = {
        .name = "test", .gpa = gpa, .size = size, .kind = kind, .log = kind == MEM_DEVICE};
    struct error err;
    struct mem_region *r = mem_region_add(mem, &config, &err);

    if (!r)
        fail_msg("%s", err.text);
    return r;
}

static int refusal(uint64_t gpa, uint64_t size)
{
    struct mem_region_config config = {
        .name = "refused", .gpa = gpa, .size = size, .kind = MEM_DEVICE};
    struct error err = {0};

    assert_null(mem_region_add(mem, &config, &err));
    assert_non_null(strstr(err.text, "refused"));
    return err.code;
}

static void test_kinds(void **unused)
{
    struct mem_region *rom = add(0xFFFE0000, 128 * KiB, MEM_ROM);
    struct mem_region *device = add(BAR, 64 * KiB, MEM_DEVICE);
    uint32_t value = 0x12345678, got = 0;
    void *host;

    memcpy(mem_region_host(rom), "firmware", 8);
    assert_int_equal(mem_page(mem, 0xFFFE0, MEM_READ, &host), MEM_OK);
    assert_memory_equal(host, "firmware", 8);
    assert_int_equal(mem_page(mem, 0xFFFE0, MEM_WRITE, &host), MEM_NOT_RAM);
    assert_int_equal(mem_write(mem, 0xFFFE0000, &value, 4), -EFAULT);
    assert_int_equal(mem_read(mem, 0xFFFFFFFC, &got, 4), 0);
    assert_int_equal(mem_read(mem, 0xFFFFFFFC, &got, 5), -EFAULT);

    assert_int_equal(mem_write(mem, BAR + 4094, &value, 4), 0);
    assert_memory_equal((char *)mem_region_host(device) + 4094, &value, 4);
    assert_int_equal(mem_page(mem, BAR / 4096 + 1, MEM_WRITE, &host), MEM_OK);
    assert_ptr_equal(host, (char *)mem_region_host(device) + 4096);
    assert_int_equal(mem_page(mem, BAR / 4096 + 16, MEM_READ, &host), MEM_NOT_RAM);

    /* Neither is RAM, and only what changes by notice may be kept decoded. */
    assert_false(mem_is_ram(mem, BAR, 1));
    assert_false(mem_is_ram(mem, 0xFFFE0000, 1));
    assert_true(mem_holds_code(mem, 0xFFFE0));
    assert_false(mem_holds_code(mem, BAR / 4096));
    assert_true(mem_holds_code(mem, 0));
}

static void test_places(void **unused)
{
    struct mem_region *r = add(BAR, 64 * KiB, MEM_DEVICE);
    struct error err;

    assert_int_equal(refusal(0x100000, 4096), EEXIST);
    assert_int_equal(refusal(MEM_VGA_START - 4096, 8192), EEXIST);
    assert_int_equal(refusal(BAR + 60 * KiB, 4096), EEXIST);
    assert_int_equal(refusal(BAR - 4096, 8192), EEXIST);
    assert_int_equal(refusal(BAR + 64 * KiB + 1, 4096), EINVAL);
    assert_int_equal(refusal(BAR, 100), EINVAL);
    assert_int_equal(refusal(BAR, 0), EINVAL);
    assert_int_equal(refusal(-(uint64_t)4096, 4096), EINVAL);
    assert_int_equal(refusal(BAR * 2, UINT64_MAX & ~4095ULL), EINVAL);
    /* A move that fails changes nothing. */
    assert_int_equal(mem_region_move(r, MEM_VGA_END - 4096, &err), -EEXIST);
    assert_int_equal(mem_region_gpa(r), BAR);
    assert_non_null(mem_peek(mem, BAR / 4096));
    /* It may overlap its own place. */
    assert_int_equal(mem_region_move(r, BAR + 4096, &err), 0);
    assert_null(mem_peek(mem, BAR / 4096));
    assert_ptr_equal(mem_peek(mem, BAR / 4096 + 16), (char *)mem_region_host(r) + 15 * 4096);
}

static void test_move_and_remove(void **unused)
{
    struct mem_region *r = add(MEM_NOWHERE, 64 * KiB, MEM_DEVICE);
    uint64_t value = 0x1122334455667788, got;

    assert_int_equal(mem_region_gpa(r), MEM_NOWHERE);
    assert_int_equal(told.invalidated, 0);
    assert_int_equal(mem_region_move(r, MEM_VGA_START, NULL), 0);
    assert_int_equal(told.invalidated, 1);
    assert_int_equal(told.gpa, MEM_VGA_START);
    assert_int_equal(told.size, 64 * KiB);
    assert_int_equal(told.access, MEM_READ);
    assert_int_equal(told.regions, 2);
    assert_int_equal(mem_write(mem, MEM_VGA_START + 8, &value, 8), 0);
    assert_int_equal(mem_region_move(r, 1ULL << 40, NULL), 0);
    assert_int_equal(told.invalidated, 3); /* both places */
    assert_int_equal(mem_read(mem, MEM_VGA_START + 8, &got, 8), -EFAULT);
    assert_int_equal(mem_read(mem, (1ULL << 40) + 8, &got, 8), 0);
    assert_int_equal(got, value);
    mem_region_remove(r);
    assert_int_equal(told.invalidated, 4);
    assert_int_equal(mem_read(mem, (1ULL << 40) + 8, &got, 8), -EFAULT);
    add(1ULL << 40, 64 * KiB, MEM_DEVICE);
    assert_int_equal(mem_read(mem, (1ULL << 40) + 8, &got, 8), 0);
    assert_int_equal(got, 0);
}

/* As many as there may be, in an order that is not theirs; each is found, and only there. */
static void test_many(void **unused)
{
    struct mem_region *r[MEM_REGIONS_MAX];

    for (unsigned i = 0; i < MEM_REGIONS_MAX; i++) {
        r[i] = add(BAR + i * 37 % MEM_REGIONS_MAX * 3 * 4096ULL, 2 * 4096, MEM_DEVICE);
        *(unsigned *)mem_region_host(r[i]) = i;
    }
    for (unsigned i = 0; i < MEM_REGIONS_MAX; i++) {
        uint64_t gpn = BAR / 4096 + i * 37 % MEM_REGIONS_MAX * 3;

        assert_int_equal(*(unsigned *)mem_peek(mem, gpn), i);
        assert_non_null(mem_peek(mem, gpn + 1));
        assert_null(mem_peek(mem, gpn + 2));
        assert_null(mem_peek(mem, gpn - 1));
    }
    assert_int_equal(refusal(BAR + 16 * MiB, 4096), ENOSPC);
    for (unsigned i = 0; i < MEM_REGIONS_MAX; i += 2)
        mem_region_remove(r[i]);
    for (unsigned i = 0; i < MEM_REGIONS_MAX; i++)
        assert_int_equal(!mem_peek(mem, BAR / 4096 + i * 37 % MEM_REGIONS_MAX * 3), i % 2 == 0);
}

static void test_own_log(void **unused)
{
    struct mem_region *r = add(BAR, 80 * 4096, MEM_DEVICE);
    uint64_t bitmap[2];
    void *host;

    assert_int_equal(mem_region_log_fetch(r, bitmap), 0);
    mem_fill(mem, BAR + 4096 - 1, 1, 2);
    mem_page(mem, BAR / 4096 + 70, MEM_WRITE, &host);
    mem_page(mem, BAR / 4096 + 71, MEM_READ, &host);
    mem_region_written(r, 79 * 4096ULL, 1);
    told.invalidated = 0;
    assert_int_equal(mem_region_log_fetch(r, bitmap), 4);
    assert_int_equal(bitmap[0], 3);
    assert_int_equal(bitmap[1], 1 << 6 | 1 << 15);
    assert_int_equal(told.invalidated, 1);
    assert_int_equal(told.access, MEM_WRITE);
    assert_int_equal(mem_region_log_fetch(r, bitmap), 0);
    assert_int_equal(bitmap[0] | bitmap[1], 0);
    /* It goes where the region goes. */
    mem_region_move(r, BAR * 2, NULL);
    mem_fill(mem, BAR * 2 + 64 * 4096, 1, 1);
    assert_int_equal(mem_region_log_fetch(r, bitmap), 1);
    assert_int_equal(bitmap[1], 1);
}

/* RAM that is added later has states of its own and can be pinned; it does not move then. */
static void test_more_ram(void **unused)
{
    struct mem_region *r = add(BAR * 2, 2 * MiB, MEM_RAM);

    assert_true(mem_is_ram(mem, BAR * 2, 2 * MiB));
    assert_false(mem_is_ram(mem, BAR * 2, 2 * MiB + 1));
    assert_true(mem_is_whole(mem, BAR * 2 / 4096, 512, MEM_WRITE));
    assert_false(mem_is_own(mem, BAR * 2 / 4096, mem_peek(mem, BAR * 2 / 4096)));
    assert_true(mem_is_own(mem, 1, mem_peek(mem, 1)));
    mem_region_remove(r);
    assert_false(mem_is_ram(mem, BAR * 2, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kinds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_move_and_remove, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_log, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_more_ram, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
