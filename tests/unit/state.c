/*
 * The save/restore visitor.
 */
#include "test.h"

#include "base/state.h"

#include <errno.h>

static void test_round_trip(void **unused)
{
    uint32_t a = 7, a2 = 0;
    bool b = true, b2 = false;
    struct state *save = state_create_save();
    struct state *load;
    const void *data;
    size_t size;

    (void)unused;
    assert_int_equal(state_section(save, "thing", 3), 3);
    state_field(save, a);
    state_bool(save, &b);
    data = state_data(save, &size);
    load = state_create_load(data, size);
    assert_int_equal(state_section(load, "thing", 4), 3);
    state_field(load, a2);
    state_bool(load, &b2);
    assert_int_equal(state_error(load), 0);
    assert_int_equal(a2, 7);
    assert_true(b2);
    state_free(load);

    load = state_create_load(data, size - 1);
    state_section(load, "thing", 4);
    state_field(load, a2);
    b2 = false;
    state_bool(load, &b2);
    assert_int_equal(state_error(load), -EINVAL);
    assert_false(b2);
    state_free(load);

    load = state_create_load(data, size);
    assert_int_equal(state_section(load, "thing", 2), 0);
    assert_int_equal(state_error(load), -EINVAL);
    state_free(load);
    load = state_create_load(data, size);
    assert_int_equal(state_section(load, "other", 3), 0);
    state_free(load);
    state_free(save);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
