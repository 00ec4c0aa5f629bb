/*
 * The virtqueue iterator: chains of every form, every rule that a driver can break, indices that
 * wrap, and who is told of what.
 */
#include "test.h"

#include "base/util.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "state_image.h"
#include "virtqueue_rig.h"

#define SIZE   8u
#define RINGS  0x10000u
#define TABLE  0x20000u /* an indirect one */
#define DATA   0x30000u
#define MEMORY (2 * MiB)

struct fixture {
    struct mem *mem;
    struct virtqueue queue;
    struct rig_queue rig;
};

static void start(struct fixture *f, struct virtqueue_config config)
{
    f->rig = (struct rig_queue){.mem = f->mem, .config = config};
    virtqueue_start(&f->queue, &config);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct virtqueue_config config = rig_layout(RINGS, SIZE);

    f->mem = mem_create(MEMORY, NULL);
    assert_int_equal(virtqueue_init(&f->queue, f->mem, 256, NULL), 0);
    config.indirect = true;
    start(f, config);
    assert_int_equal(virtqueue_open(&f->queue), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    virtqueue_close(&f->queue);
    virtqueue_free(&f->queue);
    mem_destroy(f->mem);
    free(f);
    return 0;
}

static void reopen(struct fixture *f, struct virtqueue_config config)
{
    virtqueue_close(&f->queue);
    start(f, config);
    assert_int_equal(virtqueue_open(&f->queue), 0);
}

static int next(struct fixture *f, struct virtqueue_chain *chain)
{
    return virtqueue_next(&f->queue, chain);
}

/* The chain at HEAD breaks a rule. The queue can go on afterwards as if it had not been there. */
static void assert_broken(struct fixture *f, uint16_t head)
{
    struct virtqueue_chain chain;

    rig_publish(&f->rig, head);
    assert_int_equal(next(f, &chain), VIRTQUEUE_BROKEN);
    rig_publish_index(&f->rig, (uint16_t)(f->rig.available - 1));
}

static void test_direct(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_chain chain;

    assert_int_equal(next(f, &chain), 0);
    rig_descriptor(&f->rig, 5, DATA, 10, RIG_NEXT, 2);
    rig_descriptor(&f->rig, 2, DATA + 0x1000, 20, RIG_NEXT, 7);
    rig_descriptor(&f->rig, 7, DATA + 0x2000, 30, RIG_WRITE | RIG_NEXT, 0);
    rig_descriptor(&f->rig, 0, DATA + 0x3000, 0, RIG_WRITE, 99); /* no NEXT: 99 means nothing */
    rig_publish(&f->rig, 5);
    assert_int_equal(next(f, &chain), 1);
    assert_int_equal(chain.head, 5);
    assert_int_equal(chain.readable, 2);
    assert_int_equal(chain.writable, 2);
    assert_int_equal(chain.readable_bytes, 30);
    assert_int_equal(chain.writable_bytes, 30);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(chain.buffer[i].gpa, DATA + 0x1000 * i);
    assert_int_equal(chain.buffer[1].size, 20);
    assert_int_equal(next(f, &chain), 0);
}

static void test_indirect(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_chain chain;

    rig_descriptor(&f->rig, 1, DATA, 1, RIG_NEXT, 3);
    rig_descriptor(&f->rig, 3, TABLE, 3 * 16, RIG_INDIRECT | RIG_WRITE, 0); /* WRITE is ignored */
    rig_descriptor_at(f->mem, TABLE, 0, DATA + 1, 2, RIG_NEXT, 2);
    rig_descriptor_at(f->mem, TABLE, 2, DATA + 3, 4, RIG_NEXT | RIG_WRITE, 1);
    rig_descriptor_at(f->mem, TABLE, 1, DATA + 7, 8, RIG_WRITE, 0);
    rig_publish(&f->rig, 1);
    assert_int_equal(next(f, &chain), 1);
    assert_int_equal(chain.head, 1);
    assert_int_equal(chain.readable, 2);
    assert_int_equal(chain.writable, 2);
    assert_int_equal(chain.readable_bytes, 3);
    assert_int_equal(chain.writable_bytes, 12);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(chain.buffer[i].size, 1u << i);
}

/* As long as the queue, in both forms. */
static void test_longest(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_chain chain;

    for (unsigned i = 0; i < SIZE; i++) {
        rig_descriptor(&f->rig, i, DATA, 1, i < SIZE - 1 ? RIG_NEXT : 0, (uint16_t)(i + 1));
        rig_descriptor_at(f->mem, TABLE, i, DATA, 1, i < SIZE - 1 ? RIG_NEXT : 0,
                          (uint16_t)(i + 1));
    }
    rig_publish(&f->rig, 0);
    assert_int_equal(next(f, &chain), 1);
    assert_int_equal(chain.readable, SIZE);
    rig_descriptor(&f->rig, 0, TABLE, SIZE * 16, RIG_INDIRECT, 0);
    rig_publish(&f->rig, 0);
    assert_int_equal(next(f, &chain), 1);
    assert_int_equal(chain.readable, SIZE);
}

static void test_bad_index(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_chain chain;

    rig_descriptor(&f->rig, 0, DATA, 1, 0, 0);
    rig_publish_index(&f->rig, SIZE + 1); /* more than the ring has room for */
    assert_int_equal(next(f, &chain), VIRTQUEUE_BROKEN);
    rig_publish_index(&f->rig, 0xFFFF); /* backwards */
    assert_int_equal(next(f, &chain), VIRTQUEUE_BROKEN);
    rig_publish_index(&f->rig, SIZE);
    assert_int_equal(next(f, &chain), 1);
    assert_int_equal(chain.head, 0);
}

static void test_bad_heads(void **state)
{
    struct fixture *f = *state;

    assert_broken(f, SIZE);
    assert_broken(f, 0xFFFF);
    rig_descriptor(&f->rig, 0, DATA, 1, RIG_NEXT, SIZE);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 0, DATA, 1, RIG_NEXT, 0xFFFF);
    assert_broken(f, 0);
}

static void test_loops(void **state)
{
    struct fixture *f = *state;

    rig_descriptor(&f->rig, 0, DATA, 1, RIG_NEXT, 0);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 0, DATA, 1, RIG_NEXT, 1);
    rig_descriptor(&f->rig, 1, DATA, 1, RIG_NEXT, 0);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 0, TABLE, 32, RIG_INDIRECT, 0);
    rig_descriptor_at(f->mem, TABLE, 0, DATA, 1, RIG_NEXT, 1);
    rig_descriptor_at(f->mem, TABLE, 1, DATA, 1, RIG_NEXT, 0);
    assert_broken(f, 0);
    /* Longer than the queue together, though neither part is. */
    rig_descriptor(&f->rig, 0, DATA, 1, RIG_NEXT, 1);
    rig_descriptor(&f->rig, 1, TABLE, SIZE * 16, RIG_INDIRECT, 0);
    for (unsigned i = 0; i < SIZE; i++)
        rig_descriptor_at(f->mem, TABLE, i, DATA, 1, i < SIZE - 1 ? RIG_NEXT : 0,
                          (uint16_t)(i + 1));
    assert_broken(f, 0);
}

static void test_bad_order(void **state)
{
    struct fixture *f = *state;

    rig_descriptor(&f->rig, 0, DATA, 1, RIG_NEXT | RIG_WRITE, 1);
    rig_descriptor(&f->rig, 1, DATA, 1, 0, 0);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 1, TABLE, 16, RIG_INDIRECT, 0);
    rig_descriptor_at(f->mem, TABLE, 0, DATA, 1, 0, 0);
    assert_broken(f, 0);
}

static void test_bad_tables(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_config config = f->rig.config;

    rig_descriptor_at(f->mem, TABLE, 0, DATA, 1, 0, 0);
    rig_descriptor(&f->rig, 0, TABLE, 16, RIG_INDIRECT | RIG_NEXT, 1);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 0, TABLE, 0, RIG_INDIRECT, 0);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 0, TABLE, 24, RIG_INDIRECT, 0);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 0, TABLE, (SIZE + 1) * 16, RIG_INDIRECT, 0);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 0, TABLE, 0xFFFFFFF0, RIG_INDIRECT, 0);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 0, MEMORY - 8, 16, RIG_INDIRECT, 0);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 0, UINT64_MAX - 7, 16, RIG_INDIRECT, 0);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 0, TABLE, 32, RIG_INDIRECT, 0);
    rig_descriptor_at(f->mem, TABLE, 0, DATA, 1, RIG_NEXT, 2); /* beyond the table */
    assert_broken(f, 0);
    rig_descriptor_at(f->mem, TABLE, 0, TABLE, 16, RIG_INDIRECT, 0); /* a table in a table */
    assert_broken(f, 0);
    config.indirect = false; /* was not negotiated */
    reopen(f, config);
    rig_descriptor_at(f->mem, TABLE, 0, DATA, 1, 0, 0);
    rig_descriptor(&f->rig, 0, TABLE, 16, RIG_INDIRECT, 0);
    assert_broken(f, 0);
}

/* 4 GiB are allowed, one byte more is not. */
static void test_too_many_bytes(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_chain chain;

    rig_descriptor(&f->rig, 0, 0, 0x80000000, RIG_NEXT, 1);
    rig_descriptor(&f->rig, 1, 0, 0x80000000, RIG_NEXT | RIG_WRITE, 2);
    rig_descriptor(&f->rig, 2, 0, 1, RIG_WRITE, 0);
    assert_broken(f, 0);
    rig_descriptor(&f->rig, 2, 0, 0, RIG_WRITE, 0);
    rig_publish(&f->rig, 0);
    assert_int_equal(next(f, &chain), 1);
    assert_int_equal(chain.readable_bytes, 0x80000000);
    assert_int_equal(chain.writable_bytes, 0x80000000);
}

static void test_complete(void **state)
{
    struct fixture *f = *state;
    uint32_t head, written;

    assert_false(rig_reap(&f->rig, &head, &written));
    virtqueue_complete(&f->queue, 6, 100);
    virtqueue_complete(&f->queue, 1, 0xFFFFFFFF);
    assert_true(rig_reap(&f->rig, &head, &written));
    assert_int_equal(head, 6);
    assert_int_equal(written, 100);
    assert_true(rig_reap(&f->rig, &head, &written));
    assert_int_equal(head, 1);
    assert_int_equal(written, 0xFFFFFFFF);
    assert_false(rig_reap(&f->rig, &head, &written));
}

/* Several at once: the driver sees none of them before it sees all. The ring wraps in between. */
static void test_publish(void **state)
{
    struct fixture *f = *state;
    uint32_t head, written;

    for (unsigned i = 0; i < SIZE - 2; i++) {
        virtqueue_complete(&f->queue, 0, 0);
        assert_true(rig_reap(&f->rig, &head, &written));
    }
    for (unsigned i = 0; i < 4; i++) {
        virtqueue_put(&f->queue, i, (uint16_t)i, 10 + i);
        assert_false(rig_reap(&f->rig, &head, &written));
    }
    virtqueue_publish(&f->queue, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(rig_reap(&f->rig, &head, &written));
        assert_int_equal(head, i);
        assert_int_equal(written, 10 + i);
    }
    assert_false(rig_reap(&f->rig, &head, &written));
}

/* The indices wrap at 65536, the rings at their size. */
static void test_wrap(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_chain chain;
    uint32_t head, written;

    for (unsigned i = 0; i < SIZE; i++)
        rig_descriptor(&f->rig, i, DATA + i, 1, 0, 0);
    for (unsigned i = 0; i < 65536 + 3 * SIZE; i++) {
        unsigned n = i * 5 % SIZE;

        rig_publish(&f->rig, (uint16_t)n);
        assert_int_equal(next(f, &chain), 1);
        assert_int_equal(chain.head, n);
        assert_int_equal(chain.buffer[0].gpa, DATA + n);
        virtqueue_complete(&f->queue, chain.head, i);
        assert_true(rig_reap(&f->rig, &head, &written));
        assert_int_equal(head, n);
        assert_int_equal(written, i);
    }
    assert_int_equal(next(f, &chain), 0);
}

/* A queue of one, and one as large as init() was told. */
static void test_sizes(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_chain chain;
    uint32_t head, written;

    for (unsigned size = 1; size <= 256; size *= 256) {
        struct virtqueue_config config = rig_layout(RINGS, size);

        assert_true(virtqueue_allows(&config, 256));
        assert_int_equal(mem_fill(f->mem, RINGS, 0, 0x10000), 0);
        reopen(f, config);
        for (unsigned i = 0; i < 3 * size; i++) {
            rig_descriptor(&f->rig, i % size, DATA + i, 1, RIG_WRITE, 0);
            rig_publish(&f->rig, (uint16_t)(i % size));
            assert_int_equal(next(f, &chain), 1);
            assert_int_equal(chain.head, i % size);
            virtqueue_complete(&f->queue, chain.head, 1);
            assert_true(rig_reap(&f->rig, &head, &written));
        }
    }
}

static void test_allows(void **unused)
{
    struct virtqueue_config good = rig_layout(RINGS, 16), c = good;

    assert_true(virtqueue_allows(&good, 16));
    assert_false(virtqueue_allows(&good, 8));
    c.size = 0;
    assert_false(virtqueue_allows(&c, 16));
    c.size = 12;
    assert_false(virtqueue_allows(&c, 16));
    c = good;
    c.descriptors += 8;
    assert_false(virtqueue_allows(&c, 16));
    c = good;
    c.available += 1;
    assert_false(virtqueue_allows(&c, 16));
    c = good;
    c.used += 2;
    assert_false(virtqueue_allows(&c, 16));
}

/* Rings that are not in memory, or only with their first bytes. */
static void test_open(void **state)
{
    struct fixture *f = *state;
    const struct virtqueue_config good = f->rig.config;
    static const uint64_t bad[] = {MEMORY, MEMORY - 16, 0xA0000, UINT64_MAX & ~UINT64_C(15)};

    virtqueue_close(&f->queue);
    for (unsigned i = 0; i < 3 * ARRAY_SIZE(bad); i++) {
        struct virtqueue_config c = good;

        *(uint64_t *[]){&c.descriptors, &c.available, &c.used}[i % 3] = bad[i / 3];
        start(f, c);
        assert_int_equal(virtqueue_open(&f->queue), -EFAULT);
    }
    start(f, good);
    /* Rings do not count: who has them pinned can give back what does. */
    mem_set_pin_limit(f->mem, 0);
    assert_int_equal(virtqueue_open(&f->queue), 0);
    mem_set_pin_limit(f->mem, MEM_PIN_LIMIT);
}

/* A chain that the device still has, read again: unchanged, and then changed by the driver. */
static void test_again(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_chain chain;

    rig_descriptor(&f->rig, 3, DATA, 1, RIG_NEXT, 4);
    rig_descriptor(&f->rig, 4, DATA, 2, RIG_WRITE, 0);
    rig_publish(&f->rig, 3);
    assert_int_equal(next(f, &chain), 1);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(virtqueue_again(&f->queue, 3, &chain), 1);
        assert_int_equal(chain.head, 3);
        assert_int_equal(chain.readable_bytes, 1);
        assert_int_equal(chain.writable_bytes, 2);
        assert_int_equal(next(f, &chain), 0);
    }
    rig_descriptor(&f->rig, 4, DATA, 2, RIG_WRITE | RIG_NEXT, 3);
    assert_int_equal(virtqueue_again(&f->queue, 3, &chain), VIRTQUEUE_BROKEN);
    assert_int_equal(virtqueue_again(&f->queue, SIZE, &chain), VIRTQUEUE_BROKEN);
}

static void test_interrupts_by_flag(void **state)
{
    struct fixture *f = *state;

    assert_false(virtqueue_wants_interrupt(&f->queue)); /* nothing was completed */
    virtqueue_complete(&f->queue, 0, 0);
    assert_true(virtqueue_wants_interrupt(&f->queue));
    assert_false(virtqueue_wants_interrupt(&f->queue));
    rig_put(f->mem, f->rig.config.available, 1, 2);
    virtqueue_complete(&f->queue, 0, 0);
    assert_false(virtqueue_wants_interrupt(&f->queue));
    rig_put(f->mem, f->rig.config.available, 0, 2);
    assert_false(virtqueue_wants_interrupt(&f->queue)); /* what was completed before is past */
    virtqueue_complete(&f->queue, 0, 0);
    assert_true(virtqueue_wants_interrupt(&f->queue));
}

/* An interrupt for entry EVENT comes when the index goes from at most EVENT to beyond it. */
static void test_interrupts_by_event(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_config config = f->rig.config;

    config.event_index = true;
    reopen(f, config);
    rig_put(f->mem, f->rig.config.available, 1, 2); /* the flag means nothing */
    rig_want_interrupt_at(&f->rig, 0);
    virtqueue_complete(&f->queue, 0, 0);
    assert_true(virtqueue_wants_interrupt(&f->queue));
    virtqueue_complete(&f->queue, 0, 0);
    assert_false(virtqueue_wants_interrupt(&f->queue));
    rig_want_interrupt_at(&f->rig, 4);
    virtqueue_complete(&f->queue, 0, 0); /* entries 2 and 3 */
    virtqueue_complete(&f->queue, 0, 0);
    assert_false(virtqueue_wants_interrupt(&f->queue));
    for (unsigned i = 0; i < 3; i++) /* 4 to 6 at once */
        virtqueue_complete(&f->queue, 0, 0);
    assert_true(virtqueue_wants_interrupt(&f->queue));
    /* Across the wrap. */
    for (unsigned i = 7; i < 0xFFFE; i++)
        virtqueue_complete(&f->queue, 0, 0);
    virtqueue_wants_interrupt(&f->queue);
    rig_want_interrupt_at(&f->rig, 1);
    for (unsigned i = 0xFFFE; i < 0x10001; i++)
        virtqueue_complete(&f->queue, 0, 0);
    assert_false(virtqueue_wants_interrupt(&f->queue));
    virtqueue_complete(&f->queue, 0, 0);
    assert_true(virtqueue_wants_interrupt(&f->queue));
}

static void test_await(void **state)
{
    struct fixture *f = *state;
    struct virtqueue_config config = f->rig.config;
    struct virtqueue_chain chain;

    assert_false(virtqueue_await(&f->queue));
    rig_descriptor(&f->rig, 0, DATA, 1, 0, 0);
    rig_publish(&f->rig, 0);
    assert_true(virtqueue_await(&f->queue)); /* came after next() had said 0 */
    assert_int_equal(rig_notify_at(&f->rig), 0);
    config.event_index = true;
    assert_int_equal(mem_fill(f->mem, RINGS, 0, 0x1000), 0);
    reopen(f, config);
    for (unsigned i = 0; i < 3; i++) {
        rig_publish(&f->rig, 0);
        assert_int_equal(next(f, &chain), 1);
    }
    assert_int_equal(rig_notify_at(&f->rig), 0); /* not while it is at work */
    assert_false(virtqueue_await(&f->queue));
    assert_int_equal(rig_notify_at(&f->rig), 3);
    rig_publish(&f->rig, 0);
    assert_true(virtqueue_await(&f->queue));
}

/* ---- Two processors at once ---- */

/* A host with other work may not run both at once; then it does not take as long as it would. */
#define MEETINGS     20000u
#define MOST_SECONDS 3

/* Both sides do their part of a step at the same moment, as nearly as can be. */
struct meeting {
    struct fixture *f;
    _Atomic unsigned driver, device; /* the step that each has come to */
    bool device_acts;                /* what the device has decided in the last step */
    bool over;                       /* set by the driver before a step */
    uint16_t *available_index, *used_event;
    const uint16_t *used_index, *notify_at;
};

static void arrive(_Atomic unsigned *mine, const _Atomic unsigned *other)
{
    unsigned step = atomic_fetch_add(mine, 1) + 1;

    for (unsigned spins = 0; atomic_load(other) < step; spins++)
        if (spins > 2000)
            sched_yield();
}

static void meet(struct fixture *f, struct meeting *m, void *(*device)(void *opaque),
                 void (*driver)(struct meeting *m, uint16_t step))
{
    struct virtqueue_config config = f->rig.config;
    time_t until = time(NULL) + MOST_SECONDS;
    pthread_t thread;
    uint8_t *rings;

    config.event_index = true;
    reopen(f, config);
    rings = mem_peek(f->mem, RINGS / MEM_PAGE_SIZE);
    *m = (struct meeting){.f = f};
    m->available_index = (uint16_t *)(rings + (config.available + 2 - RINGS));
    m->used_event = (uint16_t *)(rings + (config.available + 4 + 2 * SIZE - RINGS));
    m->used_index = (uint16_t *)(rings + (config.used + 2 - RINGS));
    m->notify_at = (uint16_t *)(rings + (config.used + 4 + 8 * SIZE - RINGS));
    assert_int_equal(pthread_create(&thread, NULL, device, m), 0);
    for (unsigned step = 0; step < MEETINGS && time(NULL) < until; step++)
        driver(m, (uint16_t)step);
    m->over = true;
    arrive(&m->driver, &m->device);
    pthread_join(thread, NULL);
}

static void *await_chains(void *opaque)
{
    struct meeting *m = opaque;
    struct virtqueue_chain chain;

    while (arrive(&m->device, &m->driver), !m->over) {
        m->device_acts = virtqueue_await(&m->f->queue);
        arrive(&m->device, &m->driver);
        if (virtqueue_next(&m->f->queue, &chain) != 1)
            m->device_acts = false;
        arrive(&m->device, &m->driver);
    }
    return NULL;
}

/* The driver adds a chain just when the device goes to sleep: at least one of them notices. */
static void add_chain(struct meeting *m, uint16_t step)
{
    bool notifies;

    arrive(&m->driver, &m->device);
    __atomic_store_n(m->available_index, (uint16_t)(step + 1), __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    notifies = __atomic_load_n(m->notify_at, __ATOMIC_RELAXED) == step;
    arrive(&m->driver, &m->device);
    if (!notifies && !m->device_acts)
        fail_msg("step %u: the driver does not notify, and the device sleeps", step);
    arrive(&m->driver, &m->device);
}

static void test_no_notification_lost(void **state)
{
    struct fixture *f = *state;
    struct meeting m;

    rig_descriptor(&f->rig, 0, DATA, 1, RIG_WRITE, 0);
    meet(f, &m, await_chains, add_chain);
}

static void *complete_chains(void *opaque)
{
    struct meeting *m = opaque;

    while (arrive(&m->device, &m->driver), !m->over) {
        virtqueue_complete(&m->f->queue, 0, 1);
        m->device_acts = virtqueue_wants_interrupt(&m->f->queue);
        arrive(&m->device, &m->driver);
        arrive(&m->device, &m->driver);
    }
    return NULL;
}

/* The device gives a chain back just when the driver goes to sleep. */
static void await_interrupt(struct meeting *m, uint16_t step)
{
    bool sees;

    arrive(&m->driver, &m->device);
    __atomic_store_n(m->used_event, step, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    sees = __atomic_load_n(m->used_index, __ATOMIC_ACQUIRE) != step;
    arrive(&m->driver, &m->device);
    if (!sees && !m->device_acts)
        fail_msg("step %u: the driver sleeps, and the device does not interrupt", step);
    arrive(&m->driver, &m->device);
}

static void test_no_interrupt_lost(void **state)
{
    struct meeting m;

    meet(*state, &m, complete_chains, await_interrupt);
}

/* The position goes over to another queue in the middle. */
static void test_save_restore(void **state)
{
    struct fixture *f = *state;
    struct state_image image = {0};
    struct state *save = image_save(&image), *load;
    struct virtqueue_chain chain;
    struct virtqueue other;
    uint32_t head, written;

    for (unsigned i = 0; i < 4; i++) {
        rig_descriptor(&f->rig, i, DATA, 1, 0, 0);
        rig_publish(&f->rig, (uint16_t)i);
    }
    assert_int_equal(next(f, &chain), 1);
    virtqueue_complete(&f->queue, chain.head, 0);
    state_section(save, "test", 0, 1);
    virtqueue_state(&f->queue, save);
    assert_int_equal(image_done(save), 0);
    load = image_load(&image);
    state_section(load, "test", 0, 1);
    assert_int_equal(virtqueue_init(&other, f->mem, 256, NULL), 0);
    virtqueue_start(&other, &f->rig.config);
    virtqueue_state(&other, load);
    assert_int_equal(image_done(load), 0);
    assert_int_equal(virtqueue_open(&other), 0);
    assert_int_equal(virtqueue_next(&other, &chain), 1);
    assert_int_equal(chain.head, 1);
    virtqueue_complete(&other, chain.head, 9);
    assert_true(virtqueue_wants_interrupt(&other));
    assert_true(rig_reap(&f->rig, &head, &written));
    assert_true(rig_reap(&f->rig, &head, &written));
    assert_int_equal(head, 1);
    assert_int_equal(written, 9);
    virtqueue_close(&other);
    virtqueue_free(&other);
    image_free(&image);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_direct),
        TEST(test_indirect),
        TEST(test_longest),
        TEST(test_bad_index),
        TEST(test_bad_heads),
        TEST(test_loops),
        TEST(test_bad_order),
        TEST(test_bad_tables),
        TEST(test_too_many_bytes),
        TEST(test_complete),
        TEST(test_publish),
        TEST(test_wrap),
        TEST(test_sizes),
        cmocka_unit_test(test_allows),
        TEST(test_open),
        TEST(test_again),
        TEST(test_interrupts_by_flag),
        TEST(test_interrupts_by_event),
        TEST(test_await),
        TEST(test_no_notification_lost),
        TEST(test_no_interrupt_lost),
        TEST(test_save_restore),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
