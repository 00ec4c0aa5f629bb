/*
 * The keyboard controller (Intel 8042 as programmed in the IBM PS/2; "IBM Personal System/2
 * Hardware Interface Technical Reference", keyboard and auxiliary device controller) and a PS/2
 * keyboard. Nothing is attached to the auxiliary port.
 *
 * Bytes for the guest wait in one queue, each with the port it came from.
 */
#include "dev/pc/i8042.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PORT_DATA    0x60
#define PORT_COMMAND 0x64

/* Status register. */
#define STATUS_FULL    0x01
#define STATUS_SYSTEM  0x04
#define STATUS_COMMAND 0x08 /* the last byte written went to the command port */
#define STATUS_UNLOCK  0x10
#define STATUS_AUX     0x20
#define STATUS_TIMEOUT 0x40

/* Command byte: byte 0 of the controller's RAM. */
#define MODE_KEYBOARD_IRQ 0x01
#define MODE_AUX_IRQ      0x02
#define MODE_SYSTEM       0x04
#define MODE_KEYBOARD_OFF 0x10
#define MODE_AUX_OFF      0x20
#define MODE_TRANSLATE    0x40
#define RAM_SIZE          32

/* Output port. */
#define OUT_RUN  0x01 /* low: the processor is held in reset */
#define OUT_A20  0x02
#define OUT_IRQ1 0x10
#define OUT_IRQ2 0x20 /* of the auxiliary port */

/* What a byte in the queue carries besides its value. */
#define FROM_AUX     0x100
#define WITH_TIMEOUT 0x200

/* Controller commands. */
enum {
    CMD_READ_RAM = 0x20,
    CMD_WRITE_RAM = 0x60,
    CMD_AUX_OFF = 0xA7,
    CMD_AUX_ON = 0xA8,
    CMD_AUX_TEST = 0xA9,
    CMD_SELF_TEST = 0xAA,
    CMD_KEYBOARD_TEST = 0xAB,
    CMD_KEYBOARD_OFF = 0xAD,
    CMD_KEYBOARD_ON = 0xAE,
    CMD_READ_INPUT = 0xC0,
    CMD_READ_OUTPUT = 0xD0,
    CMD_WRITE_OUTPUT = 0xD1,
    CMD_WRITE_KEYBOARD_BUFFER = 0xD2,
    CMD_WRITE_AUX_BUFFER = 0xD3,
    CMD_WRITE_AUX = 0xD4,
    CMD_A20_OFF = 0xDD,
    CMD_A20_ON = 0xDF,
    CMD_PULSE = 0xF0, /* to FFh: the low bits that are 0 pulse low */
};

/* Keyboard commands and replies. */
enum {
    KBD_SET_LEDS = 0xED,
    KBD_ECHO = 0xEE,
    KBD_SCAN_SET = 0xF0,
    KBD_IDENTIFY = 0xF2,
    KBD_RATE = 0xF3,
    KBD_ENABLE = 0xF4,
    KBD_DISABLE = 0xF5,
    KBD_DEFAULTS = 0xF6,
    KBD_ALL_KEYS_FIRST = 0xF7,
    KBD_KEY_FIRST = 0xFB,
    KBD_KEY_LAST = 0xFD,
    KBD_RESEND = 0xFE,
    KBD_RESET = 0xFF,

    KBD_ACK = 0xFA,
    KBD_PASSED = 0xAA,
};

#define QUEUE_SIZE 16

struct i8042 {
    struct dev dev;
    struct bus *bus;
    struct irq_line irq[2]; /* keyboard, auxiliary */
    struct irq_line reset;

    uint8_t ram[RAM_SIZE]; /* [0] is the command byte */
    uint8_t output_port;
    uint8_t command;  /* waits for its data byte; 0: none */
    uint8_t last_was; /* STATUS_COMMAND or 0 */

    uint16_t queue[QUEUE_SIZE]; /* [0] is the output buffer */
    uint8_t queued;
    bool line[2];

    uint8_t keyboard_command; /* waits for its parameter; 0: none */
    uint8_t keyboard_last;    /* the last reply, for "resend" */
    uint8_t scan_set;
};

static void set_line(struct i8042 *k, unsigned which, bool level)
{
    if (k->line[which] != level) {
        k->line[which] = level;
        irq_set(&k->irq[which], level);
    }
}

static void update_irq(struct i8042 *k)
{
    bool full = k->queued > 0, aux = full && (k->queue[0] & FROM_AUX);

    set_line(k, 0, full && !aux && (k->ram[0] & MODE_KEYBOARD_IRQ));
    set_line(k, 1, aux && (k->ram[0] & MODE_AUX_IRQ));
}

static void put(struct i8042 *k, uint16_t byte)
{
    if (k->queued < QUEUE_SIZE)
        k->queue[k->queued++] = byte;
}

/* ---- The keyboard ---- */

/* Scan code set 2 to 1, for the replies that the translation changes. */
static uint8_t translate(uint8_t byte)
{
    switch (byte) {
    case 0x01: return 0x43;
    case 0x02: return 0x41;
    case 0x03: return 0x3F;
    case 0x83: return 0x41;
    default: return byte;
    }
}

static void reply(struct i8042 *k, uint8_t byte)
{
    k->keyboard_last = byte;
    put(k, k->ram[0] & MODE_TRANSLATE ? translate(byte) : byte);
}

static void keyboard_parameter(struct i8042 *k, uint8_t command, uint8_t byte)
{
    reply(k, KBD_ACK);
    if (command != KBD_SCAN_SET)
        return; /* LEDs nobody sees, a rate for keys nobody holds, keys nobody has */
    if (byte == 0)
        reply(k, k->scan_set);
    else if (byte <= 3)
        k->scan_set = byte;
}

static void keyboard_write(struct i8042 *k, uint8_t byte)
{
    uint8_t command = k->keyboard_command;

    k->ram[0] &= ~MODE_KEYBOARD_OFF; /* sending to the keyboard enables its port */
    k->keyboard_command = 0;
    if (command && byte < KBD_SET_LEDS) {
        keyboard_parameter(k, command, byte);
        return;
    }
    switch (byte) {
    case KBD_SET_LEDS:
    case KBD_SCAN_SET:
    case KBD_RATE:
    case KBD_KEY_FIRST ... KBD_KEY_LAST:
        k->keyboard_command = byte;
        reply(k, KBD_ACK);
        break;
    case KBD_ECHO: reply(k, KBD_ECHO); break;
    case KBD_IDENTIFY:
        reply(k, KBD_ACK);
        reply(k, 0xAB);
        reply(k, 0x83);
        break;
    case KBD_RESET:
        k->scan_set = 2;
        reply(k, KBD_ACK);
        reply(k, KBD_PASSED);
        break;
    case KBD_DISABLE:
    case KBD_DEFAULTS: k->scan_set = 2; /* fall through */
    case KBD_ENABLE:
    case KBD_ALL_KEYS_FIRST ... KBD_KEY_FIRST - 1: reply(k, KBD_ACK); break;
    case KBD_RESEND: reply(k, k->keyboard_last); break;
    default: reply(k, KBD_RESEND); break;
    }
}

/* ---- The controller ---- */

static void write_output_port(struct i8042 *k, uint8_t value)
{
    k->output_port = value & (OUT_RUN | OUT_A20);
    if (!(value & OUT_RUN)) {
        k->output_port |= OUT_RUN;
        irq_set(&k->reset, true);
    }
}

static void controller_command(struct i8042 *k, uint8_t command)
{
    k->command = 0;
    switch (command) {
    case CMD_READ_RAM ... CMD_READ_RAM + RAM_SIZE - 1:
        put(k, k->ram[command - CMD_READ_RAM]);
        break;
    case CMD_WRITE_RAM ... CMD_WRITE_RAM + RAM_SIZE - 1:
    case CMD_WRITE_OUTPUT ... CMD_WRITE_AUX: k->command = command; break;
    case CMD_AUX_OFF: k->ram[0] |= MODE_AUX_OFF; break;
    case CMD_AUX_ON: k->ram[0] &= ~MODE_AUX_OFF; break;
    case CMD_KEYBOARD_OFF: k->ram[0] |= MODE_KEYBOARD_OFF; break;
    case CMD_KEYBOARD_ON: k->ram[0] &= ~MODE_KEYBOARD_OFF; break;
    case CMD_SELF_TEST:
        k->queued = 0;
        k->ram[0] |= MODE_SYSTEM;
        put(k, 0x55);
        break;
    case CMD_AUX_TEST:
    case CMD_KEYBOARD_TEST: put(k, 0); break;
    case CMD_READ_INPUT: put(k, 0x80); break; /* keyboard not locked */
    case CMD_READ_OUTPUT:
        put(k, k->output_port | (k->line[0] ? OUT_IRQ1 : 0) | (k->line[1] ? OUT_IRQ2 : 0));
        break;
    case CMD_A20_OFF: k->output_port &= ~OUT_A20; break;
    case CMD_A20_ON: k->output_port |= OUT_A20; break;
    case CMD_PULSE ... 0xFF:
        if (!(command & OUT_RUN))
            irq_set(&k->reset, true);
        break;
    default: break;
    }
}

/* The data byte of the controller command that waits for one. */
static void controller_data(struct i8042 *k, uint8_t command, uint8_t value)
{
    switch (command) {
    case CMD_WRITE_RAM ... CMD_WRITE_RAM + RAM_SIZE - 1:
        k->ram[command - CMD_WRITE_RAM] = value;
        break;
    case CMD_WRITE_OUTPUT: write_output_port(k, value); break;
    case CMD_WRITE_KEYBOARD_BUFFER: put(k, value); break;
    case CMD_WRITE_AUX_BUFFER: put(k, FROM_AUX | value); break;
    case CMD_WRITE_AUX: put(k, FROM_AUX | WITH_TIMEOUT | KBD_RESEND); break; /* nobody answers */
    }
}

static uint64_t data_read(void *dev, uint64_t offset, unsigned size)
{
    struct i8042 *k = dev;
    uint8_t value = (uint8_t)k->queue[0]; /* an empty buffer keeps its last byte */

    if (k->queued > 0) {
        k->queued--;
        if (k->queued > 0) {
            /* The next byte is an edge of its own. */
            set_line(k, 0, false);
            set_line(k, 1, false);
            memmove(k->queue, k->queue + 1, k->queued * sizeof(k->queue[0]));
        }
    }
    update_irq(k);
    return value;
}

static void data_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *k = dev;
    uint8_t command = k->command;

    k->command = 0;
    k->last_was = 0;
    if (command)
        controller_data(k, command, (uint8_t)value);
    else
        keyboard_write(k, (uint8_t)value);
    update_irq(k);
}

static uint64_t status_read(void *dev, uint64_t offset, unsigned size)
{
    const struct i8042 *k = dev;
    uint8_t status = STATUS_UNLOCK | k->last_was | (k->ram[0] & MODE_SYSTEM ? STATUS_SYSTEM : 0);

    if (k->queued > 0) {
        status |= STATUS_FULL;
        if (k->queue[0] & FROM_AUX)
            status |= STATUS_AUX;
        if (k->queue[0] & WITH_TIMEOUT)
            status |= STATUS_TIMEOUT;
    }
    return status;
}

static void command_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *k = dev;

    k->last_was = STATUS_COMMAND;
    controller_command(k, (uint8_t)value);
    update_irq(k);
}

static const struct bus_ops data_port = {.read = data_read, .write = data_write};
static const struct bus_ops command_port = {.read = status_read, .write = command_write};

/* ---- The device ---- */

static void i8042_reset(struct dev *dev)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);

    memset(k->ram, 0, sizeof(k->ram));
    /* As firmware leaves it: tested, keyboard on with interrupt and translation, no mouse. */
    k->ram[0] = MODE_KEYBOARD_IRQ | MODE_SYSTEM | MODE_AUX_OFF | MODE_TRANSLATE;
    k->output_port = OUT_RUN | OUT_A20;
    k->command = k->last_was = k->keyboard_command = k->keyboard_last = 0;
    k->scan_set = 2;
    k->queued = 0;
    k->queue[0] = 0;
    update_irq(k);
}

static void i8042_state(struct dev *dev, struct state *s)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);

    state_section(s, "i8042", 0, 1);
    state_bytes(s, k->ram, sizeof(k->ram));
    state_field(s, k->output_port);
    state_field(s, k->command);
    state_field(s, k->last_was);
    state_bytes(s, k->queue, sizeof(k->queue));
    state_field(s, k->queued);
    state_field(s, k->keyboard_command);
    state_field(s, k->keyboard_last);
    state_field(s, k->scan_set);
    if (!state_saving(s)) {
        k->queued = MIN(k->queued, QUEUE_SIZE);
        update_irq(k);
    }
}

static void i8042_free(struct dev *dev)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);

    bus_release(k->bus, BUS_PORT, PORT_DATA);
    bus_release(k->bus, BUS_PORT, PORT_COMMAND);
    free(k);
}

static const struct dev_ops i8042_ops = {
    .name = "i8042", .reset = i8042_reset, .state = i8042_state, .free = i8042_free};

struct dev *i8042_create(struct bus *bus, struct irq_line keyboard, struct irq_line aux,
                         struct irq_line reset, struct error *err)
{
    struct i8042 *k = calloc(1, sizeof(*k));

    if (!k) {
        error_set(err, ENOMEM, "no memory for the keyboard controller");
        return NULL;
    }
    *k = (struct i8042){.dev.ops = &i8042_ops, .bus = bus, .irq = {keyboard, aux}, .reset = reset};
    if (bus_claim(bus, BUS_PORT, PORT_DATA, 1, "i8042", &data_port, k, err) < 0)
        goto fail;
    if (bus_claim(bus, BUS_PORT, PORT_COMMAND, 1, "i8042", &command_port, k, err) < 0) {
        bus_release(bus, BUS_PORT, PORT_DATA);
        goto fail;
    }
    i8042_reset(&k->dev);
    return &k->dev;

fail:
    free(k);
    return NULL;
}
