/*
 * The real-time clock: the calendar in all its formats, setting it, the three interrupts, and the
 * CMOS fields. The clock starts on 14 November 2023 (a Tuesday), 22:13:20 UTC.
 */
#include "test.h"

#include "base/util.h"
#include "dev/pc/rtc.h"

#include <stdlib.h>
#include <string.h>

#include "dev_rig.h"

#define SECOND UINT64_C(1000000000)
#define IRQ    8
#define ALARM  9

struct fixture {
    struct rig *rig;
    struct dev *rtc;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->rig = rig_create();
    f->rtc = rtc_create(f->rig->bus, f->rig->clock, rig_line(f->rig, IRQ), rig_line(f->rig, ALARM),
                        3 * GiB, 5 * GiB, NULL);
    *state = f;
    return f->rtc ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    f->rtc->ops->free(f->rtc);
    rig_destroy(f->rig);
    free(f);
    return 0;
}

static uint8_t get(struct fixture *f, uint8_t reg)
{
    rig_out(f->rig, 0x70, reg);
    return rig_in(f->rig, 0x71);
}

static void set(struct fixture *f, uint8_t reg, uint8_t value)
{
    rig_out(f->rig, 0x70, reg);
    rig_out(f->rig, 0x71, value);
}

static void pass(struct fixture *f, uint64_t ns)
{
    fake_clock_advance(f->rig->clock, ns);
}

static void assert_time(struct fixture *f, uint8_t hours, uint8_t minutes, uint8_t seconds)
{
    assert_int_equal(get(f, 4), hours);
    assert_int_equal(get(f, 2), minutes);
    assert_int_equal(get(f, 0), seconds);
}

static void assert_date(struct fixture *f, uint8_t century, uint8_t year, uint8_t month,
                        uint8_t day)
{
    assert_int_equal(get(f, 0x32), century);
    assert_int_equal(get(f, 9), year);
    assert_int_equal(get(f, 8), month);
    assert_int_equal(get(f, 7), day);
}

static void test_formats(void **state)
{
    struct fixture *f = *state;

    assert_time(f, 0x22, 0x13, 0x20);
    assert_date(f, 0x20, 0x23, 0x11, 0x14);
    assert_int_equal(get(f, 6), 3);
    set(f, 0x0B, 0x00); /* BCD, 12 hours */
    assert_time(f, 0x90, 0x13, 0x20);
    set(f, 0x0B, 0x06); /* binary, 24 hours */
    assert_time(f, 22, 13, 20);
    assert_date(f, 20, 23, 11, 14);
    set(f, 0x0B, 0x04); /* binary, 12 hours */
    assert_time(f, 0x80 | 10, 13, 20);
    pass(f, 2 * 3600 * SECOND); /* past midnight, which is 12 am */
    assert_time(f, 12, 13, 20);
    assert_int_equal(get(f, 7), 15);
    pass(f, 12 * 3600 * SECOND); /* noon is 12 pm */
    assert_time(f, 0x80 | 12, 13, 20);
}

static void test_setting(void **state)
{
    struct fixture *f = *state;

    set(f, 0x0B, 0x82); /* the calendar stands still */
    set(f, 0x32, 0x20);
    set(f, 9, 0x24);
    set(f, 8, 0x02);
    set(f, 7, 0x28);
    set(f, 4, 0x23);
    set(f, 2, 0x59);
    set(f, 0, 0x58);
    pass(f, 10 * SECOND);
    assert_time(f, 0x23, 0x59, 0x58);
    set(f, 0x0B, 0x02);
    assert_time(f, 0x23, 0x59, 0x58);
    pass(f, 2 * SECOND);
    assert_time(f, 0, 0, 0);
    assert_date(f, 0x20, 0x24, 0x02, 0x29); /* a leap day */
    pass(f, 24 * 3600 * SECOND);
    assert_date(f, 0x20, 0x24, 0x03, 0x01);
    assert_int_equal(get(f, 6), 6);
    set(f, 2, 0x30); /* on the run */
    pass(f, SECOND);
    assert_time(f, 0, 0x30, 1);
    set(f, 9, 0x99);
    assert_date(f, 0x20, 0x99, 0x03, 0x01);
}

/* The end of divider reset starts a second half-way (data sheet, "divider stages"). */
static void test_divider(void **state)
{
    struct fixture *f = *state;

    set(f, 0x0A, 0x76);
    set(f, 0, 0x30);
    pass(f, 5 * SECOND);
    assert_int_equal(get(f, 0), 0x30);
    set(f, 0x0A, 0x26);
    pass(f, SECOND * 4 / 10);
    assert_int_equal(get(f, 0), 0x30);
    pass(f, SECOND * 2 / 10);
    assert_int_equal(get(f, 0), 0x31);
}

static void test_no_date(void **state)
{
    struct fixture *f = *state;

    for (unsigned reg = 0; reg <= 9; reg++)
        set(f, (uint8_t)reg, 0xFF);
    set(f, 0x32, 0xFF);
    pass(f, 10 * SECOND);
    assert_in_range(get(f, 8), 1, 0x12); /* some date, and it goes on */
    set(f, 8, 0);
    set(f, 7, 0);
    assert_in_range(get(f, 8), 1, 0x12);
}

static void test_update_in_progress(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, 0x0A) & 0x80, 0);
    pass(f, SECOND - 1000000);
    assert_int_equal(get(f, 0x0A) & 0x80, 0x80);
    assert_int_equal(get(f, 0), 0x20);
    pass(f, 1000000);
    assert_int_equal(get(f, 0x0A) & 0x80, 0);
    assert_int_equal(get(f, 0), 0x21);
    set(f, 0x0B, 0x82);
    pass(f, SECOND - 1000000);
    assert_int_equal(get(f, 0x0A) & 0x80, 0); /* nothing to update */
}

static void test_update_interrupt(void **state)
{
    struct fixture *f = *state;

    get(f, 0x0C);
    set(f, 0x0B, 0x12);
    pass(f, SECOND - 1);
    assert_false(f->rig->level[IRQ]);
    pass(f, 1);
    assert_true(f->rig->level[IRQ]);
    pass(f, 5 * SECOND); /* stays up until it is seen to */
    assert_int_equal(f->rig->edges[IRQ], 1);
    assert_int_equal(get(f, 0x0C) & 0xB0, 0x90);
    assert_false(f->rig->level[IRQ]);
    assert_int_equal(get(f, 0x0C), 0);
    pass(f, SECOND);
    assert_int_equal(f->rig->edges[IRQ], 2);
}

static void test_periodic_interrupt(void **state)
{
    struct fixture *f = *state;
    unsigned ticks = 0;

    set(f, 0x0A, 0x26); /* 1024 Hz */
    get(f, 0x0C);
    set(f, 0x0B, 0x42);
    for (unsigned i = 0; i < 10000; i++) {
        pass(f, 100000);
        if (f->rig->level[IRQ]) {
            assert_int_equal(get(f, 0x0C) & 0xC0, 0xC0);
            ticks++;
        }
    }
    assert_in_range(ticks, 1023, 1025); /* in one second */
    set(f, 0x0A, 0x2F);                 /* 2 Hz */
    get(f, 0x0C);
    pass(f, SECOND / 2 + 1);
    assert_true(f->rig->level[IRQ]);
    set(f, 0x0A, 0x20); /* none */
    get(f, 0x0C);
    pass(f, 10 * SECOND);
    assert_false(f->rig->level[IRQ]);
}

static void test_alarm(void **state)
{
    struct fixture *f = *state;

    set(f, 5, 0xFF); /* any hour */
    set(f, 3, 0x15);
    set(f, 1, 0x30);
    get(f, 0x0C);
    set(f, 0x0B, 0x22);
    pass(f, 129 * SECOND);
    assert_false(f->rig->level[IRQ]);
    pass(f, SECOND);
    assert_true(f->rig->level[IRQ]);
    assert_time(f, 0x22, 0x15, 0x30);
    assert_int_equal(get(f, 0x0C) & 0xA0, 0xA0);
    pass(f, 3600 * SECOND);
    assert_true(f->rig->level[IRQ]);
    get(f, 0x0C);
    set(f, 5, 0x22); /* this hour, tomorrow */
    pass(f, 22 * 3600 * SECOND);
    assert_false(f->rig->level[IRQ]);
    pass(f, 3600 * SECOND);
    assert_true(f->rig->level[IRQ]);
    get(f, 0x0C);
    set(f, 1, 0x7B); /* never */
    pass(f, 48 * 3600 * SECOND);
    assert_false(f->rig->level[IRQ]);
}

/* The alarm has a line of its own, which an interrupt of another kind does not hide. */
static void test_alarm_line(void **state)
{
    struct fixture *f = *state;

    set(f, 5, 0xC0);
    set(f, 3, 0xFF);
    set(f, 1, 0x30);
    set(f, 0x0B, 0x42); /* periodic interrupts: the alarm is masked */
    pass(f, 60 * SECOND);
    assert_true(f->rig->level[IRQ]);
    assert_false(f->rig->level[ALARM]);
    get(f, 0x0C);
    set(f, 0x0B, 0x62);
    pass(f, 9 * SECOND);
    assert_true(f->rig->level[IRQ]); /* periodic */
    assert_false(f->rig->level[ALARM]);
    pass(f, SECOND);
    assert_true(f->rig->level[ALARM]);
    assert_int_equal(fake_clock_next(f->rig->clock), UINT64_MAX);
    get(f, 0x0C);
    assert_false(f->rig->level[ALARM]);
    pass(f, 60 * SECOND);
    assert_int_equal(f->rig->edges[ALARM], 2);
}

static uint64_t next_alarm_in(struct fixture *f, uint8_t hours, uint8_t minutes, uint8_t seconds)
{
    uint64_t next;

    set(f, 0x0B, 0x02);
    set(f, 5, hours);
    set(f, 3, minutes);
    set(f, 1, seconds);
    get(f, 0x0C);
    set(f, 0x0B, 0x22);
    next = fake_clock_next(f->rig->clock);
    return next == UINT64_MAX ? next : (next - clock_now(f->rig->clock)) / SECOND;
}

/* From 22:13:20 on. C0h and above stand for any value. */
static void test_alarm_search(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(next_alarm_in(f, 0xFF, 0xFF, 0xFF), 1);
    assert_int_equal(next_alarm_in(f, 0xFF, 0xFF, 0x20), 60);
    assert_int_equal(next_alarm_in(f, 0xFF, 0xFF, 0x19), 59);
    assert_int_equal(next_alarm_in(f, 0xFF, 0x13, 0xFF), 1);
    assert_int_equal(next_alarm_in(f, 0xFF, 0x13, 0x19), 3599);
    assert_int_equal(next_alarm_in(f, 0x22, 0x13, 0x20), 86400);
    assert_int_equal(next_alarm_in(f, 0x22, 0xFF, 0x19), 59);
    assert_int_equal(next_alarm_in(f, 0x22, 0x12, 0x59), 86400 - 21);
    assert_int_equal(next_alarm_in(f, 0x23, 0x00, 0xFF), 46 * 60 + 40);
    assert_int_equal(next_alarm_in(f, 0x21, 0x59, 0x59), 86400 - 13 * 60 - 21);
    assert_int_equal(next_alarm_in(f, 0x00, 0x00, 0x00), 86400 - (22 * 3600 + 13 * 60 + 20));
    assert_int_equal(next_alarm_in(f, 0x00, 0x00, 0x99), UINT64_MAX);
    assert_int_equal(next_alarm_in(f, 0x24, 0xFF, 0xFF), UINT64_MAX);
    assert_int_equal(next_alarm_in(f, 0xFF, 0x60, 0xFF), UINT64_MAX);
}

/* At the latest date that can be set, time goes on; and a halted guest costs nothing there either:
 * once its interrupt line is up, no timer runs. */
static void test_latest_date(void **state)
{
    struct fixture *f = *state;

    set(f, 0x0A, 0x23); /* 8192 Hz */
    set(f, 0x32, 0x21);
    set(f, 9, 0x99);
    assert_date(f, 0x21, 0x16, 0x02, 0x20);
    set(f, 5, 0xFF);
    set(f, 3, 0xFF);
    set(f, 1, 0x99); /* never */
    get(f, 0x0C);
    set(f, 0x0B, 0x62);
    for (unsigned i = 0; i < 10; i++) {
        assert_false(f->rig->level[IRQ]);
        pass(f, SECOND);
        assert_true(f->rig->level[IRQ]);
        assert_int_equal(fake_clock_next(f->rig->clock), UINT64_MAX);
        assert_int_equal(get(f, 0x0C), 0xD0);
    }
    set(f, 0x0B, 0x22);
    assert_int_equal(fake_clock_next(f->rig->clock), UINT64_MAX);
}

/* A damaged snapshot can bring about times at which the clock stands still. */
static void test_time_ends(void **state)
{
    struct fixture *f = *state;
    struct state_image image = {0};
    size_t end;

    set(f, 0x0A, 0x23);
    set(f, 1, 0xFF);
    set(f, 3, 0xFF);
    set(f, 5, 0xFF);
    set(f, 0x0B, 0x72);
    get(f, 0x0C);
    bus_lock(f->rig->bus);
    assert_int_equal(image_save_dev(&image, f->rtc), 0);
    end = image_next(&image, IMAGE_HEADER);
    for (unsigned high = 0; high < 256; high++) {
        image.data[end - 13] = (uint8_t)high; /* the highest byte of the offset */
        image.data[end - 1] = 0x7F;           /* all until the end of time has been seen */
        image_seal(&image);
        assert_int_equal(image_load_dev(&image, f->rtc), 0);
        bus_unlock(f->rig->bus);
        for (unsigned i = 0; i < 5; i++) {
            pass(f, SECOND); /* aborts where timers spin */
            get(f, 0x0C);
        }
        bus_lock(f->rig->bus);
    }
    bus_unlock(f->rig->bus);
    image_free(&image);
}

/* Flags come up with their interrupts disabled, too; enabling one then interrupts at once. */
static void test_flags_without_interrupts(void **state)
{
    struct fixture *f = *state;

    get(f, 0x0C);
    pass(f, SECOND);
    assert_int_equal(fake_clock_next(f->rig->clock), UINT64_MAX); /* without a timer */
    set(f, 0x0B, 0x12);
    assert_true(f->rig->level[IRQ]);
    assert_int_equal(get(f, 0x0C) & 0xD0, 0xD0);
}

static void test_cmos(void **state)
{
    struct fixture *f = *state;
    unsigned sum = 0;

    assert_int_equal(get(f, 0x15) | get(f, 0x16) << 8, 640);
    assert_int_equal(get(f, 0x17) | get(f, 0x18) << 8, 0xFFFF);
    assert_int_equal(get(f, 0x30) | get(f, 0x31) << 8, 0xFFFF);
    assert_int_equal(get(f, 0x34) | get(f, 0x35) << 8, (3 * GiB - 16 * MiB) / (64 * KiB));
    assert_int_equal(get(f, 0x5B) | get(f, 0x5C) << 8 | get(f, 0x5D) << 16, 5 * GiB / (64 * KiB));
    for (uint8_t i = 0x10; i <= 0x2D; i++)
        sum += get(f, i);
    assert_int_equal(get(f, 0x2E) << 8 | get(f, 0x2F), sum);
    assert_int_equal(get(f, 0x0D), 0x80);
    set(f, 0x0D, 0);
    assert_int_equal(get(f, 0x0D), 0x80);
    set(f, 0x7F, 0x5A);
    assert_int_equal(get(f, 0xFF), 0x5A); /* bit 7 of the index is for NMI */
    assert_int_equal(rig_in(f->rig, 0x70), 0xFF);
}

static void test_reset(void **state)
{
    struct fixture *f = *state;

    set(f, 0x7F, 0x5A);
    set(f, 2, 0x40);
    set(f, 0x0B, 0x72);
    pass(f, SECOND);
    assert_true(f->rig->level[IRQ]);
    rig_reset(f->rig, f->rtc);
    assert_false(f->rig->level[IRQ]);
    assert_int_equal(get(f, 0x0B), 0x02);
    assert_int_equal(get(f, 0x7F), 0x5A); /* the battery */
    assert_int_equal(get(f, 2), 0x40);
}

static void test_save_restore(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = rig_create();
    struct dev *other =
        rtc_create(rig->bus, rig->clock, rig_line(rig, 1), rig_line(rig, 2), MiB, 0, NULL);
    struct fixture g = {rig, other};

    set(f, 4, 0x05);
    set(f, 0x7F, 0x5A);
    set(f, 0x0B, 0x12);
    get(f, 0x0C);
    assert_int_equal(rig_copy_state(f->rig, f->rtc, other), 0);
    assert_time(&g, 0x05, 0x13, 0x20);
    assert_int_equal(get(&g, 0x7F), 0x5A);
    assert_int_equal(get(&g, 0x34), get(f, 0x34));
    pass(&g, SECOND);
    assert_true(rig->level[1]);
    other->ops->free(other);
    rig_destroy(rig);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_formats),
        TEST(test_setting),
        TEST(test_divider),
        TEST(test_no_date),
        TEST(test_update_in_progress),
        TEST(test_update_interrupt),
        TEST(test_periodic_interrupt),
        TEST(test_alarm),
        TEST(test_alarm_line),
        TEST(test_alarm_search),
        TEST(test_latest_date),
        TEST(test_time_ends),
        TEST(test_flags_without_interrupts),
        TEST(test_cmos),
        TEST(test_reset),
        TEST(test_save_restore),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
