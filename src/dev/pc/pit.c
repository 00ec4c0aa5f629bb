/*
 * The 8254 programmable interval timer (Intel 82C54 data sheet, 231244) and port 61h (NMI status
 * and control, 82371SB, 290550, 2.5.6).
 *
 * Nothing counts: a counter remembers the tick of the input clock at which it was loaded, and what
 * it shows and outputs follows from guest time. Ticks come from guest time by one division, so
 * that interrupts do not drift.
 */
#include "dev/pc/pit.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <stdlib.h>

#define PIT_PORT     0x40
#define CONTROL_PORT 0x61

/* The shortest time between two calls for counter 0, in ticks. */
#define SHORTEST_WAIT ((unsigned)(CLOCK_SHORTEST_PERIOD_NS * (uint64_t)PIT_HZ / NS_PER_S))

/* Memory refresh takes one request every 18 ticks; port 61h shows it as a toggling bit. */
#define REFRESH_TICKS 18

enum mode { TERMINAL_COUNT, ONE_SHOT, RATE, SQUARE, SOFTWARE_STROBE, HARDWARE_STROBE };

/* How a counter is accessed; as in bits 4-5 of the control word. */
enum access { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

struct counter {
    uint8_t mode, access;
    bool bcd;
    bool gate;
    bool loaded; /* a count has been written since the control word */
    bool counting;
    bool reload;     /* periodic modes: a new count takes over at the end of the period */
    bool write_high; /* the low byte has been written */
    bool read_high;  /* the low byte has been read */
    uint8_t low;     /* that was written */
    uint8_t latched; /* bytes of the latched count still to be read: 0, 1 or 2 */
    uint16_t latch;
    bool has_status;
    uint8_t status;   /* latched */
    uint32_t count;   /* the period being counted, 1 to 65536 */
    uint32_t next;    /* the count last written */
    uint64_t start;   /* counting: the tick at which it began */
    uint64_t elapsed; /* held by the gate: ticks counted so far */
};

struct pit {
    struct dev dev;
    struct bus *bus;
    struct clock *clock;
    struct timer *timer;
    struct irq_line irq;
    struct counter counter[3];
    uint8_t control; /* port 61h: the bits that can be written */
};

/* --- time --- */

static uint64_t ticks_now(const struct pit *pit)
{
    return (uint64_t)((unsigned __int128)clock_now(pit->clock) * PIT_HZ / NS_PER_S);
}

/* The first guest nanosecond of TICK. */
static uint64_t tick_to_ns(uint64_t tick)
{
    return (uint64_t)(((unsigned __int128)tick * NS_PER_S + PIT_HZ - 1) / PIT_HZ);
}

/* --- counters --- */

static bool is_periodic(const struct counter *c)
{
    return c->mode == RATE || c->mode == SQUARE;
}

/* In these modes a rising gate starts the count; in the others a low gate holds it. */
static bool is_triggered(const struct counter *c)
{
    return c->mode == ONE_SHOT || c->mode == HARDWARE_STROBE;
}

static uint64_t elapsed(const struct counter *c, uint64_t now)
{
    return c->counting ? now - c->start : c->elapsed;
}

/* Puts the count last written into the counting element. */
static void load(struct counter *c, uint64_t at)
{
    c->count = c->next;
    c->reload = false;
    c->start = at;
    c->elapsed = 0;
    c->counting = is_triggered(c) || c->gate;
}

/* Periods that have ended by NOW are over; a new count takes effect at the end of one. */
static void catch_up(struct counter *c, uint64_t now)
{
    if (!is_periodic(c) || !c->counting)
        return;
    uint64_t passed = now - c->start;
    if (passed < c->count)
        return;
    if (c->reload) {
        load(c, c->start + c->count);
        passed = now - c->start;
    }
    c->start += passed / c->count * c->count;
}

/* What the counting element holds. */
static uint16_t value(const struct counter *c, uint64_t now)
{
    uint64_t passed = elapsed(c, now);
    uint32_t range = c->bcd ? 10000 : 65536;
    uint32_t half = (c->count + 1) / 2;
    uint64_t v;
    if (c->mode == RATE)
        v = c->count - passed % c->count;
    else if (c->mode == SQUARE) /* by two, twice per period, from an even number */
        v = (c->count & ~1u) - 2 * (passed % c->count % half);
    else
        v = c->count + range - passed % range;
    v %= range;
    if (c->bcd)
        v = v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
    return (uint16_t)v;
}

static bool output(const struct counter *c, uint64_t now)
{
    uint64_t passed = elapsed(c, now);
    bool started = c->loaded && (c->counting || c->elapsed);
    switch ((enum mode)c->mode) {
    case TERMINAL_COUNT: return c->loaded && passed >= c->count;
    case ONE_SHOT: return !started || passed >= c->count;
    case RATE: return !c->loaded || !c->gate || passed % c->count != c->count - 1;
    case SQUARE: return !c->loaded || !c->gate || passed % c->count < (c->count + 1) / 2;
    case SOFTWARE_STROBE:
    case HARDWARE_STROBE: return !started || passed != c->count;
    }
    return true;
}

static void set_gate(struct counter *c, bool gate, uint64_t now)
{
    bool rising = gate && !c->gate;
    catch_up(c, now);
    if (!gate && c->counting && !is_triggered(c)) {
        c->elapsed = elapsed(c, now);
        c->counting = false;
    }
    c->gate = gate;
    if (!rising || !c->loaded)
        return;
    if (is_triggered(c) || is_periodic(c)) {
        load(c, now);
    } else {
        c->start = now - c->elapsed;
        c->counting = true;
    }
}

static void write_count(struct counter *c, uint16_t raw, uint64_t now)
{
    uint32_t count = raw;
    if (c->bcd)
        count = (raw >> 12) * 1000 + (raw >> 8 & 15) * 100 + (raw >> 4 & 15) * 10 + (raw & 15);
    if (!count)
        count = c->bcd ? 10000 : 65536;
    c->next = count;
    catch_up(c, now);
    if (is_triggered(c)) {
        c->reload = true; /* until the trigger */
        if (!c->loaded)
            c->count = count;
    } else if (is_periodic(c) && c->loaded) {
        c->reload = true;
    } else {
        load(c, now);
    }
    c->loaded = true;
}

static void write_byte(struct counter *c, uint8_t byte, uint64_t now)
{
    switch ((enum access)c->access) {
    case ACCESS_LATCH: break;
    case ACCESS_LOW: write_count(c, byte, now); break;
    case ACCESS_HIGH: write_count(c, (uint16_t)(byte << 8), now); break;
    case ACCESS_BOTH:
        if (c->write_high) {
            write_count(c, (uint16_t)(byte << 8 | c->low), now);
        } else {
            c->low = byte;
            if (c->mode == TERMINAL_COUNT) { /* the first byte stops it, with the output low */
                c->elapsed = elapsed(c, now);
                c->loaded = c->counting = false;
            }
        }
        c->write_high = !c->write_high;
        break;
    }
}

static void latch_count(struct counter *c, uint64_t now)
{
    if (c->latched)
        return;
    c->latch = value(c, now);
    if (c->access == ACCESS_HIGH)
        c->latch >>= 8;
    c->latched = c->access == ACCESS_BOTH ? 2 : 1;
}

static void latch_status(struct counter *c, uint64_t now)
{
    if (c->has_status)
        return;
    bool null_count = !c->loaded || c->reload;
    c->status =
        (uint8_t)(output(c, now) << 7 | null_count << 6 | c->access << 4 | c->mode << 1 | c->bcd);
    c->has_status = true;
}

static uint8_t read_byte(struct counter *c, uint64_t now)
{
    if (c->has_status) {
        c->has_status = false;
        return c->status;
    }
    if (c->latched) {
        uint8_t byte = (uint8_t)c->latch;
        c->latch >>= 8;
        c->latched--;
        return byte;
    }
    uint16_t v = value(c, now);
    bool high = c->access == ACCESS_HIGH;
    if (c->access == ACCESS_BOTH) {
        high = c->read_high;
        c->read_high = !c->read_high;
    }
    return (uint8_t)(high ? v >> 8 : v);
}

/* A control word for one counter: it starts anew, and counts once it has a count. */
static void set_mode(struct counter *c, uint8_t word)
{
    uint8_t mode = word >> 1 & 7;
    *c = (struct counter){
        .mode = mode > HARDWARE_STROBE ? mode - 4 : mode,
        .access = word >> 4 & 3,
        .bcd = word & 1,
        .gate = c->gate,
        .count = c->count,
        .next = c->next,
    };
}

/* --- counter 0 and its interrupt --- */

/* The tick at which counter 0's output rises next, or UINT64_MAX. */
static uint64_t next_rise(const struct counter *c, uint64_t now)
{
    if (!c->loaded || !c->counting)
        return UINT64_MAX;
    uint64_t end = c->start + c->count;
    switch ((enum mode)c->mode) {
    case TERMINAL_COUNT: return now < end ? end : UINT64_MAX;
    case SOFTWARE_STROBE: return now <= end ? end + 1 : UINT64_MAX;
    case RATE:
    case SQUARE:
        if (c->count < SHORTEST_WAIT && !c->reload)
            end += SHORTEST_WAIT / c->count * c->count;
        return end;
    case ONE_SHOT:
    case HARDWARE_STROBE: break; /* the gate of counter 0 is always high */
    }
    return UINT64_MAX;
}

static void arm(struct pit *pit, uint64_t now)
{
    uint64_t rise = next_rise(&pit->counter[0], now);
    if (rise == UINT64_MAX)
        timer_disarm(pit->timer);
    else
        timer_arm(pit->timer, tick_to_ns(rise));
}

/* The output of counter 0 has risen. The line follows it, except that it does not fall before the
 * output is to rise again: that saves half the calls. */
static void fire(void *opaque)
{
    struct pit *pit = opaque;
    struct counter *c = &pit->counter[0];
    uint64_t now = ticks_now(pit);
    catch_up(c, now);
    if (c->mode != TERMINAL_COUNT)
        irq_set(&pit->irq, false);
    irq_set(&pit->irq, true);
    arm(pit, now);
}

/* Counter 0 was programmed: the line takes the level of its output. */
static void programmed(struct pit *pit, uint64_t now)
{
    irq_set(&pit->irq, output(&pit->counter[0], now));
    arm(pit, now);
}

/* --- ports --- */

static void read_back(struct pit *pit, uint8_t word, uint64_t now)
{
    for (unsigned i = 0; i < 3; i++) {
        struct counter *c = &pit->counter[i];
        if (!(word >> (i + 1) & 1))
            continue;
        if (!(word & 0x20))
            latch_count(c, now);
        if (!(word & 0x10))
            latch_status(c, now);
    }
}

static void port_write(void *dev, uint64_t offset, unsigned size, uint64_t byte)
{
    struct pit *pit = dev;
    uint64_t now = ticks_now(pit);
    unsigned n = offset < 3 ? (unsigned)offset : (unsigned)byte >> 6;
    for (unsigned i = 0; i < 3; i++)
        catch_up(&pit->counter[i], now);
    if (n == 3) {
        read_back(pit, (uint8_t)byte, now);
        return;
    }
    struct counter *c = &pit->counter[n];
    if (offset < 3) {
        write_byte(c, (uint8_t)byte, now);
    } else if ((byte >> 4 & 3) == ACCESS_LATCH) {
        latch_count(c, now);
        return;
    } else {
        set_mode(c, (uint8_t)byte);
    }
    if (n == 0)
        programmed(pit, now);
}

static uint64_t port_read(void *dev, uint64_t offset, unsigned size)
{
    struct pit *pit = dev;
    uint64_t now = ticks_now(pit);
    if (offset == 3)
        return 0xFF; /* the control word cannot be read */
    catch_up(&pit->counter[offset], now);
    return read_byte(&pit->counter[offset], now);
}

/* Port 61h. */
#define CONTROL_GATE2    0x01
#define CONTROL_WRITABLE 0x0F /* gate, speaker, and the enables of two NMI sources not there */
#define CONTROL_REFRESH  0x10
#define CONTROL_OUT2     0x20

static uint64_t control_read(void *dev, uint64_t offset, unsigned size)
{
    struct pit *pit = dev;
    uint64_t now = ticks_now(pit);
    uint8_t byte = pit->control;
    if (now / REFRESH_TICKS & 1)
        byte |= CONTROL_REFRESH;
    catch_up(&pit->counter[2], now);
    if (output(&pit->counter[2], now))
        byte |= CONTROL_OUT2;
    return byte;
}

static void control_write(void *dev, uint64_t offset, unsigned size, uint64_t byte)
{
    struct pit *pit = dev;
    pit->control = byte & CONTROL_WRITABLE;
    set_gate(&pit->counter[2], byte & CONTROL_GATE2, ticks_now(pit));
}

static const struct bus_ops port_ops = {port_read, port_write, 1};
static const struct bus_ops control_ops = {control_read, control_write, 1};

/* --- the device --- */

/* The data sheet leaves the counters undefined until they are programmed. Here they stand still,
 * with their outputs high. */
static void reset(struct dev *dev)
{
    struct pit *pit = container_of(dev, struct pit, dev);
    for (unsigned i = 0; i < 3; i++)
        pit->counter[i] = (struct counter){
            .mode = SQUARE, .access = ACCESS_BOTH, .gate = i != 2, .count = 65536, .next = 65536};
    pit->control = 0;
    programmed(pit, ticks_now(pit));
}

static void visit(struct counter *c, struct state *s)
{
    state_field(s, c->mode);
    state_field(s, c->access);
    state_bool(s, &c->bcd);
    state_bool(s, &c->gate);
    state_bool(s, &c->loaded);
    state_bool(s, &c->counting);
    state_bool(s, &c->reload);
    state_bool(s, &c->write_high);
    state_bool(s, &c->read_high);
    state_field(s, c->low);
    state_field(s, c->latched);
    state_field(s, c->latch);
    state_bool(s, &c->has_status);
    state_field(s, c->status);
    state_field(s, c->count);
    state_field(s, c->next);
    state_field(s, c->start);
    state_field(s, c->elapsed);
}

static void state(struct dev *dev, struct state *s)
{
    struct pit *pit = container_of(dev, struct pit, dev);
    uint64_t due = timer_deadline(pit->timer); /* the counters do not know what is overdue */
    state_section(s, "pit", 0, 1);
    state_field(s, pit->control);
    state_field(s, due);
    for (unsigned i = 0; i < 3; i++) {
        struct counter *c = &pit->counter[i];
        visit(c, s);
        /* A damaged file must not bring about what a guest cannot: division by it. */
        c->count = MAX(c->count, 1);
        c->next = MAX(c->next, 1);
    }
    if (!state_saving(s))
        timer_arm(pit->timer, due);
}

static void destroy(struct dev *dev)
{
    struct pit *pit = container_of(dev, struct pit, dev);
    bus_release(pit->bus, BUS_PORT, PIT_PORT);
    bus_release(pit->bus, BUS_PORT, CONTROL_PORT);
    timer_free(pit->timer);
    free(pit);
}

static const struct dev_ops ops = {
    .name = "pit",
    .reset = reset,
    .state = state,
    .free = destroy,
};

struct dev *pit_create(struct bus *bus, struct clock *clock, struct irq_line irq, struct error *err)
{
    struct pit *pit = calloc(1, sizeof(*pit));
    if (!pit) {
        error_set(err, ENOMEM, "8254: out of memory");
        return NULL;
    }
    pit->dev.ops = &ops;
    pit->bus = bus;
    pit->clock = clock;
    pit->irq = irq;
    pit->timer = timer_create_on(clock, fire, pit);
    if (!pit->timer) {
        error_set(err, ENOMEM, "8254: out of memory");
        free(pit);
        return NULL;
    }
    if (bus_claim(bus, BUS_PORT, PIT_PORT, 4, "8254", &port_ops, pit, err) < 0)
        goto failed;
    if (bus_claim(bus, BUS_PORT, CONTROL_PORT, 1, "8254", &control_ops, pit, err) < 0) {
        bus_release(bus, BUS_PORT, PIT_PORT);
        goto failed;
    }
    reset(&pit->dev);
    return &pit->dev;

failed:
    timer_free(pit->timer);
    free(pit);
    return NULL;
}
