/*
 * Tests on two CPUs.
 */
#include "bench.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u

struct worker {
    void (*work)(struct worker *self);
    uint64_t rounds, result;
    unsigned cpu;
    pthread_t thread;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint_fast64_t shared;
static uint64_t guarded;
static atomic_bool over;
static int there[2], back[2];

/* WHICH: the first or the second of the CPUs that this process may use. */
static void take_cpu(unsigned which)
{
    cpu_set_t all, one;

    CHECK(!sched_getaffinity(0, sizeof(all), &all));
    CPU_ZERO(&one);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && which-- == 0)
            CPU_SET(cpu, &one);
    CHECK(!sched_setaffinity(0, sizeof(one), &one));
}

static void *start_work(void *opaque)
{
    struct worker *worker = opaque;

    take_cpu(worker->cpu);
    worker->work(worker);
    return NULL;
}

/* Does FIRST and SECOND at once, each on a CPU of its own; ROUNDS times each. */
static void on_two_cpus(void (*first)(struct worker *), void (*second)(struct worker *),
                        uint64_t rounds)
{
    struct worker worker[2] = {{.work = first, .rounds = rounds, .cpu = 0},
                               {.work = second, .rounds = rounds, .cpu = 1}};

    for (unsigned i = 0; i < 2; i++)
        CHECK(!pthread_create(&worker[i].thread, NULL, start_work, &worker[i]));
    for (unsigned i = 0; i < 2; i++)
        CHECK(!pthread_join(worker[i].thread, NULL));
    sink = worker[0].result + worker[1].result;
}

static void keep_busy(struct worker *self)
{
    uint64_t x = 88172645463325252u, buckets[64] = {0};

    for (uint64_t i = 0; i < self->rounds; i++)
        buckets[next_random(&x) % 64] += x;
    self->result = buckets[5];
}

static void one_busy(uint64_t ops)
{
    struct worker worker = {.work = keep_busy, .rounds = ops, .cpu = 0};

    CHECK(!pthread_create(&worker.thread, NULL, start_work, &worker));
    CHECK(!pthread_join(worker.thread, NULL));
    sink = worker.result;
}

static void two_busy(uint64_t ops)
{
    on_two_cpus(keep_busy, keep_busy, (ops + 1) / 2);
}

static void add_atomically(struct worker *self)
{
    for (uint64_t i = 0; i < self->rounds; i++)
        atomic_fetch_add(&shared, 1);
}

static void atomics(uint64_t ops)
{
    atomic_store(&shared, 0);
    on_two_cpus(add_atomically, add_atomically, (ops + 1) / 2);
    CHECK(atomic_load(&shared) == (ops + 1) / 2 * 2);
}

static void add_locked(struct worker *self)
{
    for (uint64_t i = 0; i < self->rounds; i++) {
        pthread_mutex_lock(&lock);
        guarded++;
        pthread_mutex_unlock(&lock);
    }
}

static void contended_mutex(uint64_t ops)
{
    guarded = 0;
    on_two_cpus(add_locked, add_locked, (ops + 1) / 2);
    CHECK(guarded == (ops + 1) / 2 * 2);
}

static void send_bytes(struct worker *self)
{
    char byte = 0;

    for (uint64_t i = 0; i < self->rounds; i++)
        CHECK(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1);
}

static void return_bytes(struct worker *self)
{
    char byte;

    for (uint64_t i = 0; i < self->rounds; i++)
        CHECK(read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1);
}

static void wake_across(uint64_t ops)
{
    CHECK(!pipe(there) && !pipe(back));
    on_two_cpus(send_bytes, return_bytes, ops);
    for (unsigned i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
}

static void protect_pages(struct worker *self)
{
    char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    for (uint64_t i = 0; i < self->rounds; i++) {
        *(volatile char *)p = 1;
        CHECK(!mprotect(p, PAGE, PROT_READ) && !mprotect(p, PAGE, PROT_READ | PROT_WRITE));
    }
    munmap(p, PAGE);
    atomic_store(&over, true);
}

static void spin(struct worker *self)
{
    while (!atomic_load(&over))
        self->result++;
}

static void shootdowns(uint64_t ops)
{
    atomic_store(&over, false);
    on_two_cpus(protect_pages, spin, ops);
}

const struct test smp_tests[] = {
    {"one-busy", "smp", "round, one thread", NULL, one_busy, NULL, 1},
    {"two-busy", "smp", "round, two threads", NULL, two_busy, NULL, 2},
    {"atomics", "smp", "addition, same line", NULL, atomics, NULL, 2},
    {"contended-mutex", "smp", "lock, unlock", NULL, contended_mutex, NULL, 2},
    {"wake-across", "smp", "round trip", NULL, wake_across, NULL, 2},
    {"shootdown", "smp", "mprotect, and back", NULL, shootdowns, NULL, 2},
    {0},
};
