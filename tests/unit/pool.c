/*
 * Threads that may wait: jobs run in order, on more threads when they wait, and again when they
 * post themselves.
 */
#include "test.h"

#include "base/pool.h"
#include "base/util.h"
#include "base/where.h"

#include <semaphore.h>
#include <stdatomic.h>

struct gated {
    struct pool_job job;
    sem_t begun, may_end;
};

static void run_gated(struct pool_job *job)
{
    struct gated *g = container_of(job, struct gated, job);

    sem_post(&g->begun);
    sem_wait(&g->may_end);
}

/* As many threads as jobs that wait, up to the most; the rest has its turn later, in order. */
static void test_grows(void **unused)
{
    struct pool *pool = pool_create("test", 3, NULL);
    struct gated g[5];

    assert_non_null(pool);
    assert_non_null(pool_where(pool, 0));
    assert_null(pool_where(pool, 1));
    for (unsigned i = 0; i < ARRAY_SIZE(g); i++) {
        g[i].job = (struct pool_job){.run = run_gated};
        sem_init(&g[i].begun, 0, 0);
        sem_init(&g[i].may_end, 0, 0);
        pool_post(pool, &g[i].job);
    }
    for (unsigned i = 0; i < 3; i++)
        sem_wait(&g[i].begun);
    assert_non_null(pool_where(pool, 2));
    assert_null(pool_where(pool, 3));
    assert_int_equal(sem_trywait(&g[3].begun), -1);
    sem_post(&g[2].may_end);
    sem_wait(&g[3].begun);
    assert_int_equal(sem_trywait(&g[4].begun), -1);
    sem_post(&g[3].may_end);
    sem_wait(&g[4].begun);
    for (unsigned i = 0; i < ARRAY_SIZE(g); i++)
        sem_post(&g[i].may_end);
    pool_destroy(pool);
}

/* A job that posts itself a number of times. */
struct again {
    struct pool_job job;
    struct pool *pool;
    _Atomic unsigned left;
    sem_t done;
};

static void run_again(struct pool_job *job)
{
    struct again *a = container_of(job, struct again, job);

    if (atomic_fetch_sub(&a->left, 1) > 1)
        pool_post(a->pool, job);
    else
        sem_post(&a->done);
}

static void test_again(void **unused)
{
    struct pool *pool = pool_create("test", 4, NULL);
    struct again a[8];

    for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
        a[i] = (struct again){.job.run = run_again, .pool = pool, .left = 500};
        sem_init(&a[i].done, 0, 0);
        pool_post(pool, &a[i].job);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(a); i++)
        sem_wait(&a[i].done);
    for (unsigned i = 0; i < ARRAY_SIZE(a); i++)
        assert_int_equal(atomic_load(&a[i].left), 0);
    pool_destroy(pool);
    pool_destroy(NULL);
}

/* What is posted is done before the pool is gone. */
static void test_end(void **unused)
{
    struct pool *pool = pool_create("test", 1, NULL);
    struct again a = {.job.run = run_again, .pool = pool, .left = 1};
    struct gated g = {.job.run = run_gated};

    sem_init(&a.done, 0, 0);
    sem_init(&g.begun, 0, 0);
    sem_init(&g.may_end, 0, 1);
    pool_post(pool, &g.job);
    pool_post(pool, &a.job);
    pool_destroy(pool);
    assert_int_equal(sem_trywait(&a.done), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
