/*
 * The 8259 pair: initialization, priorities, every kind of EOI, cascading, spurious interrupts.
 */
#include "test.h"

#include "base/util.h"
#include "dev/pc/pic.h"
#include "state_image.h"

struct fixture {
    struct bus *bus;
    struct pic *pic;
    bool intr;
    unsigned rises;
};

static void intr(void *opaque, unsigned n, bool level)
{
    struct fixture *f = opaque;
    f->rises += level && !f->intr;
    f->intr = level;
}

static uint8_t in(struct fixture *f, uint16_t port)
{
    return (uint8_t)bus_read(f->bus, BUS_PORT, port, 1);
}

static void out(struct fixture *f, uint16_t port, uint8_t value)
{
    bus_write(f->bus, BUS_PORT, port, 1, value);
}

static struct fixture start(struct fixture *f)
{
    *f = (struct fixture){.bus = bus_create(NULL)};
    f->pic = pic_create(f->bus, (struct irq_line){.set = intr, .opaque = f}, NULL);
    assert_non_null(f->pic);
    return *f;
}

static void finish(struct fixture *f)
{
    pic_dev(f->pic)->ops->free(pic_dev(f->pic));
    assert_int_equal(in(f, 0x21), 0xFF); /* gave its ports back */
    assert_int_equal(in(f, 0x4D0), 0xFF);
    bus_destroy(f->bus);
}

/* As Linux does it: vectors 30h and 38h, no automatic EOI, everything masked but MASK's zeros. */
static void initialize(struct fixture *f, uint8_t icw4, uint16_t mask)
{
    out(f, 0x20, 0x11);
    out(f, 0x21, 0x30);
    out(f, 0x21, 0x04);
    out(f, 0x21, icw4);
    out(f, 0xA0, 0x11);
    out(f, 0xA1, 0x38);
    out(f, 0xA1, 0x02);
    out(f, 0xA1, icw4);
    out(f, 0x21, (uint8_t)mask);
    out(f, 0xA1, (uint8_t)(mask >> 8));
}

static void line(struct fixture *f, unsigned n, bool level)
{
    struct irq_line pin = pic_pin(f->pic, n);
    irq_set(&pin, level);
}

static void test_priorities_and_eoi(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    line(&f, 4, true);
    assert_false(f.intr); /* not initialized since power-on */
    initialize(&f, 1, 0);
    assert_int_equal(in(&f, 0x21), 0);
    assert_false(f.intr); /* that edge was before the initialization */
    line(&f, 4, false);
    line(&f, 4, true);
    assert_true(f.intr);
    assert_int_equal(in(&f, 0x20), 0x10); /* IRR */
    assert_int_equal(pic_acknowledge(f.pic), 0x34);
    assert_false(f.intr);
    assert_int_equal(in(&f, 0x20), 0);
    out(&f, 0x20, 0x0B);
    assert_int_equal(in(&f, 0x20), 0x10); /* ISR */

    line(&f, 6, true); /* less important: waits */
    assert_false(f.intr);
    line(&f, 1, true); /* more important: nests */
    assert_true(f.intr);
    assert_int_equal(pic_acknowledge(f.pic), 0x31);
    out(&f, 0x20, 0x20); /* ends 1 */
    assert_int_equal(in(&f, 0x20), 0x10);
    assert_false(f.intr);
    out(&f, 0x20, 0x64); /* specific, 4 */
    assert_int_equal(in(&f, 0x20), 0);
    assert_true(f.intr);
    assert_int_equal(pic_acknowledge(f.pic), 0x36);
    out(&f, 0x20, 0x20);
    assert_false(f.intr); /* the lines are high, but it was edges that counted */
    finish(&f);
}

static void test_masks_and_spurious(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    initialize(&f, 1, 0xFFFB);
    line(&f, 3, true);
    assert_false(f.intr);
    out(&f, 0x21, 0xF3);
    assert_true(f.intr);
    line(&f, 3, false); /* gone before it was acknowledged */
    assert_false(f.intr);
    assert_int_equal(pic_acknowledge(f.pic), 0x37);
    out(&f, 0x20, 0x0B);
    assert_int_equal(in(&f, 0x20), 0); /* a spurious one is not in service */

    /* A request that the second controller takes back is spurious to the first. */
    out(&f, 0xA1, 0xFE);
    line(&f, 8, true);
    assert_true(f.intr);
    out(&f, 0xA1, 0xFF);
    assert_false(f.intr);
    assert_int_equal(pic_acknowledge(f.pic), 0x37);
    out(&f, 0xA1, 0xFE);
    assert_int_equal(pic_acknowledge(f.pic), 0x38);
    finish(&f);
}

static void test_cascade(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    initialize(&f, 1, 0);
    line(&f, 12, true);
    line(&f, 8, true);
    line(&f, 5, true);
    assert_int_equal(pic_acknowledge(f.pic), 0x38);
    assert_false(f.intr); /* 12 and 5 are less important */
    out(&f, 0xA0, 0x0B);
    assert_int_equal(in(&f, 0xA0), 1);
    out(&f, 0xA0, 0x20);
    out(&f, 0x20, 0x20);
    assert_int_equal(pic_acknowledge(f.pic), 0x3C);
    line(&f, 9, true); /* fully nested: the first controller holds it back */
    assert_false(f.intr);
    out(&f, 0xA0, 0x20);
    out(&f, 0x20, 0x62);
    assert_int_equal(pic_acknowledge(f.pic), 0x39);
    out(&f, 0xA0, 0x20);
    out(&f, 0x20, 0x20);
    assert_int_equal(pic_acknowledge(f.pic), 0x35);
    out(&f, 0x20, 0x20);
    assert_false(f.intr);

    initialize(&f, 0x11, 0); /* special fully nested mode lets it through */
    line(&f, 12, false);
    line(&f, 12, true);
    assert_int_equal(pic_acknowledge(f.pic), 0x3C);
    line(&f, 9, false);
    line(&f, 9, true);
    assert_true(f.intr);
    assert_int_equal(pic_acknowledge(f.pic), 0x39);

    initialize(&f, 3, 0); /* automatic EOI: the second one's output falls between two requests */
    for (unsigned n = 8; n < 10; n++) {
        line(&f, n, false);
        line(&f, n, true);
    }
    assert_int_equal(pic_acknowledge(f.pic), 0x38);
    assert_int_equal(pic_acknowledge(f.pic), 0x39);
    finish(&f);
}

static void test_level(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    initialize(&f, 1, 0);
    out(&f, 0x4D0, 0xFF);
    out(&f, 0x4D1, 0xFF);
    assert_int_equal(in(&f, 0x4D0), 0xF8); /* timer, keyboard and cascade are edges */
    assert_int_equal(in(&f, 0x4D1), 0xDE);
    line(&f, 11, true);
    assert_int_equal(pic_acknowledge(f.pic), 0x3B);
    out(&f, 0xA0, 0x20);
    out(&f, 0x20, 0x20);
    assert_true(f.intr); /* still high: again */
    assert_int_equal(pic_acknowledge(f.pic), 0x3B);
    line(&f, 11, false);
    out(&f, 0xA0, 0x20);
    out(&f, 0x20, 0x20);
    assert_false(f.intr);
    finish(&f);
}

static void pulse(struct fixture *f, unsigned n)
{
    line(f, n, false);
    line(f, n, true);
}

static void test_rotation(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    initialize(&f, 1, 0);
    pulse(&f, 3);
    pulse(&f, 4);
    assert_int_equal(pic_acknowledge(f.pic), 0x33);
    out(&f, 0x20, 0xA0); /* rotate on non-specific EOI: 3 is now the last */
    pulse(&f, 3);
    pulse(&f, 1);
    assert_int_equal(pic_acknowledge(f.pic), 0x34);
    out(&f, 0x20, 0xE4); /* rotate on specific EOI: 4 is the last, 5 the first */
    assert_int_equal(pic_acknowledge(f.pic), 0x31);
    out(&f, 0x20, 0x20);
    assert_int_equal(pic_acknowledge(f.pic), 0x33);
    out(&f, 0x20, 0x20);
    out(&f, 0x20, 0xC0); /* set priority: 0 is the last */
    pulse(&f, 0);
    pulse(&f, 7);
    assert_int_equal(pic_acknowledge(f.pic), 0x37);
    out(&f, 0x20, 0x20);
    assert_int_equal(pic_acknowledge(f.pic), 0x30);
    out(&f, 0x20, 0x20);

    initialize(&f, 3, 0); /* automatic EOI, rotating */
    out(&f, 0x20, 0x80);
    pulse(&f, 0);
    pulse(&f, 1);
    assert_int_equal(pic_acknowledge(f.pic), 0x30);
    out(&f, 0x20, 0x0B);
    assert_int_equal(in(&f, 0x20), 0);
    pulse(&f, 0);
    assert_int_equal(pic_acknowledge(f.pic), 0x31);
    assert_int_equal(pic_acknowledge(f.pic), 0x30);
    out(&f, 0x20, 0x00); /* no more rotating */
    pulse(&f, 3);
    assert_int_equal(pic_acknowledge(f.pic), 0x33);
    pulse(&f, 5);
    pulse(&f, 1);
    assert_int_equal(pic_acknowledge(f.pic), 0x31);
    finish(&f);
}

static void test_special_mask(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    initialize(&f, 1, 0);
    pulse(&f, 3);
    assert_int_equal(pic_acknowledge(f.pic), 0x33);
    pulse(&f, 6);
    out(&f, 0x21, 0x08);
    assert_false(f.intr);
    out(&f, 0x20, 0x68); /* the masked 3 in service holds nothing back now */
    assert_true(f.intr);
    assert_int_equal(pic_acknowledge(f.pic), 0x36);
    out(&f, 0x20, 0x20); /* does not end what is masked */
    out(&f, 0x20, 0x0B);
    assert_int_equal(in(&f, 0x20), 0x08);
    out(&f, 0x20, 0x48);
    out(&f, 0x20, 0x20);
    out(&f, 0x20, 0x0B);
    assert_int_equal(in(&f, 0x20), 0);
    finish(&f);
}

static void test_poll(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    initialize(&f, 1, 0);
    out(&f, 0x20, 0x0C);
    assert_int_equal(in(&f, 0x20), 0);
    pulse(&f, 10);
    out(&f, 0x20, 0x0C);
    assert_int_equal(in(&f, 0x20), 0x82);
    assert_false(f.intr);
    out(&f, 0xA0, 0x0C);
    assert_int_equal(in(&f, 0xA0), 0x82);
    out(&f, 0xA0, 0x0B);
    assert_int_equal(in(&f, 0xA0), 0x04);
    finish(&f);
}

static void test_initialization_sequences(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    out(&f, 0x20, 0x12); /* single, no ICW4: only ICW2 follows */
    out(&f, 0x21, 0x0F);
    out(&f, 0x21, 0xFE);
    assert_int_equal(in(&f, 0x21), 0xFE);
    pulse(&f, 0);
    assert_int_equal(pic_acknowledge(f.pic), 0x08);
    out(&f, 0x20, 0x10); /* cascaded, no ICW4 */
    out(&f, 0x21, 0x40);
    out(&f, 0x21, 0x04);
    out(&f, 0x21, 0xFD);
    assert_int_equal(in(&f, 0x21), 0xFD);
    out(&f, 0x20, 0x11); /* half way through, nothing is delivered */
    out(&f, 0x21, 0x40);
    pulse(&f, 1);
    assert_false(f.intr);
    out(&f, 0x21, 0x04);
    out(&f, 0x21, 0x01);
    assert_true(f.intr);
    finish(&f);
}

static void test_state(void **unused)
{
    struct fixture f, g;
    (void)unused;
    start(&f);
    start(&g);
    initialize(&f, 1, 0x0004 ^ 0x00F0);
    pulse(&f, 8);
    pulse(&f, 1);
    pulse(&f, 0);
    assert_int_equal(pic_acknowledge(f.pic), 0x30);
    struct state_image image = {0};
    assert_int_equal(image_save_dev(&image, pic_dev(f.pic)), 0);
    assert_int_equal(image_load_dev(&image, pic_dev(g.pic)), 0);
    assert_int_equal(in(&g, 0x21), 0xF4);
    assert_int_equal(in(&g, 0x20), in(&f, 0x20));
    out(&g, 0x20, 0x20);
    assert_int_equal(pic_acknowledge(g.pic), 0x31);
    out(&g, 0x20, 0x20);
    out(&g, 0x21, 0);
    assert_int_equal(pic_acknowledge(g.pic), 0x38);
    pic_dev(g.pic)->ops->reset(pic_dev(g.pic));
    assert_false(g.intr);
    assert_int_equal(in(&g, 0x20), 0);
    image_free(&image);
    finish(&f);
    finish(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_priorities_and_eoi),
        cmocka_unit_test(test_masks_and_spurious),
        cmocka_unit_test(test_cascade),
        cmocka_unit_test(test_level),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_special_mask),
        cmocka_unit_test(test_poll),
        cmocka_unit_test(test_initialization_sequences),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
