/*
 * Safe points: threads that stop each other all the time, and never find another running.
 */
#include "test.h"

#include "cpu/core/safepoint.h"

#include <stdatomic.h>

#define CPUS  4
#define STOPS 3000

static struct safepoint sp;
static struct cpu_port ports[CPUS];
static _Atomic bool exclusive, done;
static _Atomic unsigned intrusions, working;

/* What a vCPU does between two polls. */
static void work(void)
{
    atomic_fetch_add(&working, 1);
    for (volatile unsigned i = 0; i < 100; i++)
        if (atomic_load(&exclusive))
            atomic_fetch_add(&intrusions, 1);
    atomic_fetch_sub(&working, 1);
}

static void stop_and_look(unsigned id)
{
    safepoint_stop(&sp, id);
    if (atomic_exchange(&exclusive, true) || atomic_load(&working))
        atomic_fetch_add(&intrusions, 1);
    for (volatile unsigned i = 0; i < 100; i++)
        ;
    atomic_store(&exclusive, false);
    safepoint_resume(&sp, id);
}

static void *vcpu(void *opaque)
{
    struct cpu_port *port = opaque;
    unsigned turns = 0, id = (unsigned)(port - ports);

    while (!atomic_load(&done)) {
        safepoint_enter(&sp, id);
        for (unsigned i = 0; i < 50; i++) {
            work();
            if (atomic_fetch_and(&port->requests, ~(uint32_t)CPU_REQ_ENGINE) & CPU_REQ_ENGINE)
                safepoint_poll(&sp, id);
            if (++turns % 64 == 0)
                stop_and_look(id);
        }
        safepoint_leave(&sp, id);
    }
    return NULL;
}

/* Several vCPUs and a thread that is none, all of which stop the others. */
static void test_exclusion(void **unused)
{
    pthread_t thread[CPUS];

    safepoint_init(&sp);
    for (unsigned i = 0; i < CPUS; i++)
        sp.port[i] = &ports[i];
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, vcpu, &ports[i]), 0);
    for (unsigned i = 0; i < STOPS; i++)
        stop_and_look(SAFEPOINT_OUTSIDE);
    atomic_store(&done, true);
    for (unsigned i = 0; i < CPUS; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(intrusions, 0);
    assert_int_equal(sp.running, 0);
    assert_false(sp.stopping);
    safepoint_destroy(&sp);
}

/* Nobody is interrupted where nobody runs. */
static void test_idle(void **unused)
{
    safepoint_init(&sp);
    sp.port[0] = &ports[0];
    atomic_store(&ports[0].requests, 0);
    safepoint_stop(&sp, SAFEPOINT_OUTSIDE);
    assert_int_equal(ports[0].requests, 0);
    safepoint_resume(&sp, SAFEPOINT_OUTSIDE);
    safepoint_enter(&sp, 0);
    safepoint_stop(&sp, 0); /* the only one that runs is the caller */
    assert_int_equal(ports[0].requests, 0);
    safepoint_resume(&sp, 0);
    assert_int_equal(sp.running, 1);
    safepoint_leave(&sp, 0);
    safepoint_destroy(&sp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exclusion),
        cmocka_unit_test(test_idle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
