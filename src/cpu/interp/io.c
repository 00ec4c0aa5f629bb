/*
 * Ports: IN and OUT with their permission checks (SDM volume 1, chapter 19).
 */
#include "cpu/core/access.h"
#include "cpu/core/debug.h"
#include "cpu/interp/handlers.h"

/* Whether the I/O permission bitmap in the TSS denies an access: it has a 1 for a denied port. */
static bool bitmap_denies(struct vcpu *c, const struct uop *op, unsigned port, unsigned size)
{
    const struct x86_seg *tr = &c->x.tr;
    uint64_t map, bits;

    if (!(tr->attr & 8) || (tr->attr & X86_ATTR_UNUSABLE) || tr->limit < 0x67)
        return true;
    map = load_system(c, op, tr->base + 0x66, 2) + port / 8;
    if (map + 1 > tr->limit) /* two bytes are read, whatever the size */
        return true;
    bits = load_system(c, op, tr->base + map, 2);
    return bits >> (port & 7) & ((1u << size) - 1);
}

void check_port(struct vcpu *c, const struct uop *op, unsigned port, unsigned size)
{
    if (in_real(c) || (!in_v86(c) && cpl(c) <= iopl(c)))
        return;
    if (bitmap_denies(c, op, port, size))
        raise_error(c, op, X86_GP, 0);
}

uint64_t port_in(struct vcpu *c, const struct uop *op, unsigned port, unsigned size)
{
    unsigned before = meter_enter(c->meter, CAUSE_PORT, rip_of(c, op), port, size);
    uint64_t value;

    counter_add(&c->exits[CAUSE_PORT], 1);
    debug_device_access(c, op);
    debug_port_access(c, port, size);
    value = bus_read(c->bus, BUS_PORT, port, size);
    meter_leave(c->meter, before);
    return value;
}

void port_out(struct vcpu *c, const struct uop *op, unsigned port, unsigned size, uint64_t value)
{
    unsigned before = meter_enter(c->meter, CAUSE_PORT, rip_of(c, op), port, size | TRACE_WRITE);

    counter_add(&c->exits[CAUSE_PORT], 1);
    debug_device_access(c, op);
    debug_port_access(c, port, size);
    if (unlikely(bus_write(c->bus, BUS_PORT, port, size, value)))
        cpu_port_hold(c->port);
    meter_leave(c->meter, before);
}

/* Returns the port that OP names: DX if aux is set, else the immediate. */
static unsigned port_operand(const struct vcpu *c, const struct uop *op)
{
    return op->aux ? REG16(c, X86_RDX * 8) : (uint8_t)op->imm;
}

const struct uop *op_in(struct vcpu *c, const struct uop *op)
{
    unsigned port = port_operand(c, op);

    check_port(c, op, port, op->osize);
    set_reg(c, 0, op->osize, port_in(c, op, port, op->osize));
    return end_block(c, op);
}

const struct uop *op_out(struct vcpu *c, const struct uop *op)
{
    unsigned port = port_operand(c, op);

    check_port(c, op, port, op->osize);
    port_out(c, op, port, op->osize, get_reg(c, 0, op->osize));
    return end_block(c, op);
}
