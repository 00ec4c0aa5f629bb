/*
 * The board: that lines lead where they should, through the 8259s as well as the I/O APIC, and
 * that a whole board can be saved and restored.
 */
#include "test.h"

#include "base/util.h"
#include "vm/board.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fake_clock.h"
#include "state_image.h"

#define CPUS 2

struct fixture {
    struct bus *bus;
    struct clock *clock;
    struct mem *mem;
    struct cpu_port port[CPUS];
    struct cpu_port *ports[CPUS];
    struct board *board;
    struct loop *loop;
    struct workers *workers;
    unsigned resets, poweroffs;
    char text[64];
    size_t size;
};

static void on_reset(void *opaque)
{
    ((struct fixture *)opaque)->resets++;
}

static void on_poweroff(void *opaque)
{
    ((struct fixture *)opaque)->poweroffs++;
}

static void hear(void *opaque, const void *data, size_t size)
{
    struct fixture *f = opaque;

    assert_true(f->size + size < sizeof(f->text));
    memcpy(f->text + f->size, data, size);
    f->size += size;
}

static struct fixture *create(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    static const char *const list[] = {"debug-console", "rng,slot=9", "rng", NULL};
    const struct board_devices devices = {
        .list = list,
        .serial = {{.sent = {.output = hear, .opaque = f}}},
        .debug_output = {.output = hear, .opaque = f},
    };
    struct board_config config = {
        .cpus = CPUS,
        .physical_bits = 40,
        .ports = f->ports,
        .events = {.reset = on_reset, .poweroff = on_poweroff, .opaque = f},
        .devices = &devices,
        .loop = loop_create(NULL),
        .workers = workers_create("test", 1, NULL),
    };

    f->loop = config.loop;
    f->workers = config.workers;
    f->bus = bus_create(NULL);
    f->clock = clock_create(NULL, f->bus, NULL);
    f->mem = mem_create(2 * MiB, NULL);
    for (unsigned i = 0; i < CPUS; i++) {
        f->port[i].id = i;
        f->ports[i] = &f->port[i];
    }
    f->board = board_create(f->bus, f->clock, f->mem, &config, NULL);
    assert_non_null(f->board);
    board_reset(f->board);
    return f;
}

static void destroy(struct fixture *f)
{
    board_destroy(f->board);
    workers_destroy(f->workers);
    loop_destroy(f->loop);
    mem_destroy(f->mem);
    clock_destroy(f->clock);
    bus_destroy(f->bus);
    free(f);
}

static int set_up(void **state)
{
    *state = create();
    return 0;
}

static int tear_down(void **state)
{
    destroy(*state);
    return 0;
}

static uint8_t in(struct fixture *f, uint16_t port)
{
    return (uint8_t)bus_read(f->bus, BUS_PORT, port, 1);
}

static void out(struct fixture *f, uint16_t port, uint8_t value)
{
    bus_write(f->bus, BUS_PORT, port, 1, value);
}

static void apic_write(struct fixture *f, uint32_t offset, uint32_t value)
{
    f->port[0].apic_ops->mmio_write(f->port[0].apic, offset, 4, value);
}

static int pending(struct fixture *f)
{
    return f->port[0].apic_ops->pending(f->port[0].apic);
}

static int ack(struct fixture *f)
{
    return f->port[0].apic_ops->ack(f->port[0].apic);
}

/* Pin N of the I/O APIC sends VECTOR to processor 0. */
static void route(struct fixture *f, unsigned n, uint32_t vector)
{
    bus_write(f->bus, BUS_MMIO, 0xFEC00000, 4, 0x10 + 2 * n);
    bus_write(f->bus, BUS_MMIO, 0xFEC00010, 4, vector);
}

/* The 8259s as any PC's firmware sets them up: vectors 8 and 70h, everything masked but MASK. */
static void init_pics(struct fixture *f, uint16_t open)
{
    static const uint8_t first[] = {0x11, 0x08, 0x04, 0x01}, second[] = {0x11, 0x70, 0x02, 0x01};

    for (unsigned i = 0; i < 4; i++) {
        out(f, i ? 0x21 : 0x20, first[i]);
        out(f, i ? 0xA1 : 0xA0, second[i]);
    }
    out(f, 0x21, (uint8_t)~open);
    out(f, 0xA1, (uint8_t)(~open >> 8));
}

/* Every ISA device's interrupt, by raising it and looking at the vector. */
static void test_isa_lines_through_ioapic(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint16_t port;
        unsigned pin;
    } serial[] = {{0x3F8, 4}, {0x2F8, 3}, {0x3E8, 10}, {0x2E8, 11}};

    apic_write(f, 0xF0, 0x1FF);
    for (unsigned i = 0; i < ARRAY_SIZE(serial); i++) {
        route(f, serial[i].pin, 0x60 + i);
        assert_int_equal(pending(f), -1);
        out(f, serial[i].port + 1, 0x02); /* the transmitter is empty */
        assert_int_equal(pending(f), 0x60 + i);
        assert_int_equal(ack(f), 0x60 + i);
        apic_write(f, 0xB0, 0);
    }
    route(f, 1, 0x70);
    out(f, 0x60, 0xEE); /* the keyboard answers */
    assert_int_equal(ack(f), 0x70);
    apic_write(f, 0xB0, 0);
    route(f, 8, 0x71);
    out(f, 0x70, 0x0B);
    out(f, 0x71, 0x12);
    fake_clock_advance(f->clock, 1000000000); /* the RTC's next second */
    assert_int_equal(ack(f), 0x71);
    apic_write(f, 0xB0, 0);
    route(f, 2, 0x72); /* where ISA interrupt 0 arrives */
    out(f, 0x43, 0x34);
    out(f, 0x40, 0x00);
    out(f, 0x40, 0x10);
    fake_clock_advance(f->clock, 10000000);
    assert_int_equal(ack(f), 0x72);
}

/* The way of an operating system that knows no APIC: virtual wire. */
static void test_isa_lines_through_pics(void **state)
{
    struct fixture *f = *state;

    init_pics(f, 1u << 4 | 1u << 2 | 1u << 10);
    assert_int_equal(pending(f), -1);
    out(f, 0x3F9, 0x02);
    assert_int_equal(pending(f), 256);
    assert_int_equal(ack(f), 0x0C);
    assert_int_equal(pending(f), -1);
    out(f, 0x20, 0x20);
    out(f, 0x3E9, 0x02);
    assert_int_equal(ack(f), 0x72);
}

static void test_sci_through_pics(void **state)
{
    struct fixture *f = *state;

    init_pics(f, 1u << 2 | 1u << 9);
    bus_write(f->bus, BUS_PORT, 0x602, 2, 0x100);
    board_power_button(f->board);
    fake_clock_advance(f->clock, 0); /* on the thread of the clock */
    assert_int_equal(ack(f), 0x71);
    out(f, 0xA0, 0x20);
    out(f, 0x20, 0x20);
    assert_int_equal(ack(f), 0x71); /* the level stands */
    bus_write(f->bus, BUS_PORT, 0x600, 2, 0x100);
    out(f, 0xA0, 0x20);
    out(f, 0x20, 0x20);
    assert_int_equal(pending(f), -1);
}

/* The SCI is level-triggered: it comes again until the button has been seen to. */
static void test_level_triggered(void **state)
{
    struct fixture *f = *state;

    apic_write(f, 0xF0, 0x1FF);
    route(f, 9, 0x8055);
    bus_write(f->bus, BUS_PORT, 0x602, 2, 0x100);
    board_power_button(f->board);
    fake_clock_advance(f->clock, 0); /* on the thread of the clock */
    assert_int_equal(ack(f), 0x55);
    apic_write(f, 0xB0, 0);
    assert_int_equal(pending(f), 0x55);
    assert_int_equal(ack(f), 0x55);
    bus_write(f->bus, BUS_PORT, 0x600, 2, 0x100);
    apic_write(f, 0xB0, 0);
    assert_int_equal(pending(f), -1);
}

static void test_events(void **state)
{
    struct fixture *f = *state;

    out(f, 0x64, 0xFE);
    out(f, 0x92, 0x03);
    out(f, 0xCF9, 0x06);
    assert_int_equal(f->resets, 3);
    assert_int_equal(f->poweroffs, 0);
    bus_write(f->bus, BUS_PORT, 0x604, 2, 0x3400);
    assert_int_equal(f->poweroffs, 1);
    assert_int_equal(in(f, 0xF4), 0xFF); /* was not asked for */
    assert_int_equal(in(f, 0xE9), 0xE9);
    out(f, 0xE9, 'e');
    out(f, 0x3F8, 's');
    board_flush(f->board);
    assert_int_equal(f->size, 2);
}

static void test_reset(void **state)
{
    struct fixture *f = *state;

    apic_write(f, 0xF0, 0x1FF);
    route(f, 4, 0x60);
    out(f, 0x3F9, 0x02);
    assert_int_equal(pending(f), 0x60);
    board_reset(f->board);
    assert_int_equal(pending(f), -1);
    assert_int_equal(in(f, 0x3F9), 0);
    bus_write(f->bus, BUS_MMIO, 0xFEC00000, 4, 0x18);
    assert_true(bus_read(f->bus, BUS_MMIO, 0xFEC00010, 4) & 0x10000); /* masked */
}

/* What a board with the devices of LIST cannot be created for. */
static struct error refusal(const struct fixture *f, const char *const *list)
{
    struct cpu_port port = {0}, *const ports[] = {&port};
    const struct board_devices devices = {.list = list};
    const struct board_config config = {
        .cpus = 1,
        .physical_bits = 40,
        .ports = ports,
        .devices = &devices,
        .loop = f->loop,
        .workers = f->workers,
    };
    struct bus *bus = bus_create(NULL);
    struct clock *clock = clock_create(NULL, bus, NULL);
    struct error err = {0};

    assert_null(board_create(bus, clock, f->mem, &config, &err));
    clock_destroy(clock);
    bus_destroy(bus);
    return err;
}

static void test_descriptions(void **state)
{
    static const char *const unknown[] = {"debug-exit", "nonesuch", NULL};
    static const char *const setting[] = {"test-device,color=red", NULL};
    static const char *const twice[] = {"debug-exit", "test-device", "debug-exit", NULL};
    struct error err = refusal(*state, unknown);

    assert_int_equal(err.code, EINVAL);
    assert_non_null(strstr(err.text, "'nonesuch' (known: balloon, console,"));
    err = refusal(*state, setting);
    assert_int_equal(err.code, EINVAL);
    assert_non_null(strstr(err.text, "no setting 'color'"));
    assert_int_equal(refusal(*state, twice).code, EBUSY);
}

/* However many a user asks for: the board takes what fits, and nothing is written behind it. */
static void test_too_many(void **state)
{
    const char *list[BOARD_PCI_SLOTS + 2];
    struct error err;

    for (unsigned i = 0; i <= BOARD_PCI_SLOTS; i++)
        list[i] = "rng";
    list[BOARD_PCI_SLOTS + 1] = NULL;
    err = refusal(*state, list);
    assert_int_equal(err.code, ENOSPC);
    assert_non_null(strstr(err.text, "all 30 PCI slots are taken"));
    list[BOARD_PCI_SLOTS] = "nonesuch"; /* all others have their slots */
    assert_int_equal(refusal(*state, list).code, EINVAL);
}

static uint32_t pci_config(struct fixture *f, unsigned device, unsigned reg)
{
    bus_write(f->bus, BUS_PORT, 0xCF8, 4, 1u << 31 | device << 11 | reg);
    return (uint32_t)bus_read(f->bus, BUS_PORT, 0xCFC, 4);
}

/* Where it was asked for, and where firmware leaves it. */
static void test_pci_devices(void **state)
{
    static const char *const taken[] = {"rng,slot=1", NULL};
    static const char *const no_slot[] = {"rng,slot=32", NULL};
    struct fixture *f = *state;
    uint32_t bar = pci_config(f, 2, 0x10);

    assert_int_equal(pci_config(f, 2, 0), 0x10441AF4);
    assert_int_equal(pci_config(f, 9, 0), 0x10441AF4);
    assert_int_equal(pci_config(f, 3, 0), 0xFFFFFFFF);
    assert_in_range(bar & ~0xFu, 0xC0000000, 0xFEC00000 - 1);
    assert_int_equal(bus_read(f->bus, BUS_MMIO, (bar & ~0xFu) + 18, 2), 1); /* queues */
    assert_int_equal(refusal(*state, taken).code, EBUSY);
    assert_non_null(strstr(refusal(*state, taken).text, "device rng,slot=1: PCI slot 1 is taken"));
    assert_non_null(strstr(refusal(*state, taken).text, "(free: 2-31)"));
    assert_int_equal(refusal(*state, no_slot).code, EINVAL);
}

static void save(struct fixture *f, struct state_image *image)
{
    struct state *s = image_save(image);

    board_state(f->board, s);
    assert_int_equal(image_done(s), 0);
}

static void test_save_restore(void **state)
{
    struct fixture *f = *state, *g = create();
    struct state_image first = {0}, second = {0};
    struct state *load;

    apic_write(f, 0xF0, 0x1FF);
    init_pics(f, 0);
    route(f, 4, 0x60);
    out(f, 0x3F9, 0x02);
    out(f, 0x70, 0x0F);
    out(f, 0x71, 0xA5);
    bus_write(f->bus, BUS_PORT, 0x602, 2, 0x100);
    save(f, &first);

    load = image_load(&first);
    board_state(g->board, load);
    assert_int_equal(image_done(load), 0);
    assert_int_equal(pending(g), 0x60);
    assert_int_equal(in(g, 0x71), 0xA5);
    save(g, &second);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);

    first.size /= 2; /* cut off */
    load = image_load(&first);
    board_state(g->board, load);
    assert_int_not_equal(state_error(load), 0);
    state_free(load);
    image_free(&first);
    image_free(&second);
    destroy(g);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_isa_lines_through_ioapic),
        TEST(test_isa_lines_through_pics),
        TEST(test_sci_through_pics),
        TEST(test_level_triggered),
        TEST(test_events),
        TEST(test_descriptions),
        TEST(test_too_many),
        TEST(test_pci_devices),
        TEST(test_reset),
        TEST(test_save_restore),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
