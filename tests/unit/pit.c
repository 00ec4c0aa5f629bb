/*
 * The 8254: the six modes, ways to access a counter, read-back, port 61h, and an IRQ 0 that does
 * not drift.
 */
#include "test.h"

#include "base/util.h"
#include "dev/pc/pit.h"
#include "fake_clock.h"
#include "state_image.h"

struct fixture {
    struct bus *bus;
    struct clock *clock;
    struct dev *pit;
    bool irq;
    unsigned rises;
};

static void irq(void *opaque, unsigned n, bool level)
{
    struct fixture *f = opaque;
    f->rises += level && !f->irq;
    f->irq = level;
}

static uint8_t in(struct fixture *f, uint16_t port)
{
    return (uint8_t)bus_read(f->bus, BUS_PORT, port, 1);
}

static void out(struct fixture *f, uint16_t port, uint8_t value)
{
    bus_write(f->bus, BUS_PORT, port, 1, value);
}

static void start(struct fixture *f)
{
    *f = (struct fixture){.bus = bus_create(NULL)};
    f->clock = clock_create(NULL, f->bus, NULL);
    f->pit = pit_create(f->bus, f->clock, (struct irq_line){.set = irq, .opaque = f}, NULL);
    assert_non_null(f->pit);
    f->rises = 0;
}

static void finish(struct fixture *f)
{
    f->pit->ops->free(f->pit);
    assert_int_equal(in(f, 0x40), 0xFF);
    assert_int_equal(in(f, 0x61), 0xFF);
    clock_destroy(f->clock);
    bus_destroy(f->bus);
}

/* Lets N ticks of the input clock pass, to the first nanosecond of the new one. */
static void tick(struct fixture *f, uint64_t n)
{
    uint64_t now = clock_now(f->clock);
    uint64_t ticks = (uint64_t)((unsigned __int128)now * PIT_HZ / 1000000000) + n;
    uint64_t then = (uint64_t)(((unsigned __int128)ticks * 1000000000 + PIT_HZ - 1) / PIT_HZ);
    fake_clock_advance(f->clock, then - now);
}

static void program(struct fixture *f, unsigned n, uint8_t mode, uint16_t count)
{
    out(f, 0x43, (uint8_t)(n << 6 | 0x30 | mode << 1));
    out(f, (uint16_t)(0x40 + n), (uint8_t)count);
    out(f, (uint16_t)(0x40 + n), (uint8_t)(count >> 8));
}

static uint16_t count(struct fixture *f, unsigned n)
{
    out(f, 0x43, (uint8_t)(n << 6));
    uint8_t low = in(f, (uint16_t)(0x40 + n));
    return (uint16_t)(in(f, (uint16_t)(0x40 + n)) << 8 | low);
}

static bool out2(struct fixture *f)
{
    return in(f, 0x61) & 0x20;
}

static void test_periodic_does_not_drift(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    program(&f, 0, 2, 4772); /* Linux at 250 Hz */
    assert_int_equal(f.rises, 0);
    fake_clock_advance(f.clock, 10 * 1000000000ULL);
    assert_int_equal(f.rises, 10ULL * PIT_HZ / 4772);
    assert_true(f.irq);
    program(&f, 0, 3, 0); /* 65536 */
    f.rises = 0;
    tick(&f, 65535);
    assert_int_equal(f.rises, 0);
    tick(&f, 1);
    assert_int_equal(f.rises, 1);
    tick(&f, 65536 * 3);
    assert_int_equal(f.rises, 4);
    program(&f, 0, 2, 1); /* as fast as it goes: the host has a say */
    f.rises = 0;
    fake_clock_advance(f.clock, 10 * CLOCK_SHORTEST_PERIOD_NS);
    assert_in_range(f.rises, 9, 10);
    finish(&f);
}

static void test_one_shots(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    program(&f, 0, 0, 1000);
    assert_false(f.irq);
    tick(&f, 999);
    assert_false(f.irq);
    assert_int_equal(count(&f, 0), 1);
    tick(&f, 1);
    assert_true(f.irq);
    tick(&f, 5);
    assert_int_equal(count(&f, 0), 0xFFFB); /* counts on */
    assert_int_equal(fake_clock_next(f.clock), UINT64_MAX);
    out(&f, 0x40, 100); /* the first byte lowers the output and stops the count */
    out(&f, 0x43, 0xE2);
    assert_int_equal(in(&f, 0x40) & 0xC0, 0x40);
    tick(&f, 500);
    out(&f, 0x40, 0);
    assert_int_equal(count(&f, 0), 100);
    out(&f, 0x43, 0x30); /* the mode alone: low, and nothing comes */
    assert_false(f.irq);
    tick(&f, 100000);
    assert_false(f.irq);

    program(&f, 0, 4, 300); /* Linux's one-shot */
    assert_true(f.irq);
    f.rises = 0;
    tick(&f, 300);
    assert_int_equal(f.rises, 0);
    tick(&f, 1);
    assert_int_equal(f.rises, 1);
    tick(&f, 100000);
    assert_int_equal(f.rises, 1);
    out(&f, 0x40, 50); /* a new count starts it again without a new mode */
    out(&f, 0x40, 0);
    tick(&f, 51);
    assert_int_equal(f.rises, 2);
    finish(&f);
}

static void test_counts(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    program(&f, 0, 2, 10);
    static const uint16_t rate[] = {10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 10};
    for (unsigned i = 0; i < ARRAY_SIZE(rate); i++, tick(&f, 1))
        assert_int_equal(count(&f, 0), rate[i]);
    program(&f, 0, 3, 8);
    static const uint16_t square[] = {8, 6, 4, 2, 8, 6, 4, 2, 8};
    for (unsigned i = 0; i < ARRAY_SIZE(square); i++, tick(&f, 1))
        assert_int_equal(count(&f, 0), square[i]);
    program(&f, 0, 2, 0);
    assert_int_equal(count(&f, 0), 0);
    tick(&f, 1);
    assert_int_equal(count(&f, 0), 0xFFFF);

    /* A new count in a periodic mode waits for the end of the period. */
    program(&f, 0, 2, 100);
    tick(&f, 30);
    out(&f, 0x40, 50);
    out(&f, 0x40, 0);
    assert_int_equal(count(&f, 0), 70);
    out(&f, 0x43, 0xE2);
    assert_int_equal(in(&f, 0x40), 0xF4); /* null count: not loaded yet */
    tick(&f, 70);
    assert_int_equal(count(&f, 0), 50);
    out(&f, 0x43, 0xE2);
    assert_int_equal(in(&f, 0x40), 0xB4);
    tick(&f, 45);
    assert_int_equal(count(&f, 0), 5);
    finish(&f);
}

static void test_access(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    out(&f, 0x43, 0x14); /* low byte only */
    out(&f, 0x40, 0x80);
    tick(&f, 1);
    assert_int_equal(in(&f, 0x40), 0x7F);
    assert_int_equal(in(&f, 0x40), 0x7F);
    out(&f, 0x43, 0x24); /* high byte only */
    out(&f, 0x40, 0x12);
    assert_int_equal(in(&f, 0x40), 0x12);
    out(&f, 0x43, 0x00);
    tick(&f, 1);
    assert_int_equal(in(&f, 0x40), 0x12);
    assert_int_equal(in(&f, 0x40), 0x11);

    program(&f, 0, 2, 0x1234);
    assert_int_equal(in(&f, 0x40), 0x34);
    assert_int_equal(in(&f, 0x40), 0x12);
    /* Latched twice, the first holds; the status comes before the count. */
    out(&f, 0x43, 0xD2);
    tick(&f, 4);
    out(&f, 0x43, 0xC2);
    assert_int_equal(in(&f, 0x40), 0xB4);
    assert_int_equal(in(&f, 0x40), 0x34);
    assert_int_equal(in(&f, 0x40), 0x12);
    assert_int_equal(in(&f, 0x40), 0x30);
    assert_int_equal(in(&f, 0x43), 0xFF);

    out(&f, 0x43, 0x35); /* BCD */
    out(&f, 0x40, 0x00);
    out(&f, 0x40, 0x10);
    tick(&f, 1);
    assert_int_equal(count(&f, 0), 0x0999);
    out(&f, 0x40, 0x00);
    out(&f, 0x40, 0x00);
    tick(&f, 999);
    assert_int_equal(count(&f, 0), 0); /* 10000 */
    tick(&f, 1);
    assert_int_equal(count(&f, 0), 0x9999);
    finish(&f);
}

/* Counter 2 is the one with a gate. */
static void test_gate(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    out(&f, 0x61, 0x01);
    program(&f, 2, 0, 1000); /* how Linux calibrates the TSC */
    assert_false(out2(&f));
    tick(&f, 400);
    out(&f, 0x61, 0x00);
    tick(&f, 5000);
    assert_int_equal(count(&f, 2), 600);
    assert_false(out2(&f));
    out(&f, 0x61, 0x01);
    tick(&f, 599);
    assert_false(out2(&f));
    tick(&f, 1);
    assert_true(out2(&f));

    program(&f, 2, 1, 100); /* waits for the gate to rise */
    tick(&f, 500);
    assert_true(out2(&f));
    out(&f, 0x61, 0x00);
    out(&f, 0x61, 0x01);
    assert_false(out2(&f));
    tick(&f, 60);
    out(&f, 0x61, 0x00); /* falling means nothing, rising starts anew */
    out(&f, 0x61, 0x01);
    tick(&f, 99);
    assert_false(out2(&f));
    tick(&f, 1);
    assert_true(out2(&f));

    program(&f, 2, 3, 11); /* odd: longer high than low */
    unsigned high = 0;
    for (int i = 0; i < 11; i++, tick(&f, 1))
        high += out2(&f);
    assert_int_equal(high, 6);
    tick(&f, 7);
    assert_false(out2(&f));
    out(&f, 0x61, 0x00); /* a low gate holds a periodic output high */
    assert_true(out2(&f));
    tick(&f, 100);
    out(&f, 0x61, 0x01);
    assert_int_equal(count(&f, 2), 10);

    program(&f, 2, 2, 10);
    tick(&f, 8);
    assert_true(out2(&f));
    tick(&f, 1);
    assert_false(out2(&f));
    tick(&f, 1);
    assert_true(out2(&f));

    program(&f, 2, 5, 20);
    out(&f, 0x61, 0x00);
    out(&f, 0x61, 0x01);
    tick(&f, 19);
    assert_true(out2(&f));
    tick(&f, 1);
    assert_false(out2(&f));
    tick(&f, 1);
    assert_true(out2(&f));
    assert_int_equal(f.rises, 0);
    finish(&f);
}

static void test_control_port(void **unused)
{
    struct fixture f;
    unsigned toggles = 0;
    (void)unused;
    start(&f);
    out(&f, 0x61, 0xFF);
    assert_int_equal(in(&f, 0x61) & 0xCF, 0x0F);
    bool last = in(&f, 0x61) & 0x10;
    for (int i = 0; i < 1000; i++) {
        fake_clock_advance(f.clock, 1000);
        bool bit = in(&f, 0x61) & 0x10;
        toggles += bit != last;
        last = bit;
    }
    assert_in_range(toggles, 65, 67); /* a millisecond of one every 15.1 us */
    finish(&f);
}

static void test_state(void **unused)
{
    struct fixture f, g;
    (void)unused;
    start(&f);
    start(&g);
    program(&f, 0, 2, 1000);
    program(&f, 2, 0, 500);
    out(&f, 0x43, 0xC2);
    tick(&f, 300);
    struct state_image image = {0};
    struct state *save = image_save(&image);
    clock_state(f.clock, save);
    f.pit->ops->state(f.pit, save);
    assert_int_equal(image_done(save), 0);
    struct state *load = image_load(&image);
    clock_state(g.clock, load);
    g.pit->ops->state(g.pit, load);
    assert_int_equal(image_done(load), 0);
    assert_int_equal(in(&g, 0x40), 0xB4); /* the latched status, then the count */
    assert_int_equal(in(&g, 0x40), 1000 & 0xFF);
    assert_int_equal(in(&g, 0x40), 1000 >> 8);
    assert_int_equal(count(&g, 0), 700);
    tick(&g, 699);
    assert_int_equal(g.rises, 0);
    tick(&g, 1);
    assert_int_equal(g.rises, 1);
    g.pit->ops->reset(g.pit);
    assert_int_equal(fake_clock_next(g.clock), UINT64_MAX);
    image_free(&image);
    finish(&f);
    finish(&g);
}

/* An interrupt that is due but has not been given when the state is saved comes afterwards. */
static void test_due_interrupt(void **unused)
{
    struct fixture f, g;
    struct state_image image = {0};
    (void)unused;
    start(&f);
    start(&g);
    program(&f, 0, 0, 500);
    assert_int_equal(image_save_dev(&image, f.pit), 0);
    tick(&g, 600);
    assert_int_equal(image_load_dev(&image, g.pit), 0);
    g.irq = f.irq; /* the interrupt controller knows */
    fake_clock_advance(g.clock, 0);
    assert_int_equal(g.rises, 1);
    image_free(&image);
    finish(&f);
    finish(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_periodic_does_not_drift),
        cmocka_unit_test(test_one_shots),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_access),
        cmocka_unit_test(test_gate),
        cmocka_unit_test(test_control_port),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_due_interrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
