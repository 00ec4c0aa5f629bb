/*
 * A clock that stands still until a test moves it.
 */
#include "fake_clock.h"

#include "base/util.h"

#include <pthread.h>
#include <stdlib.h>

#define NEVER      UINT64_MAX
#define TSC_PER_NS (FAKE_TSC_HZ / 1000000000)
#define FAKE_EPOCH 1700000000000000000ULL /* 14 November 2023, 22:13:20 UTC */
#define MAX_TIMERS 64
/* More calls at one moment than any device has a reason for. */
#define MAX_CALLS_AT_ONCE 1000

struct timer {
    struct clock *clock;
    timer_cb *cb;
    void *opaque;
    uint64_t deadline;
};

struct clock {
    struct bus *bus;
    pthread_mutex_t lock;
    uint64_t now, epoch;
    bool paused;
    struct timer *timers[MAX_TIMERS];
};

struct clock *clock_create(struct loop *loop, struct bus *bus, struct error *err)
{
    (void)loop;
    (void)err;
    struct clock *clock = calloc(1, sizeof(*clock));
    if (!clock)
        abort();
    clock->bus = bus;
    clock->epoch = FAKE_EPOCH;
    pthread_mutex_init(&clock->lock, NULL);
    return clock;
}

void clock_destroy(struct clock *clock)
{
    pthread_mutex_destroy(&clock->lock);
    free(clock);
}

uint64_t clock_now(const struct clock *clock)
{
    return clock->now;
}

void clock_pause(struct clock *clock)
{
    clock->paused = true;
}

void clock_resume(struct clock *clock)
{
    clock->paused = false;
}

uint64_t clock_tsc_hz(const struct clock *clock)
{
    (void)clock;
    return FAKE_TSC_HZ;
}

uint64_t clock_tsc(const struct clock *clock)
{
    return clock->now * TSC_PER_NS;
}

uint64_t clock_tsc_offset(const struct clock *clock)
{
    (void)clock;
    return 0;
}

bool clock_tsc_is_hosts(const struct clock *clock)
{
    (void)clock;
    return false;
}

uint64_t clock_tsc_to_ns(const struct clock *clock, uint64_t tsc)
{
    (void)clock;
    /* Not before the counter has got there: here nothing passes while a timer looks again. */
    return tsc / TSC_PER_NS + (tsc % TSC_PER_NS != 0);
}

uint64_t clock_epoch_ns(const struct clock *clock)
{
    return clock->epoch;
}

void clock_state(struct clock *clock, struct state *s)
{
    state_section(s, "clock", 0, 1);
    state_field(s, clock->now);
    state_field(s, clock->epoch);
    if (clock->now > NEVER / 4)
        state_fail(s, "ns %llu: a clock that has run for 146 years",
                   (unsigned long long)clock->now);
}

struct timer *timer_create_on(struct clock *clock, timer_cb *cb, void *opaque)
{
    for (unsigned i = 0; i < MAX_TIMERS; i++) {
        if (clock->timers[i])
            continue;
        struct timer *timer = malloc(sizeof(*timer));
        if (!timer)
            return NULL;
        *timer = (struct timer){.clock = clock, .cb = cb, .opaque = opaque, .deadline = NEVER};
        clock->timers[i] = timer;
        return timer;
    }
    return NULL;
}

void timer_free(struct timer *timer)
{
    if (!timer)
        return;
    for (unsigned i = 0; i < MAX_TIMERS; i++)
        if (timer->clock->timers[i] == timer)
            timer->clock->timers[i] = NULL;
    free(timer);
}

void timer_arm(struct timer *timer, uint64_t deadline_ns)
{
    pthread_mutex_lock(&timer->clock->lock);
    timer->deadline = deadline_ns;
    pthread_mutex_unlock(&timer->clock->lock);
}

void timer_disarm(struct timer *timer)
{
    timer_arm(timer, NEVER);
}

uint64_t timer_deadline(const struct timer *timer)
{
    return timer->deadline;
}

static struct timer *first(const struct clock *clock)
{
    struct timer *timer = NULL;
    for (unsigned i = 0; i < MAX_TIMERS; i++)
        if (clock->timers[i] && (!timer || clock->timers[i]->deadline < timer->deadline))
            timer = clock->timers[i];
    return timer;
}

uint64_t fake_clock_next(const struct clock *clock)
{
    const struct timer *timer = first(clock);
    return timer ? timer->deadline : NEVER;
}

void fake_clock_advance(struct clock *clock, uint64_t ns)
{
    uint64_t end = clock->now + ns;
    struct timer *timer;
    unsigned calls = 0;
    while (!clock->paused && (timer = first(clock)) && timer->deadline <= end &&
           timer->deadline != NEVER) {
        calls = timer->deadline > clock->now ? 0 : calls + 1;
        if (calls > MAX_CALLS_AT_ONCE)
            abort(); /* a device whose callback arms itself for a moment that has passed */
        clock->now = MAX(clock->now, timer->deadline);
        timer_disarm(timer);
        bus_lock(clock->bus);
        timer->cb(timer->opaque);
        bus_unlock(clock->bus);
    }
    if (!clock->paused)
        clock->now = end;
}
