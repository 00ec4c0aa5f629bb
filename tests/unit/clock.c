/*
 * The clock: guest time, the TSC, pausing, and timers in order on the loop's thread.
 */
#include "test.h"

#include "base/time.h"
#include "bus/clock.h"
#include "state_image.h"

#include <stdatomic.h>
#include <stdlib.h>
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
    time_sleep_ns((uint64_t)ms * NS_PER_MS);
}

/* One of the clocks, with the other read before and after it: a test may be held up anywhere. */
struct reading {
    uint64_t before, ns, after;
};

static struct reading read_both(const struct clock *clock)
{
    struct reading r = {.before = clock_tsc(clock)};
    r.ns = clock_now(clock);
    r.after = clock_tsc(clock);
    return r;
}

static void test_time_and_tsc(void **unused)
{
    struct fixture f = start();
    (void)unused;
    struct reading from = read_both(f.clock);
    sleep_ms(50);
    struct reading to = read_both(f.clock);
    double hz = (double)clock_tsc_hz(f.clock), seconds = (double)(to.ns - from.ns) / 1e9;
    assert_true((double)(to.after - from.before) / seconds > hz * 0.9998);
    assert_true((double)(to.before - from.after) / seconds < hz * 1.0002);

    uint64_t before = __rdtsc() + clock_tsc_offset(f.clock);
    uint64_t tsc = clock_tsc(f.clock);
    assert_true(before <= tsc && tsc <= __rdtsc() + clock_tsc_offset(f.clock));
    finish(&f);
}

static void test_tsc_to_ns(void **unused)
{
    struct fixture f = start();
    (void)unused;
    sleep_ms(5);
    clock_pause(f.clock); /* time stands still, so the answers are exact */
    uint64_t ns = clock_now(f.clock), tsc = clock_tsc(f.clock), hz = clock_tsc_hz(f.clock);
    assert_int_equal(clock_tsc_to_ns(f.clock, tsc), ns);
    assert_int_equal(clock_tsc_to_ns(f.clock, tsc + hz), ns + 1000 * MS);
    assert_in_range(clock_tsc_to_ns(f.clock, tsc - hz / 1000), ns - MS, ns - MS + 1);
    assert_in_range(clock_tsc_to_ns(f.clock, 0), 0, MS); /* both began there */
    assert_in_range(clock_tsc_to_ns(f.clock, UINT64_MAX), 1ULL << 60, UINT64_MAX);
    finish(&f);
}

static void test_epoch(void **unused)
{
    struct fixture f = start();
    (void)unused;
    uint64_t before = time_real_ns();
    uint64_t guest = clock_epoch_ns(f.clock) + clock_now(f.clock);
    assert_in_range(guest, before - 5 * MS, time_real_ns() + 5 * MS);
    finish(&f);
}

static void test_pause(void **unused)
{
    struct fixture f = start();
    (void)unused;
    clock_pause(f.clock);
    uint64_t ns = clock_now(f.clock), tsc = clock_tsc(f.clock);
    sleep_ms(300);
    assert_int_equal(clock_now(f.clock), ns);
    assert_int_equal(clock_tsc(f.clock), tsc);
    clock_resume(f.clock);
    assert_in_range(clock_now(f.clock), ns + 1, ns + 250 * MS);
    assert_in_range(clock_tsc(f.clock), tsc + 1, tsc + clock_tsc_hz(f.clock) / 4);
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

static void fire_in_the_past(void *opaque)
{
    struct record *r = opaque;
    timer_arm(r->timer, r->at);
    atomic_fetch_add(r->fired, 1);
}

/* A callback that arms its own timer for a moment that has passed does not keep the loop busy. */
static void test_armed_in_the_past(void **unused)
{
    struct fixture f = start();
    _Atomic unsigned fired = 0;
    struct record r = {.f = &f, .fired = &fired};
    (void)unused;
    r.timer = timer_create_on(f.clock, fire_in_the_past, &r);
    r.at = clock_now(f.clock);
    timer_arm(r.timer, r.at);
    for (int i = 0; i < 1000 && atomic_load(&fired) < 5; i++)
        sleep_ms(2);
    timer_disarm(r.timer);
    bus_lock(f.bus);
    unsigned calls = atomic_load(&fired);
    uint64_t passed = clock_now(f.clock) - r.at;
    bus_unlock(f.bus);
    assert_in_range(calls, 5, passed / CLOCK_RETRY_NS + 1);
    timer_free(r.timer);
    finish(&f);
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

struct bulk {
    struct timer *timer;
    uint64_t deadline;
    uint64_t *last; /* the deadline of what fired before */
    _Atomic unsigned *fired;
    bool out_of_order;
};

static void fire_bulk(void *opaque)
{
    struct bulk *b = opaque;
    b->out_of_order = b->deadline < *b->last;
    *b->last = b->deadline;
    b->deadline = UINT64_MAX; /* a second call would be out of order, or count too many */
    atomic_fetch_add(b->fired, 1);
}

static void test_many_timers(void **unused)
{
    enum { N = 300 };
    struct fixture f = start();
    struct bulk bulk[N];
    uint64_t last = 0, base;
    _Atomic unsigned fired = 0;
    unsigned wanted = 0, seed = 1;
    (void)unused;
    clock_pause(f.clock); /* nothing fires before all is set */
    base = clock_now(f.clock);
    for (unsigned i = 0; i < N; i++) {
        bulk[i] = (struct bulk){.last = &last, .fired = &fired};
        bulk[i].timer = timer_create_on(f.clock, fire_bulk, &bulk[i]);
        assert_non_null(bulk[i].timer);
    }
    for (unsigned i = 0; i < 10 * N; i++) {
        struct bulk *b = &bulk[rand_r(&seed) % N];
        b->deadline = rand_r(&seed) % 4 ? base + (unsigned)rand_r(&seed) % (20 * MS) : UINT64_MAX;
        timer_arm(b->timer, b->deadline);
    }
    for (unsigned i = 0; i < N; i++)
        wanted += timer_deadline(bulk[i].timer) != UINT64_MAX;
    assert_in_range(wanted, N / 2, N);
    clock_resume(f.clock);
    wait_for(&fired, wanted);
    sleep_ms(10);
    assert_int_equal(atomic_load(&fired), wanted);
    for (unsigned i = 0; i < N; i++) {
        timer_free(bulk[i].timer);
        assert_false(bulk[i].out_of_order);
    }
    finish(&f);
}

static void dawdle(void *opaque)
{
    _Atomic unsigned *state = opaque;
    atomic_store(state, 1);
    sleep_ms(30);
    atomic_store(state, 2);
}

static void test_free_waits_for_callback(void **unused)
{
    struct fixture f = start();
    _Atomic unsigned state = 0;
    struct timer *timer = timer_create_on(f.clock, dawdle, &state);
    (void)unused;
    timer_arm(timer, 0);
    while (!atomic_load(&state))
        sleep_ms(1);
    timer_free(timer);
    assert_int_equal(atomic_load(&state), 2);
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
    struct state_image image = {0};
    struct state *save = image_save(&image);
    clock_state(f.clock, save);
    assert_int_equal(image_done(save), 0);
    struct state *load = image_load(&image);
    clock_pause(g.clock);
    clock_state(g.clock, load);
    assert_int_equal(image_done(load), 0);
    assert_int_equal(clock_now(g.clock), clock_now(f.clock));
    assert_int_equal(clock_tsc(g.clock), clock_tsc(f.clock));
    assert_int_equal(clock_epoch_ns(g.clock), clock_epoch_ns(f.clock));
    image_free(&image);

    /* A guest older than its host: deadlines convert below zero host time. */
    char log[2] = "";
    _Atomic unsigned fired = 0;
    struct record r = {.f = &g, .name = 'x', .log = log, .fired = &fired};
    uint64_t huge = 1ULL << 61;
    save = image_save(&image);
    state_section(save, "clock", 0, 1);
    for (int i = 0; i < 3; i++)
        state_field(save, huge);
    assert_int_equal(image_done(save), 0);
    load = image_load(&image);
    clock_state(g.clock, load);
    assert_int_equal(image_done(load), 0);
    assert_int_equal(clock_now(g.clock), huge);
    clock_resume(g.clock);
    r.timer = timer_create_on(g.clock, fire, &r);
    timer_arm(r.timer, 5);
    wait_for(&fired, 1);
    timer_free(r.timer);
    image_free(&image);
    finish(&f);
    finish(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_and_tsc),    cmocka_unit_test(test_pause),
        cmocka_unit_test(test_tsc_to_ns),       cmocka_unit_test(test_epoch),
        cmocka_unit_test(test_timers_in_order), cmocka_unit_test(test_rearm_past_and_lock),
        cmocka_unit_test(test_many_timers),     cmocka_unit_test(test_free_waits_for_callback),
        cmocka_unit_test(test_state),           cmocka_unit_test(test_armed_in_the_past),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
