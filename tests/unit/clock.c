/*
 * The clock: guest time, the TSC, pausing, and timers in order on the loop's thread.
 */
#include "test.h"

#include "bus/clock.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

#define MS 1000000ULL

struct fixture {
    struct loop *loop;
    struct bus *bus;
    struct clock *clock;
};

static struct fixture start(void)
{
    struct error err;
    struct fixture f = {.loop = loop_create(&err), .bus = bus_create(&err)};
    f.clock = clock_create(f.loop, f.bus, &err);
    assert_non_null(f.clock);
    assert_int_equal(loop_start(f.loop, &err), 0);
    return f;
}

static void finish(struct fixture *f)
{
    clock_destroy(f->clock);
    loop_destroy(f->loop);
    bus_destroy(f->bus);
}

static void sleep_ms(long ms)
{
    struct timespec ts = {.tv_nsec = ms * 1000000};
    nanosleep(&ts, NULL);
}

static void test_time_and_tsc(void **unused)
{
    struct fixture f = start();
    (void)unused;
    uint64_t tsc = clock_tsc(f.clock);
    uint64_t ns = clock_now(f.clock);
    sleep_ms(50);
    double hz = (double)(clock_tsc(f.clock) - tsc) * 1e9 / (double)(clock_now(f.clock) - ns);
    assert_true(fabs(hz / (double)clock_tsc_hz(f.clock) - 1) < 2e-3);

    uint64_t before = __rdtsc() + clock_tsc_offset(f.clock);
    tsc = clock_tsc(f.clock);
    assert_true(before <= tsc && tsc <= __rdtsc() + clock_tsc_offset(f.clock));

    uint64_t in_a_second = clock_tsc_to_ns(f.clock, clock_tsc(f.clock) + clock_tsc_hz(f.clock));
    assert_true(llabs((int64_t)(in_a_second - clock_now(f.clock)) - 1000000000) < 20000000);
    assert_int_equal(clock_tsc_to_ns(f.clock, UINT64_MAX) > 1ULL << 60, 1);
    assert_int_equal(clock_tsc_to_ns(f.clock, 0) < clock_now(f.clock), 1);

    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t guest_wall = clock_epoch_ns(f.clock) + clock_now(f.clock);
    uint64_t host_wall = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    assert_true(llabs((int64_t)(guest_wall - host_wall)) < 50000000);
    finish(&f);
}

static void test_pause(void **unused)
{
    struct fixture f = start();
    (void)unused;
    clock_pause(f.clock);
    uint64_t ns = clock_now(f.clock), tsc = clock_tsc(f.clock);
    sleep_ms(20);
    assert_int_equal(clock_now(f.clock), ns);
    assert_int_equal(clock_tsc(f.clock), tsc);
    clock_resume(f.clock);
    assert_true(clock_now(f.clock) - ns < 15 * MS);
    assert_true(clock_now(f.clock) > ns);
    assert_true(clock_tsc(f.clock) - tsc < clock_tsc_hz(f.clock) / 1000 * 15);
    finish(&f);
}

struct record {
    struct fixture *f;
    struct timer *timer;
    char name;
    char *log;
    _Atomic unsigned *fired;
    uint64_t at;
    unsigned again; /* arm anew this often, 2 ms apart */
};

static void fire(void *opaque)
{
    struct record *r = opaque;
    r->at = clock_now(r->f->clock);
    r->log[atomic_load(r->fired)] = r->name;
    if (r->again) {
        r->again--;
        timer_arm(r->timer, r->at + 2 * MS);
    }
    atomic_fetch_add(r->fired, 1);
}

static void wait_for(_Atomic unsigned *fired, unsigned wanted)
{
    for (int i = 0; i < 1000 && atomic_load(fired) < wanted; i++)
        sleep_ms(2);
    assert_int_equal(atomic_load(fired), wanted);
}

static void test_timers_in_order(void **unused)
{
    enum { N = 9 };
    static const unsigned ms[N] = {50, 20, 80, 10, 90, 30, 70, 40, 60};
    struct fixture f = start();
    struct record r[N];
    char log[N + 1] = "";
    _Atomic unsigned fired = 0;
    (void)unused;
    uint64_t base = clock_now(f.clock);
    for (unsigned i = 0; i < N; i++) {
        r[i] =
            (struct record){.f = &f, .name = (char)('0' + ms[i] / 10), .log = log, .fired = &fired};
        r[i].timer = timer_create_on(f.clock, fire, &r[i]);
        timer_arm(r[i].timer, base + ms[i] * MS);
        assert_int_equal(timer_deadline(r[i].timer), base + ms[i] * MS);
    }
    timer_disarm(r[0].timer); /* "5" */
    assert_int_equal(timer_deadline(r[0].timer), UINT64_MAX);
    timer_arm(r[1].timer, base + 100 * MS); /* "2" now comes last */
    wait_for(&fired, N - 1);
    assert_string_equal(log, "13467892");
    for (unsigned i = 1; i < N; i++)
        assert_true(r[i].at >= base + ms[i] * MS);
    for (unsigned i = 0; i < N; i++)
        timer_free(r[i].timer);
    finish(&f);
}

static void test_rearm_past_and_lock(void **unused)
{
    struct fixture f = start();
    char log[8] = "";
    _Atomic unsigned fired = 0;
    struct record r = {.f = &f, .name = 'r', .log = log, .fired = &fired, .again = 2};
    (void)unused;
    r.timer = timer_create_on(f.clock, fire, &r);
    timer_arm(r.timer, 0); /* in the past: at once, and then twice more */
    wait_for(&fired, 3);

    /* Nothing fires while someone holds the board lock; disarmed under it, it never does. */
    bus_lock(f.bus);
    timer_arm(r.timer, 0);
    sleep_ms(10);
    assert_int_equal(atomic_load(&fired), 3);
    timer_disarm(r.timer);
    bus_unlock(f.bus);
    sleep_ms(10);
    assert_int_equal(atomic_load(&fired), 3);

    clock_pause(f.clock);
    timer_arm(r.timer, 0);
    sleep_ms(10);
    assert_int_equal(atomic_load(&fired), 3);
    clock_resume(f.clock);
    wait_for(&fired, 4);
    timer_free(r.timer);
    finish(&f);
}

static void test_state(void **unused)
{
    struct fixture f = start(), g = start();
    (void)unused;
    sleep_ms(30);
    clock_pause(f.clock);
    struct state *save = state_create_save();
    clock_state(f.clock, save);
    size_t size;
    const void *data = state_data(save, &size);
    struct state *load = state_create_load(data, size);
    clock_pause(g.clock);
    clock_state(g.clock, load);
    assert_int_equal(state_error(load), 0);
    assert_int_equal(clock_now(g.clock), clock_now(f.clock));
    assert_int_equal(clock_tsc(g.clock), clock_tsc(f.clock));
    assert_int_equal(clock_epoch_ns(g.clock), clock_epoch_ns(f.clock));
    state_free(load);

    /* A guest older than its host: deadlines convert below zero host time. */
    char log[2] = "";
    _Atomic unsigned fired = 0;
    struct record r = {.f = &g, .name = 'x', .log = log, .fired = &fired};
    uint64_t huge = 1ULL << 61;
    state_free(save);
    save = state_create_save();
    state_section(save, "clock", 1);
    for (int i = 0; i < 3; i++)
        state_field(save, huge);
    data = state_data(save, &size);
    load = state_create_load(data, size);
    clock_state(g.clock, load);
    assert_int_equal(clock_now(g.clock), huge);
    clock_resume(g.clock);
    r.timer = timer_create_on(g.clock, fire, &r);
    timer_arm(r.timer, 5);
    wait_for(&fired, 1);
    timer_free(r.timer);
    state_free(load);
    state_free(save);
    finish(&f);
    finish(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_and_tsc),    cmocka_unit_test(test_pause),
        cmocka_unit_test(test_timers_in_order), cmocka_unit_test(test_rearm_past_and_lock),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
