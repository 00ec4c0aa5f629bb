/*
 * What the tests on the rig of interp_rig.h have in common: the rig, code and data in its memory,
 * and running it.
 */
#ifndef DOPPEL_TESTS_INTERP_TEST_H
#define DOPPEL_TESTS_INTERP_TEST_H

#include "test.h"

#include "interp_rig.h"

static struct rig *rig;

static inline int teardown(void **state)
{
    rig_destroy(rig);
    return 0;
}

/* Runs vCPU 0 from CPU until an exit; CPU becomes the state then. */
static inline enum engine_exit run(struct x86_cpu *cpu)
{
    enum engine_exit exit;

    RIG_ENGINE.state_in(rig->cpu[0].vcpu, cpu);
    exit = RIG_ENGINE.run(rig->cpu[0].vcpu);
    RIG_ENGINE.state_out(rig->cpu[0].vcpu, cpu);
    return exit;
}

/* Ends the test as one that is not run if EXCUSED, and says WHY. */
static inline void excuse(bool excused, const char *why)
{
    if (!excused)
        return;
    print_message("not run under KVM: %s\n", why);
    skip();
}

static inline void put(uint64_t gpa, const void *bytes, size_t size)
{
    assert_int_equal(mem_write(rig->machine.mem, gpa, bytes, size), 0);
}

/* Puts BYTES... at GPA. */
#define PUT(gpa, ...)                                                                              \
    put(gpa, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

#endif
