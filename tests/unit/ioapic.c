/*
 * The I/O APIC: its registers, edges, levels with remote IRR and EOI, and the messages it sends.
 */
#include "test.h"

#include "base/util.h"
#include "dev/pc/ioapic.h"
#include "state_image.h"

struct fixture {
    struct bus *bus;
    struct ioapic *ioapic;
    unsigned sent;
    uint64_t address;
    uint32_t data;
};

static void take(void *opaque, uint64_t address, uint32_t data)
{
    struct fixture *f = opaque;
    f->sent++;
    f->address = address;
    f->data = data;
}

static void start(struct fixture *f)
{
    *f = (struct fixture){.bus = bus_create(NULL)};
    f->ioapic = ioapic_create(f->bus, IOAPIC_BASE, 2, (struct msi_sink){take, f}, NULL);
    assert_non_null(f->ioapic);
}

static void finish(struct fixture *f)
{
    ioapic_dev(f->ioapic)->ops->free(ioapic_dev(f->ioapic));
    bus_destroy(f->bus);
}

static uint32_t rd(struct fixture *f, uint8_t reg)
{
    bus_write(f->bus, BUS_MMIO, IOAPIC_BASE, 4, reg);
    return (uint32_t)bus_read(f->bus, BUS_MMIO, IOAPIC_BASE + 0x10, 4);
}

static void wr(struct fixture *f, uint8_t reg, uint32_t value)
{
    bus_write(f->bus, BUS_MMIO, IOAPIC_BASE, 4, reg);
    bus_write(f->bus, BUS_MMIO, IOAPIC_BASE + 0x10, 4, value);
}

static void line(struct fixture *f, unsigned n, bool level)
{
    struct irq_line pin = ioapic_pin(f->ioapic, n);
    irq_set(&pin, level);
}

#define LOW(n)  ((uint8_t)(0x10 + 2 * (n)))
#define HIGH(n) ((uint8_t)(0x11 + 2 * (n)))
#define REMOTE  0x4000u

static void test_registers(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    assert_int_equal(rd(&f, 0), 2u << 24);
    assert_int_equal(rd(&f, 1), 0x170020);
    wr(&f, 1, 0);
    assert_int_equal(rd(&f, 1), 0x170020);
    wr(&f, 0, 0xFF123456);
    assert_int_equal(rd(&f, 0), 0x0F000000);
    assert_int_equal(rd(&f, LOW(23)), 0x10000);
    wr(&f, LOW(23), 0xFFFFFFFF);
    wr(&f, HIGH(23), 0xFFFFFFFF);
    assert_int_equal(rd(&f, LOW(23)), 0x1AFFF);
    assert_int_equal(rd(&f, HIGH(23)), 0xFF000000);
    assert_int_equal(rd(&f, 0x40), 0); /* past the last entry */
    wr(&f, 0x40, 0xFFFFFFFF);
    assert_int_equal(rd(&f, 0x0F), 0);
    assert_int_equal(bus_read(f.bus, BUS_MMIO, IOAPIC_BASE, 1), 0x0F);
    assert_int_equal(bus_read(f.bus, BUS_MMIO, IOAPIC_BASE + 0x20, 4), 0);
    finish(&f);
}

static void test_edges(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    line(&f, 4, true); /* masked: lost */
    wr(&f, HIGH(4), 5u << 24);
    wr(&f, LOW(4), 0x0834);
    assert_int_equal(f.sent, 0);
    line(&f, 4, false);
    line(&f, 4, true);
    line(&f, 4, true);
    assert_int_equal(f.sent, 1);
    assert_int_equal(f.address, 0xFEE05004);
    assert_int_equal(f.data & 0xC7FF, 0x34);
    line(&f, 4, false);
    line(&f, 4, true); /* needs no EOI */
    assert_int_equal(f.sent, 2);
    wr(&f, LOW(4), 0xA434); /* NMI is an edge whatever the trigger bit says */
    assert_int_equal(f.sent, 2);
    line(&f, 4, false);
    line(&f, 4, true);
    assert_int_equal(f.sent, 3);
    assert_int_equal(f.data & 0x8700, 0x400);
    assert_int_equal(rd(&f, LOW(4)) & REMOTE, 0);
    finish(&f);
}

static void test_levels(void **unused)
{
    struct fixture f;
    (void)unused;
    start(&f);
    wr(&f, LOW(10), 0x1A951);
    line(&f, 10, true);
    assert_int_equal(f.sent, 0);
    wr(&f, LOW(10), 0xA951); /* unmasked while active */
    assert_int_equal(f.sent, 1);
    assert_int_equal(f.data, 0xC151);
    assert_int_equal(rd(&f, LOW(10)), 0xE951);
    line(&f, 10, false);
    line(&f, 10, true);
    assert_int_equal(f.sent, 1); /* is being served */
    ioapic_eoi(f.ioapic, 0x52);
    assert_int_equal(f.sent, 1);
    ioapic_eoi(f.ioapic, 0x51);
    assert_int_equal(f.sent, 2); /* still active */
    line(&f, 10, false);
    bus_write(f.bus, BUS_MMIO, IOAPIC_BASE + 0x40, 4, 0x51); /* the EOI register */
    assert_int_equal(f.sent, 2);
    assert_int_equal(rd(&f, LOW(10)) & REMOTE, 0);

    /* How Linux clears remote IRR without an EOI: mask, make it an edge, and back. */
    line(&f, 10, true);
    assert_int_equal(f.sent, 3);
    wr(&f, LOW(10), 0x1A951);
    assert_int_equal(rd(&f, LOW(10)) & REMOTE, REMOTE);
    wr(&f, LOW(10), 0x12951);
    wr(&f, LOW(10), 0x1A951);
    assert_int_equal(rd(&f, LOW(10)) & REMOTE, 0);
    wr(&f, LOW(10), 0xA951);
    assert_int_equal(f.sent, 4);

    /* Two inputs may share a vector. */
    wr(&f, LOW(11), 0xA951);
    line(&f, 11, true);
    assert_int_equal(f.sent, 5);
    ioapic_eoi(f.ioapic, 0x51);
    assert_int_equal(f.sent, 7);
    finish(&f);
}

static void test_state(void **unused)
{
    struct fixture f, g;
    (void)unused;
    start(&f);
    start(&g);
    wr(&f, LOW(10), 0xA951);
    line(&f, 10, true);
    struct state_image image = {0};
    assert_int_equal(image_save_dev(&image, ioapic_dev(f.ioapic)), 0);
    assert_int_equal(image_load_dev(&image, ioapic_dev(g.ioapic)), 0);
    assert_int_equal(g.sent, 0);
    assert_int_equal(rd(&g, LOW(10)), 0xE951);
    ioapic_eoi(g.ioapic, 0x51); /* the line came along */
    assert_int_equal(g.sent, 1);
    ioapic_dev(g.ioapic)->ops->reset(ioapic_dev(g.ioapic));
    assert_int_equal(rd(&g, LOW(10)), 0x10000);
    image_free(&image);
    finish(&f);
    finish(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
