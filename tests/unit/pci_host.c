/*
 * The PCI host bridge, and the reset control register among its ports.
 */
#include "test.h"

#include "dev/pci/host.h"

#include <errno.h>
#include <stdlib.h>

#include "dev_rig.h"

#define RESET 0
#define PIRQ  4 /* the rig's lines for PIRQA to PIRQD */

struct fixture {
    struct rig *rig, *isa; /* the lines of the second are the ISA interrupts */
    struct pci_host *host;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->rig = rig_create();
    f->isa = rig_create();
    f->host = pci_host_create(f->rig->bus,
                              &(struct pci_host_config){.reset = rig_line(f->rig, RESET),
                                                        .pirq = rig_line(f->rig, PIRQ),
                                                        .isa = rig_line(f->isa, 0)},
                              NULL);
    *state = f;
    return f->host ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    pci_host_dev(f->host)->ops->free(pci_host_dev(f->host));
    rig_destroy(f->rig);
    rig_destroy(f->isa);
    free(f);
    return 0;
}

static void select_register(struct rig *rig, unsigned bus, unsigned device, unsigned function,
                            unsigned reg)
{
    bus_write(rig->bus, BUS_PORT, 0xCF8, 4,
              1u << 31 | bus << 16 | device << 11 | function << 8 | (reg & 0xFC));
}

static uint32_t config_read(struct rig *rig, unsigned device, unsigned function, unsigned reg,
                            unsigned size)
{
    select_register(rig, 0, device, function, reg);
    return (uint32_t)bus_read(rig->bus, BUS_PORT, 0xCFC + (reg & 3), size);
}

static void config_write(struct rig *rig, unsigned device, unsigned function, unsigned reg,
                         unsigned size, uint32_t value)
{
    select_register(rig, 0, device, function, reg);
    bus_write(rig->bus, BUS_PORT, 0xCFC + (reg & 3), size, value);
}

static void test_bridges(void **state)
{
    struct rig *rig = ((struct fixture *)*state)->rig;

    assert_int_equal(config_read(rig, 0, 0, 0x00, 4), 0x12378086);
    assert_int_equal(config_read(rig, 0, 0, 0x0A, 2), 0x0600);
    assert_int_equal(config_read(rig, 1, 0, 0x00, 2), 0x8086);
    assert_int_equal(config_read(rig, 1, 0, 0x02, 2), 0x7000);
    assert_int_equal(config_read(rig, 1, 0, 0x0B, 1), 0x06);
    assert_int_equal(config_read(rig, 2, 0, 0x00, 4), 0xFFFFFFFF);
    assert_int_equal(config_read(rig, 0, 1, 0x00, 4), 0xFFFFFFFF);
    select_register(rig, 1, 0, 0, 0);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0xCFC, 4), 0xFFFFFFFF);
    bus_write(rig->bus, BUS_PORT, 0xCF8, 4, 0); /* not enabled */
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0xCFC, 4), 0xFFFFFFFF);
    config_write(rig, 0, 0, 0x00, 4, 0); /* identity cannot be written */
    assert_int_equal(config_read(rig, 0, 0, 0x00, 4), 0x12378086);
    config_write(rig, 1, 0, 0x61, 1, 0x0B);
    assert_int_equal(config_read(rig, 1, 0, 0x60, 4), 0x80800B80);
}

/* How operating systems find out that there is mechanism #1. */
static void test_address_register(void **state)
{
    struct rig *rig = ((struct fixture *)*state)->rig;

    bus_write(rig->bus, BUS_PORT, 0xCF8, 4, 0xFFFFFFFF);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0xCF8, 4), 0x80FFFFFC);
    bus_write(rig->bus, BUS_PORT, 0xCF8, 4, 0x80000000);
    bus_write(rig->bus, BUS_PORT, 0xCFB, 1, 0x01); /* bytes do not reach the register */
    bus_write(rig->bus, BUS_PORT, 0xCF8, 2, 0x0001);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0xCF8, 4), 0x80000000);
}

static void test_reset_register(void **state)
{
    struct rig *rig = ((struct fixture *)*state)->rig;

    rig_out(rig, 0xCF9, 0x02);
    assert_int_equal(rig->edges[RESET], 0);
    rig_out(rig, 0xCF9, 0x06);
    assert_int_equal(rig->edges[RESET], 1);
    assert_int_equal(rig_in(rig, 0xCF9), 0x06);
    bus_write(rig->bus, BUS_PORT, 0xCF8, 4, 0x80000600); /* no reset, though it covers CF9h */
    assert_int_equal(rig_in(rig, 0xCF9), 0x06);
    assert_int_equal(rig->edges[RESET], 1);
}

struct written {
    struct pci_function function;
    unsigned offset, size, calls;
};

static void written(struct pci_function *function, unsigned offset, unsigned size)
{
    struct written *w = (struct written *)function;

    w->offset = offset;
    w->size = size;
    w->calls++;
}

static void test_attach(void **state)
{
    struct fixture *f = *state;
    struct written w = {0};
    struct pci_function second;
    struct error err;

    pci_function_init(&w.function, 0x1AF4, 0x1042, 0x010000, 1);
    pci_function_init(&second, 0x1AF4, 0x1043, 0x020000, 1);
    w.function.written = written;
    w.function.writable[0x12] = 0xF0; /* a base address of 1 MiB */
    w.function.writable[0x13] = 0xFF;
    assert_int_equal(pci_attach(f->host, 3, 0, &w.function, &err), 0);
    assert_int_equal(pci_attach(f->host, 3, 0, &second, &err), -EBUSY);
    assert_int_equal(pci_attach(f->host, 32, 0, &second, &err), -EINVAL);
    assert_int_equal(config_read(f->rig, 3, 0, 0x0C, 4), 0);
    assert_int_equal(pci_attach(f->host, 3, 1, &second, &err), 0);
    assert_int_equal(config_read(f->rig, 3, 0, 0x0C, 4), 0x00800000); /* multi-function now */
    assert_int_equal(config_read(f->rig, 3, 1, 0x00, 4), 0x10431AF4);
    config_write(f->rig, 3, 0, 0x10, 4, 0xFFFFFFFF);
    assert_int_equal(config_read(f->rig, 3, 0, 0x10, 4), 0xFFF00000);
    assert_int_equal(w.offset, 0x10);
    assert_int_equal(w.size, 4);
    config_write(f->rig, 3, 0, 0x13, 1, 0xE0);
    assert_int_equal(config_read(f->rig, 3, 0, 0x10, 4), 0xE0F00000);
    assert_int_equal(w.calls, 2);
    pci_detach(f->host, 3, 0);
    assert_int_equal(config_read(f->rig, 3, 0, 0x00, 4), 0xFFFFFFFF);
}

static void test_save_restore(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = rig_create();
    struct pci_host *other =
        pci_host_create(rig->bus, &(struct pci_host_config){.reset = rig_line(rig, RESET)}, NULL);

    config_write(f->rig, 1, 0, 0x60, 4, 0x0A0B0C05);
    select_register(f->rig, 0, 1, 0, 0x60);
    assert_int_equal(rig_copy_state(f->rig, pci_host_dev(f->host), pci_host_dev(other)), 0);
    assert_int_equal(bus_read(rig->bus, BUS_PORT, 0xCFC, 4), 0x0A0B0C05);
    rig_reset(rig, pci_host_dev(other));
    assert_int_equal(config_read(rig, 1, 0, 0x60, 4), 0x80808080);
    pci_host_dev(other)->ops->free(pci_host_dev(other));
    rig_destroy(rig);
}

/* Two functions share PIRQB, one after the other; the guest routes it and forbids it. */
static void test_interrupts(void **state)
{
    struct fixture *f = *state;
    struct pci_function first, second;
    const bool *pirq = f->rig->level + PIRQ, *isa = f->isa->level;

    pci_function_init(&first, 0x1AF4, 0x1042, 0x010000, 1);
    pci_function_init(&second, 0x1AF4, 0x1042, 0x010000, 1);
    pci_function_add_pin(&first);
    pci_function_add_pin(&second);
    assert_int_equal(pci_attach(f->host, 5, 0, &first, NULL), 0);
    assert_int_equal(pci_attach(f->host, 9, 0, &second, NULL), 0);
    assert_int_equal(config_read(f->rig, 5, 0, PCI_INTERRUPT_PIN, 1), 1);
    pci_function_interrupt(&first, true);
    assert_int_equal(config_read(f->rig, 5, 0, PCI_STATUS, 1), PCI_STATUS_INT);
    assert_true(pirq[1] && !pirq[0] && !pirq[2] && !pirq[3]);
    assert_false(isa[7]); /* not routed after power-on */
    pci_host_firmware_setup(f->host);
    assert_int_equal(config_read(f->rig, 5, 0, PCI_INTERRUPT_LINE, 1), 7);
    assert_true(isa[7] && !isa[5]);
    pci_function_interrupt(&second, true);
    pci_function_interrupt(&second, true);
    pci_function_interrupt(&first, false);
    assert_true(pirq[1] && isa[7]);
    assert_int_equal(f->rig->edges[PIRQ + 1], 1);
    config_write(f->rig, 1, 0, 0x61, 1, 10);
    assert_true(isa[10] && !isa[7]);
    config_write(f->rig, 1, 0, 0x61, 1, 0x80); /* disabled */
    assert_true(pirq[1] && !isa[10] && !isa[0]);
    config_write(f->rig, 1, 0, 0x61, 1, 8); /* no interrupt of PCI's */
    assert_false(isa[8]);
    config_write(f->rig, 9, 0, PCI_COMMAND, 2, PCI_COMMAND_NO_INT);
    assert_false(pirq[1]);
    assert_int_equal(config_read(f->rig, 9, 0, PCI_STATUS, 1), PCI_STATUS_INT);
    config_write(f->rig, 9, 0, PCI_COMMAND, 2, 0);
    assert_true(pirq[1]);
    pci_detach(f->host, 9, 0);
    assert_false(pirq[1]);
    pci_function_interrupt(&first, true);
    pci_function_reset(&first);
    assert_false(pirq[1]);
    pci_detach(f->host, 5, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bridges),    TEST(test_address_register), TEST(test_reset_register),
        TEST(test_interrupts), TEST(test_attach),           TEST(test_save_restore),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
