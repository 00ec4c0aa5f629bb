/*
 * The event loop: callbacks come, stop coming when paused or removed, and never after removal. Jobs
 * come once for each time they are asked for.
 */
#include "test.h"

#include "base/loop.h"
#include "base/thread.h"
#include "base/time.h"

#include <limits.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct probe {
    int fd;
    struct loop_watch *watch;
    _Atomic unsigned entered, calls;
    _Atomic bool inside;
    bool slow, removes_itself;
};

static void sleep_ms(long ms)
{
    time_sleep_ns((uint64_t)ms * NS_PER_MS);
}

static void count(void *opaque, uint32_t events)
{
    struct probe *probe = opaque;
    eventfd_t value;
    assert_true(events & EPOLLIN);
    atomic_store(&probe->inside, true);
    atomic_fetch_add(&probe->entered, 1);
    eventfd_read(probe->fd, &value);
    if (probe->slow)
        sleep_ms(30);
    if (probe->removes_itself)
        loop_remove(probe->watch);
    atomic_fetch_add(&probe->calls, 1);
    atomic_store(&probe->inside, false);
}

static bool reaches(_Atomic unsigned *value, unsigned wanted)
{
    for (int i = 0; i < 500 && atomic_load(value) < wanted; i++)
        sleep_ms(2);
    return atomic_load(value) >= wanted;
}

static struct loop *start(struct probe *probe)
{
    struct error err;
    struct loop *loop = loop_create(&err);
    assert_non_null(loop);
    probe->fd = eventfd(0, EFD_NONBLOCK);
    probe->watch = loop_add(loop, probe->fd, EPOLLIN, count, probe, &err);
    assert_non_null(probe->watch);
    assert_int_equal(loop_start(loop, &err), 0);
    return loop;
}

static void test_pause_and_stop(void **unused)
{
    struct probe probe = {0};
    struct loop *loop = start(&probe);
    (void)unused;
    assert_int_not_equal(loop_start(loop, NULL), 0);
    eventfd_write(probe.fd, 1);
    assert_true(reaches(&probe.calls, 1));

    assert_int_equal(loop_modify(probe.watch, 0), 0);
    eventfd_write(probe.fd, 1);
    sleep_ms(20);
    assert_int_equal(atomic_load(&probe.calls), 1);
    assert_int_equal(loop_modify(probe.watch, EPOLLIN), 0);
    assert_true(reaches(&probe.calls, 2));

    loop_stop(loop);
    eventfd_write(probe.fd, 1);
    sleep_ms(20);
    assert_int_equal(atomic_load(&probe.calls), 2);
    assert_int_equal(loop_start(loop, NULL), 0);
    assert_true(reaches(&probe.calls, 3));
    loop_destroy(loop);
    close(probe.fd);
}

static void test_remove_waits_for_callback(void **unused)
{
    struct probe probe = {.slow = true};
    struct loop *loop = start(&probe);
    (void)unused;
    eventfd_write(probe.fd, 1);
    assert_true(reaches(&probe.entered, 1));
    loop_remove(probe.watch);
    assert_false(atomic_load(&probe.inside));
    assert_int_equal(atomic_load(&probe.calls), 1);
    eventfd_write(probe.fd, 1);
    sleep_ms(20);
    assert_int_equal(atomic_load(&probe.calls), 1);
    loop_destroy(loop);
    close(probe.fd);
}

static void test_remove_from_callback(void **unused)
{
    struct probe probe = {.removes_itself = true};
    struct loop *loop = start(&probe);
    (void)unused;
    eventfd_write(probe.fd, 1);
    assert_true(reaches(&probe.calls, 1));
    eventfd_write(probe.fd, 1);
    sleep_ms(20);
    assert_int_equal(atomic_load(&probe.calls), 1);
    loop_destroy(loop);
    close(probe.fd);
}

/* ---- Jobs ---- */

struct task {
    struct loop *loop;
    struct loop_job job;
    _Atomic unsigned entered, runs;
    _Atomic bool inside;
    unsigned again;   /* how often it posts itself */
    unsigned *order;  /* where it writes down when it ran */
    unsigned *placed; /* how many have written so far */
    sem_t may_return;
    bool gated;
};

static void run_task(void *opaque)
{
    struct task *task = opaque;
    atomic_store(&task->inside, true);
    atomic_fetch_add(&task->entered, 1);
    if (task->gated)
        sem_wait(&task->may_return);
    if (task->order)
        *task->order = ++*task->placed;
    if (task->again) {
        task->again--;
        loop_post(task->loop, &task->job);
    }
    atomic_store(&task->inside, false);
    atomic_fetch_add(&task->runs, 1);
}

static void make_task(struct task *task, struct loop *loop)
{
    memset(task, 0, sizeof(*task));
    task->loop = loop;
    task->job = (struct loop_job){.run = run_task, .opaque = task};
    sem_init(&task->may_return, 0, 0);
}

/* Jobs that were posted before the start run after it, in order, each once. */
static void test_jobs_in_order(void **unused)
{
    struct loop *loop = loop_create(NULL);
    unsigned order[3] = {0}, placed = 0;
    struct task task[3];
    (void)unused;
    for (unsigned i = 0; i < 3; i++) {
        make_task(&task[i], loop);
        task[i].order = &order[i];
        task[i].placed = &placed;
    }
    loop_post(loop, &task[2].job);
    loop_post(loop, &task[0].job);
    loop_post(loop, &task[1].job);
    loop_post(loop, &task[2].job); /* is queued already */
    assert_int_equal(loop_start(loop, NULL), 0);
    assert_true(reaches(&task[1].runs, 1));
    loop_stop(loop);
    assert_int_equal(order[2], 1);
    assert_int_equal(order[0], 2);
    assert_int_equal(order[1], 3);
    assert_int_equal(placed, 3);
    loop_destroy(loop);
}

/* A job that posts itself runs again, without keeping watches from their turn. */
static void test_job_posts_itself(void **unused)
{
    struct probe probe = {0};
    struct loop *loop = start(&probe);
    struct task task;
    (void)unused;
    make_task(&task, loop);
    task.again = UINT_MAX;
    loop_post(loop, &task.job);
    assert_true(reaches(&task.runs, 100));
    eventfd_write(probe.fd, 1);
    assert_true(reaches(&probe.calls, 1));
    loop_cancel(loop, &task.job);
    unsigned runs = atomic_load(&task.runs);
    sleep_ms(10);
    assert_int_equal(atomic_load(&task.runs), runs);
    loop_destroy(loop);
    close(probe.fd);
}

static void *release_soon(void *opaque)
{
    struct task *task = opaque;
    sleep_ms(20); /* so that who does not wait is through by then */
    sem_post(&task->may_return);
    return NULL;
}

/* Cancelling waits for a job that runs, and takes back one that is queued. */
static void test_cancel(void **unused)
{
    struct loop *loop = loop_create(NULL);
    struct task busy, task;
    pthread_t thread;
    (void)unused;
    make_task(&busy, loop);
    make_task(&task, loop);
    busy.gated = true;
    assert_int_equal(loop_start(loop, NULL), 0);
    assert_false(loop_cancel(loop, &task.job));
    loop_post(loop, &busy.job);
    assert_true(reaches(&busy.entered, 1));
    loop_post(loop, &task.job);
    assert_true(loop_cancel(loop, &task.job));
    assert_int_equal(thread_start(&thread, "releaser", release_soon, &busy, NULL), 0);
    assert_false(loop_cancel(loop, &busy.job));
    assert_false(atomic_load(&busy.inside));
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&task.runs), 0);
    loop_post(loop, &task.job);
    assert_true(reaches(&task.runs, 1));
    loop_destroy(loop);
}

static void *post_often(void *opaque)
{
    struct task *task = opaque;
    for (unsigned i = 0; i < 2000; i++)
        loop_post(task[i % 2].loop, &task[i % 2].job);
    return NULL;
}

/* Posts from several threads while jobs are cancelled: none is lost, none runs after its cancel. */
static void test_job_storm(void **unused)
{
    struct loop *loop = loop_create(NULL);
    struct task task[2], last;
    pthread_t threads[3];
    (void)unused;
    make_task(&task[0], loop);
    make_task(&task[1], loop);
    make_task(&last, loop);
    assert_int_equal(loop_start(loop, NULL), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(thread_start(&threads[i], "poster", post_often, task, NULL), 0);
    for (unsigned i = 0; i < 500; i++)
        loop_cancel(loop, &task[i % 2].job);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    loop_cancel(loop, &task[0].job);
    loop_cancel(loop, &task[1].job);
    unsigned runs = atomic_load(&task[0].runs) + atomic_load(&task[1].runs);
    loop_post(loop, &last.job);
    assert_true(reaches(&last.runs, 1));
    assert_int_equal(atomic_load(&task[0].runs) + atomic_load(&task[1].runs), runs);
    loop_destroy(loop);
}

static void test_bad_descriptor(void **unused)
{
    struct error err = {0};
    struct loop *loop = loop_create(&err);
    (void)unused;
    assert_null(loop_add(loop, -1, EPOLLIN, count, NULL, &err));
    assert_int_equal(err.code, 9);
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pause_and_stop),
        cmocka_unit_test(test_remove_waits_for_callback),
        cmocka_unit_test(test_remove_from_callback),
        cmocka_unit_test(test_jobs_in_order),
        cmocka_unit_test(test_job_posts_itself),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_job_storm),
        cmocka_unit_test(test_bad_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
