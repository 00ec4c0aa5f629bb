/*
 * ACPI fixed hardware: the power button, sleeping, the timer and its carry, general events.
 */
#include "test.h"

#include "dev/pc/pm.h"

#include <stdlib.h>

#include "dev_rig.h"

#define SCI      9
#define POWEROFF 1

struct fixture {
    struct rig *rig;
    struct pm *pm;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->rig = rig_create();
    f->pm = pm_create(f->rig->bus, f->rig->clock, rig_line(f->rig, SCI), rig_line(f->rig, POWEROFF),
                      NULL);
    *state = f;
    return f->pm ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    pm_dev(f->pm)->ops->free(pm_dev(f->pm));
    rig_destroy(f->rig);
    free(f);
    return 0;
}

static uint32_t in(struct fixture *f, uint16_t port, unsigned size)
{
    return (uint32_t)bus_read(f->rig->bus, BUS_PORT, port, size);
}

static void out(struct fixture *f, uint16_t port, unsigned size, uint32_t value)
{
    bus_write(f->rig->bus, BUS_PORT, port, size, value);
}

static void test_power_button(void **state)
{
    struct fixture *f = *state;

    pm_power_button(f->pm);
    assert_false(f->rig->level[SCI]); /* nobody has asked for it */
    assert_int_equal(in(f, 0x600, 2), 0x100);
    out(f, 0x602, 2, 0x100);
    assert_true(f->rig->level[SCI]);
    out(f, 0x600, 2, 0x001); /* another bit */
    assert_true(f->rig->level[SCI]);
    out(f, 0x601, 1, 0x01); /* a byte of it */
    assert_false(f->rig->level[SCI]);
    assert_int_equal(in(f, 0x600, 4), 0x01000000);
    pm_power_button(f->pm);
    assert_true(f->rig->level[SCI]);
    rig_reset(f->rig, pm_dev(f->pm));
    assert_false(f->rig->level[SCI]);
    assert_int_equal(in(f, 0x600, 4), 0);
}

/* The alarm is an event like the button: status at once, the SCI if it is enabled. */
static void test_rtc_alarm(void **state)
{
    struct fixture *f = *state;

    pm_rtc_alarm(f->pm);
    assert_false(f->rig->level[SCI]);
    assert_int_equal(in(f, 0x600, 2), 0x400);
    out(f, 0x602, 2, 0x400);
    assert_true(f->rig->level[SCI]);
    out(f, 0x600, 2, 0x400);
    assert_false(f->rig->level[SCI]);
    pm_rtc_alarm(f->pm);
    assert_true(f->rig->level[SCI]);
    out(f, 0x602, 2, 0);
    assert_false(f->rig->level[SCI]);
    assert_int_equal(in(f, 0x600, 2), 0x400);
}

static void test_enable_bits(void **state)
{
    struct fixture *f = *state;

    out(f, 0x602, 2, 0xFFFF);
    assert_int_equal(in(f, 0x602, 2), 0x0521); /* timer, global lock, power button, RTC */
    out(f, 0x603, 1, 0);
    assert_int_equal(in(f, 0x602, 2), 0x0021);
}

static void test_sleep(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in(f, 0x604, 2), 0x0001); /* ACPI mode, always */
    out(f, 0x604, 2, 5u << 10);
    assert_false(f->rig->level[POWEROFF]);
    assert_int_equal(in(f, 0x604, 2), 5u << 10 | 1);
    out(f, 0x604, 2, 1u << 10 | 1u << 13); /* S1: there is no such state */
    assert_false(f->rig->level[POWEROFF]);
    out(f, 0x604, 2, 5u << 10 | 1u << 13);
    assert_true(f->rig->level[POWEROFF]);
    assert_int_equal(in(f, 0x604, 2), 5u << 10 | 1); /* SLP_EN is not kept */
}

static void test_timer(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in(f, 0x608, 4), 0);
    fake_clock_advance(f->rig->clock, 1000000000);
    assert_int_equal(in(f, 0x608, 4), 3579545);
    assert_int_equal(in(f, 0x609, 1), 3579545 >> 8 & 0xFF);
    out(f, 0x608, 4, 0);
    assert_int_equal(in(f, 0x608, 4), 3579545);
    fake_clock_advance(f->rig->clock, UINT64_C(1199) * 1000000000);
    assert_int_equal(in(f, 0x608, 4), (uint32_t)(1200ULL * 3579545)); /* all 32 bits, wrapped */
}

/* TMR_STS is set whenever the highest bit changes: every 599.9 s. */
static void test_timer_carry(void **state)
{
    struct fixture *f = *state;
    const uint64_t half_ns = (UINT64_C(1) << 31) * 1000000000 / 3579545 + 1;

    out(f, 0x602, 2, 1);
    fake_clock_advance(f->rig->clock, half_ns - 1000);
    assert_false(f->rig->level[SCI]);
    fake_clock_advance(f->rig->clock, 2000);
    assert_true(f->rig->level[SCI]);
    out(f, 0x600, 2, 1);
    assert_false(f->rig->level[SCI]);
    out(f, 0x602, 2, 0);
    assert_int_equal(fake_clock_next(f->rig->clock), UINT64_MAX);
    fake_clock_advance(f->rig->clock, half_ns);
    assert_int_equal(in(f, 0x600, 2), 1); /* the status comes without the interrupt, too */
}

static void test_gpe(void **state)
{
    struct fixture *f = *state;

    out(f, 0x622, 2, 1u << 5);
    pm_gpe(f->pm, 4);
    assert_false(f->rig->level[SCI]);
    pm_gpe(f->pm, 5);
    assert_true(f->rig->level[SCI]);
    out(f, 0x620, 1, 1u << 5);
    assert_false(f->rig->level[SCI]);
    assert_int_equal(in(f, 0x620, 2), 1u << 4);
}

static void test_save_restore(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = rig_create();
    struct pm *other = pm_create(rig->bus, rig->clock, rig_line(rig, 2), rig_line(rig, 3), NULL);

    out(f, 0x602, 2, 0x100);
    out(f, 0x622, 2, 0x1234);
    out(f, 0x604, 2, 3u << 10);
    pm_power_button(f->pm);
    assert_int_equal(rig_copy_state(f->rig, pm_dev(f->pm), pm_dev(other)), 0);
    assert_true(rig->level[2]);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0x600, 4), 0x01000100);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0x622, 2), 0x1234);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0x604, 2), 3u << 10 | 1);
    pm_dev(other)->ops->free(pm_dev(other));
    rig_destroy(rig);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_power_button), TEST(test_enable_bits), TEST(test_sleep), TEST(test_timer),
        TEST(test_rtc_alarm),    TEST(test_timer_carry), TEST(test_gpe),   TEST(test_save_restore),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
