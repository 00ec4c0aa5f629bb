/*
 * Data movement: MOV, MOVZX, MOVSX, LEA, CMOVcc, SETcc, sign extensions, flag instructions.
 */
#include "cpu/interp/operand.h"
#include "cpu/interp/handlers.h"

#include <sched.h>

#define MOV(B)                                                                                     \
    static const struct uop *mov##B##_rr(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, REG##B(c, op->src));                                            \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *mov##B##_rm(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, load##B(c, op, ea_linear(c, op, B / 8, MMU_READ)));             \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *mov##B##_mr(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        store##B(c, op, ea_linear(c, op, B / 8, MMU_WRITE), REG##B(c, op->src));                   \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *mov##B##_ri(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, op->imm);                                                       \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *mov##B##_mi(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        store##B(c, op, ea_linear(c, op, B / 8, MMU_WRITE), (uint##B##_t)op->imm);                 \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *lea##B(struct vcpu *c, const struct uop *op)                          \
    {                                                                                              \
        uint64_t offset = ea_offset(c, op);                                                        \
        if (op->asize != 8)                                                                        \
            offset &= op->asize == 4 ? 0xFFFFFFFF : 0xFFFF;                                        \
        set_reg(c, op->dst, B / 8, offset);                                                        \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *cmov##B##_r(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        unsigned from = condition_holds(c->cc, op->aux) ? op->src : op->dst;                       \
        set_reg(c, op->dst, B / 8, REG##B(c, from));                                               \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *cmov##B##_m(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        uint##B##_t value = load##B(c, op, ea_linear(c, op, B / 8, MMU_READ));                     \
        if (!condition_holds(c->cc, op->aux))                                                      \
            value = REG##B(c, op->dst);                                                            \
        set_reg(c, op->dst, B / 8, value);                                                         \
        return op + 1;                                                                             \
    }

MOV(8)
MOV(16)
MOV(32)
MOV(64)

#define MOV_FORMS(B) {mov##B##_rr, mov##B##_rm, mov##B##_mr, mov##B##_ri, mov##B##_mi},
uop_fn *const mov_handlers[SIZES][FORMS] = {MOV_FORMS(8) MOV_FORMS(16) MOV_FORMS(32) MOV_FORMS(64)};
uop_fn *const lea_handlers[SIZES] = {lea8, lea16, lea32, lea64};
uop_fn *const cmov_handlers[SIZES][2] = {
    {cmov8_r, cmov8_m}, {cmov16_r, cmov16_m}, {cmov32_r, cmov32_m}, {cmov64_r, cmov64_m}};

/* From FROM bits, read as TYPE (signed or not), to TO bits. */
#define EXTEND(NAME, FROM, TO, TYPE)                                                               \
    static const struct uop *NAME##FROM##_##TO##_r(struct vcpu *c, const struct uop *op)           \
    {                                                                                              \
        set_reg(c, op->dst, TO / 8, (uint64_t)(TYPE)REG##FROM(c, op->src));                        \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##FROM##_##TO##_m(struct vcpu *c, const struct uop *op)           \
    {                                                                                              \
        uint##FROM##_t value = load##FROM(c, op, ea_linear(c, op, FROM / 8, MMU_READ));            \
        set_reg(c, op->dst, TO / 8, (uint64_t)(TYPE)value);                                        \
        return op + 1;                                                                             \
    }
#define EXTEND_SIZES(NAME, FROM, TYPE)                                                             \
    EXTEND(NAME, FROM, 16, TYPE)                                                                   \
    EXTEND(NAME, FROM, 32, TYPE)                                                                   \
    EXTEND(NAME, FROM, 64, TYPE)

EXTEND_SIZES(movzx, 8, uint8_t)
EXTEND_SIZES(movzx, 16, uint16_t)
EXTEND_SIZES(movsx, 8, int8_t)
EXTEND_SIZES(movsx, 16, int16_t)
EXTEND_SIZES(movsx, 32, int32_t)

#define EXTEND_FORMS(NAME, FROM, TO) {NAME##FROM##_##TO##_r, NAME##FROM##_##TO##_m},
#define EXTEND_TO(NAME, FROM)                                                                      \
    {0}, EXTEND_FORMS(NAME, FROM, 16) EXTEND_FORMS(NAME, FROM, 32) EXTEND_FORMS(NAME, FROM, 64)
uop_fn *const movzx_handlers[2][SIZES][2] = {{EXTEND_TO(movzx, 8)}, {EXTEND_TO(movzx, 16)}};
uop_fn *const movsx_handlers[3][SIZES][2] = {
    {EXTEND_TO(movsx, 8)}, {EXTEND_TO(movsx, 16)}, {EXTEND_TO(movsx, 32)}};

static const struct uop *setcc_r(struct vcpu *c, const struct uop *op)
{
    REG8(c, op->dst) = condition_holds(c->cc, op->aux);
    return op + 1;
}

static const struct uop *setcc_m(struct vcpu *c, const struct uop *op)
{
    store8(c, op, ea_linear(c, op, 1, MMU_WRITE), condition_holds(c->cc, op->aux));
    return op + 1;
}

uop_fn *const setcc_handlers[2] = {setcc_r, setcc_m};

#define RAX 0
#define RDX (X86_RDX * 8)

const struct uop *op_cbw(struct vcpu *c, const struct uop *op)
{
    REG16(c, RAX) = (uint16_t)(int8_t)REG8(c, RAX);
    return op + 1;
}

const struct uop *op_cwde(struct vcpu *c, const struct uop *op)
{
    c->x.reg[X86_RAX] = (uint32_t)(int16_t)REG16(c, RAX);
    return op + 1;
}

const struct uop *op_cdqe(struct vcpu *c, const struct uop *op)
{
    c->x.reg[X86_RAX] = (uint64_t)(int32_t)REG32(c, RAX);
    return op + 1;
}

const struct uop *op_cwd(struct vcpu *c, const struct uop *op)
{
    REG16(c, RDX) = REG16(c, RAX) & 0x8000 ? 0xFFFF : 0;
    return op + 1;
}

const struct uop *op_cdq(struct vcpu *c, const struct uop *op)
{
    c->x.reg[X86_RDX] = REG32(c, RAX) >> 31 ? 0xFFFFFFFF : 0;
    return op + 1;
}

const struct uop *op_cqo(struct vcpu *c, const struct uop *op)
{
    c->x.reg[X86_RDX] = c->x.reg[X86_RAX] >> 63 ? ~0ULL : 0;
    return op + 1;
}

const struct uop *op_lahf(struct vcpu *c, const struct uop *op)
{
    REG8(c, 1) = (uint8_t)(flags_get(c) | X86_FLAG_ONE);
    return op + 1;
}

const struct uop *op_sahf(struct vcpu *c, const struct uop *op)
{
    c->cc = (uint16_t)((REG8(c, 1) & 0xD5) << 8 | (c->cc & CC_OF));
    return op + 1;
}

/* SALC: AL = CF ? FFh : 0 (undocumented, in every processor). */
const struct uop *op_salc(struct vcpu *c, const struct uop *op)
{
    REG8(c, RAX) = c->cc & CC_CF ? 0xFF : 0;
    return op + 1;
}

/* The memory operand is rBX; AL is added here, where the address size cuts the sum. */
const struct uop *op_xlat(struct vcpu *c, const struct uop *op)
{
    struct uop indexed = *op;

    indexed.disp += REG8(c, RAX);
    REG8(c, RAX) = load8(c, op, ea_linear(c, &indexed, 1, MMU_READ));
    return op + 1;
}

const struct uop *op_clc(struct vcpu *c, const struct uop *op)
{
    c->cc &= (uint16_t)~CC_CF;
    return op + 1;
}

const struct uop *op_stc(struct vcpu *c, const struct uop *op)
{
    c->cc |= CC_CF;
    return op + 1;
}

const struct uop *op_cmc(struct vcpu *c, const struct uop *op)
{
    c->cc ^= CC_CF;
    return op + 1;
}

const struct uop *op_cld(struct vcpu *c, const struct uop *op)
{
    c->x.rflags &= ~(uint64_t)X86_FLAG_DF;
    return op + 1;
}

const struct uop *op_std(struct vcpu *c, const struct uop *op)
{
    c->x.rflags |= X86_FLAG_DF;
    return op + 1;
}

const struct uop *op_nop(struct vcpu *c, const struct uop *op)
{
    return op + 1;
}

/* So many PAUSEs, and the thread yields the core: a vCPU that spins waits for another one, which
 * may need it. */
#define PAUSES_PER_YIELD 64

const struct uop *op_pause(struct vcpu *c, const struct uop *op)
{
    if (++c->pauses % PAUSES_PER_YIELD == 0)
        sched_yield();
    return op + 1;
}

const struct uop *op_mfence(struct vcpu *c, const struct uop *op)
{
    atomic_thread_fence(memory_order_seq_cst);
    return op + 1;
}
