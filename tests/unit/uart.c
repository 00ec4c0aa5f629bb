/*
 * The serial port: FIFOs, interrupts and their order, loopback, modem lines, and that nothing
 * typed is lost.
 */
#include "test.h"

#include "base/util.h"
#include "dev/pc/uart.h"

#include <stdlib.h>
#include <string.h>

#include "dev_rig.h"

#define BASE 0x3F8
enum { DATA, IER, FCR, LCR, MCR, LSR, MSR, SCR };
enum { IIR = FCR };

#define CHARACTER_NS (10 * UINT64_C(1000000000) / 115200 + 1)

struct fixture {
    struct rig *rig;
    struct uart *uart;
    char out[1024];
    size_t out_size;
    unsigned bursts, ready;
    bool full;
};

static void output(void *opaque, const void *data, size_t size)
{
    struct fixture *f = opaque;

    assert_true(f->out_size + size <= sizeof(f->out));
    memcpy(f->out + f->out_size, data, size);
    f->out_size += size;
    f->bursts++;
}

static bool full(void *opaque)
{
    return ((const struct fixture *)opaque)->full;
}

static void input_ready(void *opaque)
{
    ((struct fixture *)opaque)->ready++;
}

static uint8_t in(struct fixture *f, unsigned reg)
{
    return rig_in(f->rig, (uint16_t)(BASE + reg));
}

static void out(struct fixture *f, unsigned reg, uint8_t value)
{
    rig_out(f->rig, (uint16_t)(BASE + reg), value);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct uart_backend backend = {.sent = {.output = output, .full = full, .opaque = f},
                                   .input_ready = input_ready,
                                   .opaque = f};

    f->rig = rig_create();
    f->uart = uart_create(f->rig->bus, f->rig->clock, BASE, rig_line(f->rig, 4), &backend, NULL);
    out(f, LCR, 0x83); /* 115,200 baud, 8N1 */
    out(f, DATA, 1);
    out(f, IER, 0);
    out(f, LCR, 0x03);
    *state = f;
    return f->uart ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    uart_dev(f->uart)->ops->free(uart_dev(f->uart));
    rig_destroy(f->rig);
    free(f);
    return 0;
}

/* Puts TEXT on the wire and lets it arrive. */
static size_t type(struct fixture *f, const char *text)
{
    size_t taken = uart_input(f->uart, text, strlen(text));

    fake_clock_advance(f->rig->clock, 1);
    return taken;
}

static void listen(struct fixture *f, uint8_t fcr)
{
    out(f, FCR, fcr);
    out(f, MCR, 0x0B);
    out(f, IER, 0x01);
}

static void test_registers(void **state)
{
    struct fixture *f = *state;

    out(f, SCR, 0xA5);
    out(f, IER, 0xFF);
    out(f, MCR, 0xFF);
    assert_int_equal(in(f, SCR), 0xA5);
    assert_int_equal(in(f, IER), 0x0F);
    assert_int_equal(in(f, MCR), 0x1F);
    assert_int_equal(in(f, LCR), 0x03);
    out(f, LCR, 0x83);
    out(f, DATA, 0x34);
    out(f, IER, 0x12);
    assert_int_equal(in(f, DATA), 0x34);
    assert_int_equal(in(f, IER), 0x12);
    out(f, LCR, 0x03);
    assert_int_equal(in(f, IER), 0x0F);
    assert_int_equal(in(f, IIR) & 0xC0, 0);
    out(f, FCR, 0x01);
    assert_int_equal(in(f, IIR) & 0xC0, 0xC0);
    assert_int_equal(f->out_size, 0); /* the divisor was not sent */
}

static void test_output_in_bursts(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(in(f, LSR) & 0x60, 0x60);
        out(f, DATA, (uint8_t)('a' + i));
    }
    fake_clock_advance(f->rig->clock, 1000000);
    assert_int_equal(f->bursts, 1);
    assert_int_equal(f->out_size, 16);
    assert_memory_equal(f->out, "abcdefghijklmnop", 16);
    for (unsigned i = 0; i < 600; i++)
        out(f, DATA, 'x');
    assert_int_equal(f->bursts, 3); /* full buffers do not wait */
    uart_flush(f->uart);
    assert_int_equal(f->out_size, 616);
}

static bool holds(struct fixture *f, uint8_t byte)
{
    return bus_write(f->rig->bus, BUS_PORT, BASE + DATA, 1, byte);
}

/* A backend that is full still takes all, byte by byte, and each write says that its vCPU is to
 * stand still. */
static void test_full(void **state)
{
    struct fixture *f = *state;

    assert_false(holds(f, 'a'));
    f->full = true;
    assert_true(uart_full(f->uart));
    /* The timer hands on what is buffered, which holds nobody; the next byte does. */
    fake_clock_advance(f->rig->clock, 1000000);
    assert_int_equal(f->out_size, 1);
    assert_true(holds(f, 'b'));
    assert_int_equal(f->out_size, 2);
    assert_false(bus_write(f->rig->bus, BUS_PORT, BASE + SCR, 1, 0));
    f->full = false;
    assert_false(holds(f, 'c'));
    assert_int_equal(f->out_size, 2);
}

static void test_transmit_interrupt(void **state)
{
    struct fixture *f = *state;

    out(f, IER, 0x02);
    assert_true(f->rig->level[4]);
    assert_int_equal(in(f, IIR), 0x02);
    assert_false(f->rig->level[4]); /* reading the cause clears it */
    assert_int_equal(in(f, IIR), 0x01);
    out(f, DATA, 'x');
    assert_true(f->rig->level[4]);
    out(f, IER, 0x00);
    assert_false(f->rig->level[4]);
    assert_int_equal(in(f, IIR), 0x01);
}

static void test_receive_without_fifo(void **state)
{
    struct fixture *f = *state;

    listen(f, 0);
    assert_int_equal(type(f, "ab"), 2);
    assert_true(f->rig->level[4]);
    assert_int_equal(in(f, IIR), 0x04);
    assert_int_equal(in(f, LSR) & 0x03, 0x01);
    assert_int_equal(in(f, DATA), 'a');
    assert_int_equal(in(f, DATA), 'b'); /* came after, not over, the first */
    assert_int_equal(in(f, LSR) & 0x01, 0x00);
    assert_false(f->rig->level[4]);
}

static void test_trigger_and_timeout(void **state)
{
    struct fixture *f = *state;

    listen(f, 0x81); /* 8 bytes */
    type(f, "1234567");
    assert_false(f->rig->level[4]);
    fake_clock_advance(f->rig->clock, 3 * CHARACTER_NS);
    assert_false(f->rig->level[4]);
    fake_clock_advance(f->rig->clock, CHARACTER_NS);
    assert_true(f->rig->level[4]);
    assert_int_equal(in(f, IIR), 0xCC);
    type(f, "8");
    assert_int_equal(in(f, IIR), 0xC4); /* the trigger is reached */
    assert_int_equal(in(f, DATA), '1');
    assert_int_equal(in(f, IIR), 0xC1); /* below it again, and the timeout starts anew */
    fake_clock_advance(f->rig->clock, 4 * CHARACTER_NS);
    assert_int_equal(in(f, IIR), 0xCC);
    for (char c = '2'; c <= '8'; c++)
        assert_int_equal(in(f, DATA), c);
    assert_int_equal(in(f, IIR), 0xC1);
    assert_false(f->rig->level[4]);
}

static void test_priorities(void **state)
{
    struct fixture *f = *state;

    /* Everything at once, in loopback: overrun, data, transmitter, modem lines. */
    out(f, MCR, 0x10);
    out(f, DATA, 'a');
    out(f, DATA, 'b');
    out(f, MCR, 0x13);
    out(f, IER, 0x0F);
    assert_int_equal(in(f, IIR), 0x06);
    assert_int_equal(in(f, LSR), 0x63);
    assert_int_equal(in(f, IIR), 0x04);
    assert_int_equal(in(f, DATA), 'a'); /* 'b' was lost */
    assert_int_equal(in(f, IIR), 0x02);
    assert_int_equal(in(f, IIR), 0x00);
    assert_int_equal(in(f, MSR), 0x3B); /* DCD fell when the loop closed */
    assert_int_equal(in(f, IIR), 0x01);
    assert_false(f->rig->level[4]);
}

static void test_loopback(void **state)
{
    struct fixture *f = *state;

    out(f, FCR, 0x01);
    out(f, MCR, 0x1F);
    type(f, "wire");
    for (unsigned i = 0; i < 17; i++)
        out(f, DATA, (uint8_t)i);
    assert_int_equal(in(f, LSR) & 0x02, 0x02); /* the FIFO holds 16 */
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(in(f, DATA), i);
    assert_int_equal(in(f, LSR) & 0x03, 0);
    assert_int_equal(in(f, MSR) & 0xF0, 0xF0);
    out(f, MCR, 0x1B); /* OUT1 falls: the trailing edge of RI */
    assert_int_equal(in(f, MSR), 0xB4);
    assert_int_equal(in(f, MSR), 0xB0);
    out(f, DATA, 'x'); /* nobody reads it: it does not leave the loop */
    out(f, MCR, 0x0B);
    assert_int_equal(in(f, MSR) & 0xF0, 0xB0);
    assert_int_equal(in(f, DATA), 'w');
    uart_flush(f->uart);
    assert_int_equal(f->out_size, 0);
}

static void test_unplugged(void **state)
{
    struct fixture *f = *state;
    struct uart_backend nobody = {0};
    struct uart *other =
        uart_create(f->rig->bus, f->rig->clock, 0x2F8, rig_line(f->rig, 3), &nobody, NULL);

    assert_int_equal(in(f, MSR), 0xB0);
    assert_int_equal(rig_in(f->rig, 0x2F8 + MSR), 0);
    rig_out(f->rig, 0x2F8, 'x');
    uart_flush(other);
    assert_int_equal(f->out_size, 0);
    uart_dev(other)->ops->free(uart_dev(other));
}

/* Types while a kernel sets up its driver: FIFOs are cleared, stray reads happen. */
static void test_nothing_is_lost(void **state)
{
    struct fixture *f = *state;
    char got[32] = {0};
    unsigned n = 0;

    type(f, "hello, ");
    in(f, DATA); /* a driver that empties the receiver before it listens */
    out(f, FCR, 0x01);
    listen(f, 0x01);
    assert_int_equal(in(f, LSR) & 1, 1);
    out(f, FCR, 0x07);
    type(f, "world: 0123456789abcdef");
    out(f, FCR, 0x00); /* with a full FIFO */
    out(f, FCR, 0x01);
    while (in(f, LSR) & 1)
        got[n++] = (char)in(f, DATA);
    assert_string_equal(got, "hello, world: 0123456789abcdef");
}

/* A guest that neither raises RTS nor enables the interrupt, but looks and looks. */
static void test_polling_guest(void **state)
{
    struct fixture *f = *state;
    unsigned looks = 0;

    type(f, "x");
    assert_int_equal(in(f, LSR) & 1, 0);
    while (!(in(f, LSR) & 1) && looks < 1000)
        looks++;
    assert_int_equal(in(f, DATA), 'x');
}

/* A guest that is short of room lowers RTS, and raises it later. */
static void test_request_to_send(void **state)
{
    struct fixture *f = *state;

    listen(f, 0x01);
    out(f, MCR, 0x09);
    assert_int_equal(type(f, "x"), 1);
    assert_int_equal(in(f, LSR) & 1, 0);
    out(f, MCR, 0x0B);
    assert_int_equal(in(f, DATA), 'x');
}

/* Interrupts are a sign of interest in a guest that never touches RTS. */
static void test_without_request_to_send(void **state)
{
    struct fixture *f = *state;

    type(f, "x");
    assert_false(f->rig->level[4]);
    out(f, IER, 0x01);
    assert_true(f->rig->level[4]);
    assert_int_equal(in(f, DATA), 'x');
}

static void test_flow_control(void **state)
{
    struct fixture *f = *state;
    static char bulk[10000];
    size_t taken;

    for (size_t i = 0; i < sizeof(bulk); i++)
        bulk[i] = (char)(i * 7);
    listen(f, 0x01);
    taken = uart_input(f->uart, bulk, sizeof(bulk));
    assert_in_range(taken, 1024, sizeof(bulk) - 1);
    assert_int_equal(uart_input(f->uart, bulk, 1), 0);
    fake_clock_advance(f->rig->clock, 1);
    for (size_t i = 0; i < sizeof(bulk); i++) {
        assert_int_equal(in(f, DATA), (uint8_t)bulk[i]);
        if (f->ready) {
            f->ready = 0;
            taken += uart_input(f->uart, bulk + taken, sizeof(bulk) - taken);
            fake_clock_advance(f->rig->clock, 1);
        }
    }
    assert_int_equal(taken, sizeof(bulk));
    assert_int_equal(in(f, LSR) & 1, 0);
}

static void test_reset(void **state)
{
    struct fixture *f = *state;

    listen(f, 0xC1);
    type(f, "kept");
    out(f, DATA, 'o');
    rig_reset(f->rig, uart_dev(f->uart));
    assert_int_equal(f->out_size, 1);
    assert_false(f->rig->level[4]);
    assert_int_equal(in(f, IER), 0);
    assert_int_equal(in(f, MCR), 0);
    assert_int_equal(in(f, LSR), 0x60);
    listen(f, 0xC1);
    assert_int_equal(in(f, DATA), 'k');
}

static void test_save_restore(void **state)
{
    struct fixture *f = *state;
    struct uart_backend nobody = {0};
    struct rig *rig = rig_create();
    struct uart *other = uart_create(rig->bus, rig->clock, BASE, rig_line(rig, 4), &nobody, NULL);

    listen(f, 0xC1);
    out(f, SCR, 0x77);
    type(f, "0123456789abcdefghijklmnopqrstuvwxyz");
    assert_int_equal(rig_copy_state(f->rig, uart_dev(f->uart), uart_dev(other)), 0);
    assert_true(rig->level[4]);
    assert_int_equal(rig_in(rig, BASE + SCR), 0x77);
    assert_int_equal(rig_in(rig, BASE + IIR), 0xC4);
    for (const char *c = "0123456789abcdefghijklmnopqrstuvwxyz"; *c; c++)
        assert_int_equal(rig_in(rig, BASE), *c);
    assert_int_equal(rig_in(rig, BASE + LSR), 0x60);
    uart_dev(other)->ops->free(uart_dev(other));
    rig_destroy(rig);
}

/* A character timeout comes when it would have come without being saved and restored. */
static void test_timeout_goes_on(void **state)
{
    struct fixture *f = *state;
    struct dev *dev = uart_dev(f->uart);

    listen(f, 0x81);
    type(f, "123");
    fake_clock_advance(f->rig->clock, 3 * CHARACTER_NS);
    assert_int_equal(rig_copy_state(f->rig, dev, dev), 0);
    assert_int_equal(in(f, IIR), 0xC1);
    fake_clock_advance(f->rig->clock, CHARACTER_NS);
    assert_int_equal(in(f, IIR), 0xCC);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_registers),
        TEST(test_output_in_bursts),
        TEST(test_full),
        TEST(test_transmit_interrupt),
        TEST(test_receive_without_fifo),
        TEST(test_trigger_and_timeout),
        TEST(test_priorities),
        TEST(test_loopback),
        TEST(test_unplugged),
        TEST(test_nothing_is_lost),
        TEST(test_polling_guest),
        TEST(test_request_to_send),
        TEST(test_without_request_to_send),
        TEST(test_flow_control),
        TEST(test_reset),
        TEST(test_save_restore),
        TEST(test_timeout_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
