/*
 * Guest memory: the layout, the gate, and clearing.
 */
#include "test.h"

#include "base/util.h"
#include "mem/mem.h"

#include <errno.h>
#include <string.h>

static struct mem *create(uint64_t size)
{
    struct error err = {0};
    struct mem *mem = mem_create(size, &err);

    assert_non_null(mem);
    return mem;
}

static void test_small_layout(void **unused)
{
    struct mem *mem = create(2 * MiB);

    assert_int_equal(mem_ram_size(mem), 2 * MiB);
    assert_int_equal(mem_low_end(mem), 2 * MiB);
    assert_int_equal(mem_high_end(mem), 4 * GiB);
    assert_int_equal(mem_gpn_limit(mem), 512);
    assert_true(mem_is_ram(mem, 0, MEM_VGA_START));
    assert_false(mem_is_ram(mem, 0, MEM_VGA_START + 1));
    assert_false(mem_is_ram(mem, MEM_VGA_END - 1, 1));
    assert_true(mem_is_ram(mem, MEM_VGA_END, 2 * MiB - MEM_VGA_END));
    assert_false(mem_is_ram(mem, 2 * MiB - 1, 2));
    assert_false(mem_is_ram(mem, 4 * GiB, 1));
    assert_false(mem_is_ram(mem, 4096, UINT64_MAX));
    assert_non_null(mem_peek(mem, 0));
    assert_null(mem_peek(mem, MEM_VGA_START >> MEM_PAGE_SHIFT));
    assert_null(mem_peek(mem, 512));
    assert_null(mem_peek(mem, UINT64_MAX));
    assert_null(mem_peek(mem, 1ULL << 52)); /* must not wrap to page 0 */
    mem_destroy(mem);
}

static void test_hole(void **unused)
{
    struct mem *mem = create(8 * GiB);
    uint64_t magic = 0x1122334455667788, got = 0;

    assert_int_equal(mem_low_end(mem), 3 * GiB);
    assert_int_equal(mem_high_end(mem), 9 * GiB);
    assert_int_equal(mem_gpn_limit(mem), 9 * GiB / 4096);
    assert_null(mem_peek(mem, MEM_HOLE_START >> MEM_PAGE_SHIFT));
    assert_false(mem_is_ram(mem, MEM_HOLE_START - 4, 8));
    assert_int_equal(mem_write(mem, 9 * GiB - 8, &magic, 8), 0);
    assert_int_equal(mem_write(mem, 9 * GiB - 7, &magic, 8), -EFAULT);
    /* High RAM must not be another name for low RAM. */
    assert_int_equal(mem_read(mem, 3 * GiB - 8, &got, 8), 0);
    assert_int_equal(got, 0);
    assert_memory_equal((char *)mem_peek(mem, 9 * GiB / 4096 - 1) + 4088, &magic, 8);
    mem_destroy(mem);
}

static void test_refuses(void **unused)
{
    struct error err = {0};

    assert_null(mem_create(MiB - 4096, &err));
    assert_int_equal(err.code, EINVAL);
    assert_null(mem_create(MiB + 1, &err));
    assert_null(mem_create(UINT64_MAX & ~4095ULL, &err));
}

struct log {
    uint64_t gpa, size;
    unsigned calls;
};

static void log_write(void *opaque, uint64_t gpa, uint64_t size)
{
    struct log *log = opaque;

    log->gpa = gpa;
    log->size = size;
    log->calls++;
}

static const struct mem_listener_ops log_ops = {.written = log_write};

static void test_gate_and_listener(void **unused)
{
    struct mem *mem = create(4 * MiB);
    struct log log = {0};
    struct mem_listener listener = {.ops = &log_ops, .opaque = &log};
    char text[] = "guest", back[6] = "xxxxx";

    mem_listen(mem, &listener);
    assert_int_equal(mem_write(mem, MEM_PAGE_SIZE - 3, text, 6), 0);
    assert_int_equal(log.gpa, MEM_PAGE_SIZE - 3);
    assert_int_equal(log.size, 6);
    assert_int_equal(mem_read(mem, MEM_PAGE_SIZE - 3, back, 6), 0);
    assert_string_equal(back, "guest");
    /* A copy that would leave RAM changes nothing and tells nobody. */
    assert_int_equal(mem_write(mem, MEM_VGA_START - 3, text, 6), -EFAULT);
    assert_int_equal(mem_read(mem, MEM_VGA_START - 3, back, 3), 0);
    assert_int_equal(back[0], 0);
    assert_int_equal(log.calls, 1);
    assert_int_equal(mem_fill(mem, 2 * MiB, 0x5A, 3), 0);
    assert_int_equal(log.calls, 2);
    assert_memory_equal(mem_peek(mem, 2 * MiB / 4096), "\x5A\x5A\x5A\0", 4);
    mem_destroy(mem);
}

static void test_clear(void **unused)
{
    struct mem *mem = create(5 * GiB);
    struct log log = {0};
    struct mem_listener listener = {.ops = &log_ops, .opaque = &log};
    uint64_t got = 1;

    assert_int_equal(mem_resident(mem), 0);
    assert_int_equal(mem_fill(mem, MiB, 0xFF, 1 * MiB), 0);
    assert_int_equal(mem_fill(mem, 4 * GiB, 0xFF, 4096), 0);
    assert_int_equal(mem_resident(mem), 1 * MiB + 4096);
    mem_listen(mem, &listener);
    assert_int_equal(mem_clear(mem, NULL), 0);
    assert_int_equal(mem_resident(mem), 0);
    assert_int_equal(log.calls, 3); /* for each piece of RAM */
    assert_int_equal(mem_read(mem, MiB, &got, 8), 0);
    assert_int_equal(got, 0);
    got = 1;
    assert_int_equal(mem_read(mem, 4 * GiB, &got, 8), 0);
    assert_int_equal(got, 0);
    mem_destroy(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_layout), cmocka_unit_test(test_hole),
        cmocka_unit_test(test_refuses),      cmocka_unit_test(test_gate_and_listener),
        cmocka_unit_test(test_clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
