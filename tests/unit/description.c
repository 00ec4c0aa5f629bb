/*
 * Descriptions of devices: what is one, and what is said of one that is not.
 */
#include "test.h"

#include "base/util.h"
#include "vm/description.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const keys[] = {"slot", "size", NULL};

static void test_names(void **unused)
{
    assert_true(description_is("rng", "rng"));
    assert_true(description_is("rng,slot=3", "rng"));
    assert_false(description_is("rngs", "rng"));
    assert_false(description_is("rn", "rng"));
    assert_false(description_is("", "rng"));
    assert_false(description_is(",slot=3", "rng"));
    assert_false(description_is("rng,,slot=3", "rng")); /* a device called "rng,slot=3" */
    assert_true(description_is("rng,,,slot=3", "rng,,"));
}

static void test_settings(void **unused)
{
    unsigned value = 7;

    assert_int_equal(description_check("rng", NULL, NULL), 0);
    assert_int_equal(description_check("rng", keys, NULL), 0);
    assert_int_equal(description_check("rng,size=12,slot=3", keys, NULL), 0);
    assert_int_equal(description_number("rng", "slot", 1, 31, &value, NULL), 0);
    assert_int_equal(value, 7); /* not given */
    assert_int_equal(description_number("rng,size=12,slot=3", "slot", 1, 31, &value, NULL), 0);
    assert_int_equal(value, 3);
    assert_int_equal(description_number("rng,size=12,slot=3", "size", 1, 31, &value, NULL), 0);
    assert_int_equal(value, 12);
}

static int collect(void *opaque, const char *key, const char *value, struct error *err)
{
    char *all = opaque;

    if (strcmp(key, "stop") == 0)
        return error_set(err, EBADF, "%s", value);
    sprintf(all + strlen(all), "[%s|%s]", key, value);
    return 0;
}

/* All settings in their order, commas undoubled. */
static void test_each(void **unused)
{
    static const struct {
        const char *text, *all;
    } good[] = {
        {"dev", ""},
        {"dev,a=1,b=,c=x=y", "[a|1][b|][c|x=y]"},
        {"dev,a=one,,two,b=,,,,,c=3", "[a|one,two][b|,,][c|3]"},
        {"dev,,ice,a=1", "[a|1]"},
    };
    struct error err = {0};
    char all[128];

    for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
        *all = 0;
        assert_int_equal(description_each(good[i].text, collect, all, &err), 0);
        assert_string_equal(all, good[i].all);
    }
    *all = 0;
    assert_int_equal(description_each("dev,a=1,stop=why,b=2", collect, all, &err), -EBADF);
    assert_string_equal(err.text, "why");
    assert_string_equal(all, "[a|1]");
    assert_int_equal(description_each("dev,a", collect, all, &err), -EINVAL);
    assert_int_equal(description_each("dev,=a", collect, all, &err), -EINVAL);
    assert_int_equal(description_each("dev,a=1,", collect, all, &err), -EINVAL);
}

static void test_bad_settings(void **unused)
{
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"rng,", "KEY=VALUE"},          {"rng,slot", "KEY=VALUE"},
        {"rng,slot=1,", "KEY=VALUE"},   {"rng,slot=1,,,", "KEY=VALUE"},
        {"rng,speed=9", "'speed'"},     {"rng,slots=9", "'slots'"},
        {"rng,slo=9", "'slo'"},         {"rng,=9", "''"},
        {"rng,slot=1,slot=2", "twice"}, {"rng,slot=1,size=1,slot=1", "twice"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error err = {0};

        assert_int_equal(description_check(bad[i].text, keys, &err), -EINVAL);
        assert_non_null(strstr(err.text, bad[i].word));
        assert_non_null(strstr(err.text, bad[i].text));
    }
    assert_int_equal(description_check("rng,slot=1", NULL, NULL), -EINVAL);
}

static void test_bad_numbers(void **unused)
{
    static const char *const bad[] = {
        "rng,slot=",    "rng,slot=x",   "rng,slot=1x",
        "rng,slot=0",   "rng,slot=32",  "rng,slot=-1",
        "rng,slot= 1",  "rng,slot=0x4", "rng,slot=99999999999999999999",
        "rng,slot=4;4",
    };
    unsigned value = 7;

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error err = {0};

        assert_int_equal(description_number(bad[i], "slot", 1, 31, &value, &err), -EINVAL);
        assert_non_null(strstr(err.text, "slot must be a number from 1 to 31"));
        assert_int_equal(value, 7);
    }
}

/* A doubled comma belongs to the value. */
static void test_commas(void **unused)
{
    static const char *const file_keys[] = {"file", "slot", NULL};
    unsigned value = 7;

    assert_int_equal(description_check("disk,file=a,,slot=3", file_keys, NULL), 0);
    assert_int_equal(description_number("disk,file=a,,slot=3", "slot", 0, 31, &value, NULL), 0);
    assert_int_equal(value, 7);
    assert_int_equal(description_number("disk,file=a,,,slot=3", "slot", 0, 31, &value, NULL), 0);
    assert_int_equal(value, 3);
    assert_int_equal(description_number("disk,file=,,,,,slot=4", "slot", 0, 31, &value, NULL), 0);
    assert_int_equal(value, 4);
    assert_int_equal(description_number("disk,slot=3,slot=3", "slot", 0, 31, &value, NULL),
                     -EINVAL);
    assert_int_equal(description_number("disk,slot=3,,", "slot", 0, 31, &value, NULL), -EINVAL);
}

static void test_rest(void **unused)
{
    static const char *const ours[] = {"slot", "queues", NULL};
    static const struct {
        const char *text, *rest;
    } cases[] = {
        {"disk", ""},
        {"disk,slot=3", ""},
        {"disk,file=a", "file=a"},
        {"disk,slot=3,file=a,readonly", "file=a,readonly"},
        {"disk,file=a,queues=2,readonly,slot=3", "file=a,readonly"},
        {"disk,file=a,,slot=3,,,slot=4,format=raw", "file=a,,slot=3,,,format=raw"},
        {"disk,file=,,,slots=1,slot", "file=,,,slots=1,slot"},
        {"disk,file=a,", "file=a,"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        char *rest = description_rest(cases[i].text, ours, NULL);

        assert_string_equal(rest, cases[i].rest);
        free(rest);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),       cmocka_unit_test(test_settings),
        cmocka_unit_test(test_each),        cmocka_unit_test(test_bad_settings),
        cmocka_unit_test(test_bad_numbers), cmocka_unit_test(test_commas),
        cmocka_unit_test(test_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
