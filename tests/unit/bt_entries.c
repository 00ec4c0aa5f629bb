/*
 * What finds translations: it agrees with a model while pages change, keeps nothing of code that is
 * gone, and may be searched while it changes.
 */
#include "test.h"

#include "cpu/bt/bt.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES   6u
#define SEED    20240611u
#define OFFSETS 4096u

static struct core core;
static struct code_page code[PAGES];
static struct bt *bt;
static struct bt_cache *cache;

static int setup(void **state)
{
    cache = calloc(1, sizeof(*cache));
    bt = aligned_alloc(64, ALIGN_UP(sizeof(*bt), 64));
    if (!cache || !bt)
        return -1;
    memset((void *)bt, 0, sizeof(*bt));
    core = (struct core){.code = code, .code_pages = PAGES};
    bt->c.core = &core;
    bt->c.mode = MODE_64;
    bt->cache = cache;
    return bt_entries_create(&cache->entries, PAGES) ? 0 : -1;
}

static int teardown(void **state)
{
    bt_entries_destroy(&cache->entries);
    free(cache);
    free(bt);
    return 0;
}

static unsigned next(unsigned limit)
{
    static uint64_t random = SEED;

    random = random * 6364136223846793005 + 1442695040888963407;
    return (unsigned)(random >> 33) % limit;
}

static uint32_t generation(unsigned page)
{
    return atomic_load(&code[page].generation);
}

static void change(unsigned page)
{
    atomic_fetch_add(&code[page].generation, 1);
}

static uint64_t gpa_of(unsigned page, unsigned offset)
{
    return page * (uint64_t)MEM_PAGE_SIZE + offset;
}

/* MARK comes back as the entry's place. */
static void add(unsigned page, unsigned offset, uint32_t as_of, uint32_t mark)
{
    struct translation *t = &cache->work;
    const struct part part = {.start = (uint16_t)offset, .code = cache->write + mark};

    t->bt = bt; /* all else stays 0; the whole of it is large */
    t->cache = cache;
    t->gpa = gpa_of(page, 0);
    t->generation = as_of;
    bt_entry_add(t, &part, NULL);
}

static uint32_t find(unsigned page, unsigned offset)
{
    const struct bt_entry *entry = bt_entry_find(bt, gpa_of(page, offset));

    return entry ? entry->inside : 0;
}

static void test_walk(void **unused)
{
    static uint32_t model[PAGES][OFFSETS];
    uint32_t mark = 0;

    printf("seed %u\n", SEED);
    for (unsigned i = 0; i < 300000; i++) {
        unsigned page = next(PAGES), offset = next(i % 3 ? OFFSETS : 64), what = next(2000);

        if (bt_entries_full(&cache->entries) || what == 0) {
            bt_entries_clear(&cache->entries);
            memset(model, 0, sizeof(model));
        } else if (what < 1 + page) { /* some change more often */
            change(page);
            memset(model[page], 0, sizeof(model[page]));
        } else if (what < 20) {
            add(page, offset, generation(page) - 1, ++mark);
        } else if (what < 1000) {
            add(page, offset, generation(page), ++mark);
            model[page][offset] = mark;
        }
        assert_int_equal(find(page, offset), model[page][offset]);
        bt->single_checks = true; /* another context */
        assert_int_equal(find(page, offset), 0);
        bt->single_checks = false;
    }
    assert_null(bt_entry_find(bt, gpa_of(PAGES, 0)));
    assert_null(bt_entry_find(bt, UINT64_MAX));
}

/* Code that is rewritten leaves nothing that a search would meet: tables are as large as what one
 * version of a page needs. */
static void test_rewritten(void **unused)
{
    uint32_t words = 0;

    bt_entries_clear(&cache->entries);
    for (unsigned version = 0; version < 2000; version++) {
        change(0);
        for (unsigned offset = 0; offset < OFFSETS; offset++)
            assert_null(bt_entry_find(bt, gpa_of(0, offset)));
        for (unsigned i = 0; i < 100; i++)
            add(0, (version * 7 + i * 11) % OFFSETS, generation(0), i + 1);
        assert_non_null(bt_entry_find(bt, gpa_of(0, version * 7 % OFFSETS)));
        if (version == 0)
            words = cache->entries.words_used;
    }
    assert_int_equal(cache->entries.words_used, words);
}

/* --- Searching without a lock --- */

static _Atomic bool done;
static _Atomic unsigned wrong;

/* Whatever is found was entered for that offset; see change_all. */
static void *search(void *unused)
{
    uint64_t at = 0;

    while (!atomic_load(&done)) {
        unsigned offset = (unsigned)(at++ * 2654435761u >> 7) % OFFSETS;
        uint32_t found = find((unsigned)at % PAGES, offset);

        if (found && found != 1 + gpa_of((unsigned)at % PAGES, offset))
            atomic_fetch_add(&wrong, 1);
    }
    return NULL;
}

static void change_all(void)
{
    for (unsigned i = 0; i < 200000 && !bt_entries_full(&cache->entries); i++) {
        unsigned page = next(PAGES), offset = next(OFFSETS);

        if (next(500) == 0)
            change(page);
        add(page, offset, generation(page), (uint32_t)(1 + gpa_of(page, offset)));
    }
}

static void test_searched_meanwhile(void **unused)
{
    pthread_t threads[2];

    bt_entries_clear(&cache->entries);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, search, NULL), 0);
    change_all();
    atomic_store(&done, true);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&wrong), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_rewritten),
        cmocka_unit_test(test_searched_meanwhile),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
