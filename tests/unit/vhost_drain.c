/*
 * How long a vhost-user back end may take with the requests that it has when the machine is to
 * pause, on a clock that is a number.
 */
#include "test.h"

#include "dev/vhost/drain.h"

#define SECOND NS_PER_S

/* A back end that has OUT requests and ends one each PERIOD. Returns after how long it has ended
 * all or counts as dead, and stores how many are left in *OUT. */
static uint64_t drain(unsigned *out, uint64_t period)
{
    const uint64_t begin = 1000 * SECOND;
    struct vhost_drain d = {0};
    uint64_t now = begin, next_end = begin + period;

    while (*out) {
        assert_true(vhost_drain_look(&d, true, *out, now));
        assert_true(vhost_drain_next(&d) > now);
        if (next_end <= vhost_drain_next(&d)) {
            now = next_end;
            next_end += period;
            --*out;
        } else {
            now = vhost_drain_next(&d);
            if (!vhost_drain_look(&d, true, *out, now))
                break;
        }
    }
    return now - begin;
}

static void in_time(void **state)
{
    unsigned out = 128;

    assert_int_equal(drain(&out, SECOND / 4), 32 * SECOND);
    assert_int_equal(out, 0);
    out = 6;
    assert_int_equal(drain(&out, 9 * SECOND), 54 * SECOND);
    assert_int_equal(out, 0);
}

/* One request every 9 s, as long as there are any. */
static void too_slow(void **state)
{
    unsigned out = 128;

    assert_int_equal(drain(&out, 9 * SECOND), 10 * SECOND);
    assert_int_equal(out, 127);
    out = 1;
    assert_int_equal(drain(&out, 11 * SECOND), 10 * SECOND);
    assert_int_equal(out, 1);
}

/* However many requests there are, and however cleverly they end late. */
static void ends_in_any_case(void **state)
{
    for (unsigned requests = 1; requests < 5000; requests += requests / 8 + 1) {
        struct vhost_drain d = {0};
        unsigned out = requests, rounds = 0;

        while (vhost_drain_look(&d, true, out, rounds * VHOST_DRAIN_ROUND_NS) && out) {
            unsigned less = out;

            assert_true(++rounds <= VHOST_DRAIN_ROUNDS);
            /* As many as it may keep. */
            while (less) {
                struct vhost_drain copy = d;

                if (vhost_drain_look(&copy, true, less, rounds * VHOST_DRAIN_ROUND_NS))
                    break;
                less--;
            }
            assert_true(less < out);
            out = less;
        }
        assert_int_equal(out, 0);
    }
}

/* What was done before nobody waited does not count, and what is added late does. */
static void begins_anew(void **state)
{
    struct vhost_drain d = {0};

    assert_int_equal(vhost_drain_next(&d), UINT64_MAX);
    assert_true(vhost_drain_look(&d, true, 10, 0));
    assert_true(vhost_drain_look(&d, false, 10, 9 * SECOND));
    assert_int_equal(vhost_drain_next(&d), UINT64_MAX);
    assert_true(vhost_drain_look(&d, true, 10, 20 * SECOND));
    assert_true(vhost_drain_look(&d, true, 11, 21 * SECOND));
    assert_int_equal(vhost_drain_next(&d), 31 * SECOND);
    assert_false(vhost_drain_look(&d, true, 11, 31 * SECOND));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_time),
        cmocka_unit_test(too_slow),
        cmocka_unit_test(ends_in_any_case),
        cmocka_unit_test(begins_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
