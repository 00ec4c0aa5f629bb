/*
 * The pool of workers: what is posted runs, once for many posts, never twice at once, and not while
 * paused or after removal.
 */
#include "test.h"

#include "base/thread.h"
#include "base/time.h"
#include "base/util.h"
#include "base/where.h"
#include "base/workers.h"

#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

/* A work that tells when it has begun and does not return before it may. */
struct gated {
    struct work work;
    sem_t begun, may_return;
    _Atomic unsigned runs;
    _Atomic bool inside;
};

static void run_gated(void *opaque)
{
    struct gated *g = opaque;

    assert_false(atomic_exchange(&g->inside, true));
    atomic_fetch_add(&g->runs, 1);
    sem_post(&g->begun);
    sem_wait(&g->may_return);
    atomic_store(&g->inside, false);
}

static void add_gated(struct workers *pool, struct gated *g)
{
    memset(g, 0, sizeof(*g));
    sem_init(&g->begun, 0, 0);
    sem_init(&g->may_return, 0, 0);
    assert_int_equal(workers_add(pool, &g->work, run_gated, g, NULL), 0);
}

static struct workers *create(unsigned threads)
{
    struct error err = {0};
    struct workers *pool = workers_create("test", threads, &err);

    assert_non_null(pool);
    return pool;
}

static void test_coalesces(void **unused)
{
    struct workers *pool = create(2);
    struct gated g, idle;

    add_gated(pool, &idle); /* so that there is a second thread */
    add_gated(pool, &g);
    workers_post(&g.work);
    sem_wait(&g.begun);
    /* All of these are one call, because it has not begun, and it waits for the first to end. */
    for (unsigned i = 0; i < 100; i++)
        workers_post(&g.work);
    time_sleep_ns(5 * NS_PER_MS);
    assert_int_equal(atomic_load(&g.runs), 1);
    sem_post(&g.may_return);
    sem_wait(&g.begun);
    sem_post(&g.may_return);
    workers_drain(pool);
    assert_int_equal(atomic_load(&g.runs), 2);
    workers_remove(&g.work);
    workers_remove(&g.work); /* for who has not added it, nothing happens */
    workers_destroy(pool);
}

/* Two threads, three works: as many run as there are threads, in the order of their posts. */
static void test_threads(void **unused)
{
    struct workers *pool = create(2);
    struct gated g[3];

    assert_null(workers_where(pool, 0));
    for (unsigned i = 0; i < ARRAY_SIZE(g); i++) {
        add_gated(pool, &g[i]);
        assert_non_null(workers_where(pool, i < 2 ? i : 1));
        assert_null(workers_where(pool, i < 2 ? i + 1 : 2));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(g); i++)
        workers_post(&g[i].work);
    sem_wait(&g[0].begun);
    sem_wait(&g[1].begun);
    time_sleep_ns(5 * NS_PER_MS);
    assert_int_equal(atomic_load(&g[2].runs), 0);
    sem_post(&g[1].may_return);
    sem_wait(&g[2].begun);
    sem_post(&g[2].may_return);
    sem_post(&g[0].may_return);
    workers_destroy(pool); /* waits for those that run */
    for (unsigned i = 0; i < ARRAY_SIZE(g); i++)
        assert_false(atomic_load(&g[i].inside));
}

static void test_pause_keeps_the_wish(void **unused)
{
    struct workers *pool = create(1);
    struct gated busy, g;

    add_gated(pool, &busy);
    add_gated(pool, &g);
    workers_post(&busy.work);
    sem_wait(&busy.begun);
    workers_post(&g.work); /* waits behind the other */
    workers_pause(&g.work);
    workers_post(&g.work);
    sem_post(&busy.may_return);
    workers_drain(pool);
    assert_int_equal(atomic_load(&g.runs), 0);
    workers_resume(&g.work);
    sem_wait(&g.begun);
    sem_post(&g.may_return);
    workers_drain(pool);
    assert_int_equal(atomic_load(&g.runs), 1);
    workers_pause(&g.work);
    workers_resume(&g.work); /* nobody has asked for it meanwhile */
    workers_drain(pool);
    assert_int_equal(atomic_load(&g.runs), 1);
    workers_destroy(pool);
}

struct pauser {
    struct gated *g;
    void (*stop)(struct work *work);
    bool inside_after;
    sem_t begun;
};

static void *pause_it(void *opaque)
{
    struct pauser *p = opaque;

    sem_post(&p->begun);
    p->stop(&p->g->work);
    p->inside_after = atomic_load(&p->g->inside);
    return NULL;
}

/* Pausing and removing wait for what runs, and keep what was posted again from running. */
static void stop_waits(void (*stop)(struct work *work))
{
    struct workers *pool = create(1);
    struct gated g;
    struct pauser p = {.g = &g, .stop = stop};
    pthread_t thread;

    add_gated(pool, &g);
    sem_init(&p.begun, 0, 0);
    workers_post(&g.work);
    sem_wait(&g.begun);
    workers_post(&g.work);
    assert_int_equal(thread_start(&thread, "pauser", pause_it, &p, NULL), 0);
    sem_wait(&p.begun);
    time_sleep_ns(20 * NS_PER_MS); /* so that it would be through if it did not wait */
    sem_post(&g.may_return);
    pthread_join(thread, NULL);
    assert_false(p.inside_after);
    workers_drain(pool);
    assert_int_equal(atomic_load(&g.runs), 1);
    workers_destroy(pool);
}

static void test_pause_waits(void **unused)
{
    stop_waits(workers_pause);
}

static void test_remove_waits(void **unused)
{
    stop_waits(workers_remove);
}

/* A work that asks a plain counter whether it ever runs twice at once. */
struct counter {
    struct work work;
    unsigned value;
    _Atomic unsigned served, wanted;
};

static void run_counter(void *opaque)
{
    struct counter *c = opaque;
    unsigned wanted = atomic_load(&c->wanted);

    c->value++;
    atomic_store(&c->served, wanted);
}

static void *post_often(void *opaque)
{
    struct counter *c = opaque;

    for (unsigned i = 0; i < 4000; i++) {
        atomic_fetch_add(&c[i % 3].wanted, 1);
        workers_post(&c[i % 3].work);
    }
    return NULL;
}

/* No post is lost, and what one run wrote the next one sees. */
static void test_storm(void **unused)
{
    struct workers *pool = create(3);
    struct counter c[3];
    pthread_t threads[3];

    memset(c, 0, sizeof(c));
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++)
        assert_int_equal(workers_add(pool, &c[i].work, run_counter, &c[i], NULL), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(thread_start(&threads[i], "poster", post_often, c, NULL), 0);
    for (unsigned i = 0; i < 200; i++) {
        workers_pause(&c[i % 3].work);
        c[i % 3].value++; /* nobody else has it now */
        workers_resume(&c[i % 3].work);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    workers_drain(pool);
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
        assert_int_equal(atomic_load(&c[i].served), atomic_load(&c[i].wanted));
        workers_remove(&c[i].work);
    }
    workers_destroy(pool);
}

/* Threads of ours leave signals to others, but for those that code raises, and can be asked. */
static void run_mask(void *opaque)
{
    pthread_sigmask(SIG_SETMASK, NULL, opaque);
}

static void test_signals(void **unused)
{
    struct workers *pool = create(1);
    struct work work;
    sigset_t mask;

    sigfillset(&mask);
    assert_int_equal(workers_add(pool, &work, run_mask, &mask, NULL), 0);
    workers_post(&work);
    workers_drain(pool);
    assert_true(sigismember(&mask, SIGINT));
    assert_true(sigismember(&mask, SIGALRM));
    assert_false(sigismember(&mask, SIGBUS));
    assert_false(sigismember(&mask, SIGSEGV));
    assert_false(sigismember(&mask, WHERE_SIGNAL));
    workers_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_coalesces),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_pause_keeps_the_wish),
        cmocka_unit_test(test_pause_waits),
        cmocka_unit_test(test_remove_waits),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_signals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
