/*
 * The dirty log as those see it that write through mem and those that collect. What guest code and
 * page walks write is in mem_guest.c.
 */
#include "test.h"

#include "base/util.h"
#include "mem/change.h"
#include "mem/log.h"
#include "mem/pin.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define RAM   (4 * MiB)
#define PAGES (RAM / MEM_PAGE_SIZE)

static struct mem *mem;
static uint64_t bitmap[PAGES / 64];

static int set_up(void **unused)
{
    mem = mem_create(RAM, NULL);
    return mem ? 0 : -1;
}

static int tear_down(void **unused)
{
    mem_destroy(mem);
    return 0;
}

static uint64_t fetch(void)
{
    return mem_log_fetch(mem, 0, PAGES, bitmap);
}

static bool dirty(uint64_t gpn)
{
    return bitmap[gpn / 64] >> (gpn % 64) & 1;
}

static void test_life(void **unused)
{
    struct error err = {0};
    void *host;

    mem_fill(mem, 0, 1, MEM_PAGE_SIZE);
    assert_int_equal(fetch(), 0); /* there is none */
    assert_int_equal(mem_log_start(mem, &err), 0);
    assert_int_equal(mem_log_start(mem, &err), -EBUSY);
    assert_int_equal(fetch(), 0); /* what was before is not in it */
    mem_fill(mem, 5 * MEM_PAGE_SIZE - 1, 1, 2);
    mem_page(mem, 0x200, MEM_WRITE, &host);
    mem_page(mem, 0x201, MEM_READ, &host);
    mem_read(mem, 0x202000, &(uint8_t){0}, 1);
    assert_int_equal(fetch(), 3);
    assert_true(dirty(4) && dirty(5) && dirty(0x200));
    assert_int_equal(fetch(), 0);
    mem_log_stop(mem);
    mem_fill(mem, 0, 1, 1);
    assert_int_equal(mem_log_start(mem, &err), 0);
    assert_int_equal(fetch(), 0);
    mem_log_stop(mem);
}

/* Any piece of memory can be fetched; regions begin and end anywhere in it. */
static void test_pieces(void **unused)
{
    struct mem_region_config config = {.name = "video",
                                       .gpa = MEM_VGA_START + 3 * MEM_PAGE_SIZE,
                                       .size = 5 * MEM_PAGE_SIZE,
                                       .kind = MEM_DEVICE};
    uint64_t piece[1];

    assert_int_equal(mem_log_start(mem, NULL), 0);
    assert_non_null(mem_region_add(mem, &config, NULL)); /* it has one, too */
    for (uint64_t gpn = 0x9E; gpn < 0xC2; gpn++)
        mem_fill(mem, gpn * MEM_PAGE_SIZE, 1, 1);
    assert_int_equal(mem_log_fetch(mem, 0x80, 64, piece), 2 + 5);
    assert_int_equal(piece[0], 3ULL << 0x1E | 0x1FULL << 0x23);
    assert_int_equal(mem_log_fetch(mem, 0xC0, 64, piece), 2);
    assert_int_equal(piece[0], 3);
    assert_int_equal(fetch(), 0);
    mem_log_stop(mem);
}

/* A page that is taken away and comes back with other bytes has been written to. */
static void test_changes(void **unused)
{
    struct mem_change change = {.kind = MEM_SHARE, .gpn = 7};

    mem_fill(mem, 7 * MEM_PAGE_SIZE, 1, 1);
    assert_int_equal(mem_log_start(mem, NULL), 0);
    assert_int_equal(mem_change(mem, &change, 1), 1);
    assert_int_equal(fetch(), 0);
    mem_fill(mem, 7 * MEM_PAGE_SIZE, 2, 1);
    assert_int_equal(fetch(), 1);
    change.kind = MEM_BALLOON;
    assert_int_equal(mem_change(mem, &change, 1), 1);
    assert_int_equal(fetch(), 1);
    mem_clear(mem, NULL);
    assert_int_equal(fetch(), PAGES - 0x20);
    mem_log_stop(mem);
}

/* --- Writers and a collector ------------------------------------------------------------------ */

#define WRITERS 3
#define WRITES  20000
static _Atomic unsigned writing;

/* Writes ever larger numbers to pages of its own choice, by copies and by pins. */
static void *writer(void *opaque)
{
    unsigned id = (unsigned)(uintptr_t)opaque, seed = id;

    for (uint64_t i = 1; i <= WRITES; i++) {
        uint64_t gpa = 0x100000 + (uint64_t)(rand_r(&seed) % 600) * MEM_PAGE_SIZE + id * 8;
        struct mem_pin pin;
        struct iovec iov;
        unsigned count = 1;

        if (i % 2) {
            mem_write(mem, gpa, &i, 8);
        } else if (mem_pin(mem, gpa, 8, MEM_WRITE, &pin, &iov, &count) == 0) {
            *(volatile uint64_t *)iov.iov_base = i;
            mem_unpin(mem, &pin);
        }
    }
    atomic_fetch_sub(&writing, 1);
    return NULL;
}

/* A copy that is brought up to date with what was fetched is the memory in the end. */
static void test_nothing_lost(void **unused)
{
    static uint8_t copy[RAM], end[RAM];
    pthread_t thread[WRITERS];
    bool last;

    assert_int_equal(mem_log_start(mem, NULL), 0);
    atomic_store(&writing, WRITERS);
    for (uintptr_t i = 0; i < WRITERS; i++)
        pthread_create(&thread[i], NULL, writer, (void *)i);
    do {
        last = atomic_load(&writing) == 0;
        fetch();
        for (uint64_t gpn = 0; gpn < PAGES; gpn++)
            if (dirty(gpn))
                mem_read(mem, gpn * MEM_PAGE_SIZE, copy + gpn * MEM_PAGE_SIZE, MEM_PAGE_SIZE);
    } while (!last);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(thread[i], NULL);
    mem_read(mem, 0x100000, end + 0x100000, RAM - 0x100000);
    assert_memory_equal(copy, end, RAM);
    mem_log_stop(mem);
}

#define TEST(NAME) cmocka_unit_test_setup_teardown(NAME, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_life),
        TEST(test_pieces),
        TEST(test_changes),
        TEST(test_nothing_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
