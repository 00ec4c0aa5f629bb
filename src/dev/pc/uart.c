/*
 * A 16550A serial port (National Semiconductor PC16550D data sheet; section numbers are its own).
 *
 * The wire is infinitely fast and never loses a byte. The transmitter is empty again as soon as it
 * is written; what it sends is collected for a moment (dev/pc/burst.h). Towards the guest,
 * bytes wait in a queue and enter the receive FIFO only where there is room and the guest listens.
 * A FIFO that the guest clears gives its bytes back to the queue: to the guest they are bytes that
 * arrive after the clearing, and nothing that was typed while a kernel set up its driver is lost.
 */
#include "dev/pc/uart.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Registers (table II). */
enum {
    REG_DATA = 0,
    REG_IER = 1,
    REG_IIR_FCR = 2,
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCR = 7,
    REG_COUNT
};

#define IER_RX    0x01
#define IER_THRE  0x02
#define IER_LINE  0x04
#define IER_MODEM 0x08

#define IIR_MODEM   0x00
#define IIR_NONE    0x01
#define IIR_THRE    0x02
#define IIR_RX      0x04
#define IIR_LINE    0x06
#define IIR_TIMEOUT 0x0C
#define IIR_FIFOS   0xC0

#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02

#define LCR_STOP   0x04
#define LCR_PARITY 0x08
#define LCR_DLAB   0x80

#define MCR_DTR  0x01
#define MCR_RTS  0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

#define LSR_DATA  0x01
#define LSR_OE    0x02
#define LSR_ERROR 0x1E
#define LSR_THRE  0x20
#define LSR_TEMT  0x40

#define MSR_CTS   0x10
#define MSR_DSR   0x20
#define MSR_RI    0x40
#define MSR_DCD   0x80
#define MSR_LINES 0xF0

#define FIFO_SIZE  16
#define QUEUE_SIZE 4096

/* So many looks at the line status without sending anything: the guest waits for input. */
#define POLLS_LISTENING 64

struct uart {
    struct dev dev;
    struct bus *bus;
    struct clock *clock;
    uint16_t base;
    struct irq_line irq;
    struct uart_backend backend;

    uint8_t ier, fcr, lcr, mcr, lsr_errors, msr, scr;
    uint16_t divisor;
    bool thre_pending, timeout_pending;
    bool line;     /* the interrupt line's level */
    bool rts_used; /* RTS has been up since reset */
    uint32_t polls;

    uint8_t fifo[FIFO_SIZE];
    uint32_t fifo_count;
    struct timer *timeout_timer; /* the receive FIFO stood still for four characters */

    struct burst *burst; /* what was transmitted */

    /* The wire towards the guest, filled from any thread. */
    pthread_mutex_t queue_lock;
    uint8_t queue[QUEUE_SIZE];
    uint32_t queue_head, queue_count;
    bool queue_refused; /* somebody waits for input_ready */
    struct timer *queue_timer;
};

/* ---- Interrupts (section 8.4, table IV) ---- */

static unsigned rx_trigger(const struct uart *u)
{
    static const uint8_t level[4] = {1, 4, 8, 14};

    return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

static uint8_t highest_interrupt(const struct uart *u)
{
    if ((u->ier & IER_LINE) && u->lsr_errors)
        return IIR_LINE;
    if ((u->ier & IER_RX) && u->fifo_count >= rx_trigger(u))
        return IIR_RX;
    if ((u->ier & IER_RX) && u->timeout_pending)
        return IIR_TIMEOUT;
    if ((u->ier & IER_THRE) && u->thre_pending)
        return IIR_THRE;
    if ((u->ier & IER_MODEM) && (u->msr & ~MSR_LINES))
        return IIR_MODEM;
    return IIR_NONE;
}

/* On a PC, OUT2 gates the line. Here it does not: no port shares a line with another, and software
 * written in virtual machines leaves OUT2 clear. */
static void update_irq(struct uart *u)
{
    bool level = highest_interrupt(u) != IIR_NONE;

    if (level != u->line) {
        u->line = level;
        irq_set(&u->irq, level);
    }
}

/* ---- The receiver ---- */

static unsigned fifo_room(const struct uart *u)
{
    return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static uint64_t four_characters_ns(const struct uart *u)
{
    uint64_t bits = 1 + 5 + (u->lcr & 3) + !!(u->lcr & LCR_PARITY) + 1 + !!(u->lcr & LCR_STOP);
    uint64_t ns = 4 * bits * MAX(u->divisor, 1) * NS_PER_S / 115200;

    return MIN(ns, UINT64_C(20000000));
}

/* The receive FIFO changed: restart the clock for the character timeout. */
static void fifo_touched(struct uart *u)
{
    u->timeout_pending = false;
    if ((u->fcr & FCR_ENABLE) && u->fifo_count > 0 && u->fifo_count < rx_trigger(u))
        timer_arm(u->timeout_timer, clock_now(u->clock) + four_characters_ns(u));
}

static void timeout_fired(void *opaque)
{
    struct uart *u = opaque;

    if (timer_deadline(u->timeout_timer) != UINT64_MAX)
        return; /* re-armed since */
    if ((u->fcr & FCR_ENABLE) && u->fifo_count > 0)
        u->timeout_pending = true;
    update_irq(u);
}

/* Whether a byte put into the FIFO now would be seen: a driver that is being set up reads and drops
 * what it finds. RTS is what says so, once the guest has used it; before, any sign of interest. */
static bool listening(const struct uart *u)
{
    if (u->mcr & MCR_LOOP)
        return false;
    if (u->rts_used)
        return u->mcr & MCR_RTS;
    return (u->ier & IER_RX) || u->polls >= POLLS_LISTENING;
}

/* Moves bytes from the queue into the FIFO. */
static void pump(struct uart *u)
{
    unsigned room = fifo_room(u);
    bool moved = false, ready = false;

    if (!listening(u))
        return;
    pthread_mutex_lock(&u->queue_lock);
    while (u->fifo_count < room && u->queue_count > 0) {
        u->fifo[u->fifo_count++] = u->queue[u->queue_head];
        u->queue_head = (u->queue_head + 1) % QUEUE_SIZE;
        u->queue_count--;
        moved = true;
    }
    if (u->queue_refused && u->queue_count <= QUEUE_SIZE / 2) {
        u->queue_refused = false;
        ready = true;
    }
    pthread_mutex_unlock(&u->queue_lock);
    if (moved)
        fifo_touched(u);
    if (ready && u->backend.input_ready)
        u->backend.input_ready(u->backend.opaque);
}

static void queue_fired(void *opaque)
{
    struct uart *u = opaque;

    pump(u);
    update_irq(u);
}

size_t uart_input(struct uart *u, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    size_t taken;

    pthread_mutex_lock(&u->queue_lock);
    /* A FIFO's worth stays free for bytes that a cleared FIFO gives back. */
    taken = QUEUE_SIZE - FIFO_SIZE - MIN(u->queue_count, QUEUE_SIZE - FIFO_SIZE);
    taken = MIN(taken, size);
    for (size_t i = 0; i < taken; i++)
        u->queue[(u->queue_head + u->queue_count++) % QUEUE_SIZE] = bytes[i];
    u->queue_refused |= taken < size;
    pthread_mutex_unlock(&u->queue_lock);
    /* The caller may hold any lock, so the rest is done on the clock's thread. */
    if (taken)
        timer_arm(u->queue_timer, clock_now(u->clock));
    return taken;
}

static void fifo_give_back(struct uart *u)
{
    pthread_mutex_lock(&u->queue_lock);
    while (u->fifo_count > 0 && u->queue_count < QUEUE_SIZE) {
        u->queue_head = (u->queue_head + QUEUE_SIZE - 1) % QUEUE_SIZE;
        u->queue[u->queue_head] = u->fifo[--u->fifo_count];
        u->queue_count++;
    }
    u->fifo_count = 0;
    pthread_mutex_unlock(&u->queue_lock);
    u->timeout_pending = false;
}

static void fifo_clear(struct uart *u)
{
    if (u->mcr & MCR_LOOP) /* the guest's own bytes, not the wire's */
        u->fifo_count = 0;
    fifo_give_back(u);
}

static uint8_t fifo_pop(struct uart *u)
{
    uint8_t byte;

    if (u->fifo_count == 0)
        return 0;
    byte = u->fifo[0];
    memmove(u->fifo, u->fifo + 1, --u->fifo_count);
    fifo_touched(u);
    pump(u);
    return byte;
}

/* ---- The transmitter ---- */

void uart_flush(struct uart *u)
{
    burst_flush(u->burst);
}

bool uart_full(const struct uart *u)
{
    return burst_full(u->burst);
}

static void loop_back(struct uart *u, uint8_t byte)
{
    if (u->fifo_count >= fifo_room(u)) {
        u->lsr_errors |= LSR_OE;
        return;
    }
    u->fifo[u->fifo_count++] = byte;
    fifo_touched(u);
}

static void transmit(struct uart *u, uint8_t byte)
{
    u->polls = 0;
    u->thre_pending = true;
    if (u->mcr & MCR_LOOP) {
        loop_back(u, byte);
        return;
    }
    if (burst_put(u->burst, byte))
        bus_hold(u->bus);
}

/* ---- Modem lines (sections 8.6 and 8.7) ---- */

static uint8_t modem_lines(const struct uart *u)
{
    if (!(u->mcr & MCR_LOOP))
        return u->backend.sent.output ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
    return (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
           (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void update_modem(struct uart *u)
{
    uint8_t lines = modem_lines(u);
    uint8_t changed = (lines ^ u->msr) & MSR_LINES;

    if (lines & MSR_RI)
        changed &= ~MSR_RI; /* only the trailing edge of RI counts */
    u->msr = lines | (u->msr & ~MSR_LINES) | (changed >> 4);
}

/* ---- Registers ---- */

static uint8_t read_iir(struct uart *u)
{
    uint8_t source = highest_interrupt(u);

    if (source == IIR_THRE)
        u->thre_pending = false;
    return source | (u->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct uart *u)
{
    uint8_t value;

    if (u->polls < POLLS_LISTENING && ++u->polls == POLLS_LISTENING)
        pump(u);
    value = LSR_THRE | LSR_TEMT | u->lsr_errors | (u->fifo_count ? LSR_DATA : 0);
    u->lsr_errors = 0;
    return value;
}

static uint64_t uart_read(void *dev, uint64_t offset, unsigned size)
{
    struct uart *u = dev;
    bool dlab = u->lcr & LCR_DLAB;
    uint8_t value = 0;

    switch (offset) {
    case REG_DATA: value = dlab ? (uint8_t)u->divisor : fifo_pop(u); break;
    case REG_IER: value = dlab ? u->divisor >> 8 : u->ier; break;
    case REG_IIR_FCR: value = read_iir(u); break;
    case REG_LCR: value = u->lcr; break;
    case REG_MCR: value = u->mcr; break;
    case REG_LSR: value = read_lsr(u); break;
    case REG_MSR:
        value = u->msr;
        u->msr &= MSR_LINES;
        break;
    case REG_SCR: value = u->scr; break;
    }
    update_irq(u);
    return value;
}

static void write_ier(struct uart *u, uint8_t value)
{
    /* The transmitter is always empty, which is what a newly enabled interrupt reports. */
    if ((value & IER_THRE) && !(u->ier & IER_THRE))
        u->thre_pending = true;
    u->ier = value & 0x0F;
    pump(u);
}

static void write_fcr(struct uart *u, uint8_t value)
{
    bool toggled = (value ^ u->fcr) & FCR_ENABLE;

    if (toggled || (value & FCR_CLEAR_RX))
        fifo_clear(u);
    /* The other bits count only while the FIFOs are on. */
    u->fcr = value & FCR_ENABLE ? value & 0xC1 : 0;
    fifo_touched(u);
    pump(u);
}

static void write_mcr(struct uart *u, uint8_t value)
{
    if ((u->mcr ^ value) & MCR_LOOP)
        fifo_clear(u);
    u->mcr = value & 0x1F;
    u->rts_used |= (value & MCR_RTS) && !(value & MCR_LOOP);
    update_modem(u);
    pump(u);
}

static void uart_write(void *dev, uint64_t offset, unsigned size, uint64_t value64)
{
    struct uart *u = dev;
    bool dlab = u->lcr & LCR_DLAB;
    uint8_t value = (uint8_t)value64;

    switch (offset) {
    case REG_DATA:
        if (dlab)
            u->divisor = (u->divisor & 0xFF00) | value;
        else
            transmit(u, value);
        break;
    case REG_IER:
        if (dlab)
            u->divisor = (uint16_t)(u->divisor & 0x00FF) | (uint16_t)(value << 8);
        else
            write_ier(u, value);
        break;
    case REG_IIR_FCR: write_fcr(u, value); break;
    case REG_LCR: u->lcr = value; break;
    case REG_MCR: write_mcr(u, value); break;
    case REG_SCR: u->scr = value; break;
    default: break; /* line and modem status are for factory tests */
    }
    update_irq(u);
}

static const struct bus_ops uart_ports = {.read = uart_read, .write = uart_write};

/* ---- The device ---- */

static void uart_reset(struct dev *dev)
{
    struct uart *u = container_of(dev, struct uart, dev);

    uart_flush(u);
    fifo_clear(u);
    u->ier = u->fcr = u->lcr = u->mcr = u->lsr_errors = u->scr = 0;
    u->divisor = 12;
    u->thre_pending = u->timeout_pending = u->rts_used = false;
    u->polls = 0;
    u->msr = modem_lines(u);
    update_irq(u);
}

static void uart_state(struct dev *dev, struct state *s)
{
    struct uart *u = container_of(dev, struct uart, dev);
    uint64_t timeout = timer_deadline(u->timeout_timer);

    uart_flush(u);
    state_section(s, "uart", u->base, 1);
    state_field(s, u->ier);
    state_field(s, u->fcr);
    state_field(s, u->lcr);
    state_field(s, u->mcr);
    state_field(s, u->lsr_errors);
    state_field(s, u->msr);
    state_field(s, u->scr);
    state_field(s, u->divisor);
    state_bool(s, &u->thre_pending);
    state_bool(s, &u->timeout_pending);
    state_bool(s, &u->rts_used);
    state_field(s, u->polls);
    state_bytes(s, u->fifo, sizeof(u->fifo));
    state_field(s, u->fifo_count);
    state_field(s, timeout);
    pthread_mutex_lock(&u->queue_lock);
    state_bytes(s, u->queue, sizeof(u->queue));
    state_field(s, u->queue_head);
    state_field(s, u->queue_count);
    u->queue_head %= QUEUE_SIZE;
    u->queue_count = MIN(u->queue_count, QUEUE_SIZE);
    pthread_mutex_unlock(&u->queue_lock);
    if (state_saving(s))
        return;
    u->fifo_count = MIN(u->fifo_count, FIFO_SIZE);
    timer_arm(u->timeout_timer, timeout);
    timer_arm(u->queue_timer, clock_now(u->clock));
    update_irq(u);
}

static void uart_free(struct dev *dev)
{
    struct uart *u = container_of(dev, struct uart, dev);

    bus_release(u->bus, BUS_PORT, u->base);
    timer_free(u->timeout_timer);
    timer_free(u->queue_timer);
    burst_free(u->burst);
    pthread_mutex_destroy(&u->queue_lock);
    free(u);
}

static const struct dev_ops uart_ops = {
    .name = "uart", .reset = uart_reset, .state = uart_state, .free = uart_free};

struct uart *uart_create(struct bus *bus, struct clock *clock, uint16_t base, struct irq_line irq,
                         const struct uart_backend *backend, struct error *err)
{
    struct uart *u = calloc(1, sizeof(*u));

    if (!u) {
        error_set(err, ENOMEM, "no memory for a serial port");
        return NULL;
    }
    u->dev.ops = &uart_ops;
    u->bus = bus;
    u->clock = clock;
    u->base = base;
    u->irq = irq;
    u->backend = *backend;
    pthread_mutex_init(&u->queue_lock, NULL);
    u->timeout_timer = timer_create_on(clock, timeout_fired, u);
    u->queue_timer = timer_create_on(clock, queue_fired, u);
    u->burst = burst_create(clock, &backend->sent);
    if (!u->timeout_timer || !u->queue_timer || !u->burst) {
        error_set(err, ENOMEM, "no memory for the timers of a serial port");
        goto fail;
    }
    if (bus_claim(bus, BUS_PORT, base, REG_COUNT, "uart", &uart_ports, u, err) < 0)
        goto fail;
    uart_reset(&u->dev);
    return u;

fail:
    timer_free(u->timeout_timer);
    timer_free(u->queue_timer);
    burst_free(u->burst);
    pthread_mutex_destroy(&u->queue_lock);
    free(u);
    return NULL;
}

struct dev *uart_dev(struct uart *u)
{
    return &u->dev;
}
