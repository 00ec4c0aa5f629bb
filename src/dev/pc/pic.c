/*
 * The 8259A pair (Intel 8259A data sheet, 231468) and the edge/level control registers (82371SB,
 * 290550, 2.5.8).
 *
 * An edge-triggered request stands for as long as its line stays high; when the line falls before
 * the processor has acknowledged, the acknowledgement finds nothing and yields the spurious 7.
 */
#include "dev/pc/pic.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>

#define CASCADE  2 /* the first controller's input from the second */
#define SPURIOUS 7

/* ICW1 is told from OCW3 and OCW2 by these bits. */
#define ICW1    0x10
#define OCW3    0x08
#define NOTHING (-1)

/* What a write to the odd port means. */
enum step { STEP_OCW1, STEP_ICW2, STEP_ICW3, STEP_ICW4 };

struct chip {
    struct pic *pic;
    uint8_t elcr_writable; /* inputs that may be level-triggered */

    uint8_t lines;   /* inputs that are high */
    uint8_t edges;   /* inputs that have risen and not been acknowledged or fallen since */
    uint8_t isr;     /* in service */
    uint8_t imr;     /* masked */
    uint8_t elcr;    /* level-triggered inputs */
    uint8_t base;    /* the vector of input 0 */
    uint8_t lowest;  /* the input with the lowest priority */
    uint8_t step;    /* enum step */
    uint8_t cascade; /* ICW3; only its value is kept, the wiring is fixed */
    bool ready;      /* has been initialized since power-on */
    bool level;      /* ICW1: all inputs are level-triggered */
    bool single, wants_icw4;
    bool auto_eoi, rotate_on_auto_eoi, special_mask, special_nested;
    bool poll, read_isr; /* what the next read gives */
};

struct pic {
    struct dev dev;
    struct bus *bus;
    struct irq_line intr;
    bool out; /* the level of INTR */
    struct chip chip[2];
};

/* --- priorities --- */

static uint8_t requests(const struct chip *chip)
{
    uint8_t level = chip->level ? 0xFF : chip->elcr;
    return (chip->edges & ~level) | (chip->lines & level);
}

/* How many inputs come before the most important one in SET; 8 for none. */
static unsigned rank(const struct chip *chip, uint8_t set)
{
    unsigned n = 0;
    while (n < 8 && !(set >> ((chip->lowest + 1 + n) & 7) & 1))
        n++;
    return n;
}

/* The input that would be served now, or NOTHING: more important than all that are in service. */
static int resolve(const struct chip *chip)
{
    uint8_t blocking = chip->isr;
    if (!chip->ready || chip->step != STEP_OCW1)
        return NOTHING;
    if (chip->special_mask)
        blocking &= ~chip->imr;
    /* The second controller may have something more important than what it is being served. */
    if (chip->special_nested && chip == &chip->pic->chip[0])
        blocking &= ~(1u << CASCADE);
    unsigned best = rank(chip, requests(chip) & ~chip->imr);
    if (best >= rank(chip, blocking))
        return NOTHING;
    return (chip->lowest + 1 + best) & 7;
}

static void set_line(struct chip *chip, unsigned n, bool high)
{
    uint8_t bit = 1u << n;
    if (!high) {
        chip->lines &= ~bit;
        chip->edges &= ~bit;
    } else if (!(chip->lines & bit)) {
        chip->lines |= bit;
        chip->edges |= bit;
    }
}

static void set_out(struct pic *pic, bool high)
{
    if (pic->out == high)
        return;
    pic->out = high;
    irq_set(&pic->intr, high);
}

/* Both outputs follow from the chips' state. */
static void update(struct pic *pic)
{
    set_line(&pic->chip[0], CASCADE, resolve(&pic->chip[1]) != NOTHING);
    set_out(pic, resolve(&pic->chip[0]) != NOTHING);
}

static void pin(void *opaque, unsigned n, bool level)
{
    struct pic *pic = opaque;
    set_line(&pic->chip[n / 8], n % 8, level);
    update(pic);
}

struct irq_line pic_pin(struct pic *pic, unsigned n)
{
    return (struct irq_line){.set = pin, .opaque = pic, .n = n};
}

/* --- service and its end --- */

static int serve(struct chip *chip)
{
    int n = resolve(chip);
    if (n == NOTHING)
        return NOTHING;
    chip->edges &= ~(1u << n);
    if (!chip->auto_eoi)
        chip->isr |= 1u << n;
    else if (chip->rotate_on_auto_eoi)
        chip->lowest = (uint8_t)n;
    /* The output falls while the chip is acknowledged, and rises again for the next request. */
    if (chip == &chip->pic->chip[1])
        set_line(&chip->pic->chip[0], CASCADE, false);
    else
        set_out(chip->pic, false);
    return n;
}

unsigned pic_acknowledge(struct pic *pic)
{
    struct chip *chip = &pic->chip[0];
    int n = serve(chip);
    if (n == CASCADE) {
        chip = &pic->chip[1];
        n = serve(chip);
    }
    update(pic);
    return chip->base | (n == NOTHING ? SPURIOUS : (unsigned)n);
}

static void end_of_interrupt(struct chip *chip, uint8_t ocw2)
{
    enum { EOI = 0x20, SPECIFIC = 0x40, ROTATE = 0x80 };
    unsigned n = ocw2 & 7;
    if (ocw2 & EOI) {
        if (!(ocw2 & SPECIFIC)) {
            uint8_t served = chip->special_mask ? chip->isr & ~chip->imr : chip->isr;
            unsigned first = rank(chip, served);
            if (first == 8)
                return;
            n = (chip->lowest + 1 + first) & 7;
        }
        chip->isr &= ~(1u << n);
        if (ocw2 & ROTATE)
            chip->lowest = n;
    } else if (!(ocw2 & SPECIFIC)) {
        chip->rotate_on_auto_eoi = ocw2 & ROTATE;
    } else if (ocw2 & ROTATE) {
        chip->lowest = n;
    }
}

/* --- ports --- */

static void initialize(struct chip *chip, uint8_t icw1)
{
    chip->edges = chip->isr = chip->imr = 0;
    chip->lowest = 7;
    chip->wants_icw4 = icw1 & 1;
    chip->single = icw1 & 2;
    chip->level = icw1 & 8;
    chip->auto_eoi = chip->rotate_on_auto_eoi = false;
    chip->special_mask = chip->special_nested = false;
    chip->poll = chip->read_isr = false;
    chip->step = STEP_ICW2;
    chip->ready = true;
}

static void write_command(struct chip *chip, uint8_t value)
{
    if (value & ICW1) {
        initialize(chip, value);
    } else if (value & OCW3) {
        if (value & 0x40)
            chip->special_mask = value & 0x20;
        if (value & 2)
            chip->read_isr = value & 1;
        chip->poll = value & 4;
    } else {
        end_of_interrupt(chip, value);
    }
}

static void write_data(struct chip *chip, uint8_t value)
{
    enum step last = chip->wants_icw4 ? STEP_ICW4 : STEP_OCW1;
    switch ((enum step)chip->step) {
    case STEP_OCW1: chip->imr = value; break;
    case STEP_ICW2:
        chip->base = value & 0xF8;
        chip->step = chip->single ? last : STEP_ICW3;
        break;
    case STEP_ICW3:
        chip->cascade = value;
        chip->step = last;
        break;
    case STEP_ICW4:
        chip->auto_eoi = value & 2;
        chip->special_nested = value & 0x10;
        chip->step = STEP_OCW1;
        break;
    }
}

static void port_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct chip *chip = dev;
    if (offset)
        write_data(chip, (uint8_t)value);
    else
        write_command(chip, (uint8_t)value);
    update(chip->pic);
}

static uint64_t port_read(void *dev, uint64_t offset, unsigned size)
{
    struct chip *chip = dev;
    if (chip->poll) { /* reading stands for the acknowledge cycle */
        chip->poll = false;
        int n = serve(chip);
        update(chip->pic);
        return n == NOTHING ? 0 : 0x80u | (unsigned)n;
    }
    if (offset)
        return chip->imr;
    return chip->read_isr ? chip->isr : requests(chip);
}

static uint64_t elcr_read(void *dev, uint64_t offset, unsigned size)
{
    struct pic *pic = dev;
    return pic->chip[offset].elcr;
}

static void elcr_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic *pic = dev;
    pic->chip[offset].elcr = value & pic->chip[offset].elcr_writable;
    update(pic);
}

static const struct bus_ops port_ops = {port_read, port_write, 1};
static const struct bus_ops elcr_ops = {elcr_read, elcr_write, 1};

static const struct {
    uint16_t base;
    uint16_t size;
} ports[] = {{0x20, 2}, {0xA0, 2}, {0x4D0, 2}};

/* --- the device --- */

/* The lines keep their levels: those who drive them are reset too, and lower them. */
static void reset(struct dev *dev)
{
    struct pic *pic = container_of(dev, struct pic, dev);
    for (unsigned i = 0; i < 2; i++) {
        struct chip *chip = &pic->chip[i];
        initialize(chip, 0);
        chip->step = STEP_OCW1;
        chip->ready = false;
        chip->elcr = chip->base = chip->cascade = 0;
    }
    update(pic);
}

static void visit(struct chip *chip, struct state *s)
{
    state_field(s, chip->lines);
    state_field(s, chip->edges);
    state_field(s, chip->isr);
    state_field(s, chip->imr);
    state_field(s, chip->elcr);
    state_field(s, chip->base);
    state_field(s, chip->lowest);
    state_field(s, chip->step);
    state_field(s, chip->cascade);
    state_bool(s, &chip->ready);
    state_bool(s, &chip->level);
    state_bool(s, &chip->single);
    state_bool(s, &chip->wants_icw4);
    state_bool(s, &chip->auto_eoi);
    state_bool(s, &chip->rotate_on_auto_eoi);
    state_bool(s, &chip->special_mask);
    state_bool(s, &chip->special_nested);
    state_bool(s, &chip->poll);
    state_bool(s, &chip->read_isr);
}

static void state(struct dev *dev, struct state *s)
{
    struct pic *pic = container_of(dev, struct pic, dev);
    state_section(s, "pic", 0, 1);
    state_bool(s, &pic->out);
    for (unsigned i = 0; i < 2; i++)
        visit(&pic->chip[i], s);
}

static void destroy(struct dev *dev)
{
    struct pic *pic = container_of(dev, struct pic, dev);
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++)
        bus_release(pic->bus, BUS_PORT, ports[i].base);
    free(pic);
}

static const struct dev_ops ops = {
    .name = "pic",
    .reset = reset,
    .state = state,
    .free = destroy,
};

struct pic *pic_create(struct bus *bus, struct irq_line intr, struct error *err)
{
    struct pic *pic = calloc(1, sizeof(*pic));
    if (!pic) {
        error_set(err, ENOMEM, "8259: out of memory");
        return NULL;
    }
    pic->dev.ops = &ops;
    pic->bus = bus;
    pic->intr = intr;
    pic->chip[0].elcr_writable = 0xF8; /* not the timer, the keyboard and the cascade */
    pic->chip[1].elcr_writable = 0xDE; /* not the clock and the coprocessor */
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        const struct bus_ops *port = i < 2 ? &port_ops : &elcr_ops;
        void *owner = pic;
        if (i < 2) {
            pic->chip[i].pic = pic;
            owner = &pic->chip[i];
        }
        if (bus_claim(bus, BUS_PORT, ports[i].base, ports[i].size, "8259", port, owner, err) < 0) {
            while (i-- > 0)
                bus_release(bus, BUS_PORT, ports[i].base);
            free(pic);
            return NULL;
        }
    }
    reset(&pic->dev);
    return pic;
}

struct dev *pic_dev(struct pic *pic)
{
    return &pic->dev;
}
