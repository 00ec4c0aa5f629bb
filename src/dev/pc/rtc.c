/*
 * The real-time clock, a Motorola MC146818A (data sheet), and the CMOS RAM beside it.
 *
 * The calendar is not counted but computed from guest time, and so are the flags in register C:
 * what has happened since they were last looked at. A timer runs only towards an event whose
 * interrupt is enabled.
 */
#include "dev/pc/rtc.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <stdlib.h>

enum {
    REG_SECONDS = 0x00,
    REG_SECONDS_ALARM = 0x01,
    REG_MINUTES = 0x02,
    REG_MINUTES_ALARM = 0x03,
    REG_HOURS = 0x04,
    REG_HOURS_ALARM = 0x05,
    REG_WEEKDAY = 0x06,
    REG_DAY = 0x07,
    REG_MONTH = 0x08,
    REG_YEAR = 0x09,
    REG_A = 0x0A,
    REG_B = 0x0B,
    REG_C = 0x0C,
    REG_D = 0x0D,
    REG_CENTURY = RTC_CENTURY_REGISTER,
    CMOS_SIZE = 0x80,
};

#define A_UIP         0x80
#define A_DIVIDER     0x70
#define A_DIVIDER_RUN 0x20 /* 32,768 Hz */
#define A_RATE        0x0F

#define B_SET       0x80
#define B_BINARY    0x04
#define B_24_HOURS  0x02
#define B_INTERRUPT 0x70 /* PIE, AIE, UIE: at the same bits as PF, AF, UF */

#define C_IRQ      0x80
#define C_PERIODIC 0x40
#define C_ALARM    0x20
#define C_UPDATE   0x10

#define D_VALID 0x80

#define HOUR_PM         0x80
#define ALARM_DONT_CARE 0xC0

#define SECOND_NS   ((int64_t)NS_PER_S) /* times of the calendar have a sign */
#define CRYSTAL_HZ  32768
#define TIME_MAX    (INT64_MAX / 2) /* the latest that can be set, in the year 2116 */
#define UIP_WINDOW  2228000         /* ns: 244 µs of warning and 1984 µs of update */
#define SECONDS_DAY 86400
/* Here, in the year 2262, time stands still. The next alarm is less than two days after any time.
 */
#define TIME_END     (INT64_MAX - 2 * SECONDS_DAY * SECOND_NS)
#define NEVER        INT64_MAX
#define DIVIDER_HALF (SECOND_NS / 2) /* from a divider reset to the first update */

struct rtc {
    struct dev dev;
    struct bus *bus;
    struct clock *clock;
    struct irq_line irq, alarm;
    struct timer *timer;
    bool line, alarm_line; /* the levels of both */

    uint8_t index;
    uint8_t cmos[CMOS_SIZE]; /* calendar registers: as of when they stood still */
    int64_t offset;          /* ns from the clock's idea of the time to this one's */
    int64_t seen;            /* the flags in register C are complete up to this time */
};

/* ---- The calendar ---- */

struct calendar {
    int64_t year;
    unsigned month, day, weekday, hour, minute, second;
};

/* Days since 1970-01-01 of a date in the proleptic Gregorian calendar. Counting years from March
 * puts the leap day last. */
static int64_t days_of_date(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    unsigned from_march = month > 2 ? month - 3 : month + 9;

    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * from_march + 2) / 5 + day - 719469;
}

static struct calendar calendar_of(int64_t seconds)
{
    int64_t days = seconds / SECONDS_DAY;
    unsigned rest = (unsigned)(seconds % SECONDS_DAY);
    struct calendar c = {.year = 1970 + days / 366, .month = 12};

    while (days_of_date(c.year + 1, 1, 1) <= days)
        c.year++;
    while (days_of_date(c.year, c.month, 1) > days)
        c.month--;
    c.day = (unsigned)(days - days_of_date(c.year, c.month, 1)) + 1;
    c.weekday = (unsigned)((days + 4) % 7) + 1; /* 1 is Sunday; 1970 began on a Thursday */
    c.hour = rest / 3600;
    c.minute = rest / 60 % 60;
    c.second = rest % 60;
    return c;
}

/* ---- Register formats ---- */

static uint8_t encode(const struct rtc *r, unsigned value)
{
    return (uint8_t)(r->cmos[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static unsigned decode(const struct rtc *r, uint8_t value)
{
    return r->cmos[REG_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static uint8_t encode_hour(const struct rtc *r, unsigned hour)
{
    if (r->cmos[REG_B] & B_24_HOURS)
        return encode(r, hour);
    return encode(r, (hour + 11) % 12 + 1) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(const struct rtc *r, uint8_t value)
{
    if (r->cmos[REG_B] & B_24_HOURS)
        return decode(r, value);
    return decode(r, value & ~HOUR_PM) % 12 + (value & HOUR_PM ? 12 : 0);
}

/* ---- Time ---- */

/* What the offset makes of guest time. Only a damaged snapshot brings it out of rtc_now's range. */
static int64_t unlimited_time(const struct rtc *r, uint64_t guest_ns)
{
    return (int64_t)(clock_epoch_ns(r->clock) + guest_ns + (uint64_t)r->offset);
}

static int64_t rtc_now(const struct rtc *r)
{
    return MIN(MAX(unlimited_time(r, clock_now(r->clock)), 0), TIME_END);
}

/* The guest time at which the clock will show T; UINT64_MAX for never. */
static uint64_t guest_ns_of(const struct rtc *r, int64_t t)
{
    uint64_t guest_now = clock_now(r->clock);
    int64_t now = unlimited_time(r, guest_now);
    uint64_t ahead = t > now ? (uint64_t)t - (uint64_t)now : 0;

    return ahead > UINT64_MAX - guest_now ? UINT64_MAX : guest_now + ahead;
}

static bool divider_runs(const struct rtc *r)
{
    return (r->cmos[REG_A] & A_DIVIDER) == A_DIVIDER_RUN;
}

static bool calendar_runs(const struct rtc *r)
{
    return divider_runs(r) && !(r->cmos[REG_B] & B_SET);
}

/* Brings the calendar registers up to date, unless they stand still. */
static void load_calendar(struct rtc *r)
{
    struct calendar c;

    if (!calendar_runs(r))
        return;
    c = calendar_of(rtc_now(r) / SECOND_NS);
    r->cmos[REG_SECONDS] = encode(r, c.second);
    r->cmos[REG_MINUTES] = encode(r, c.minute);
    r->cmos[REG_HOURS] = encode_hour(r, c.hour);
    r->cmos[REG_WEEKDAY] = encode(r, c.weekday);
    r->cmos[REG_DAY] = encode(r, c.day);
    r->cmos[REG_MONTH] = encode(r, c.month);
    r->cmos[REG_YEAR] = encode(r, (unsigned)(c.year % 100));
    r->cmos[REG_CENTURY] = encode(r, (unsigned)(c.year / 100));
}

/* Makes the time what the calendar registers say, with FRACTION ns into the second. Values that
 * are no date give some time after 1970, as nobody can rely on more. */
static void store_calendar(struct rtc *r, int64_t fraction)
{
    int64_t year = (int64_t)decode(r, r->cmos[REG_CENTURY]) * 100 + decode(r, r->cmos[REG_YEAR]);
    unsigned month = decode(r, r->cmos[REG_MONTH]);
    int64_t days = days_of_date(year, MIN(MAX(month, 1u), 12u), decode(r, r->cmos[REG_DAY]));
    int64_t seconds = days * SECONDS_DAY + decode_hour(r, r->cmos[REG_HOURS]) * INT64_C(3600) +
                      decode(r, r->cmos[REG_MINUTES]) * INT64_C(60) +
                      decode(r, r->cmos[REG_SECONDS]);

    seconds = MIN(MAX(seconds, 0), TIME_MAX / SECOND_NS);
    r->offset = (int64_t)((uint64_t)r->offset + (uint64_t)(seconds * SECOND_NS + fraction) -
                          (uint64_t)rtc_now(r));
    r->seen = rtc_now(r);
}

/* ---- Events ---- */

/* The crystal's cycles per periodic event (data sheet, table 5); 0 for none. */
static int64_t periodic_cycles(const struct rtc *r)
{
    unsigned rate = r->cmos[REG_A] & A_RATE;

    if (rate == 0 || !divider_runs(r))
        return 0;
    return INT64_C(1) << (rate <= 2 ? rate + 6 : rate - 1);
}

static int64_t cycles_of(int64_t ns)
{
    return ns / SECOND_NS * CRYSTAL_HZ + ns % SECOND_NS * CRYSTAL_HZ / SECOND_NS;
}

static int64_t ns_of_cycles(int64_t cycles)
{
    int64_t rest = cycles % CRYSTAL_HZ * SECOND_NS;

    return cycles / CRYSTAL_HZ * SECOND_NS + (rest + CRYSTAL_HZ - 1) / CRYSTAL_HZ;
}

static int64_t unless_time_ends(int64_t t)
{
    return t <= TIME_END ? t : NEVER;
}

static int64_t next_periodic(const struct rtc *r, int64_t after)
{
    int64_t cycles = periodic_cycles(r);

    return cycles ? unless_time_ends(ns_of_cycles((cycles_of(after) / cycles + 1) * cycles))
                  : NEVER;
}

static int64_t next_update(const struct rtc *r, int64_t after)
{
    return calendar_runs(r) ? unless_time_ends((after / SECOND_NS + 1) * SECOND_NS) : NEVER;
}

/* The first second from T on at which every alarm register matches; NEVER if one holds a value that
 * no time has. Going from hours to seconds, T moves to where the register matches. A move may carry
 * into the registers before it, so all are looked at again. That happens a few times at most: a
 * move forward to the next hour or minute starts that from 0. */
static int64_t matching_second(const struct rtc *r, int64_t t)
{
    static const struct {
        uint8_t reg;
        int64_t unit, count;
    } fields[] = {
        {REG_HOURS_ALARM, 3600, 24}, {REG_MINUTES_ALARM, 60, 60}, {REG_SECONDS_ALARM, 1, 60}};

    for (unsigned i = 0; i < ARRAY_SIZE(fields);) {
        int64_t unit = fields[i].unit, count = fields[i].count, distance;
        uint8_t alarm = r->cmos[fields[i].reg];

        if ((alarm & ALARM_DONT_CARE) == ALARM_DONT_CARE) {
            i++;
            continue;
        }
        distance = unit == 3600 ? decode_hour(r, alarm) : decode(r, alarm);
        if (distance >= count)
            return NEVER;
        distance = (distance - t / unit % count + count) % count;
        if (distance == 0) {
            i++;
            continue;
        }
        t = (t / unit + distance) * unit;
        i = 0;
    }
    return t;
}

static int64_t next_alarm(const struct rtc *r, int64_t after)
{
    int64_t second;

    if (!calendar_runs(r))
        return NEVER;
    second = matching_second(r, after / SECOND_NS + 1);
    return second == NEVER ? NEVER : unless_time_ends(second * SECOND_NS);
}

static void collect_events(struct rtc *r)
{
    int64_t now = rtc_now(r);

    if (next_periodic(r, r->seen) <= now)
        r->cmos[REG_C] |= C_PERIODIC;
    if (next_update(r, r->seen) <= now)
        r->cmos[REG_C] |= C_UPDATE;
    if (next_alarm(r, r->seen) <= now)
        r->cmos[REG_C] |= C_ALARM;
    r->seen = MAX(r->seen, now);
}

/* The next event that changes a line. The interrupt line stays up until register C is read, so
 * while it is up only the alarm's own line can change. */
static int64_t next_change(const struct rtc *r)
{
    uint8_t enabled = r->cmos[REG_B] & B_INTERRUPT;
    int64_t next = NEVER;

    if ((enabled & C_ALARM) && !r->alarm_line)
        next = next_alarm(r, r->seen);
    if (r->line)
        return next;
    if (enabled & C_PERIODIC)
        next = MIN(next, next_periodic(r, r->seen));
    if (enabled & C_UPDATE)
        next = MIN(next, next_update(r, r->seen));
    return next;
}

static void set_line(const struct irq_line *line, bool *now, bool level)
{
    if (level == *now)
        return;
    *now = level;
    irq_set(line, level);
}

/* Sets the lines to what the flags ask for and the timer towards the next change of one. */
static void update(struct rtc *r)
{
    uint8_t raised;
    int64_t next;

    collect_events(r);
    raised = r->cmos[REG_B] & r->cmos[REG_C] & B_INTERRUPT;
    r->cmos[REG_C] = (r->cmos[REG_C] & ~C_IRQ) | (raised ? C_IRQ : 0);
    set_line(&r->irq, &r->line, raised);
    set_line(&r->alarm, &r->alarm_line, raised & C_ALARM);
    next = next_change(r);
    if (next == NEVER)
        timer_disarm(r->timer);
    else
        timer_arm(r->timer, guest_ns_of(r, next));
}

static void timer_fired(void *opaque)
{
    update(opaque);
}

/* ---- Registers ---- */

static uint8_t read_register(struct rtc *r)
{
    uint8_t value;

    load_calendar(r);
    value = r->cmos[r->index];
    if (r->index == REG_A && calendar_runs(r) && rtc_now(r) % SECOND_NS >= SECOND_NS - UIP_WINDOW)
        value |= A_UIP;
    if (r->index == REG_C) {
        update(r);
        value = r->cmos[REG_C];
        r->cmos[REG_C] = 0;
        update(r);
    }
    return value;
}

static void write_control(struct rtc *r, uint8_t value)
{
    bool was_running = calendar_runs(r), divider_was_running = divider_runs(r);

    load_calendar(r);
    collect_events(r);
    r->cmos[r->index] = r->index == REG_A ? value & ~A_UIP : value;
    if (!was_running && calendar_runs(r))
        store_calendar(r, divider_was_running ? rtc_now(r) % SECOND_NS : DIVIDER_HALF);
    update(r);
}

static void write_register(struct rtc *r, uint8_t value)
{
    switch (r->index) {
    case REG_A:
    case REG_B: write_control(r, value); break;
    case REG_C:
    case REG_D: break;
    case REG_SECONDS:
    case REG_MINUTES:
    case REG_HOURS:
    case REG_WEEKDAY:
    case REG_DAY:
    case REG_MONTH:
    case REG_YEAR:
    case REG_CENTURY:
        load_calendar(r);
        collect_events(r);
        r->cmos[r->index] = value;
        if (calendar_runs(r))
            store_calendar(r, rtc_now(r) % SECOND_NS);
        update(r);
        break;
    default:
        collect_events(r); /* the old alarm, until now */
        r->cmos[r->index] = value;
        update(r);
        break;
    }
}

static uint64_t rtc_read(void *dev, uint64_t offset, unsigned size)
{
    struct rtc *r = dev;

    return offset == 1 ? read_register(r) : 0xFF; /* the index cannot be read back */
}

static void rtc_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct rtc *r = dev;

    if (offset == 0)
        r->index = value % CMOS_SIZE; /* bit 7 masks NMI, of which this board has no source */
    else
        write_register(r, (uint8_t)value);
}

static const struct bus_ops rtc_ports = {.read = rtc_read, .write = rtc_write};

/* ---- The device ---- */

static void put16(struct rtc *r, unsigned at, uint64_t value)
{
    uint64_t capped = MIN(value, UINT64_C(0xFFFF));

    r->cmos[at] = (uint8_t)capped;
    r->cmos[at + 1] = (uint8_t)(capped >> 8);
}

/* What firmware finds out at power-on and leaves here. */
static void fill_cmos(struct rtc *r, uint64_t low_ram, uint64_t high_ram)
{
    uint64_t above_1m = MAX(low_ram, MiB) - MiB, above_16m = MAX(low_ram, 16 * MiB) - 16 * MiB;
    uint64_t high_units = MIN(high_ram / (64 * KiB), UINT64_C(0xFFFFFF));
    unsigned sum = 0;

    r->cmos[REG_A] = A_DIVIDER_RUN | 6; /* 1024 Hz */
    r->cmos[REG_B] = B_24_HOURS;
    r->cmos[REG_D] = D_VALID;
    r->cmos[0x14] = 0x04; /* equipment: a PS/2 port, no display, no diskette */
    put16(r, 0x15, 640);
    put16(r, 0x17, above_1m / KiB);
    put16(r, 0x30, above_1m / KiB);
    put16(r, 0x34, above_16m / (64 * KiB));
    put16(r, 0x5B, high_units & 0xFFFF);
    r->cmos[0x5D] = (uint8_t)(high_units >> 16);
    for (unsigned i = 0x10; i <= 0x2D; i++)
        sum += r->cmos[i];
    r->cmos[0x2E] = (uint8_t)(sum >> 8);
    r->cmos[0x2F] = (uint8_t)sum;
}

/* The battery keeps all but what the RESET pin clears. */
static void rtc_reset(struct dev *dev)
{
    struct rtc *r = container_of(dev, struct rtc, dev);

    collect_events(r);
    r->index = 0;
    r->cmos[REG_B] &= ~(B_INTERRUPT | 0x08); /* 08h: square-wave output */
    r->cmos[REG_C] = 0;
    update(r);
}

static void rtc_state(struct dev *dev, struct state *s)
{
    struct rtc *r = container_of(dev, struct rtc, dev);

    if (state_saving(s)) {
        load_calendar(r);
        update(r);
    }
    state_section(s, "rtc", 0, 1);
    state_field(s, r->index);
    state_bytes(s, r->cmos, sizeof(r->cmos));
    state_field(s, r->offset);
    state_field(s, r->seen);
    r->index %= CMOS_SIZE;
    r->seen = MIN(MAX(r->seen, 0), TIME_END);
    if (!state_saving(s))
        update(r);
}

static void rtc_free(struct dev *dev)
{
    struct rtc *r = container_of(dev, struct rtc, dev);

    bus_release(r->bus, BUS_PORT, 0x70);
    timer_free(r->timer);
    free(r);
}

static const struct dev_ops rtc_ops = {
    .name = "rtc", .reset = rtc_reset, .state = rtc_state, .free = rtc_free};

struct dev *rtc_create(struct bus *bus, struct clock *clock, struct irq_line irq,
                       struct irq_line alarm, uint64_t low_ram, uint64_t high_ram,
                       struct error *err)
{
    struct rtc *r = calloc(1, sizeof(*r));

    if (!r || !(r->timer = timer_create_on(clock, timer_fired, r))) {
        free(r);
        error_set(err, ENOMEM, "no memory for the real-time clock");
        return NULL;
    }
    r->dev.ops = &rtc_ops;
    r->bus = bus;
    r->clock = clock;
    r->irq = irq;
    r->alarm = alarm;
    fill_cmos(r, low_ram, high_ram);
    r->seen = rtc_now(r);
    if (bus_claim(bus, BUS_PORT, 0x70, 2, "rtc", &rtc_ports, r, err) < 0) {
        timer_free(r->timer);
        free(r);
        return NULL;
    }
    return &r->dev;
}
