/*
 * Code that is rewritten over and over: the translator as it usually is must not translate each
 * version of it for nothing, and must get to translating what stays.
 */
#include "interp_test.h"

#include "base/util.h"

#define CODE     RIG_FREE
#define FUNCTION (CODE + 0x1000)
#define VERSIONS 100u

static int setup(void **state)
{
    rig = rig_create(1, 0);
    return rig ? 0 : -1;
}

/* Runs each of VERSIONS versions of a function RUNS times. Returns how many translations that took.
 */
static uint64_t translations(uint32_t runs)
{
    uint64_t before;
    struct x86_cpu cpu;

    rig_clear(rig);
    /* mov ebx, VERSIONS; 1: mov [FUNCTION + 1], ebx; mov ecx, runs */
    PUT(CODE, 0xBB, VERSIONS, 0, 0, 0, 0x89, 0x1D, 0xF6, 0x0F, 0, 0, 0xB9);
    put(CODE + 12, &runs, 4);
    /* 2: call FUNCTION; dec ecx; jnz 2b; add r9, rax; dec ebx; jnz 1b; hlt */
    PUT(CODE + 16, 0xE8, 0xEB, 0x0F, 0, 0, 0xFF, 0xC9, 0x75, 0xF7, 0x49, 0x01, 0xC1, 0xFF, 0xCB,
        0x75, 0xE5, 0xF4);
    PUT(FUNCTION, 0xB8, 0, 0, 0, 0, 0xC3); /* mov eax, ...; ret */
    rig_state_64(rig, &cpu, CODE);
    before = rig_count(rig, "work", "translations");
    assert_int_equal(run(&cpu), EXIT_HALT);
    assert_int_equal(cpu.reg[X86_R9], VERSIONS * (VERSIONS + 1) / 2);
    return rig_count(rig, "work", "translations") - before;
}

/* Translating a version costs what some two hundred runs in the interpreter do. */
static void test_short_lives(void **unused)
{
    assert_in_range(translations(250), 1, VERSIONS / 3);
}

static void test_long_lives(void **unused)
{
    assert_true(translations(2000) >= VERSIONS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_lives),
        cmocka_unit_test(test_long_lives),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
