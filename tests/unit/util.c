/*
 * The helpers of base/util.h.
 */
#include "test.h"

#include "base/util.h"

static unsigned calls;

static unsigned count_call(unsigned value)
{
    calls++;
    return value;
}

static void smaller_and_larger(void **state)
{
    int64_t below = -5;

    assert_int_equal(MIN(2, 3), 2);
    assert_int_equal(MIN(3, 2), 2);
    assert_int_equal(MAX(2, 3), 3);
    assert_int_equal(MAX(3, 2), 3);
    assert_true(MIN(below, 0) == -5);
    assert_true(MAX(MIN(below, 7), -3) == -3);
    assert_true(MIN(MIN(UINT64_MAX, UINT64_MAX - 1), UINT64_MAX - 2) == UINT64_MAX - 2);
}

static void each_is_evaluated_once(void **state)
{
    calls = 0;
    assert_int_equal(MIN(count_call(4), count_call(3)), 3);
    assert_int_equal(calls, 2);
    assert_int_equal(MAX(MAX(count_call(4), count_call(3)), count_call(1)), 4);
    assert_int_equal(calls, 5);
}

/* The result of a byte and a longer number is not cut to a byte. */
static void type_in_common(void **state)
{
    uint8_t byte = 200;
    uint64_t larger = 0x100000001;

    assert_true(MAX(byte, larger) == larger);
    assert_int_equal(sizeof(MIN(byte, larger)), sizeof(uint64_t));
    assert_int_equal(sizeof(MIN(byte, byte)), sizeof(int));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smaller_and_larger),
        cmocka_unit_test(each_is_evaluated_once),
        cmocka_unit_test(type_in_common),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
