/*
 * The escape keys.
 */
#include "test.h"

#include "con/keys.h"

#include <string.h>

static enum keys_action type(struct keys *keys, const char *text, const char *left)
{
    uint8_t data[32];
    size_t size = strlen(text);
    enum keys_action action;

    memcpy(data, text, size);
    action = keys_filter(keys, data, &size);
    assert_int_equal(size, strlen(left));
    assert_memory_equal(data, left, size);
    return action;
}

static void test_keys(void **unused)
{
    struct keys keys = {false};

    assert_int_equal(type(&keys, "plain xh", "plain xh"), KEYS_NONE);
    assert_int_equal(type(&keys, "a\1\1b", "a\1b"), KEYS_NONE);
    assert_int_equal(type(&keys, "a\1hb", "ab"), KEYS_HELP);
    assert_int_equal(type(&keys, "a\1Hb", "ab"), KEYS_HELP);
    assert_int_equal(type(&keys, "a\1qb", "ab"), KEYS_NONE);
    assert_int_equal(type(&keys, "a\1xb", "a"), KEYS_QUIT);
    assert_int_equal(type(&keys, "a\1db", "a"), KEYS_DETACH);
    assert_int_equal(type(&keys, "\1D", ""), KEYS_DETACH);
    assert_int_equal(type(&keys, "\1X", ""), KEYS_QUIT);
}

/* A key press may arrive in two reads. */
static void test_split(void **unused)
{
    struct keys keys = {false};

    assert_int_equal(type(&keys, "a\1", "a"), KEYS_NONE);
    assert_int_equal(type(&keys, "x", ""), KEYS_QUIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_keys), cmocka_unit_test(test_split)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
