/*
 * ACPI fixed hardware (ACPI specification 6.4, 4.8). There is no SMI command port: the machine is
 * in ACPI mode from the start, and SCI_EN is always set.
 */
#include "dev/pc/pm.h"

#include "base/time.h"
#include "base/util.h"

#include <errno.h>
#include <stdlib.h>

/* PM1 status and enable (4.8.4.1). */
#define PM1_TIMER        (1u << 0)
#define PM1_GLOBAL       (1u << 5)
#define PM1_POWER_BUTTON (1u << 8)
#define PM1_RTC          (1u << 10) /* the RTC's alarm */
#define PM1_WAKE         (1u << 15) /* status only */
#define PM1_STATUS_BITS  (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_RTC | PM1_WAKE)
#define PM1_ENABLE_BITS  (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_RTC)

/* PM1 control (4.8.4.2). */
#define PM1_SCI_ENABLE       (1u << 0)
#define PM1_BUS_MASTER       (1u << 1)
#define PM1_SLEEP_TYPE_SHIFT 10
#define PM1_SLEEP_TYPE       (7u << PM1_SLEEP_TYPE_SHIFT)
#define PM1_SLEEP_ENABLE     (1u << 13) /* reads as 0 */

#define PM_TIMER_HZ   3579545
#define PM_TIMER_HALF (UINT64_C(1) << 31) /* ticks between changes of the highest bit */

struct pm {
    struct dev dev;
    struct bus *bus;
    struct clock *clock;
    struct irq_line sci, poweroff;
    struct timer *timer; /* towards the next change of the PM timer's highest bit */
    bool line;

    uint16_t pm1_status, pm1_enable, pm1_control;
    uint16_t gpe_status, gpe_enable;
    uint64_t seen; /* the timer status is complete up to this tick */
};

static uint64_t timer_ticks(const struct pm *p)
{
    return (uint64_t)((unsigned __int128)clock_now(p->clock) * PM_TIMER_HZ / NS_PER_S);
}

static void update(struct pm *p)
{
    uint64_t ticks = timer_ticks(p);
    bool level;

    if (ticks / PM_TIMER_HALF != p->seen / PM_TIMER_HALF)
        p->pm1_status |= PM1_TIMER;
    p->seen = ticks;
    level = (p->pm1_status & p->pm1_enable) || (p->gpe_status & p->gpe_enable);
    if (level != p->line) {
        p->line = level;
        irq_set(&p->sci, level);
    }
    if ((p->pm1_enable & PM1_TIMER) && !(p->pm1_status & PM1_TIMER)) {
        unsigned __int128 next = (unsigned __int128)(ticks / PM_TIMER_HALF + 1) * PM_TIMER_HALF;

        timer_arm(p->timer, (uint64_t)(next * NS_PER_S / PM_TIMER_HZ) + 1);
    } else {
        timer_disarm(p->timer);
    }
}

static void timer_fired(void *opaque)
{
    update(opaque);
}

/* What a read at OFFSET sees of a register block. */
static uint64_t part(uint64_t block, uint64_t offset)
{
    return block >> (offset * 8);
}

/* A block of a status register (write 1 to clear) and an enable register, each two bytes. */
static void write_events(uint16_t *status, uint16_t *enable, uint16_t enable_bits, uint64_t offset,
                         unsigned size, uint64_t value)
{
    uint32_t mask = (uint32_t)(((UINT64_C(1) << size * 8) - 1) << offset * 8);
    uint32_t bits = (uint32_t)(value << offset * 8) & mask;

    *status &= (uint16_t)~bits;
    *enable = (uint16_t)((*enable & ~(mask >> 16)) | (bits >> 16)) & enable_bits;
}

static uint64_t pm1_event_read(void *dev, uint64_t offset, unsigned size)
{
    struct pm *p = dev;

    update(p);
    return part(p->pm1_status | (uint32_t)p->pm1_enable << 16, offset);
}

static void pm1_event_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pm *p = dev;

    update(p);
    write_events(&p->pm1_status, &p->pm1_enable, PM1_ENABLE_BITS, offset, size, value);
    update(p);
}

static uint64_t gpe0_read(void *dev, uint64_t offset, unsigned size)
{
    struct pm *p = dev;

    return part(p->gpe_status | (uint32_t)p->gpe_enable << 16, offset);
}

static void gpe0_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pm *p = dev;

    write_events(&p->gpe_status, &p->gpe_enable, 0xFFFF, offset, size, value);
    update(p);
}

static uint64_t pm1_control_read(void *dev, uint64_t offset, unsigned size)
{
    return part(((struct pm *)dev)->pm1_control, offset);
}

static void pm1_control_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pm *p = dev;
    uint32_t mask = ((1u << size * 8) - 1) << offset * 8;
    uint32_t control = (p->pm1_control & ~mask) | ((uint32_t)value << offset * 8 & mask);

    p->pm1_control = (control & (PM1_BUS_MASTER | PM1_SLEEP_TYPE)) | PM1_SCI_ENABLE;
    /* S5 is the only sleeping state this machine has. */
    if ((control & PM1_SLEEP_ENABLE) &&
        (control & PM1_SLEEP_TYPE) >> PM1_SLEEP_TYPE_SHIFT == PM_SLEEP_TYPE_S5)
        irq_set(&p->poweroff, true);
}

static uint64_t pm_timer_read(void *dev, uint64_t offset, unsigned size)
{
    return part((uint32_t)timer_ticks(dev), offset);
}

static void pm_timer_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
}

static const struct bus_ops pm1_event_ports = {
    .read = pm1_event_read, .write = pm1_event_write, .max_size = 4};
static const struct bus_ops pm1_control_ports = {
    .read = pm1_control_read, .write = pm1_control_write, .max_size = 2};
static const struct bus_ops pm_timer_ports = {
    .read = pm_timer_read, .write = pm_timer_write, .max_size = 4};
static const struct bus_ops gpe0_ports = {.read = gpe0_read, .write = gpe0_write, .max_size = 4};

void pm_power_button(struct pm *p)
{
    p->pm1_status |= PM1_POWER_BUTTON;
    update(p);
}

void pm_rtc_alarm(struct pm *p)
{
    p->pm1_status |= PM1_RTC;
    update(p);
}

void pm_gpe(struct pm *p, unsigned n)
{
    p->gpe_status |= (uint16_t)(1u << (n & 15));
    update(p);
}

static void pm_reset(struct dev *dev)
{
    struct pm *p = container_of(dev, struct pm, dev);

    p->pm1_status = p->pm1_enable = p->gpe_status = p->gpe_enable = 0;
    p->pm1_control = PM1_SCI_ENABLE;
    p->seen = timer_ticks(p);
    update(p);
}

static void pm_state(struct dev *dev, struct state *s)
{
    struct pm *p = container_of(dev, struct pm, dev);

    if (state_saving(s))
        update(p);
    state_section(s, "pm", 0, 1);
    state_field(s, p->pm1_status);
    state_field(s, p->pm1_enable);
    state_field(s, p->pm1_control);
    state_field(s, p->gpe_status);
    state_field(s, p->gpe_enable);
    state_field(s, p->seen);
    if (!state_saving(s)) {
        p->pm1_status &= PM1_STATUS_BITS;
        p->pm1_enable &= PM1_ENABLE_BITS;
        update(p);
    }
}

static const struct {
    uint16_t port, size;
    const struct bus_ops *ops;
} blocks[] = {
    {PM1_EVENT_PORT, PM1_EVENT_SIZE, &pm1_event_ports},
    {PM1_CONTROL_PORT, PM1_CONTROL_SIZE, &pm1_control_ports},
    {PM_TIMER_PORT, PM_TIMER_SIZE, &pm_timer_ports},
    {PM_GPE0_PORT, PM_GPE0_SIZE, &gpe0_ports},
};

static void pm_free(struct dev *dev)
{
    struct pm *p = container_of(dev, struct pm, dev);

    for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++)
        bus_release(p->bus, BUS_PORT, blocks[i].port);
    timer_free(p->timer);
    free(p);
}

static const struct dev_ops pm_ops = {
    .name = "pm", .reset = pm_reset, .state = pm_state, .free = pm_free};

struct pm *pm_create(struct bus *bus, struct clock *clock, struct irq_line sci,
                     struct irq_line poweroff, struct error *err)
{
    struct pm *p = calloc(1, sizeof(*p));
    unsigned claimed = 0;

    if (!p || !(p->timer = timer_create_on(clock, timer_fired, p))) {
        free(p);
        error_set(err, ENOMEM, "no memory for the power management registers");
        return NULL;
    }
    p->dev.ops = &pm_ops;
    p->bus = bus;
    p->clock = clock;
    p->sci = sci;
    p->poweroff = poweroff;
    while (claimed < ARRAY_SIZE(blocks) &&
           bus_claim(bus, BUS_PORT, blocks[claimed].port, blocks[claimed].size, "pm",
                     blocks[claimed].ops, p, err) == 0)
        claimed++;
    if (claimed < ARRAY_SIZE(blocks)) {
        while (claimed-- > 0)
            bus_release(bus, BUS_PORT, blocks[claimed].port);
        timer_free(p->timer);
        free(p);
        return NULL;
    }
    pm_reset(&p->dev);
    return p;
}

struct dev *pm_dev(struct pm *p)
{
    return &p->dev;
}
