/*
 * The keyboard controller and its keyboard.
 */
#include "test.h"

#include "base/util.h"
#include "dev/pc/i8042.h"

#include <stdlib.h>

#include "dev_rig.h"

#define KEYBOARD 1
#define AUX      12
#define RESET    0

struct fixture {
    struct rig *rig;
    struct dev *i8042;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->rig = rig_create();
    f->i8042 = i8042_create(f->rig->bus, rig_line(f->rig, KEYBOARD), rig_line(f->rig, AUX),
                            rig_line(f->rig, RESET), NULL);
    *state = f;
    return f->i8042 ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    f->i8042->ops->free(f->i8042);
    rig_destroy(f->rig);
    free(f);
    return 0;
}

static void command(struct fixture *f, uint8_t value)
{
    rig_out(f->rig, 0x64, value);
}

static void data(struct fixture *f, uint8_t value)
{
    rig_out(f->rig, 0x60, value);
}

/* The next byte, which must be there. */
static uint8_t next(struct fixture *f)
{
    assert_int_equal(rig_in(f->rig, 0x64) & 0x01, 0x01);
    return rig_in(f->rig, 0x60);
}

static void assert_empty(struct fixture *f)
{
    assert_int_equal(rig_in(f->rig, 0x64) & 0x01, 0);
}

/* Sends a command to the keyboard and checks the reply. */
static void assert_reply(struct fixture *f, uint8_t value, const uint8_t *reply, unsigned count)
{
    data(f, value);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(next(f), reply[i]);
    assert_empty(f);
}
#define REPLY(f, value, ...)                                                                       \
    assert_reply(f, value, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_self_tests(void **state)
{
    struct fixture *f = *state;

    data(f, 0xEE); /* a byte in the way */
    command(f, 0xAA);
    assert_int_equal(next(f), 0x55);
    assert_empty(f);
    command(f, 0xAB);
    assert_int_equal(next(f), 0x00);
    command(f, 0xA9);
    assert_int_equal(next(f), 0x00);
    assert_int_equal(rig_in(f->rig, 0x64), 0x1C); /* unlocked, command last, system */
    data(f, 0xF4);
    assert_int_equal(rig_in(f->rig, 0x64), 0x15);
}

static void test_command_byte(void **state)
{
    struct fixture *f = *state;

    command(f, 0x60);
    data(f, 0x04);
    command(f, 0xAD);
    command(f, 0xA7);
    command(f, 0x20);
    assert_int_equal(next(f), 0x34);
    command(f, 0xAE);
    command(f, 0xA8);
    command(f, 0x20);
    assert_int_equal(next(f), 0x04);
    command(f, 0x7F);
    data(f, 0xA5);
    command(f, 0x3F);
    assert_int_equal(next(f), 0xA5);
}

static void test_keyboard(void **state)
{
    struct fixture *f = *state;

    command(f, 0x60);
    data(f, 0x05); /* no translation */
    REPLY(f, 0xFF, 0xFA, 0xAA);
    REPLY(f, 0xF2, 0xFA, 0xAB, 0x83);
    REPLY(f, 0xED, 0xFA);
    REPLY(f, 0x02, 0xFA);
    REPLY(f, 0xEE, 0xEE);
    REPLY(f, 0xFE, 0xEE);
    REPLY(f, 0xF0, 0xFA);
    REPLY(f, 0x00, 0xFA, 0x02);
    REPLY(f, 0xF0, 0xFA);
    REPLY(f, 0x01, 0xFA);
    REPLY(f, 0xF0, 0xFA);
    REPLY(f, 0x00, 0xFA, 0x01);
    REPLY(f, 0xF3, 0xFA);
    REPLY(f, 0xF4, 0xFA); /* a command where a parameter was due */
    REPLY(f, 0xF5, 0xFA);
    REPLY(f, 0xF6, 0xFA);
    REPLY(f, 0xF8, 0xFA);
    REPLY(f, 0x12, 0xFE);
    command(f, 0x60);
    data(f, 0x45);
    REPLY(f, 0xF2, 0xFA, 0xAB, 0x41); /* translated */
}

static void test_interrupts(void **state)
{
    struct fixture *f = *state;

    data(f, 0xFF);
    assert_true(f->rig->level[KEYBOARD]);
    assert_int_equal(next(f), 0xFA);
    assert_true(f->rig->level[KEYBOARD]);
    assert_int_equal(f->rig->edges[KEYBOARD], 2); /* each byte is an edge */
    assert_int_equal(next(f), 0xAA);
    assert_false(f->rig->level[KEYBOARD]);
    assert_int_equal(rig_in(f->rig, 0x60), 0xAA); /* the buffer keeps its last byte */
    command(f, 0x60);
    data(f, 0x06);
    data(f, 0xF4);
    assert_false(f->rig->level[KEYBOARD]);
    assert_int_equal(next(f), 0xFA);
    command(f, 0xD3);
    data(f, 0x99);
    assert_true(f->rig->level[AUX]);
    assert_int_equal(rig_in(f->rig, 0x64) & 0x21, 0x21);
    assert_int_equal(next(f), 0x99);
    assert_false(f->rig->level[AUX]);
    command(f, 0xD2);
    data(f, 0x77);
    assert_int_equal(rig_in(f->rig, 0x64) & 0x21, 0x01);
    assert_int_equal(next(f), 0x77);
}

static void test_nothing_on_aux(void **state)
{
    struct fixture *f = *state;

    command(f, 0xD4);
    data(f, 0xF2);
    assert_int_equal(rig_in(f->rig, 0x64) & 0x61, 0x61); /* timed out */
    assert_int_equal(next(f), 0xFE);
    assert_empty(f);
}

static void test_reset_line(void **state)
{
    struct fixture *f = *state;

    command(f, 0xFF); /* pulses nothing */
    assert_int_equal(f->rig->edges[RESET], 0);
    command(f, 0xFE);
    assert_int_equal(f->rig->edges[RESET], 1);
    f->rig->level[RESET] = false;
    command(f, 0xD1);
    data(f, 0xDF);
    assert_int_equal(f->rig->edges[RESET], 1);
    command(f, 0xD1);
    data(f, 0xDE);
    assert_int_equal(f->rig->edges[RESET], 2);
}

static void test_a20(void **state)
{
    struct fixture *f = *state;

    command(f, 0xDD);
    command(f, 0xD0);
    assert_int_equal(next(f) & 0x03, 0x01);
    command(f, 0xD1);
    data(f, 0x03);
    command(f, 0xD0);
    assert_int_equal(next(f) & 0x03, 0x03);
}

static void test_full_queue(void **state)
{
    struct fixture *f = *state;
    unsigned count = 0;

    for (unsigned i = 0; i < 100; i++)
        data(f, 0xF2);
    while (rig_in(f->rig, 0x64) & 1) {
        rig_in(f->rig, 0x60);
        count++;
    }
    assert_int_equal(count, 16);
}

static void test_save_restore(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = rig_create();
    struct dev *other =
        i8042_create(rig->bus, rig_line(rig, 1), rig_line(rig, 2), rig_line(rig, 3), NULL);

    data(f, 0xFF);
    command(f, 0x60); /* its data byte comes after the move */
    assert_int_equal(rig_copy_state(f->rig, f->i8042, other), 0);
    assert_true(rig->level[1]);
    rig_out(rig, 0x60, 0x74);
    assert_false(rig->level[1]);
    assert_int_equal(rig_in(rig, 0x60), 0xFA);
    assert_int_equal(rig_in(rig, 0x60), 0xAA);
    rig_out(rig, 0x64, 0x20);
    assert_int_equal(rig_in(rig, 0x60), 0x74);
    rig_reset(rig, other);
    rig_out(rig, 0x64, 0x20);
    assert_int_equal(rig_in(rig, 0x60), 0x65);
    other->ops->free(other);
    rig_destroy(rig);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_self_tests), TEST(test_command_byte),   TEST(test_keyboard),
        TEST(test_interrupts), TEST(test_nothing_on_aux), TEST(test_reset_line),
        TEST(test_a20),        TEST(test_full_queue),     TEST(test_save_restore),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
