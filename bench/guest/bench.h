/*
 * What the parts of the benchmark program share: the form of a test, and the clock.
 */
#ifndef DOPPEL_BENCH_H
#define DOPPEL_BENCH_H

#include <stdint.h>
#include <time.h>

/* A test repeats an operation; its result is the time that one operation takes. */
struct test {
    const char *name, *group;
    const char *what;          /* what one operation is */
    void (*prepare)(void);     /* before the time that counts; may be NULL */
    void (*run)(uint64_t ops); /* does OPS operations */
    /* Instead of run: measures by itself for about this long. Returns the time of one operation and
     * in OPS how many there were; 0: it cannot tell. */
    double (*gauge)(uint64_t target_ns, uint64_t *ops);
    unsigned cpus; /* 0: everything on one CPU; else how many CPUs it needs */
};

/* Each ends with a test without a name. */
extern const struct test compute_tests[], os_tests[], kernel_tests[], jit_tests[], smp_tests[];

/* Results go here, so that the compiler must not drop the work. */
extern volatile uint64_t sink;
extern volatile double sink_fp;

static inline uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Ends the test with a message when a call that should never fail has failed. */
#define CHECK(condition) ((condition) ? (void)0 : test_failed(#condition))
__attribute__((noreturn)) void test_failed(const char *what);

/* A directory on a tmpfs, and this program's own file. */
extern const char *tmp_dir, *self_path;

#endif
