/*
 * Guest memory that the host cannot provide: whoever touches it goes on, and the machine hears of
 * it once.
 */
#include "test.h"

#include "memory_shrink.h"

#include "base/raw_syscall.h"
#include "base/signals.h"
#include "base/util.h"
#include "mem/lost.h"
#include "mem/mem.h"

#include <pthread.h>
#include <stdatomic.h>

#define END MiB /* what is left of the memory */

static atomic_int told;

SIGNALS_SAFE static void on_lost(void *opaque)
{
    atomic_fetch_add((atomic_int *)opaque, 1);
}

/* 4 MiB of which only the first END bytes can be had. */
static struct mem *create(void)
{
    bool before[SHRINK_MAX_FD];
    struct mem *mem;

    note_guest_memory(before);
    mem = mem_create(4 * MiB, NULL);
    assert_non_null(mem);
    told = 0;
    mem_on_lost(mem, on_lost, &told);
    assert_int_equal(ftruncate(new_guest_memory(before), END), 0);
    return mem;
}

static void test_copies(void **unused)
{
    struct mem *mem = create();
    uint8_t bytes[16] = {1, 2, 3}, back[16];
    uint64_t gpa = 0;

    assert_int_equal(mem_write(mem, END - 16, bytes, 16), 0);
    assert_false(mem_lost(mem, &gpa));
    assert_int_equal(mem_write(mem, END + 0x1FF8, bytes, 16), 0); /* two pages */
    assert_int_equal(told, 1);
    assert_true(mem_lost(mem, &gpa));
    assert_int_equal(gpa, END + 0x1000);
    /* What replaces them is memory. */
    assert_int_equal(mem_read(mem, END + 0x1FF8, back, 16), 0);
    assert_memory_equal(bytes, back, 16);
    assert_int_equal(mem_read(mem, END - 16, back, 16), 0);
    assert_memory_equal(bytes, back, 16);
    mem_destroy(mem);
}

/* More pages than are set aside. */
static void test_many(void **unused)
{
    struct mem *mem = create();
    uint64_t gpa;

    assert_int_equal(mem_fill(mem, END, 0x5A, 2 * LOST_RESERVE * MEM_PAGE_SIZE), 0);
    for (unsigned i = 0; i < 2 * LOST_RESERVE; i++) {
        uint8_t byte = 0;

        assert_int_equal(mem_read(mem, END + i * MEM_PAGE_SIZE + 7, &byte, 1), 0);
        assert_int_equal(byte, 0x5A);
    }
    assert_int_equal(told, 1);
    assert_true(mem_lost(mem, &gpa));
    assert_int_equal(gpa, END);
    mem_destroy(mem);
}

/* Another machine's memory is left alone, and so are faults at its side. */
static void test_two(void **unused)
{
    struct mem *whole = mem_create(2 * MiB, NULL), *mem = create();
    uint64_t gpa;

    assert_int_equal(mem_fill(whole, MiB, 1, MiB), 0);
    assert_int_equal(mem_fill(mem, END, 1, 1), 0);
    assert_true(mem_lost(mem, &gpa));
    assert_false(mem_lost(whole, &gpa));
    mem_destroy(mem);
    assert_int_equal(mem_fill(whole, MiB, 2, MiB), 0);
    mem_destroy(whole);
}

/* ---- Threads ---- */

#define THREADS 4
#define PAGES   256

struct writer {
    pthread_t thread;
    struct mem *mem;
    unsigned id;
    pthread_barrier_t *begin;
};

static void *write_bytes(void *opaque)
{
    const struct writer *w = opaque;
    uint8_t byte = (uint8_t)(w->id + 1);

    pthread_barrier_wait(w->begin);
    for (unsigned i = 0; i < PAGES; i++)
        mem_write(w->mem, END + i * (uint64_t)MEM_PAGE_SIZE + w->id, &byte, 1);
    return NULL;
}

/* Threads that touch the same page at once share what replaces it: none of their writes is lost,
 * on any of the pages that are set aside. */
static void test_threads(void **unused)
{
    struct mem *mem = create();
    struct writer writers[THREADS];
    pthread_barrier_t begin;

    pthread_barrier_init(&begin, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){.mem = mem, .id = i, .begin = &begin};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_bytes, &writers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(writers[i].thread, NULL);
    for (unsigned i = 0; i < LOST_RESERVE; i++) {
        uint8_t bytes[THREADS];

        assert_int_equal(mem_read(mem, END + i * (uint64_t)MEM_PAGE_SIZE, bytes, THREADS), 0);
        for (unsigned k = 0; k < THREADS; k++)
            assert_int_equal(bytes[k], k + 1);
    }
    assert_int_equal(told, 1);
    pthread_barrier_destroy(&begin);
    mem_destroy(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_copies), cmocka_unit_test(test_many),
                                       cmocka_unit_test(test_two), cmocka_unit_test(test_threads)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
