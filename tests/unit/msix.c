/*
 * MSI-X: the table, masks, pending bits, and messages from other threads.
 */
#include "test.h"
#include "state_image.h"

#include "dev/pci/msix.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define VECTORS 5
#define COMMAND 0x04

struct fixture {
    struct pci_function function;
    struct pci_msix msix;
    _Atomic unsigned count;
    uint64_t address;
    uint32_t data;
};

static void sink(void *opaque, uint64_t address, uint32_t data)
{
    struct fixture *f = opaque;

    atomic_fetch_add(&f->count, 1);
    f->address = address;
    f->data = data;
}

/* What the host bridge does with a write of the guest's. */
static void config(struct fixture *f, unsigned offset, unsigned size, uint32_t value)
{
    pci_function_write(&f->function, offset, size, value);
    pci_msix_configure(&f->msix);
}

static void control(struct fixture *f, uint32_t value)
{
    config(f, f->msix.capability + 2, 2, value);
}

enum { ENABLE = 0x8000, MASK_ALL = 0x4000 };

static int set_up(void **state)
{
    const struct pci_bar bar = {.size = 4096, .name = "card"};
    struct fixture *f = calloc(1, sizeof(*f));

    pci_function_init(&f->function, 0x1234, 0x5678, 0xFF0000, 1);
    pci_function_add_bar(&f->function, 2, &bar);
    assert_int_equal(pci_msix_init(&f->msix, &f->function, VECTORS, 2, 0x800, 0xC00,
                                   (struct msi_sink){sink, f}, NULL),
                     0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    pci_msix_free(&f->msix);
    free(f);
    return 0;
}

static void entry(struct fixture *f, unsigned n, uint64_t address, uint32_t data, bool masked)
{
    pci_msix_table_write(&f->msix, 16 * n, 4, (uint32_t)address);
    pci_msix_table_write(&f->msix, 16 * n + 4, 4, (uint32_t)(address >> 32));
    pci_msix_table_write(&f->msix, 16 * n + 8, 4, data);
    pci_msix_table_write(&f->msix, 16 * n + 12, 4, masked);
}

static void on(struct fixture *f)
{
    config(f, COMMAND, 2, PCI_COMMAND_MASTER);
    control(f, ENABLE);
    for (unsigned i = 0; i < VECTORS; i++)
        entry(f, i, 0x1FEE00000 + 0x1000 * i, 0x40 + i, false);
}

static uint32_t pending(struct fixture *f)
{
    return pci_msix_pending_read(&f->msix, 0, 4);
}

static void test_capability(void **state)
{
    struct fixture *f = *state;
    const uint8_t *c = f->function.config + f->msix.capability;

    assert_int_equal(c[0], 0x11);
    assert_int_equal(c[2] | c[3] << 8, VECTORS - 1);
    assert_int_equal(pci_config_get(&f->function, f->msix.capability + 4, 4), 0x802);
    assert_int_equal(pci_config_get(&f->function, f->msix.capability + 8, 4), 0xC02);
    for (unsigned i = 0; i < 12; i += 4)
        config(f, f->msix.capability + i, 4, 0xFFFFFFFF);
    assert_int_equal(c[2] | c[3] << 8, ENABLE | MASK_ALL | (VECTORS - 1));
    assert_int_equal(pci_config_get(&f->function, f->msix.capability + 4, 4), 0x802);
}

static void test_table(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(pci_msix_table_read(&f->msix, 16 * 4 + 12, 4), 1); /* masked at first */
    entry(f, 4, 0xFFFFFFFFFFFFFFFF, 0x12345678, false);
    assert_int_equal(pci_msix_table_read(&f->msix, 16 * 4, 4), 0xFFFFFFFC);
    assert_int_equal(pci_msix_table_read(&f->msix, 16 * 4 + 4, 4), 0xFFFFFFFF);
    assert_int_equal(pci_msix_table_read(&f->msix, 16 * 4 + 8, 4), 0x12345678);
    assert_int_equal(pci_msix_table_read(&f->msix, 16 * 4 + 12, 4), 0);
    pci_msix_table_write(&f->msix, 16 * 4 + 12, 4, 0xFFFFFFFE); /* reserved bits */
    assert_int_equal(pci_msix_table_read(&f->msix, 16 * 4 + 12, 4), 0);
    /* Other widths, and what lies beyond. */
    pci_msix_table_write(&f->msix, 16 * 4 + 8, 1, 0xFF);
    pci_msix_table_write(&f->msix, 16 * 4 + 6, 4, 0);
    assert_int_equal(pci_msix_table_read(&f->msix, 16 * 4 + 8, 4), 0x12345678);
    pci_msix_table_write(&f->msix, 16 * VECTORS, 4, 0xFFFFFFFF);
    assert_int_equal(pci_msix_table_read(&f->msix, 16 * VECTORS, 4), 0);
    assert_int_equal(pci_msix_table_read(&f->msix, UINT64_C(1) << 40, 4), 0);
    assert_int_equal(pci_msix_pending_read(&f->msix, 8, 4), 0);
}

static void test_send(void **state)
{
    struct fixture *f = *state;

    on(f);
    assert_true(pci_msix_send(&f->msix, 3));
    assert_int_equal(f->count, 1);
    assert_int_equal(f->address, 0x1FEE03000);
    assert_int_equal(f->data, 0x43);
    assert_true(pci_msix_send(&f->msix, VECTORS)); /* does not exist */
    assert_true(pci_msix_send(&f->msix, 0xFFFF));
    assert_int_equal(f->count, 1);
    assert_int_equal(pending(f), 0);
}

static void test_masks(void **state)
{
    struct fixture *f = *state;

    on(f);
    entry(f, 1, 0xFEE00000, 0x51, true);
    pci_msix_send(&f->msix, 1);
    pci_msix_send(&f->msix, 1);
    assert_int_equal(f->count, 0);
    assert_int_equal(pending(f), 2);
    pci_msix_table_write(&f->msix, 16 + 12, 4, 0);
    assert_int_equal(f->count, 1); /* twice the same is once */
    assert_int_equal(f->data, 0x51);
    assert_int_equal(pending(f), 0);
    control(f, ENABLE | MASK_ALL);
    pci_msix_send(&f->msix, 0);
    pci_msix_send(&f->msix, 4);
    assert_int_equal(f->count, 1);
    assert_int_equal(pending(f), 0x11);
    pci_msix_table_write(&f->msix, 12, 4, 1);
    control(f, ENABLE);
    assert_int_equal(f->count, 2);
    assert_int_equal(f->data, 0x44);
    assert_int_equal(pending(f), 1);
    pci_msix_table_write(&f->msix, 12, 4, 0);
    assert_int_equal(f->count, 3);
}

/* A function that may not write memory sends no message until it may. */
static void test_bus_master(void **state)
{
    struct fixture *f = *state;

    on(f);
    config(f, COMMAND, 2, 0);
    assert_true(pci_msix_send(&f->msix, 2));
    assert_int_equal(f->count, 0);
    assert_int_equal(pending(f), 4);
    config(f, COMMAND, 2, PCI_COMMAND_MASTER);
    assert_int_equal(f->count, 1);
    assert_int_equal(f->data, 0x42);
}

static void test_disabled(void **state)
{
    struct fixture *f = *state;

    on(f);
    control(f, MASK_ALL | ENABLE);
    pci_msix_send(&f->msix, 0);
    control(f, 0);
    assert_int_equal(pending(f), 0);
    assert_false(pci_msix_send(&f->msix, 0));
    assert_int_equal(pending(f), 0);
    control(f, ENABLE);
    assert_int_equal(f->count, 0);
}

static void test_reset(void **state)
{
    struct fixture *f = *state;

    on(f);
    control(f, ENABLE | MASK_ALL);
    pci_msix_send(&f->msix, 0);
    pci_function_reset(&f->function);
    pci_msix_reset(&f->msix);
    assert_int_equal(pending(f), 0);
    assert_int_equal(pci_msix_table_read(&f->msix, 0, 4), 0);
    assert_int_equal(pci_msix_table_read(&f->msix, 12, 4), 1);
    assert_false(pci_msix_send(&f->msix, 0));
}

static void test_save_restore(void **state)
{
    struct fixture *f = *state;
    struct state_image image = {0};
    struct state *save = image_save(&image), *load;

    on(f);
    entry(f, 1, 0xFEE01000, 0x77, true);
    pci_msix_send(&f->msix, 1);
    state_section(save, "test", 0, 1);
    pci_function_state(&f->function, save);
    pci_msix_state(&f->msix, save);
    assert_int_equal(image_done(save), 0);
    pci_function_reset(&f->function);
    pci_msix_reset(&f->msix);
    load = image_load(&image);
    state_section(load, "test", 0, 1);
    pci_function_state(&f->function, load);
    pci_msix_state(&f->msix, load);
    assert_int_equal(image_done(load), 0);
    assert_int_equal(pending(f), 2);
    pci_msix_table_write(&f->msix, 16 + 12, 4, 0);
    assert_int_equal(f->data, 0x77);
    pci_msix_send(&f->msix, 3);
    assert_int_equal(f->data, 0x43);
    image_free(&image);
}

#define SENT 100000

static void *send_many(void *opaque)
{
    struct fixture *f = opaque;

    for (unsigned i = 0; i < SENT; i++)
        pci_msix_send(&f->msix, 0);
    return NULL;
}

/* Workers send while the guest masks: after its write has returned nothing comes, and nothing gets
 * lost. */
static void test_threads(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    unsigned before, quiet = 0;

    on(f);
    pthread_create(&thread, NULL, send_many, f);
    for (unsigned i = 0; i < 2000; i++) {
        pci_msix_table_write(&f->msix, 12, 4, 1);
        before = f->count;
        for (volatile unsigned wait = 0; wait < 100; wait++)
            ;
        quiet += f->count == before;
        pci_msix_table_write(&f->msix, 12, 4, 0);
    }
    pthread_join(thread, NULL);
    assert_int_equal(quiet, 2000);
    assert_int_equal(pending(f), 0);
    assert_in_range(f->count, 1, SENT);
}

static void test_limits(void **state)
{
    struct fixture *f = *state;
    struct pci_msix other;
    struct error err;

    assert_int_equal(
        pci_msix_init(&other, &f->function, PCI_MSIX_MAX + 1, 2, 0, 0, (struct msi_sink){0}, &err),
        -EINVAL);
    while (pci_function_add_capability(&f->function, 9, 4))
        ;
    assert_int_equal(pci_msix_init(&other, &f->function, 1, 2, 0, 0, (struct msi_sink){0}, &err),
                     -ENOSPC);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_capability), TEST(test_table),    TEST(test_send),  TEST(test_masks),
        TEST(test_bus_master), TEST(test_disabled), TEST(test_reset), TEST(test_save_restore),
        TEST(test_threads),    TEST(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
