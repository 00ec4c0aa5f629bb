/*
 * Fuzz target: three local APICs, which are not on the bus: their registers are reached through
 * their processors' ports.
 */
#include "dev.h"

#include "base/util.h"
#include "dev/pc/lapic.h"

#include <stdlib.h>

#define CPUS 3

struct machine {
    struct cpu_port port[CPUS];
    struct lapic_set *set;
};

static void eoi(void *opaque, unsigned vector)
{
    (void)opaque;
    fuzz_check(vector < 256);
}

static unsigned acknowledge(void *opaque)
{
    const struct machine *m = opaque;
    struct irq_line intr = lapic_set_lint(m->set, 0);
    irq_set(&intr, false);
    return 8;
}

/* The set, with the machine around it that goes when it goes. */
static void destroy(struct dev *dev);
static void reset(struct dev *dev);
static void state(struct dev *dev, struct state *s);

static const struct dev_ops ops = {
    .name = "lapics", .reset = reset, .state = state, .free = destroy};

struct wrapper {
    struct dev dev;
    struct machine machine;
};

static struct dev *inner(struct dev *dev)
{
    return lapic_set_dev(container_of(dev, struct wrapper, dev)->machine.set);
}

static void destroy(struct dev *dev)
{
    inner(dev)->ops->free(inner(dev));
    free(container_of(dev, struct wrapper, dev));
}

static void reset(struct dev *dev)
{
    inner(dev)->ops->reset(inner(dev));
}

static void state(struct dev *dev, struct state *s)
{
    inner(dev)->ops->state(inner(dev), s);
}

static struct dev *create(struct fuzz_board *board)
{
    struct wrapper *wrapper = calloc(1, sizeof(*wrapper));
    fuzz_check(wrapper);
    struct machine *m = &wrapper->machine;
    struct lapic_board callbacks = {eoi, acknowledge, m};
    struct cpu_port *ports[CPUS];
    for (unsigned i = 0; i < CPUS; i++) {
        m->port[i].id = i;
        ports[i] = &m->port[i];
    }
    m->set = lapic_set_create(board->clock, ports, CPUS, 40, &callbacks, NULL);
    fuzz_check(m->set);
    wrapper->dev.ops = &ops;
    board->device = m;
    return &wrapper->dev;
}

static void line(struct fuzz_board *board, unsigned n, bool level)
{
    const struct machine *m = board->device;
    struct irq_line pin = lapic_set_lint(m->set, n & 1);
    irq_set(&pin, level);
}

/* What a processor does with its APIC, or a message that comes in. */
static void other(struct fuzz_board *board, struct fuzz_input *in)
{
    static const uint32_t msrs[] = {0x1B, 0x6E0};
    struct machine *m = board->device;
    uint8_t what = fuzz_u8(in);
    struct cpu_port *port = &m->port[what / 16 % CPUS];
    const struct apic_ops *apic = port->apic_ops;
    uint8_t n = fuzz_u8(in);
    uint32_t msr = n < 0xC0 ? 0x800u + n : msrs[n & 1];
    uint64_t value;
    switch (what % 16) {
    case 0:
    case 1:
    case 2: apic->mmio_write(port->apic, 16 * (n % 64), 4, fuzz_uint(in, 4)); break;
    case 3: apic->mmio_read(port->apic, 16 * (n % 64), 4); break;
    case 4: apic->mmio_write(port->apic, (uint32_t)fuzz_uint(in, 2) & 0xFF8, 8, n); break;
    case 5: apic->mmio_read(port->apic, (uint32_t)fuzz_uint(in, 2) & 0xFFE, 1u << (n & 1)); break;
    case 6:
    case 7:
    case 8: apic->msr_write(port->apic, msr, fuzz_uint(in, 8)); break;
    case 9: apic->msr_read(port->apic, msr, &value); break;
    case 10: apic->msr_write(port->apic, 0x1B, 0xFEE00000 | (n & 7) << 9); break;
    case 11: apic->set_cr8(port->apic, n & 15); break;
    case 12: fuzz_check(apic->get_cr8(port->apic) < 16); break;
    case 13: {
        struct msi_sink sink = lapic_set_msi(m->set);
        sink.send(sink.opaque, 0xFEE00000 | fuzz_uint(in, 3), (uint32_t)fuzz_uint(in, 2));
        break;
    }
    default: {
        /* With nobody else about, what is pending is what is acknowledged. */
        int pending = apic->pending(port->apic);
        int vector = apic->ack(port->apic);
        fuzz_check(pending == 256 ? vector == 8 : vector == pending);
        break;
    }
    }
}

const struct fuzz_device fuzz_device = {
    .create = create,
    .line = line,
    .other = other,
};
