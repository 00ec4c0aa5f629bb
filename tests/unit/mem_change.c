/*
 * Page states: what becomes of pages that are shared, ballooned, swapped out or protected, by
 * themselves and while others use them.
 */
#include "test.h"

#include "base/state.h"
#include "base/util.h"
#include "mem/change.h"
#include "mem/log.h"
#include "mem/pin.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define RAM   (8 * MiB)
#define PAGES 64
#define FIRST 0x400u /* GPN */

static struct mem *mem;

/* A pager that keeps pages in an array, and fails on demand. */
static struct store {
    uint8_t page[PAGES][MEM_PAGE_SIZE];
    bool used[PAGES];
    int fails;
    unsigned unprotected, ins, outs;
    /* What `in` waits for before it goes on. */
    void (*before_in)(void);
    void (*in_drop)(void);
} store;

static int store_out(void *opaque, uint64_t gpn, const void *page, uint32_t *slot)
{
    if (store.fails)
        return store.fails;
    for (*slot = 0; store.used[*slot]; ++*slot)
        ;
    store.used[*slot] = true;
    memcpy(store.page[*slot], page, MEM_PAGE_SIZE);
    store.outs++;
    return 0;
}

static int store_in(void *opaque, uint64_t gpn, uint32_t slot, void *page)
{
    if (store.before_in)
        store.before_in();
    if (store.fails)
        return store.fails;
    assert_true(store.used[slot]);
    memcpy(page, store.page[slot], MEM_PAGE_SIZE);
    store.ins++;
    return 0;
}

static void store_drop(void *opaque, uint32_t slot)
{
    assert_true(store.used[slot]);
    store.used[slot] = false;
    if (store.in_drop)
        store.in_drop();
}

static int store_unprotected(void *opaque, uint64_t gpn, const void *page)
{
    store.unprotected++;
    return store.fails;
}

static const struct mem_pager pager = {
    .out = store_out, .in = store_in, .drop = store_drop, .unprotected = store_unprotected};

static unsigned stored(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < PAGES; i++)
        count += store.used[i];
    return count;
}

static int set_up(void **unused)
{
    memset(&store, 0, sizeof(store));
    mem = mem_create(RAM, NULL);
    mem_set_pager(mem, &pager, NULL);
    return mem ? 0 : -1;
}

static int tear_down(void **unused)
{
    mem_destroy(mem);
    return 0;
}

static void put(uint64_t gpn, uint64_t value)
{
    assert_int_equal(mem_write(mem, gpn * MEM_PAGE_SIZE + 64, &value, 8), 0);
}

static uint64_t get(uint64_t gpn)
{
    uint64_t value;

    assert_int_equal(mem_read(mem, gpn * MEM_PAGE_SIZE + 64, &value, 8), 0);
    return value;
}

static int change(enum mem_change_kind kind, uint64_t gpn)
{
    struct mem_change c = {.kind = kind, .gpn = gpn};

    unsigned made_now = mem_change(mem, &c, 1);

    assert_int_equal(made_now, c.status == 0);
    return c.status;
}

static enum mem_page_state state(uint64_t gpn)
{
    uint64_t pages;

    return mem_page_state(mem, gpn, &pages);
}

static enum mem_answer answer(uint64_t gpn, enum mem_access access)
{
    void *host;

    return mem_page(mem, gpn, access, &host);
}

static void test_share(void **unused)
{
    struct mem_counts counts;
    uint64_t before;

    for (unsigned i = 0; i < 8; i++)
        put(FIRST + i, i < 6 ? 7 : 100 + i);
    before = mem_resident(mem);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(change(MEM_SHARE, FIRST + i), 0);
    mem_count(mem, &counts);
    assert_int_equal(counts.shared, 8);
    assert_int_equal(counts.shared_machine_pages, 3);
    assert_int_equal(mem_resident(mem), before - 5 * MEM_PAGE_SIZE);
    assert_ptr_equal(mem_peek(mem, FIRST), mem_peek(mem, FIRST + 5));
    assert_int_equal(answer(FIRST, MEM_WRITE), MEM_ABSENT);
    assert_int_equal(change(MEM_SHARE, FIRST), -EALREADY);
    assert_int_equal(change(MEM_SWAP_OUT, FIRST), -EBUSY);
    /* Written to, it is a copy; the others stay. */
    put(FIRST + 1, 8);
    assert_int_equal(state(FIRST + 1), MEM_STATE_PRIVATE);
    assert_int_equal(answer(FIRST + 1, MEM_WRITE), MEM_OK);
    assert_int_equal(get(FIRST), 7);
    assert_int_equal(get(FIRST + 1), 8);
    assert_int_equal(get(FIRST + 5), 7);
    assert_int_equal(state(FIRST), MEM_STATE_SHARED);
    for (unsigned i = 0; i < 8; i++)
        put(FIRST + i, i);
    mem_count(mem, &counts);
    assert_int_equal(counts.shared, 0);
    assert_int_equal(counts.shared_machine_pages, 0);
    assert_int_equal(mem_resident(mem), before);
}

/* Zeroes need no machine page at all. */
static void test_zero(void **unused)
{
    put(FIRST, 1);
    put(FIRST, 0);
    put(FIRST + 1, 0);
    assert_int_equal(mem_resident(mem), 2 * MEM_PAGE_SIZE);
    assert_int_equal(change(MEM_SHARE, FIRST), 0);
    assert_int_equal(change(MEM_SWAP_OUT, FIRST + 1), 0);
    assert_int_equal(mem_resident(mem), 0);
    assert_int_equal(stored(), 0);
    assert_int_equal(state(FIRST), MEM_STATE_UNTOUCHED);
    assert_int_equal(answer(FIRST + 1, MEM_WRITE), MEM_OK);
    assert_int_equal(get(FIRST), 0);
}

/* Pages that are written one after the other are unshared in growing groups. */
static void test_unshare_groups(void **unused)
{
    struct mem_counts counts;
    unsigned left[] = {31, 29, 29, 25, 25, 25, 25, 17};

    for (unsigned i = 0; i < 32; i++)
        put(FIRST + i, 7);
    for (unsigned i = 0; i < 32; i++)
        change(MEM_SHARE, FIRST + i);
    for (unsigned i = 0; i < ARRAY_SIZE(left); i++) {
        put(FIRST + i, i);
        mem_count(mem, &counts);
        assert_int_equal(counts.shared, left[i]);
    }
    put(FIRST + 20, 1); /* elsewhere: a page by itself */
    mem_count(mem, &counts);
    assert_int_equal(counts.shared, 16);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(get(FIRST + i), i < 8 ? i : i == 20 ? 1 : 7);
}

static void test_balloon(void **unused)
{
    struct mem_counts counts;

    put(FIRST, 1);
    put(FIRST + 1, 2);
    put(FIRST + 2, 3);
    change(MEM_SHARE, FIRST + 1);
    change(MEM_SWAP_OUT, FIRST + 2);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(change(MEM_BALLOON, FIRST + i), 0);
    assert_int_equal(mem_resident(mem), 0);
    assert_int_equal(stored(), 0);
    mem_count(mem, &counts);
    assert_int_equal(counts.ballooned, 3);
    assert_int_equal(counts.shared_machine_pages + counts.swapped, 0);
    assert_int_equal(change(MEM_BALLOON, FIRST), -EALREADY);
    assert_int_equal(answer(FIRST, MEM_READ), MEM_ABSENT);
    assert_int_equal(get(FIRST), 0);
    assert_int_equal(mem_fault(mem, FIRST + 1, MEM_WRITE, NULL), 0);
    assert_int_equal(answer(FIRST + 1, MEM_WRITE), MEM_OK);
    assert_int_equal(state(FIRST + 2), MEM_STATE_BALLOONED);
}

static void test_swap(void **unused)
{
    put(FIRST, 42);
    assert_int_equal(change(MEM_SWAP_OUT, FIRST), 0);
    assert_int_equal(mem_resident(mem), 0);
    assert_int_equal(stored(), 1);
    assert_int_equal(answer(FIRST, MEM_READ), MEM_ABSENT);
    assert_int_equal(change(MEM_SWAP_OUT, FIRST), -EALREADY);
    assert_int_equal(change(MEM_PROTECT, FIRST), -EBUSY);
    assert_int_equal(get(FIRST), 42);
    assert_int_equal(stored(), 0);
    /* A pager that fails keeps the page, in whosever hands it is. */
    store.fails = -ENOSPC;
    assert_int_equal(change(MEM_SWAP_OUT, FIRST), -ENOSPC);
    assert_int_equal(get(FIRST), 42);
    store.fails = 0;
    assert_int_equal(change(MEM_SWAP_OUT, FIRST), 0);
    store.fails = -EIO;
    assert_int_equal(mem_fault(mem, FIRST, MEM_READ, NULL), -EIO);
    assert_int_equal(mem_read(mem, FIRST * MEM_PAGE_SIZE, &(uint8_t){0}, 1), -EIO);
    store.fails = 0;
    assert_int_equal(get(FIRST), 42);
    mem_set_pager(mem, NULL, NULL);
    assert_int_equal(change(MEM_SWAP_OUT, FIRST), -ENODEV);
}

static void test_protect(void **unused)
{
    put(FIRST, 1);
    assert_int_equal(change(MEM_PROTECT, FIRST), 0);
    assert_int_equal(change(MEM_PROTECT, FIRST), -EALREADY);
    assert_int_equal(change(MEM_BALLOON, FIRST), -EBUSY); /* its bytes are wanted */
    assert_int_equal(answer(FIRST, MEM_READ), MEM_OK);
    assert_int_equal(answer(FIRST, MEM_WRITE), MEM_ABSENT);
    assert_int_equal(get(FIRST), 1);
    assert_int_equal(store.unprotected, 0);
    store.fails = -EIO;
    assert_int_equal(mem_fault(mem, FIRST, MEM_WRITE, NULL), -EIO);
    assert_int_equal(answer(FIRST, MEM_WRITE), MEM_ABSENT);
    store.fails = 0;
    put(FIRST, 2);
    assert_int_equal(store.unprotected, 2);
    assert_int_equal(answer(FIRST, MEM_WRITE), MEM_OK);
    assert_int_equal(get(FIRST), 2);
}

/* What is no RAM is refused, and a page is taken once in a batch. */
static void test_refused(void **unused)
{
    struct mem_region_config config = {
        .name = "rom", .gpa = 0xF0000000, .size = 4096, .kind = MEM_ROM};
    struct mem_change batch[] = {
        {MEM_BALLOON, FIRST, 1},    {MEM_SHARE, FIRST, 1},     {MEM_BALLOON, 0xA0, 1},
        {MEM_SWAP_OUT, 1 << 30, 1}, {MEM_BALLOON, 0xF0000, 1}, {MEM_SHARE, FIRST + 1, 1},
    };

    assert_non_null(mem_region_add(mem, &config, NULL));
    assert_int_equal(mem_change(mem, batch, ARRAY_SIZE(batch)), 2);
    assert_int_equal(batch[0].status, 0);
    assert_int_equal(batch[1].status, -EBUSY);
    for (unsigned i = 2; i < 5; i++)
        assert_int_equal(batch[i].status, -EFAULT);
    assert_int_equal(batch[5].status, 0);
}

/* A large page is whole only while all in it is the guest's own. */
static void test_whole(void **unused)
{
    assert_true(mem_is_whole(mem, 0x400, 512, MEM_WRITE));
    assert_false(mem_is_whole(mem, 0x000, 512, MEM_READ)); /* the VGA window */
    assert_false(mem_is_whole(mem, 0x800, 512, MEM_READ)); /* beyond RAM */
    change(MEM_BALLOON, 0x5FF);
    assert_false(mem_is_whole(mem, 0x400, 512, MEM_READ));
    assert_true(mem_is_whole(mem, 0x600, 512, MEM_READ));
    mem_fault(mem, 0x5FF, MEM_READ, NULL);
    assert_true(mem_is_whole(mem, 0x400, 512, MEM_WRITE));
    assert_int_equal(mem_log_start(mem, NULL), 0);
    assert_false(mem_is_whole(mem, 0x400, 512, MEM_WRITE));
    assert_true(mem_is_whole(mem, 0x400, 512, MEM_READ));
    mem_log_stop(mem);
    assert_true(mem_is_whole(mem, 0x400, 512, MEM_WRITE));
}

/* Walks all RAM by state, as a snapshot does. */
static void test_states(void **unused)
{
    static const struct {
        enum mem_page_state state;
        uint64_t pages;
    } want[] = {
        {MEM_STATE_UNTOUCHED, 0xA0}, {MEM_STATE_NONE, 0x20}, {MEM_STATE_UNTOUCHED, 0x340},
        {MEM_STATE_PRIVATE, 2},      {MEM_STATE_SHARED, 3},  {MEM_STATE_BALLOONED, 1},
        {MEM_STATE_SWAPPED, 1},      {MEM_STATE_PRIVATE, 1}, {MEM_STATE_UNTOUCHED, 0x3F8},
    };
    uint64_t gpn = 0, pages, merged = 0;
    enum mem_page_state last = mem_page_state(mem, 0, &pages);
    unsigned n = 0;

    for (unsigned i = 0; i < 8; i++)
        put(FIRST + i, 7 + i / 5);
    for (unsigned i = 2; i < 5; i++)
        change(MEM_SHARE, FIRST + i);
    change(MEM_BALLOON, FIRST + 5);
    change(MEM_SWAP_OUT, FIRST + 6);
    for (;;) {
        enum mem_page_state now = mem_page_state(mem, gpn, &pages);

        if (now != last || !pages) {
            assert_true(n < ARRAY_SIZE(want));
            assert_int_equal(last, want[n].state);
            assert_int_equal(merged, want[n].pages);
            n++;
            merged = 0;
        }
        if (!pages)
            break;
        last = now;
        merged += pages;
        gpn += pages;
    }
    assert_int_equal(n, ARRAY_SIZE(want));
}

static void test_clear(void **unused)
{
    struct mem_counts counts;

    for (unsigned i = 0; i < 8; i++)
        put(FIRST + i, 7);
    for (unsigned i = 0; i < 3; i++)
        change(MEM_SHARE, FIRST + i);
    change(MEM_BALLOON, FIRST + 3);
    change(MEM_SWAP_OUT, FIRST + 4);
    change(MEM_PROTECT, FIRST + 5);
    assert_int_equal(mem_clear(mem, NULL), 0);
    mem_count(mem, &counts);
    assert_int_equal(
        counts.shared + counts.shared_machine_pages + counts.ballooned + counts.swapped, 0);
    assert_int_equal(mem_resident(mem), 0);
    assert_int_equal(stored(), 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(get(FIRST + i), 0);
}

/* A change that comes while memory is cleared does not save the old bytes. */
static void share_first(void)
{
    assert_int_equal(change(MEM_SHARE, FIRST), -EBUSY);
}

static void test_clear_changed(void **unused)
{
    put(FIRST, 7);
    put(FIRST + 1, 8);
    assert_int_equal(change(MEM_SWAP_OUT, FIRST + 1), 0);
    store.in_drop = share_first; /* the first page has been looked at by then */
    assert_int_equal(mem_clear(mem, NULL), 0);
    assert_int_equal(stored(), 0);
    assert_int_equal(mem_resident(mem), 0);
    assert_int_equal(get(FIRST), 0);
    put(FIRST, 7);
    assert_int_equal(change(MEM_SHARE, FIRST), 0);
}

/* Pages leave the pool out of the middle of its chains, and those that stay are found. */
static void test_pool_chains(void **unused)
{
    struct mem_counts counts;

    for (unsigned i = 0; i < 768; i++) {
        put(FIRST + i, 1 + i);
        assert_int_equal(change(MEM_SHARE, FIRST + i), 0);
    }
    for (unsigned i = 1; i < 768; i += 3)
        put(FIRST + i, 0);
    for (unsigned i = 0; i < 768; i += 3)
        put(FIRST + i, 0);
    for (unsigned i = 2; i < 768; i += 3) {
        put(FIRST + 768 + i / 3, 1 + i);
        assert_int_equal(change(MEM_SHARE, FIRST + 768 + i / 3), 0);
    }
    mem_count(mem, &counts);
    assert_int_equal(counts.shared, 512);
    assert_int_equal(counts.shared_machine_pages, 256);
    for (unsigned i = 2; i < 768; i += 3)
        assert_int_equal(get(FIRST + i), 1 + i);
}

static int write_nothing(void *opaque, const void *data, size_t size, struct error *err)
{
    return 0;
}

/* A page that the pager cannot bring in makes a save fail; it is not left out. */
static void test_save_fails(void **unused)
{
    const struct state_writer writer = {.write = write_nothing};

    put(FIRST, 42);
    assert_int_equal(change(MEM_SWAP_OUT, FIRST), 0);
    for (int fails = 0; fails >= -EIO; fails -= EIO) {
        struct state *s = state_create_save(&writer, "test", NULL);

        assert_non_null(s);
        store.fails = fails;
        mem_state(mem, s);
        assert_int_equal(state_error(s) != 0, fails != 0);
        state_free(s);
        store.fails = 0;
        if (!fails)
            assert_int_equal(change(MEM_SWAP_OUT, FIRST), 0);
    }
}

/* --- With others ------------------------------------------------------------------------------ */

/* Pages that a vCPU keeps are skipped; the first of too many are given up. */
static void test_kept(void **unused)
{
    struct mem_kept kept = {.count = 0};

    assert_int_equal(mem_fault(mem, FIRST, MEM_WRITE, &kept), 0);
    assert_int_equal(mem_fault(mem, FIRST + 1, MEM_READ, &kept), 0);
    assert_int_equal(change(MEM_BALLOON, FIRST), -EBUSY);
    mem_release(mem, &kept);
    assert_int_equal(change(MEM_BALLOON, FIRST), 0);
    for (unsigned i = 0; i < MEM_KEPT + 1; i++)
        mem_fault(mem, FIRST + i, MEM_WRITE, &kept);
    assert_int_equal(change(MEM_BALLOON, FIRST), 0);
    assert_int_equal(change(MEM_BALLOON, FIRST + 1), -EBUSY);
    assert_int_equal(change(MEM_BALLOON, FIRST + MEM_KEPT), -EBUSY);
    mem_release(mem, &kept);
    assert_int_equal(change(MEM_BALLOON, FIRST + 1), 0);
}

/* Keeping a page of a device's memory counts nothing, and so takes nothing off the RAM that is
 * there when it is released. */
static void test_kept_device(void **unused)
{
    struct mem_region_config config = {
        .name = "region", .gpa = 0xF0000000, .size = MEM_PAGE_SIZE, .kind = MEM_DEVICE};
    struct mem_region *device = mem_region_add(mem, &config, NULL);
    struct mem_kept kept = {.count = 0};

    assert_non_null(device);
    assert_int_equal(mem_fault(mem, 0xF0000, MEM_READ, &kept), 0);
    mem_region_remove(device);
    config.kind = MEM_RAM;
    assert_non_null(mem_region_add(mem, &config, NULL));
    mem_release(mem, &kept);
    assert_int_equal(change(MEM_BALLOON, 0xF0000), 0);
}

static void *read_first(void *opaque)
{
    return (void *)(uintptr_t)get(FIRST);
}

/* While the pager works on a page, others have theirs changed, and who wants the same one waits. */
static void change_others(void)
{
    put(FIRST + 1, 2);
    assert_int_equal(change(MEM_SHARE, FIRST + 1), 0);
    assert_int_equal(change(MEM_BALLOON, FIRST), -EBUSY);
    assert_int_equal(state(FIRST), MEM_STATE_BUSY);
}

static void test_slow_pager(void **unused)
{
    pthread_t thread[2];
    void *got;

    put(FIRST, 42);
    change(MEM_SWAP_OUT, FIRST);
    store.before_in = change_others;
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&thread[i], NULL, read_first, NULL);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(thread[i], &got);
        assert_int_equal((uintptr_t)got, 42);
    }
    assert_int_equal(store.ins, 1);
}

static _Atomic unsigned made;
static struct mem_change posted[3];

static void on_done(struct mem_batch *batch)
{
    assert_ptr_equal(batch->changes, posted);
    if (atomic_fetch_add(&made, 1) == 0) { /* once more from here */
        posted[0].kind = MEM_BALLOON;
        assert_int_equal(mem_change_post(mem, batch), 0);
    }
}

static void test_manager(void **unused)
{
    struct mem_batch batch = {.changes = posted, .count = ARRAY_SIZE(posted), .done = on_done};

    for (unsigned i = 0; i < ARRAY_SIZE(posted); i++) {
        posted[i] = (struct mem_change){.kind = MEM_SHARE, .gpn = FIRST + i};
        put(FIRST + i, 3);
    }
    assert_int_equal(mem_change_post(mem, &batch), 0);
    while (atomic_load(&made) < 2)
        ;
    assert_int_equal(posted[0].status, 0);
    assert_int_equal(posted[1].status, -EALREADY);
    assert_int_equal(get(FIRST), 0);
    assert_int_equal(get(FIRST + 1), 3);
}

/* What was posted before the end is made. A batch that posts itself again cannot delay the end. */
static void on_done_again(struct mem_batch *batch)
{
    int ret;

    *(unsigned *)batch->opaque += 1;
    ret = mem_change_post(mem, batch);
    assert_true(ret == 0 || ret == -ESHUTDOWN);
}

static void test_manager_end(void **unused)
{
    unsigned done = 0;
    struct mem_batch batch = {
        .changes = posted, .count = 1, .done = on_done_again, .opaque = &done};

    posted[0] = (struct mem_change){.kind = MEM_BALLOON, .gpn = FIRST};
    assert_int_equal(mem_change_post(mem, &batch), 0);
    mem_change_end(mem);
    assert_true(done >= 1);
    assert_int_equal(state(FIRST), MEM_STATE_BALLOONED);
    assert_int_equal(mem_change_post(mem, &batch), -ESHUTDOWN);
    mem_change_end(mem);
}

#define TEST(NAME) cmocka_unit_test_setup_teardown(NAME, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_share),       TEST(test_zero),        TEST(test_unshare_groups),
        TEST(test_balloon),     TEST(test_swap),        TEST(test_protect),
        TEST(test_refused),     TEST(test_whole),       TEST(test_states),
        TEST(test_clear),       TEST(test_kept),        TEST(test_slow_pager),
        TEST(test_manager),     TEST(test_manager_end), TEST(test_clear_changed),
        TEST(test_pool_chains), TEST(test_save_fails),  TEST(test_kept_device),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
