/*
 * The public library as a program sees it: threads, pauses, events, the log, and structures of
 * other sizes. What it refuses and how machines end is in ctl.c.
 */
#include "test.h"

#include "flat_kernel.h"

#include "ctl/doppel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const debug_exit[] = {"debug-exit", NULL};

#define MIB       (1024 * 1024ULL)
#define WAIT_MS   60000
#define CODE(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

static char kernel[] = P_tmpdir "/doppel-library-XXXXXX";

static struct doppel_config config_of(enum doppel_engine engine)
{
    struct doppel_config config;

    doppel_config_init(&config);
    config.engine = engine;
    config.memory = 16 * MIB;
    config.kernel = kernel;
    config.devices = debug_exit;
    return config;
}

static struct doppel_vm *create(const struct doppel_config *config, const uint8_t *code,
                                size_t size)
{
    struct doppel_error err = {0};
    struct doppel_vm *vm;

    write_flat_kernel(kernel, code, size);
    vm = doppel_create(config, &err);
    unlink(kernel);
    if (!vm)
        fail_msg("%s", err.text);
    return vm;
}

/* Sends bytes without end: mov $0x3F8,%dx; 1: out %al,%dx; jmp 1b */
#define SENDS CODE(0x66, 0xBA, 0xF8, 0x03, 0xEE, 0xEB, 0xFD)
/* 1: jmp 1b */
#define LOOPS CODE(0xEB, 0xFE)

static void count(void *opaque, const void *data, size_t size)
{
    atomic_fetch_add((atomic_long *)opaque, (long)size);
}

static void await(atomic_long *counter, long least)
{
    while (*counter < least)
        usleep(500);
}

static void stop_and_destroy(struct doppel_vm *vm)
{
    doppel_stop(vm);
    assert_int_equal(doppel_wait(vm, WAIT_MS, NULL), 0);
    assert_int_equal(doppel_state(vm), DOPPEL_STATE_ENDED);
    doppel_destroy(vm);
}

/* ---- Sizes ---- */

/* A program of the future: its structure has more at the end. */
struct bigger_config {
    struct doppel_config config;
    uint64_t more;
};

static void test_config_sizes(void **unused)
{
    const size_t old = offsetof(struct doppel_config, log);
    struct bigger_config bigger;
    struct doppel_error err;
    struct doppel_vm *vm;

    /* A program of the past: what stands behind its structure is left alone, both ways. */
    write_flat_kernel(kernel, LOOPS);
    memset(&bigger, 0xA5, sizeof(bigger));
    doppel_config_init_sized(&bigger.config, old);
    assert_memory_equal(&bigger.config.log, &(uint64_t){0xA5A5A5A5A5A5A5A5}, 8);
    bigger.config.kernel = kernel;
    bigger.config.memory = MIB * 4;
    vm = doppel_create_sized(&bigger.config, old, &err);
    assert_non_null(vm);
    doppel_destroy(vm);

    doppel_config_init_sized(&bigger.config, sizeof(bigger));
    assert_int_equal(bigger.more, 0);
    bigger.config.kernel = kernel;
    vm = doppel_create_sized(&bigger.config, sizeof(bigger), &err);
    assert_non_null(vm);
    doppel_destroy(vm);
    bigger.more = 1;
    assert_null(doppel_create_sized(&bigger.config, sizeof(bigger), &err));
    assert_int_equal(err.code, E2BIG);
    unlink(kernel);
}

static void test_other_sizes(void **unused)
{
    struct doppel_config config = config_of(DOPPEL_ENGINE_INTERP);
    struct doppel_vm *vm = create(&config, LOOPS);
    const size_t short_stats = offsetof(struct doppel_stats, elapsed_ns);
    static union {
        struct doppel_stats stats;
        struct doppel_end end;
        struct doppel_host host;
        uint8_t bytes[32768];
    } u;

    memset(&u, 0xA5, sizeof(u));
    doppel_stats_sized(vm, &u.stats, short_stats);
    assert_string_equal(u.stats.engine, "interp");
    assert_int_equal(u.bytes[short_stats], 0xA5);
    doppel_stats_sized(vm, &u.stats, sizeof(u.stats) + 8);
    assert_int_equal(u.bytes[sizeof(u.stats)], 0);
    assert_int_equal(u.bytes[sizeof(u.stats) + 8], 0xA5);
    memset(&u, 0xA5, sizeof(u));
    doppel_stop(vm);
    assert_int_equal(doppel_wait_sized(vm, -1, &u.end, offsetof(struct doppel_end, report)), 0);
    assert_int_equal(u.end.outcome, DOPPEL_STOPPED);
    assert_int_equal((uint8_t)u.end.report[0], 0xA5);
    doppel_probe_sized(&u.host, sizeof(u.host.cpu));
    assert_true(u.host.cpu[0]);
    assert_int_equal(u.bytes[sizeof(u.host.cpu) + 100], 0xA5);
    doppel_destroy(vm);
}

/* ---- Pauses ---- */

static void pause_and_go_on(enum doppel_engine engine)
{
    struct doppel_config config = config_of(engine);
    struct doppel_stats one, two;
    atomic_long sent = 0;
    struct doppel_vm *vm;
    long at;

    config.serial[0] = (struct doppel_serial){.output = count, .opaque = &sent};
    vm = create(&config, SENDS);
    assert_int_equal(doppel_state(vm), DOPPEL_STATE_NEW);
    assert_int_equal(doppel_pause(vm, NULL), 0); /* it starts paused */
    assert_int_equal(doppel_start(vm, NULL), 0);
    assert_int_equal(doppel_state(vm), DOPPEL_STATE_PAUSED);
    assert_int_equal(doppel_wait(vm, 20, NULL), -ETIMEDOUT);
    assert_int_equal(sent, 0);
    assert_int_equal(doppel_resume(vm, NULL), 0);
    for (unsigned i = 0; i < 5; i++) {
        at = sent;
        await(&sent, at + 100);
        assert_int_equal(doppel_pause(vm, NULL), 0);
        assert_int_equal(doppel_pause(vm, NULL), 0);
        at = sent;
        doppel_stats(vm, &one);
        assert_int_equal(doppel_wait(vm, 5, NULL), -ETIMEDOUT);
        doppel_stats(vm, &two);
        assert_int_equal(sent, at);
        assert_int_equal(one.elapsed_ns, two.elapsed_ns);
        assert_int_equal(doppel_state(vm), DOPPEL_STATE_PAUSED);
        assert_int_equal(doppel_resume(vm, NULL), 0);
        assert_int_equal(doppel_resume(vm, NULL), 0);
        assert_int_equal(doppel_state(vm), DOPPEL_STATE_RUNNING);
    }
    assert_int_equal(doppel_pause(vm, NULL), 0);
    doppel_stop(vm); /* a paused one ends, too */
    assert_int_equal(doppel_wait(vm, WAIT_MS, NULL), 0);
    assert_int_equal(doppel_pause(vm, NULL), -ESHUTDOWN);
    assert_int_equal(doppel_resume(vm, NULL), -ESHUTDOWN);
    assert_int_equal(doppel_start(vm, NULL), -ESHUTDOWN);
    doppel_destroy(vm);
}

static void test_pause(void **unused)
{
    pause_and_go_on(DOPPEL_ENGINE_INTERP);
    pause_and_go_on(DOPPEL_ENGINE_AUTO);
}

/* ---- Engines ---- */

static void assert_engine(struct doppel_vm *vm, const char *name)
{
    struct doppel_stats stats;

    doppel_stats(vm, &stats);
    assert_string_equal(stats.engine, name);
}

/* At each point of a machine's life: before its start, while it runs, paused, and ended. */
static void test_switch_engine(void **unused)
{
    struct doppel_config config = config_of(DOPPEL_ENGINE_INTERP);
    struct doppel_host host;
    struct doppel_error err;
    atomic_long sent = 0;
    struct doppel_vm *vm;
    long at;

    doppel_probe(&host);
    config.serial[0] = (struct doppel_serial){.output = count, .opaque = &sent};
    vm = create(&config, SENDS);
    assert_engine(vm, "interp");
    assert_int_equal(doppel_switch_engine(vm, DOPPEL_ENGINE_AUTO, NULL), 0);
    assert_engine(vm, doppel_engine_name(host.chosen));
    assert_int_equal(doppel_start(vm, NULL), 0);
    await(&sent, 100);
    assert_int_equal(doppel_switch_engine(vm, DOPPEL_ENGINE_INTERP, NULL), 0);
    assert_int_equal(doppel_state(vm), DOPPEL_STATE_RUNNING);
    await(&sent, sent + 100);

    assert_int_equal(doppel_pause(vm, NULL), 0);
    at = sent;
    assert_int_equal(doppel_switch_engine(vm, host.chosen, NULL), 0);
    assert_int_equal(doppel_switch_engine(vm, host.chosen, NULL), 0); /* it has it already */
    assert_int_equal(doppel_state(vm), DOPPEL_STATE_PAUSED);
    assert_int_equal(doppel_wait(vm, 5, NULL), -ETIMEDOUT);
    assert_int_equal(sent, at);
    assert_int_equal(doppel_resume(vm, NULL), 0);
    await(&sent, at + 100);

    assert_int_equal(doppel_switch_engine(vm, (enum doppel_engine)99, &err), -EINVAL);
    assert_non_null(strstr(err.text, "99"));
    assert_engine(vm, doppel_engine_name(host.chosen));
    doppel_stop(vm);
    assert_int_equal(doppel_wait(vm, WAIT_MS, NULL), 0);
    assert_int_equal(doppel_switch_engine(vm, DOPPEL_ENGINE_INTERP, &err), -ESHUTDOWN);
    doppel_destroy(vm);
}

/* ---- Events ---- */

/* The next event that is no line of the log. */
static int next(struct doppel_events *events, int timeout_ms, struct doppel_event *event)
{
    int ret;

    do
        ret = doppel_events_next(events, timeout_ms, event);
    while (ret == 0 && event->kind == DOPPEL_EVENT_LOG);
    return ret;
}

static void assert_next(struct doppel_events *events, enum doppel_event_kind kind)
{
    struct doppel_event event;

    assert_int_equal(next(events, WAIT_MS, &event), 0);
    assert_int_equal(event.kind, kind);
    assert_int_equal(event.lost, 0);
}

static bool readable(struct doppel_events *events)
{
    struct pollfd pfd = {doppel_events_fd(events), POLLIN, 0};

    return poll(&pfd, 1, 0) == 1;
}

static void test_events(void **unused)
{
    struct doppel_config config = config_of(DOPPEL_ENGINE_AUTO);
    struct doppel_events *one, *two, *late;
    struct doppel_event event;
    struct doppel_vm *vm;

    /* Resets itself at once, once; then writes to port 0xF4. See ctl.c. */
    vm = create(&config, CODE(0xB0, 0x7F, 0xE6, 0x70, 0xE4, 0x71, 0x84, 0xC0, 0x75, 0x0E, 0xFE,
                              0xC0, 0xE6, 0x71, 0xB0, 0x06, 0x66, 0xBA, 0xF9, 0x0C, 0xEE, 0xF4,
                              0xEB, 0xFD, 0x66, 0xBA, 0xF4, 0x00, 0xEE, 0xF4));
    /* The kernel is read again at the reset: it must still be there, and is, as it is open. */
    one = doppel_events_open(vm, NULL);
    two = doppel_events_open(vm, NULL);
    assert_non_null(one);
    assert_non_null(two);
    assert_false(readable(one));
    assert_int_equal(doppel_events_next(one, 0, &event), -ETIMEDOUT);
    assert_int_equal(doppel_events_next(one, 5, &event), -ETIMEDOUT);
    assert_int_equal(doppel_pause(vm, NULL), 0);
    assert_true(readable(one));
    assert_int_equal(doppel_start(vm, NULL), 0);
    assert_int_equal(doppel_resume(vm, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        struct doppel_events *events = i ? two : one;

        assert_next(events, DOPPEL_EVENT_PAUSED);
        assert_next(events, DOPPEL_EVENT_STARTED);
        assert_next(events, DOPPEL_EVENT_RESUMED);
        assert_next(events, DOPPEL_EVENT_RESET);
        assert_next(events, DOPPEL_EVENT_ENDED);
        assert_int_equal(doppel_events_next(events, -1, &event), -ESHUTDOWN);
        assert_false(readable(events));
    }
    assert_int_equal(doppel_wait(vm, 0, NULL), 0);
    late = doppel_events_open(vm, NULL);
    assert_true(readable(late));
    assert_next(late, DOPPEL_EVENT_ENDED);
    doppel_events_close(one);
    doppel_destroy(vm);
}

/* Nobody takes the events: the last ones are kept, and how many are missing is told. */
static void test_lost_events(void **unused)
{
    struct doppel_config config = config_of(DOPPEL_ENGINE_INTERP);
    struct doppel_vm *vm = create(&config, LOOPS);
    struct doppel_events *events = doppel_events_open(vm, NULL);
    enum doppel_event_kind last = DOPPEL_EVENT_ENDED;
    struct doppel_event event = {0};
    unsigned seen = 0, lost = 0;

    for (unsigned i = 0; i < 500; i++) {
        assert_int_equal(doppel_pause(vm, NULL), 0);
        assert_int_equal(doppel_resume(vm, NULL), 0);
    }
    while (doppel_events_next(events, 0, &event) == 0) {
        assert_true(seen == 0 || event.lost == 0);
        lost += event.lost;
        last = event.kind;
        seen++;
    }
    assert_int_equal(seen + lost, 1000);
    assert_true(lost > 0 && seen > 16);
    assert_int_equal(last, DOPPEL_EVENT_RESUMED);
    /* A VM that never ran ends at once. */
    doppel_stop(vm);
    assert_next(events, DOPPEL_EVENT_ENDED);
    assert_int_equal(doppel_state(vm), DOPPEL_STATE_ENDED);
    doppel_destroy(vm);
}

/* ---- The log ---- */

struct lines {
    atomic_int count;
    char last[512];
};

static void take_line(void *opaque, enum doppel_log_level level, const char *text)
{
    struct lines *lines = opaque;

    assert_true(level <= DOPPEL_LOG_INFO);
    assert_true(*text && !strchr(text, '\n'));
    atomic_fetch_add(&lines->count, 1);
    snprintf(lines->last, sizeof(lines->last), "%s", text);
}

static void test_log(void **unused)
{
    struct doppel_config config = config_of(DOPPEL_ENGINE_INTERP);
    struct doppel_events *events;
    struct doppel_event event;
    struct lines lines = {0};
    struct doppel_vm *vm;

    config.log = take_line;
    config.log_opaque = &lines;
    vm = create(&config, LOOPS);
    events = doppel_events_open(vm, NULL);
    assert_int_equal(doppel_start(vm, NULL), 0);
    doppel_stop(vm);
    assert_int_equal(doppel_wait(vm, WAIT_MS, NULL), 0);
    assert_true(lines.count > 0);
    assert_non_null(strstr(lines.last, "stopped"));
    do
        assert_int_equal(doppel_events_next(events, WAIT_MS, &event), 0);
    while (event.kind != DOPPEL_EVENT_LOG);
    assert_int_equal(event.level, DOPPEL_LOG_INFO);
    assert_string_equal(event.text, lines.last);
    doppel_destroy(vm);

    config.log_level = DOPPEL_LOG_ERROR;
    lines.count = 0;
    vm = create(&config, LOOPS);
    assert_int_equal(doppel_start(vm, NULL), 0);
    stop_and_destroy(vm);
    assert_int_equal(lines.count, 0);
    config.log_level = (enum doppel_log_level)9;
    assert_null(doppel_create(&config, NULL));
}

/* ---- Threads ---- */

#define WAITERS 4

struct waiter {
    pthread_t thread;
    struct doppel_vm *vm;
    struct doppel_events *events; /* NULL: waits for the end */
    struct doppel_end end;
    int result;
    unsigned ends; /* events DOPPEL_EVENT_ENDED taken */
};

static void *wait_for_it(void *opaque)
{
    struct waiter *w = opaque;
    struct doppel_event event;

    if (!w->events)
        w->result = doppel_wait(w->vm, -1, &w->end);
    else
        while ((w->result = doppel_events_next(w->events, -1, &event)) == 0)
            w->ends += event.kind == DOPPEL_EVENT_ENDED;
    return NULL;
}

/* Several threads wait for the end, and several take from one queue: all of them come back. */
static void test_waiters(void **unused)
{
    struct doppel_config config = config_of(DOPPEL_ENGINE_INTERP);
    struct doppel_vm *vm = create(&config, LOOPS);
    struct doppel_events *events = doppel_events_open(vm, NULL);
    static struct waiter waiters[2 * WAITERS];
    unsigned ends = 0;

    for (unsigned i = 0; i < 2 * WAITERS; i++) {
        waiters[i] = (struct waiter){.vm = vm, .events = i < WAITERS ? NULL : events};
        assert_int_equal(pthread_create(&waiters[i].thread, NULL, wait_for_it, &waiters[i]), 0);
    }
    assert_int_equal(doppel_start(vm, NULL), 0);
    doppel_stop(vm);
    for (unsigned i = 0; i < 2 * WAITERS; i++) {
        pthread_join(waiters[i].thread, NULL);
        assert_int_equal(waiters[i].result, i < WAITERS ? 0 : -ESHUTDOWN);
        if (i < WAITERS)
            assert_int_equal(waiters[i].end.outcome, DOPPEL_STOPPED);
        ends += waiters[i].ends;
    }
    assert_int_equal(ends, 1);
    doppel_destroy(vm);
}

#define CALLERS 6
#define CALLS   150

struct caller {
    pthread_t thread;
    struct doppel_vm *vm;
    uint64_t seed;
    unsigned started, odd; /* starts that succeeded; answers that nothing explains */
    bool asks;             /* where the threads are */
};

static void ignore_line(void *opaque, const char *text)
{
}

static void call(struct caller *c)
{
    struct doppel_event event;
    struct doppel_events *events;
    struct doppel_stats stats;
    int ret;

    c->seed = c->seed * 6364136223846793005 + 1442695040888963407;
    switch (c->seed >> 60) {
    case 0:
    case 1:
    case 2: c->odd += doppel_pause(c->vm, NULL) != 0; break;
    case 3:
    case 4:
    case 5: c->odd += doppel_resume(c->vm, NULL) != 0; break;
    case 6:
        ret = doppel_start(c->vm, NULL);
        c->started += ret == 0;
        c->odd += ret != 0 && ret != -EALREADY;
        break;
    case 7: c->odd += doppel_wait(c->vm, 1, NULL) != -ETIMEDOUT; break;
    case 8: doppel_stats(c->vm, &stats); break;
    case 9: doppel_power_button(c->vm); break;
    case 10: doppel_serial_input(c->vm, c->seed >> 20 & 3, "xyz", 3); break;
    case 11: doppel_output_room(c->vm); break;
    case 12: c->odd += doppel_state(c->vm) == DOPPEL_STATE_ENDED; break;
    case 13:
        events = doppel_events_open(c->vm, NULL);
        c->odd += !events;
        if (events)
            doppel_events_next(events, 1, &event);
        doppel_events_close(events);
        break;
    case 14:
        doppel_trace(c->vm, false);
        if (!c->asks) /* who asks wants an interpreter; see storm() */
            c->odd += doppel_switch_engine(
                          c->vm, c->seed >> 20 & 1 ? DOPPEL_ENGINE_INTERP : DOPPEL_ENGINE_AUTO,
                          NULL) != 0;
        break;
    case 15:
        if (c->asks && c->seed >> 20 & 1)
            doppel_where(c->vm, ignore_line, NULL);
        break;
    }
}

static void *make_calls(void *opaque)
{
    struct caller *c = opaque;

    for (unsigned i = 0; i < CALLS; i++)
        call(c);
    return NULL;
}

/* Whether pauses and resumes came one after the other, as the library says: one event is followed
 * by the other kind. */
struct order {
    pthread_t thread;
    struct doppel_events *events;
    unsigned starts, pauses, wrong;
};

static void *watch_order(void *opaque)
{
    struct order *order = opaque;
    struct doppel_event event;
    bool paused = false, known = true;

    while (doppel_events_next(order->events, -1, &event) == 0) {
        known = known && !event.lost;
        order->starts += event.kind == DOPPEL_EVENT_STARTED;
        if (event.kind != DOPPEL_EVENT_PAUSED && event.kind != DOPPEL_EVENT_RESUMED)
            continue;
        order->wrong += known && paused == (event.kind == DOPPEL_EVENT_PAUSED);
        order->pauses++;
        paused = event.kind == DOPPEL_EVENT_PAUSED;
        known = true;
    }
    return NULL;
}

static void storm(enum doppel_engine engine)
{
    struct doppel_config config = config_of(engine);
    static struct caller callers[CALLERS];
    struct order order = {0};
    atomic_long sent = 0;
    struct doppel_vm *vm;
    unsigned started = 0;
    long at;

    config.cpus = 2;
    config.serial[0] = (struct doppel_serial){.output = count, .opaque = &sent};
    vm = create(&config, SENDS);
    order.events = doppel_events_open(vm, NULL);
    assert_int_equal(pthread_create(&order.thread, NULL, watch_order, &order), 0);
    for (unsigned i = 0; i < CALLERS; i++) {
        /* ThreadSanitizer's own handlers need the thread-local storage that translated code does
         * without: the threads of an interpreter are asked. */
        callers[i] = (struct caller){.vm = vm, .seed = i, .asks = engine == DOPPEL_ENGINE_INTERP};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, make_calls, &callers[i]), 0);
    }
    for (unsigned i = 0; i < CALLERS; i++) {
        pthread_join(callers[i].thread, NULL);
        assert_int_equal(callers[i].odd, 0);
        started += callers[i].started;
    }
    assert_int_equal(started, 1);

    /* Whatever they did: the last word counts. */
    assert_int_equal(doppel_pause(vm, NULL), 0);
    at = sent;
    assert_int_equal(doppel_wait(vm, 5, NULL), -ETIMEDOUT);
    assert_int_equal(sent, at);
    assert_int_equal(doppel_resume(vm, NULL), 0);
    await(&sent, at + 100);
    doppel_stop(vm);
    assert_int_equal(doppel_wait(vm, WAIT_MS, NULL), 0);
    pthread_join(order.thread, NULL);
    assert_int_equal(order.wrong, 0);
    assert_int_equal(order.starts, 1);
    assert_true(order.pauses > 10);
    doppel_destroy(vm);
}

static void test_storm(void **unused)
{
    storm(DOPPEL_ENGINE_INTERP);
    storm(DOPPEL_ENGINE_AUTO);
}

/* ---- Where the threads are ---- */

struct asker {
    struct doppel_vm *vm;
    atomic_int lines;
    sem_t *inside, *go; /* the first line waits between the two; or NULL */
    atomic_bool *over;  /* asks again and again until then; or NULL: once */
};

static void take_where(void *opaque, const char *text)
{
    struct asker *a = opaque;

    assert_non_null(strstr(text, ": "));
    if (atomic_fetch_add(&a->lines, 1) == 0 && a->go) {
        sem_post(a->inside);
        sem_wait(a->go);
    }
}

static void *ask(void *opaque)
{
    struct asker *a = opaque;

    do
        doppel_where(a->vm, take_where, a);
    while (a->over && !atomic_load(a->over));
    return NULL;
}

/* Of two who ask, one waits for the other: the threads answer one question at a time. */
static void test_where_by_turns(void **unused)
{
    struct doppel_config config = config_of(DOPPEL_ENGINE_INTERP);
    struct doppel_vm *vm = create(&config, LOOPS);
    sem_t inside, go;
    struct asker first = {.vm = vm, .inside = &inside, .go = &go}, second = {.vm = vm},
                 ready = {.vm = vm};
    pthread_t one, two;

    sem_init(&inside, 0, 0);
    sem_init(&go, 0, 0);
    assert_int_equal(doppel_start(vm, NULL), 0);
    do { /* until both threads can be asked */
        atomic_store(&ready.lines, 0);
        ask(&ready);
    } while (atomic_load(&ready.lines) < 2);
    assert_int_equal(pthread_create(&one, NULL, ask, &first), 0);
    sem_wait(&inside);
    assert_int_equal(pthread_create(&two, NULL, ask, &second), 0);
    usleep(50000); /* for it to make the mistake */
    assert_int_equal(atomic_load(&second.lines), 0);
    sem_post(&go);
    pthread_join(one, NULL);
    pthread_join(two, NULL);
    assert_int_equal(atomic_load(&first.lines), 2); /* the vCPU and the event loop */
    assert_int_equal(atomic_load(&second.lines), 2);
    stop_and_destroy(vm);
    sem_destroy(&inside);
    sem_destroy(&go);
}

/* The threads of a disk are among them. */
static void find_disk(void *opaque, const char *text)
{
    if (strstr(text, "disk 0, thread 0: ") == text)
        atomic_fetch_add((atomic_int *)opaque, 1);
}

static void test_where_of_disks(void **unused)
{
    char image[] = P_tmpdir "/doppel-library-disk-XXXXXX", device[sizeof(image) + 16];
    const char *const devices[] = {device, NULL};
    struct doppel_config config = config_of(DOPPEL_ENGINE_INTERP);
    atomic_int found = 0;
    struct doppel_vm *vm;
    int fd = mkostemp(image, O_CLOEXEC);

    assert_int_equal(ftruncate(fd, 65536), 0);
    close(fd);
    snprintf(device, sizeof(device), "disk,file=%s", image);
    config.devices = devices;
    vm = create(&config, LOOPS);
    unlink(image);
    assert_int_equal(doppel_start(vm, NULL), 0);
    while (!atomic_load(&found)) /* until the thread can be asked */
        doppel_where(vm, find_disk, &found);
    stop_and_destroy(vm);
}

/* A VM may be asked while it ends, and when it has ended. In the interpreter, as in the storm. */
static void test_where_at_the_end(void **unused)
{
    for (unsigned i = 0; i < 5; i++) {
        struct doppel_config config = config_of(DOPPEL_ENGINE_INTERP);
        struct doppel_vm *vm;
        atomic_bool over = false;
        struct asker asker = {.over = &over}, last = {0};
        pthread_t thread;

        config.cpus = 2;
        asker.vm = last.vm = vm = create(&config, LOOPS);
        assert_int_equal(pthread_create(&thread, NULL, ask, &asker), 0);
        assert_int_equal(doppel_start(vm, NULL), 0);
        while (!atomic_load(&asker.lines))
            usleep(100);
        doppel_stop(vm);
        assert_int_equal(doppel_wait(vm, WAIT_MS, NULL), 0);
        ask(&last);
        /* Of the threads, some or all may have ended. */
        assert_in_range(atomic_load(&last.lines), 0, 3);
        atomic_store(&over, true);
        pthread_join(thread, NULL);
        doppel_destroy(vm);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_sizes),
        cmocka_unit_test(test_other_sizes),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_switch_engine),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_lost_events),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_waiters),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_where_by_turns),
        cmocka_unit_test(test_where_at_the_end),
        cmocka_unit_test(test_where_of_disks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
