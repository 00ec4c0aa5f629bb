/*
 * The clock: guest time as an offset from the host's, and timers in a heap behind one timerfd.
 *
 * Lock order: board lock, then the clock's. A timer that is due is taken off the heap with the
 * board lock already held, so that a device which disarms its timer under that lock is not called.
 */
#include "bus/clock.h"

#include "base/time.h"
#include "base/util.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <x86intrin.h>

#define NEVER UINT64_MAX

/* The latest guest time that is loaded: deadlines behind it are still in range. */
#define STATE_NS_MAX (UINT64_MAX / 4)

#define CPUID_1_ECX_HYPERVISOR (1u << 31)

struct timer {
    struct clock *clock;
    timer_cb *cb;
    void *opaque;
    uint64_t deadline; /* NEVER: not in the heap */
    unsigned place;    /* in the heap */
};

/* Guest time and TSC: offsets to add to the host's or, while paused, the values themselves. */
struct view {
    bool paused;
    uint64_t ns, tsc;
};

struct clock {
    struct bus *bus;
    struct loop_watch *watch;
    int timer_fd;
    uint64_t tsc_hz;
    _Atomic uint64_t epoch_ns;

    /* The view, readable without the lock: SEQUENCE is odd while it changes. */
    _Atomic uint32_t sequence;
    _Atomic bool paused;
    _Atomic uint64_t ns, tsc;

    pthread_mutex_t lock; /* guards what follows, and writing the view */
    pthread_cond_t fired;
    struct timer **heap; /* room for every timer, so that arming cannot fail */
    unsigned armed, timers, capacity;
    struct timer *firing; /* its callback is under way */
    uint64_t programmed;  /* what timer_fd is set to, guest ns */
};

/* --- the frequency of the TSC --- */

struct reading {
    uint64_t ns, tsc;
};

/* Both clocks at one moment: the tightest of several tries. */
static struct reading read_both(void)
{
    struct reading best = {0, 0};
    uint64_t narrowest = UINT64_MAX;
    for (int i = 0; i < 16; i++) {
        uint64_t before = __rdtsc();
        uint64_t ns = time_now_ns();
        uint64_t after = __rdtsc();
        if (after - before < narrowest) {
            narrowest = after - before;
            best = (struct reading){ns, before + (after - before) / 2};
        }
    }
    return best;
}

static uint64_t measure_tsc_hz(uint64_t duration_ns)
{
    struct reading from = read_both();
    time_sleep_ns(duration_ns);
    struct reading to = read_both();
    return (uint64_t)((unsigned __int128)(to.tsc - from.tsc) * NS_PER_S / (to.ns - from.ns));
}

/* What the processor, or a hypervisor below us, says: leaf 15h (SDM volume 2, CPUID) or the timing
 * leaf 40000010h that VMware defined. 0 when neither does. */
static uint64_t announced_tsc_hz(void)
{
    uint32_t a, b, c, d;
    __cpuid(1, a, b, c, d);
    if (c & CPUID_1_ECX_HYPERVISOR) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010 && a < 0x40010000) {
            __cpuid(0x40000010, a, b, c, d);
            return a * 1000ULL;
        }
    }
    if (__get_cpuid(0x15, &a, &b, &c, &d) && a && b && c)
        return (uint64_t)c * b / a;
    return 0;
}

/* The announced frequency when a quick measurement bears it out, else a careful measurement. */
static uint64_t find_tsc_hz(void)
{
    uint64_t announced = announced_tsc_hz();
    if (announced) {
        uint64_t measured = measure_tsc_hz(2 * NS_PER_MS);
        uint64_t apart = announced > measured ? announced - measured : measured - announced;
        if (apart < measured / 1000)
            return announced;
    }
    return measure_tsc_hz(20 * NS_PER_MS);
}

/* --- time --- */

static struct view view_read(const struct clock *clock)
{
    struct view view;
    uint32_t sequence;
    do {
        sequence = atomic_load(&clock->sequence);
        view.paused = atomic_load(&clock->paused);
        view.ns = atomic_load(&clock->ns);
        view.tsc = atomic_load(&clock->tsc);
    } while ((sequence & 1) || sequence != atomic_load(&clock->sequence));
    return view;
}

static void view_write(struct clock *clock, struct view view)
{
    atomic_fetch_add(&clock->sequence, 1);
    atomic_store(&clock->paused, view.paused);
    atomic_store(&clock->ns, view.ns);
    atomic_store(&clock->tsc, view.tsc);
    atomic_fetch_add(&clock->sequence, 1);
}

/* The view that shows NS and TSC now. */
static struct view view_of(uint64_t ns, uint64_t tsc, bool paused)
{
    if (!paused) {
        struct reading now = read_both();
        ns -= now.ns;
        tsc -= now.tsc;
    }
    return (struct view){.paused = paused, .ns = ns, .tsc = tsc};
}

uint64_t clock_now(const struct clock *clock)
{
    struct view view = view_read(clock);
    return view.paused ? view.ns : time_now_ns() + view.ns;
}

uint64_t clock_tsc_hz(const struct clock *clock)
{
    return clock->tsc_hz;
}

uint64_t clock_tsc(const struct clock *clock)
{
    struct view view = view_read(clock);
    return view.paused ? view.tsc : __rdtsc() + view.tsc;
}

uint64_t clock_tsc_offset(const struct clock *clock)
{
    struct view view = view_read(clock);
    return view.paused ? view.tsc - __rdtsc() : view.tsc;
}

bool clock_tsc_is_hosts(const struct clock *clock)
{
    return true;
}

uint64_t clock_tsc_to_ns(const struct clock *clock, uint64_t tsc)
{
    /* In this order, an interruption between the two makes the result too early, not too late:
     * whoever waits for a TSC value looks again. */
    uint64_t now_ns = clock_now(clock);
    uint64_t now_tsc = clock_tsc(clock);
    bool ahead = tsc > now_tsc;
    uint64_t ticks = ahead ? tsc - now_tsc : now_tsc - tsc;
    unsigned __int128 wide = (unsigned __int128)ticks * NS_PER_S / clock->tsc_hz;
    uint64_t ns = wide > UINT64_MAX ? UINT64_MAX : (uint64_t)wide;
    if (ahead)
        return ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + ns;
    return ns > now_ns ? 0 : now_ns - ns;
}

uint64_t clock_epoch_ns(const struct clock *clock)
{
    return atomic_load(&clock->epoch_ns);
}

/* --- the heap of armed timers --- */

static void heap_put(struct clock *clock, struct timer *timer, unsigned place)
{
    clock->heap[place] = timer;
    timer->place = place;
}

/* Moves the timer at PLACE up or down to where it belongs. */
static void heap_settle(struct clock *clock, unsigned place)
{
    struct timer **heap = clock->heap;
    struct timer *timer = heap[place];
    while (place && timer->deadline < heap[(place - 1) / 2]->deadline) {
        heap_put(clock, heap[(place - 1) / 2], place);
        place = (place - 1) / 2;
    }
    for (unsigned child; (child = 2 * place + 1) < clock->armed; place = child) {
        if (child + 1 < clock->armed && heap[child + 1]->deadline < heap[child]->deadline)
            child++;
        if (timer->deadline <= heap[child]->deadline)
            break;
        heap_put(clock, heap[child], place);
    }
    heap_put(clock, timer, place);
}

static void heap_remove(struct clock *clock, struct timer *timer)
{
    if (timer->deadline == NEVER)
        return;
    timer->deadline = NEVER;
    struct timer *last = clock->heap[--clock->armed];
    if (last != timer) {
        heap_put(clock, last, timer->place);
        heap_settle(clock, timer->place);
    }
}

/* Sets timer_fd for the first deadline. One that has only moved away is left to expire for nothing:
 * that is cheaper than a system call for each re-arming. */
static void program(struct clock *clock)
{
    struct view view = view_read(clock);
    uint64_t first = clock->armed && !view.paused ? clock->heap[0]->deadline : NEVER;
    if (first >= clock->programmed)
        return;
    /* In host time; a time in the past must not become 0, which would disarm. */
    int64_t host = (int64_t)(MIN(first, NEVER / 4) - view.ns);
    host = MAX(host, 1);
    struct itimerspec spec = {.it_value = time_spec((uint64_t)host)};
    timerfd_settime(clock->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    clock->programmed = first;
}

/* Takes the first timer off the heap if it is due. */
static struct timer *take_due(struct clock *clock)
{
    pthread_mutex_lock(&clock->lock);
    struct timer *timer = NULL;
    if (!atomic_load(&clock->paused) && clock->armed &&
        clock->heap[0]->deadline <= clock_now(clock)) {
        timer = clock->heap[0];
        heap_remove(clock, timer);
    }
    clock->firing = timer;
    if (!timer)
        program(clock);
    pthread_cond_broadcast(&clock->fired);
    pthread_mutex_unlock(&clock->lock);
    return timer;
}

static void expired(void *opaque, uint32_t events)
{
    struct clock *clock = opaque;
    uint64_t count;
    (void)events;
    if (read(clock->timer_fd, &count, sizeof(count)) < 0)
        return; /* set anew meanwhile */
    pthread_mutex_lock(&clock->lock);
    clock->programmed = NEVER;
    pthread_mutex_unlock(&clock->lock);
    struct timer *timer;
    do {
        bus_lock(clock->bus);
        timer = take_due(clock);
        if (timer)
            timer->cb(timer->opaque);
        bus_unlock(clock->bus);
    } while (timer);
}

struct timer *timer_create_on(struct clock *clock, timer_cb *cb, void *opaque)
{
    struct timer *timer = malloc(sizeof(*timer));
    if (!timer)
        return NULL;
    *timer = (struct timer){.clock = clock, .cb = cb, .opaque = opaque, .deadline = NEVER};
    pthread_mutex_lock(&clock->lock);
    if (clock->timers == clock->capacity) {
        unsigned capacity = clock->capacity + 32;
        struct timer **grown = reallocarray(clock->heap, capacity, sizeof(struct timer *));
        if (grown) {
            clock->heap = grown;
            clock->capacity = capacity;
        } else {
            free(timer);
            timer = NULL;
        }
    }
    if (timer)
        clock->timers++;
    pthread_mutex_unlock(&clock->lock);
    return timer;
}

void timer_free(struct timer *timer)
{
    if (!timer)
        return;
    struct clock *clock = timer->clock;
    pthread_mutex_lock(&clock->lock);
    heap_remove(clock, timer);
    while (clock->firing == timer) {
        pthread_cond_wait(&clock->fired, &clock->lock);
        heap_remove(clock, timer); /* the callback may have armed it again */
    }
    clock->timers--;
    pthread_mutex_unlock(&clock->lock);
    free(timer);
}

void timer_arm(struct timer *timer, uint64_t deadline_ns)
{
    struct clock *clock = timer->clock;
    pthread_mutex_lock(&clock->lock);
    heap_remove(clock, timer);
    if (deadline_ns != NEVER) {
        if (clock->firing == timer) {
            uint64_t now = clock_now(clock);

            if (deadline_ns <= now)
                deadline_ns = now + CLOCK_RETRY_NS;
        }
        timer->deadline = deadline_ns;
        clock->heap[clock->armed++] = timer;
        heap_settle(clock, clock->armed - 1);
        program(clock);
    }
    pthread_mutex_unlock(&clock->lock);
}

void timer_disarm(struct timer *timer)
{
    timer_arm(timer, NEVER);
}

uint64_t timer_deadline(const struct timer *timer)
{
    struct clock *clock = timer->clock;
    pthread_mutex_lock(&clock->lock);
    uint64_t deadline = timer->deadline;
    pthread_mutex_unlock(&clock->lock);
    return deadline;
}

/* --- life --- */

struct clock *clock_create(struct loop *loop, struct bus *bus, struct error *err)
{
    struct clock *clock = calloc(1, sizeof(*clock));
    if (!clock) {
        error_set(err, ENOMEM, "clock: out of memory");
        return NULL;
    }
    clock->bus = bus;
    clock->programmed = NEVER;
    pthread_mutex_init(&clock->lock, NULL);
    pthread_cond_init(&clock->fired, NULL);
    clock->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (clock->timer_fd < 0)
        error_set(err, errno, "clock: no timer: %s", strerror(errno));
    else
        clock->watch = loop_add(loop, clock->timer_fd, EPOLLIN, expired, clock, err);
    if (!clock->watch) {
        clock_destroy(clock);
        return NULL;
    }
    clock->tsc_hz = find_tsc_hz();
    atomic_store(&clock->epoch_ns, time_real_ns());
    view_write(clock, view_of(0, 0, false));
    return clock;
}

void clock_destroy(struct clock *clock)
{
    if (!clock)
        return;
    loop_remove(clock->watch);
    if (clock->timer_fd >= 0)
        close(clock->timer_fd);
    pthread_cond_destroy(&clock->fired);
    pthread_mutex_destroy(&clock->lock);
    free(clock->heap);
    free(clock);
}

/* Stops or starts guest time where it is. */
static void set_paused(struct clock *clock, bool paused)
{
    pthread_mutex_lock(&clock->lock);
    struct view view = view_read(clock);
    if (view.paused != paused) {
        /* Both at one moment, so that their relation (kvmclock!) survives any number of pauses. */
        struct reading now = read_both();
        if (!view.paused) {
            view.ns += now.ns;
            view.tsc += now.tsc;
        }
        view_write(clock, view_of(view.ns, view.tsc, paused));
    }
    clock->programmed = NEVER;
    program(clock);
    pthread_mutex_unlock(&clock->lock);
}

void clock_pause(struct clock *clock)
{
    set_paused(clock, true);
}

void clock_resume(struct clock *clock)
{
    set_paused(clock, false);
}

void clock_state(struct clock *clock, struct state *s)
{
    pthread_mutex_lock(&clock->lock);
    uint64_t ns = clock_now(clock);
    uint64_t tsc = clock_tsc(clock);
    uint64_t epoch_ns = atomic_load(&clock->epoch_ns);
    state_section(s, "clock", 0, 1);
    state_field(s, ns);
    state_field(s, tsc);
    state_field(s, epoch_ns);
    if (ns > STATE_NS_MAX)
        state_fail(s, "ns %llu: a clock that has run for 146 years", (unsigned long long)ns);
    if (!state_saving(s) && !state_error(s)) {
        atomic_store(&clock->epoch_ns, epoch_ns);
        view_write(clock, view_of(ns, tsc, atomic_load(&clock->paused)));
        clock->programmed = NEVER;
        program(clock);
    }
    pthread_mutex_unlock(&clock->lock);
}
