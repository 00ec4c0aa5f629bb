/*
 * Base address registers: sizing, placing and moving them, and what happens when a guest has them
 * overlap each other or another device.
 */
#include "test.h"
#include "state_image.h"

#include "base/util.h"
#include "dev/pci/host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev_rig.h"

#define MEMORY  0xD0000000u
#define HIGH    0x6000000000u /* the window above 4 GiB */
#define COMMAND 0x04
#define BAR(N)  (0x10 + 4 * (N))

/* A function with a 32-bit BAR of 4 KiB, one of 256 ports, and a 64-bit one of 64 KiB. */
struct card {
    struct pci_function function;
    uint8_t tag; /* what all its registers read as, beside the offset */
    unsigned writes, rings;
    uint64_t last_offset, last_value;
};

static uint64_t card_read(void *dev, uint64_t offset, unsigned size)
{
    const struct card *card = dev;

    return card->tag + (offset << 8);
}

static void card_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct card *card = dev;

    card->writes++;
    card->last_offset = offset;
    card->last_value = value;
}

static void card_ring(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct card *card = dev;

    card->rings++;
    card->last_offset = offset;
    card->last_value = value;
}

static const struct bus_ops card_ops = {.read = card_read, .write = card_write, .max_size = 4};

static void card_init(struct card *card, uint8_t tag)
{
    struct pci_bar bar = {.size = 4096, .name = "card", .ops = &card_ops, .dev = card};

    *card = (struct card){.tag = tag};
    pci_function_init(&card->function, 0x1234, tag, 0xFF0000, 1);
    pci_function_add_bar(&card->function, 0, &bar);
    bar =
        (struct pci_bar){.size = 256, .ports = true, .name = "card", .ops = &card_ops, .dev = card};
    pci_function_add_bar(&card->function, 1, &bar);
    bar = (struct pci_bar){.size = 65536,
                           .wide = true,
                           .prefetchable = true,
                           .name = "card",
                           .ops = &card_ops,
                           .dev = card,
                           .doorbell = 0x3000,
                           .doorbell_size = 8,
                           .ring = card_ring};
    pci_function_add_bar(&card->function, 2, &bar);
}

struct fixture {
    struct rig *rig;
    struct pci_host *host;
    struct card first, second;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->rig = rig_create();
    f->host = pci_host_create(
        f->rig->bus,
        &(struct pci_host_config){.reset = rig_line(f->rig, 0), .high = {HIGH, HIGH + 8 * GiB}},
        NULL);
    card_init(&f->first, 0x11);
    card_init(&f->second, 0x22);
    assert_int_equal(pci_attach(f->host, 3, 0, &f->first.function, NULL), 0);
    assert_int_equal(pci_attach(f->host, 4, 0, &f->second.function, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    pci_detach(f->host, 3, 0);
    pci_detach(f->host, 4, 0);
    pci_host_dev(f->host)->ops->free(pci_host_dev(f->host));
    rig_destroy(f->rig);
    free(f);
    return 0;
}

static void config(struct fixture *f, unsigned device, unsigned reg, unsigned size, uint32_t value)
{
    bus_write(f->rig->bus, BUS_PORT, 0xCF8, 4, 1u << 31 | device << 11 | (reg & 0xFC));
    bus_write(f->rig->bus, BUS_PORT, 0xCFC + (reg & 3), size, value);
}

static uint32_t config_read(struct fixture *f, unsigned device, unsigned reg)
{
    bus_write(f->rig->bus, BUS_PORT, 0xCF8, 4, 1u << 31 | device << 11 | reg);
    return (uint32_t)bus_read(f->rig->bus, BUS_PORT, 0xCFC, 4);
}

static uint32_t memory(struct fixture *f, uint64_t address)
{
    return (uint32_t)bus_read(f->rig->bus, BUS_MMIO, address, 4);
}

static uint32_t port(struct fixture *f, uint16_t number)
{
    return (uint32_t)bus_read(f->rig->bus, BUS_PORT, number, 4);
}

#define NOBODY 0xFFFFFFFFu

/* As operating systems do it (PCI 3.0, 6.2.5.1). */
static void test_sizing(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(config_read(f, 3, BAR(0)), 0);
    assert_int_equal(config_read(f, 3, BAR(1)), 1);
    assert_int_equal(config_read(f, 3, BAR(2)), 0xC);
    for (unsigned n = 0; n < 6; n++)
        config(f, 3, BAR(n), 4, 0xFFFFFFFF);
    assert_int_equal(config_read(f, 3, BAR(0)), 0xFFFFF000);
    assert_int_equal(config_read(f, 3, BAR(1)), 0xFFFFFF01);
    assert_int_equal(config_read(f, 3, BAR(2)), 0xFFFF000C);
    assert_int_equal(config_read(f, 3, BAR(3)), 0xFFFFFFFF);
    assert_int_equal(config_read(f, 3, BAR(4)), 0);
    assert_int_equal(config_read(f, 3, BAR(5)), 0);
    /* The same with decoding on: addresses at the very end, some of them nobody's. */
    config(f, 3, COMMAND, 2, 3);
    assert_int_equal(memory(f, 0xFFFFF000), 0x11);
    assert_int_equal(bus_read(f->rig->bus, BUS_MMIO, 0xFFFFFFFFFFFF0000, 4), 0x11);
    config(f, 3, COMMAND, 2, 0);
    assert_int_equal(memory(f, 0xFFFFF000), NOBODY);
}

static void test_decoding(void **state)
{
    struct fixture *f = *state;

    config(f, 3, BAR(0), 4, MEMORY);
    config(f, 3, BAR(1), 4, 0xC000);
    assert_int_equal(memory(f, MEMORY), NOBODY);
    config(f, 3, COMMAND, 2, 2);
    assert_int_equal(memory(f, MEMORY), 0x11);
    assert_int_equal(memory(f, MEMORY + 0xFFC), 0x11 + 0xFFC00);
    assert_int_equal(memory(f, MEMORY + 0x1000), NOBODY);
    assert_int_equal(port(f, 0xC000), NOBODY);
    config(f, 3, COMMAND, 1, 1);
    assert_int_equal(port(f, 0xC004), 0x11 + 0x400);
    assert_int_equal(memory(f, MEMORY), NOBODY);
    assert_int_equal(config_read(f, 3, COMMAND) & 0xFFFF, 1);
    config(f, 3, COMMAND, 2, 0xFFFF); /* and nothing but decoding and bus mastering can be set */
    assert_int_equal(config_read(f, 3, COMMAND) & 0xFFFF, 7);
}

static void test_moving(void **state)
{
    struct fixture *f = *state;

    config(f, 3, COMMAND, 2, 3);
    assert_int_equal(memory(f, 0), NOBODY); /* 0 is no address */
    config(f, 3, BAR(0), 4, MEMORY);
    config(f, 3, BAR(0), 4, MEMORY + 0x2000);
    assert_int_equal(memory(f, MEMORY), NOBODY);
    assert_int_equal(memory(f, MEMORY + 0x2000), 0x11);
    config(f, 3, BAR(0) + 1, 1, 0x50); /* by one of its bytes */
    assert_int_equal(memory(f, MEMORY + 0x2000), NOBODY);
    assert_int_equal(memory(f, MEMORY + 0x5000), 0x11);
    config(f, 3, BAR(1), 4, 0x12340); /* beyond the last port */
    assert_int_equal(port(f, 0x2300), NOBODY);
    config(f, 3, BAR(1), 4, 0x2300);
    assert_int_equal(port(f, 0x2300), 0x11);
}

static void test_wide(void **state)
{
    struct fixture *f = *state;
    const uint64_t high = 0x1200000000;

    config(f, 3, COMMAND, 2, 2);
    config(f, 3, BAR(2), 4, MEMORY);
    assert_int_equal(memory(f, MEMORY), 0x11);
    config(f, 3, BAR(3), 4, 0x12);
    assert_int_equal(memory(f, MEMORY), NOBODY);
    assert_int_equal(memory(f, high + MEMORY), 0x11);
    config(f, 3, BAR(2), 4, 0);
    assert_int_equal(memory(f, high + 0x10), 0x11 + 0x1000);
    bus_write(f->rig->bus, BUS_MMIO, high + 0x3004, 4, 7);
    assert_int_equal(f->first.rings, 1);
    assert_int_equal(f->first.writes, 0);
    assert_int_equal(f->first.last_offset, 4);
    assert_int_equal(f->first.last_value, 7);
    config(f, 3, BAR(3), 4, 0x13); /* the doorbell moves, too */
    bus_write(f->rig->bus, BUS_MMIO, high + 0x3004, 4, 8);
    assert_int_equal(f->first.rings, 1);
    bus_write(f->rig->bus, BUS_MMIO, 0x1300003000, 4, 9);
    assert_int_equal(f->first.rings, 2);
    bus_write(f->rig->bus, BUS_MMIO, 0x1300000000, 4, 10);
    assert_int_equal(f->first.writes, 1);
}

/* Of two functions the one with the lower number has the addresses that both decode, whatever came
 * first; the other has the rest. */
static void test_overlap(void **state)
{
    struct fixture *f = *state;

    config(f, 3, COMMAND, 2, 2);
    config(f, 4, COMMAND, 2, 2);
    config(f, 4, BAR(2), 4, MEMORY);
    assert_int_equal(memory(f, MEMORY + 0x8000), 0x22 + 0x800000);
    config(f, 3, BAR(0), 4, MEMORY + 0x8000);
    assert_int_equal(memory(f, MEMORY + 0x8000), 0x11);
    assert_int_equal(memory(f, MEMORY + 0x8FFC), 0x11 + 0xFFC00);
    assert_int_equal(memory(f, MEMORY + 0x7FFC), 0x22 + 0x7FFC00);
    assert_int_equal(memory(f, MEMORY + 0x9000), 0x22 + 0x900000);
    config(f, 3, COMMAND, 2, 0);
    assert_int_equal(memory(f, MEMORY + 0x8000), 0x22 + 0x800000);
    config(f, 3, COMMAND, 2, 2);
    assert_int_equal(memory(f, MEMORY), 0x22);
    assert_int_equal(memory(f, MEMORY + 0x8000), 0x11);
    config(f, 3, BAR(0), 4, MEMORY + 0x10000);
    assert_int_equal(memory(f, MEMORY), 0x22);
    assert_int_equal(memory(f, MEMORY + 0x8000), 0x22 + 0x800000);
    assert_int_equal(memory(f, MEMORY + 0x10000), 0x11);
    /* Two BARs of one function. */
    config(f, 3, BAR(2), 4, MEMORY + 0x10000);
    assert_int_equal(memory(f, MEMORY + 0x10000), 0x11);
    assert_int_equal(memory(f, MEMORY + 0x11000), 0x11 + 0x100000);
    config(f, 3, BAR(0), 4, 0);
    assert_int_equal(memory(f, MEMORY + 0x10000), 0x11);
    assert_int_equal(memory(f, MEMORY + 0x11000), 0x11 + 0x100000);
}

/* A doorbell rings as long as no other BAR has any of its addresses. */
static void test_overlapped_doorbell(void **state)
{
    struct fixture *f = *state;
    const uint64_t bell = MEMORY + 0x3000;

    config(f, 3, COMMAND, 2, 2);
    config(f, 4, COMMAND, 2, 2);
    config(f, 4, BAR(2), 4, MEMORY);
    config(f, 3, BAR(0), 4, MEMORY + 0x4000); /* beside it */
    bus_write(f->rig->bus, BUS_MMIO, bell, 4, 1);
    assert_int_equal(f->second.rings, 1);
    config(f, 3, BAR(0), 4, MEMORY + 0x3000); /* over it */
    bus_write(f->rig->bus, BUS_MMIO, bell, 4, 2);
    assert_int_equal(f->second.rings, 1);
    assert_int_equal(f->first.writes, 1);
    assert_int_equal(memory(f, MEMORY + 0x2000), 0x22 + 0x200000);
    config(f, 3, BAR(2), 4, MEMORY); /* one doorbell on the other: the first function's */
    config(f, 3, BAR(0), 4, 0);
    bus_write(f->rig->bus, BUS_MMIO, bell, 4, 3);
    assert_int_equal(f->first.rings, 1);
    config(f, 3, COMMAND, 2, 0);
    bus_write(f->rig->bus, BUS_MMIO, bell, 4, 4);
    assert_int_equal(f->second.rings, 2);
    assert_int_equal(f->second.last_value, 4);
    assert_int_equal(f->second.writes, 0);
}

/* A device that is not on the PCI bus keeps its addresses, and only those. */
static void test_other_devices(void **state)
{
    struct fixture *f = *state;
    struct card other = {.tag = 0x33};

    assert_int_equal(
        bus_claim(f->rig->bus, BUS_MMIO, MEMORY + 0x800, 4, "other", &card_ops, &other, NULL), 0);
    config(f, 3, COMMAND, 2, 3);
    config(f, 3, BAR(0), 4, MEMORY);
    assert_int_equal(memory(f, MEMORY + 0x800), 0x33);
    assert_int_equal(memory(f, MEMORY), 0x11);
    assert_int_equal(memory(f, MEMORY + 0x7FC), 0x11 + 0x7FC00);
    assert_int_equal(memory(f, MEMORY + 0x804), 0x11 + 0x80400);
    config(f, 3, BAR(1), 4, 0xC00); /* over the host bridge's own ports */
    assert_int_equal(config_read(f, 3, 0) & 0xFFFF, 0x1234);
    assert_int_equal(port(f, 0xC00), 0x11);
    config(f, 3, BAR(0), 4, MEMORY + 0x1000);
    config(f, 3, BAR(1), 4, 0xD00);
    assert_int_equal(memory(f, MEMORY + 0x1000), 0x11);
    assert_int_equal(port(f, 0xD00), 0x11);
    bus_release(f->rig->bus, BUS_MMIO, MEMORY + 0x800);
}

/* A BAR that is not touched stays on the bus: a doorbell that another vCPU rings while a BAR moves
 * is not lost. The bus refuses a claim of what is claimed, so we can see it. */
static void test_others_stay(void **state)
{
    struct fixture *f = *state;

    config(f, 4, COMMAND, 2, 2);
    config(f, 4, BAR(2), 4, MEMORY);
    bus_lock(f->rig->bus);
    /* What stays is not claimed anew, so this does not get in its way. */
    bus_release_doorbell(f->rig->bus, BUS_MMIO, MEMORY + 0x3000);
    bus_unlock(f->rig->bus);
    config(f, 3, COMMAND, 2, 2);
    config(f, 3, BAR(0), 4, MEMORY + 0x20000);
    bus_write(f->rig->bus, BUS_MMIO, MEMORY + 0x3000, 4, 1);
    assert_int_equal(f->second.rings, 0);
    assert_int_equal(f->second.writes, 1);
    config(f, 4, COMMAND, 2, 0);
    config(f, 4, COMMAND, 2, 2);
    bus_write(f->rig->bus, BUS_MMIO, MEMORY + 0x3000, 4, 1);
    assert_int_equal(f->second.rings, 1);
}

static void test_detach(void **state)
{
    struct fixture *f = *state;

    config(f, 3, COMMAND, 2, 2);
    config(f, 3, BAR(0), 4, MEMORY);
    config(f, 4, COMMAND, 2, 2);
    config(f, 4, BAR(0), 4, MEMORY);
    assert_int_equal(memory(f, MEMORY), 0x11);
    pci_detach(f->host, 3, 0);
    assert_int_equal(memory(f, MEMORY), 0x22);
    assert_int_equal(config_read(f, 3, 0), NOBODY);
    pci_detach(f->host, 4, 0);
    assert_int_equal(memory(f, MEMORY), NOBODY);
}

/* Firmware gives each BAR for memory a place of its own. */
static void test_firmware(void **state)
{
    struct fixture *f = *state;
    uint64_t last = PCI_MMIO_START;

    pci_host_firmware_setup(f->host);
    for (unsigned device = 3; device <= 4; device++)
        for (unsigned n = 0; n <= 2; n += 2) {
            uint32_t size = n ? 0x10000 : 0x1000, base = config_read(f, device, BAR(n)) & ~0xFu;

            assert_int_equal(base % size, 0);
            assert_in_range(base, last, PCI_MMIO_END - size);
            last = base + size;
            assert_int_equal(memory(f, base), device == 3 ? 0x11 : 0x22);
        }
    assert_int_equal(config_read(f, 3, COMMAND) & 0xFFFF, 2);
    assert_int_equal(config_read(f, 3, BAR(1)), 1);
    assert_int_equal(config_read(f, 0, COMMAND) & 0xFFFF, 6); /* the bridges are as they were */
    assert_int_equal(config_read(f, 1, COMMAND) & 0xFFFF, 7);
}

/* What has no room below 4 GiB goes above, if its register has as many bits. */
static void test_firmware_high(void **state)
{
    struct fixture *f = *state;
    struct card large = {.tag = 0x33};
    struct pci_bar bar = {.size = 2 * GiB, .name = "large", .ops = &card_ops, .dev = &large};

    pci_function_init(&large.function, 0x1234, 0x33, 0xFF0000, 1);
    pci_function_add_bar(&large.function, 0, &bar);
    bar.wide = true;
    pci_function_add_bar(&large.function, 2, &bar);
    bar.size = 16 * GiB; /* more than that window has */
    pci_function_add_bar(&large.function, 4, &bar);
    assert_int_equal(pci_attach(f->host, 2, 0, &large.function, NULL), 0);
    pci_host_firmware_setup(f->host);
    assert_int_equal(config_read(f, 2, BAR(0)), 0);
    assert_int_equal(config_read(f, 2, BAR(2)), 4);
    assert_int_equal(config_read(f, 2, BAR(3)), HIGH >> 32);
    assert_int_equal(memory(f, HIGH + 4), 0x33 + 0x400);
    assert_int_equal(config_read(f, 2, BAR(4)), 4);
    assert_int_equal(config_read(f, 2, BAR(5)), 0);
    assert_int_equal(config_read(f, 3, BAR(0)), PCI_MMIO_START); /* the others are below */
    pci_detach(f->host, 2, 0);
}

static void test_high_window(void **unused)
{
    struct pci_window w = pci_high_window(4 * GiB, 40);

    assert_int_equal(w.start, 0xC000000000);
    assert_int_equal(w.end, 0x10000000000);
    w = pci_high_window(60 * GiB + 1, 36); /* RAM is in the way */
    assert_int_equal(w.start, 61 * GiB);
    assert_int_equal(w.end, 64 * GiB);
    w = pci_high_window(64 * GiB, 36);
    assert_int_equal(w.start, w.end);
}

static void test_save_restore(void **state)
{
    struct fixture *f = *state;
    struct state_image image = {0};
    struct state *save = image_save(&image), *load;

    config(f, 3, COMMAND, 2, 2);
    config(f, 3, BAR(0), 4, MEMORY);
    config(f, 3, 0x3C, 1, 11);
    state_section(save, "test", 0, 1);
    pci_function_state(&f->first.function, save);
    assert_int_equal(image_done(save), 0);
    bus_lock(f->rig->bus);
    pci_function_reset(&f->first.function);
    pci_host_remap(f->host);
    bus_unlock(f->rig->bus);
    assert_int_equal(memory(f, MEMORY), NOBODY);
    assert_int_equal(config_read(f, 3, 0x3C), 0);
    load = image_load(&image);
    state_section(load, "test", 0, 1);
    bus_lock(f->rig->bus);
    pci_function_state(&f->first.function, load);
    pci_host_remap(f->host);
    bus_unlock(f->rig->bus);
    assert_int_equal(image_done(load), 0);
    assert_int_equal(memory(f, MEMORY), 0x11);
    assert_int_equal(config_read(f, 3, 0x3C), 11);
    image_free(&image);
}

static void test_capabilities(void **state)
{
    struct fixture *f = *state;
    struct pci_function *function = &f->first.function;
    unsigned first, second;

    assert_int_equal(config_read(f, 3, COMMAND) >> 16, 0);
    first = pci_function_add_capability(function, 0x09, 18);
    second = pci_function_add_capability(function, 0x11, 12);
    assert_int_equal(first, 0x40);
    assert_int_equal(second, 0x54);
    assert_int_equal(config_read(f, 3, COMMAND) >> 16, 0x10);
    assert_int_equal(config_read(f, 3, 0x34), first);
    assert_int_equal(config_read(f, 3, first) & 0xFFFF, 0x09 | second << 8);
    assert_int_equal(config_read(f, 3, second) & 0xFFFF, 0x11);
    assert_int_equal(pci_function_add_capability(function, 0x05, 256), 0);
    assert_int_equal(pci_function_add_capability(function, 0x05, 0xA0), 0x60);
    assert_int_equal(pci_function_add_capability(function, 0x05, 4), 0);
}

static void test_free_device(void **state)
{
    struct fixture *f = *state;
    struct pci_function functions[PCI_DEVICES];
    unsigned device;

    assert_int_equal(pci_host_free_device(f->host), 2);
    while ((device = pci_host_free_device(f->host)) < PCI_DEVICES) {
        pci_function_init(&functions[device], 0x1234, 0, 0xFF0000, 1);
        assert_int_equal(pci_attach(f->host, device, 0, &functions[device], NULL), 0);
    }
    assert_int_equal(config_read(f, 31, 0), 0x1234);
    for (device = 5; device < PCI_DEVICES; device++)
        pci_detach(f->host, device, 0);
    pci_detach(f->host, 2, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sizing),        TEST(test_decoding),     TEST(test_moving),
        TEST(test_wide),          TEST(test_overlap),      TEST(test_overlapped_doorbell),
        TEST(test_other_devices), TEST(test_others_stay),  TEST(test_detach),
        TEST(test_firmware_high), TEST(test_high_window),  TEST(test_firmware),
        TEST(test_save_restore),  TEST(test_capabilities), TEST(test_free_device),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
