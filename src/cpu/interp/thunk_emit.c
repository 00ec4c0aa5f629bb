/*
 * Thunks, second step: the code around the instruction. A thunk is
 *
 *      save the host's registers, load the guest's
 *      the instruction
 *      store the guest's registers
 *      xor eax, eax
 *  tail:   (a fault of the instruction arrives here, with its result in EAX)
 *      store the state that faults change, too
 *  leave:  (any other fault arrives here)
 *      restore the host's registers
 *      ret
 *
 * The ABI (System V, AMD64): arguments in RDI (the state) and RSI (the memory operand); RBX, RBP,
 * R12-R15, MXCSR and the x87 control word are the caller's; the x87 stack is empty outside.
 */
#include "cpu/interp/thunk_impl.h"

#include "base/util.h"

#include <string.h>

#define BIT(n) (1u << (n))

#define CALLEE_SAVED                                                                               \
    (BIT(X86_RBX) | BIT(X86_RBP) | BIT(X86_R12) | BIT(X86_R13) | BIT(X86_R14) | BIT(X86_R15))

/* What is on the stack while the instruction runs. */
enum {
    FRAME_MXCSR = 0, /* the host's */
    FRAME_FCW = 4,
    FRAME_MEMORY = 8,
    FRAME_STATE = 16,
    FRAME_SIZE = 24,
};

static void put(struct thunk_code *c, unsigned count, const uint8_t *bytes)
{
    memcpy(c->bytes + c->size, bytes, count);
    c->size += count;
}
#define PUT(c, ...) put((c), sizeof((uint8_t[]){__VA_ARGS__}), (const uint8_t[]){__VA_ARGS__})

static void put32(struct thunk_code *c, uint32_t value)
{
    put(c, 4, (const uint8_t *)&value);
}

/* ModRM, SIB and displacement for REG, [BASE + DISP]. */
static void put_operand(struct thunk_code *c, unsigned reg, unsigned base, int32_t disp)
{
    bool small = disp >= -128 && disp <= 127;

    PUT(c, (small ? 0x40 : 0x80) | (reg & 7) << 3 | (base & 7));
    if ((base & 7) == X86_RSP)
        PUT(c, 0x24);
    if (small)
        PUT(c, disp & 0xFF);
    else
        put32(c, disp);
}

/* OPCODE REG, [BASE + DISP]. KIND: REX_WIDE for 64 bits, MAP_0F if 0Fh comes before the opcode. */
enum { BITS_32 = 0, REX_WIDE = 8, MAP_0F = 1 };
static void op(struct thunk_code *c, unsigned kind, uint8_t opcode, unsigned reg, unsigned base,
               int32_t disp)
{
    uint8_t rex = (kind & REX_WIDE) | (reg >> 3) << 2 | base >> 3;

    if (rex)
        PUT(c, 0x40 | rex);
    if (kind & MAP_0F)
        PUT(c, 0x0F);
    PUT(c, opcode);
    put_operand(c, reg, base, disp);
}
#define LOAD(c, reg, base, disp)  op(c, REX_WIDE, 0x8B, reg, base, disp)
#define STORE(c, reg, base, disp) op(c, REX_WIDE, 0x89, reg, base, disp)
#define FXSAVE(c, base)           op(c, REX_WIDE | MAP_0F, 0xAE, 0, base, 0)
#define FXRSTOR(c, base)          op(c, REX_WIDE | MAP_0F, 0xAE, 1, base, 0)
#define LDMXCSR(c, base, disp)    op(c, MAP_0F, 0xAE, 2, base, disp)
#define STMXCSR(c, base, disp)    op(c, MAP_0F, 0xAE, 3, base, disp)
#define FLDCW(c, base, disp)      op(c, BITS_32, 0xD9, 5, base, disp)
#define FNSTCW(c, base, disp)     op(c, BITS_32, 0xD9, 7, base, disp)

/* A VEX instruction REG, VVVV, [BASE + DISP]; L_PP is the vector length and the implied prefix. */
static void op_vex(struct thunk_code *c, unsigned map, uint8_t l_pp, uint8_t opcode, unsigned reg,
                   unsigned vvvv, unsigned base, int32_t disp)
{
    PUT(c, 0xC4, (reg > 7 ? 0 : 0x80) | 0x40 | (base > 7 ? 0 : 0x20) | map,
        (~vvvv & 15) << 3 | l_pp, opcode);
    put_operand(c, reg, base, disp);
}

static void push(struct thunk_code *c, unsigned reg)
{
    if (reg > 7)
        PUT(c, 0x41);
    PUT(c, 0x50 | (reg & 7));
}

static void pop(struct thunk_code *c, unsigned reg)
{
    if (reg > 7)
        PUT(c, 0x41);
    PUT(c, 0x58 | (reg & 7));
}

/* AND REG, MASK, in 64 bits. */
static void and_mask(struct thunk_code *c, unsigned reg, uint32_t mask)
{
    PUT(c, 0x48 | reg >> 3, 0x81, 0xE0 | (reg & 7));
    put32(c, mask);
}

/* Returns a register that is not in TAKEN and can be a base without a SIB byte. */
static unsigned pick(uint32_t taken)
{
    static const uint8_t order[] = {X86_R8,  X86_R9,  X86_R10, X86_R11, X86_RAX, X86_RCX, X86_RDX,
                                    X86_RSI, X86_RDI, X86_R13, X86_R14, X86_R15, X86_RBX, X86_RBP};
    unsigned i = 0;

    while (i < ARRAY_SIZE(order) - 1 && (taken & BIT(order[i])))
        i++;
    return order[i];
}

/* Returns the host register that holds the guest's register N while the instruction runs. */
static unsigned host_register(const struct thunk_plan *plan, unsigned n)
{
    return n == X86_RSP ? plan->rsp : n;
}

static void load_vectors(struct thunk_code *c, const struct thunk_plan *plan, unsigned area)
{
    for (unsigned n = 0; n < 16; n++) {
        if (!(plan->vector & BIT(n)))
            continue;
        if (!plan->vex) {
            op(c, MAP_0F, 0x10, n, area, X86_XSAVE_XMM + 16 * n); /* movups */
            continue;
        }
        op_vex(c, 1, 0, 0x10, n, 0, area, X86_XSAVE_XMM + 16 * n); /* vmovups */
        if (plan->vector_high & BIT(n)) {                          /* vinsertf128 */
            op_vex(c, 3, 5, 0x18, n, n, area, X86_XSAVE_YMMH + 16 * n);
            PUT(c, 1);
        }
    }
}

static void store_vectors(struct thunk_code *c, const struct thunk_plan *plan, unsigned area)
{
    for (unsigned n = 0; n < 16; n++) {
        if (!(plan->vector_store & BIT(n)))
            continue;
        if (!plan->vex) {
            op(c, MAP_0F, 0x11, n, area, X86_XSAVE_XMM + 16 * n);
            continue;
        }
        /* A VEX instruction that writes a vector register writes the upper half, too, even if only
         * zeros. */
        op_vex(c, 1, 0, 0x11, n, 0, area, X86_XSAVE_XMM + 16 * n);
        op_vex(c, 3, 5, 0x19, n, 0, area, X86_XSAVE_YMMH + 16 * n); /* vextractf128 */
        PUT(c, 1);
    }
    if (plan->clear_high)
        PUT(c, 0xC5, 0xF8, 0x57, 0xC0); /* vxorps xmm0, xmm0, xmm0 */
    for (unsigned n = 0; n < 16; n += 2) {
        if (plan->clear_high & BIT(n)) /* vmovups ymm */
            op_vex(c, 1, 4, 0x11, 0, 0, area, X86_XSAVE_YMMH + 16 * n);
        if (plan->clear_low & BIT(n))
            op_vex(c, 1, 4, 0x11, 0, 0, area, X86_XSAVE_XMM + 16 * n);
    }
}

static void emit_load(struct thunk_code *c, const struct thunk_plan *plan, unsigned scratch)
{
    if (plan->x87 || plan->mxcsr)
        STMXCSR(c, X86_RSP, FRAME_MXCSR);
    if (plan->x87 || plan->mxcsr || plan->vector)
        LOAD(c, scratch, X86_RDI, offsetof(struct thunk_state, xsave));
    if (plan->x87) {
        FNSTCW(c, X86_RSP, FRAME_FCW);
        FXRSTOR(c, scratch);
    } else {
        load_vectors(c, plan, scratch);
        if (plan->mxcsr)
            LDMXCSR(c, scratch, X86_XSAVE_MXCSR);
    }
    if (plan->flags_load) {
        LOAD(c, scratch, X86_RDI, offsetof(struct thunk_state, flags));
        LOAD(c, scratch, scratch, 0);
        and_mask(c, scratch, X86_FLAGS_STATUS);
        push(c, scratch);
        PUT(c, 0x9D); /* popfq */
    }
    if (plan->gpr)
        LOAD(c, scratch, X86_RDI, offsetof(struct thunk_state, gpr));
    for (unsigned n = 0; n < X86_GPRS; n++)
        if (plan->gpr & BIT(n))
            LOAD(c, host_register(plan, n), scratch, 8 * n);
    if (plan->memory)
        LOAD(c, plan->base, X86_RSP, FRAME_MEMORY);
}

/* Stores the guest's registers and then its flags: what comes before must not change the host's
 * flags. */
static void emit_store(struct thunk_code *c, const struct thunk_plan *plan, unsigned scratch)
{
    unsigned taken = BIT(plan->base) | BIT(scratch), a = pick(taken), b = pick(taken | BIT(a));

    LOAD(c, plan->base, X86_RSP, FRAME_STATE);
    if (plan->gpr_store)
        LOAD(c, scratch, plan->base, offsetof(struct thunk_state, gpr));
    for (unsigned n = 0; n < X86_GPRS; n++)
        if (plan->gpr_store & BIT(n))
            STORE(c, host_register(plan, n), scratch, 8 * n);
    if (plan->flags_store) { /* the registers A and B are free: the guest's are stored */
        PUT(c, 0x9C);        /* pushfq */
        pop(c, a);
        LOAD(c, scratch, plan->base, offsetof(struct thunk_state, flags));
        LOAD(c, b, scratch, 0);
        and_mask(c, a, plan->flags_store);
        and_mask(c, b, ~plan->flags_store); /* sign-extended: keeps the upper half */
        PUT(c, 0x48 | (a >> 3) << 2 | b >> 3, 0x09, 0xC0 | (a & 7) << 3 | (b & 7)); /* or b, a */
        STORE(c, b, scratch, 0);
    }
    if (plan->vector_store || plan->clear_high) {
        LOAD(c, scratch, plan->base, offsetof(struct thunk_state, xsave));
        store_vectors(c, plan, scratch);
    }
    PUT(c, 0x31, 0xC0); /* xor eax, eax */
}

static void emit_tail(struct thunk_code *c, const struct thunk_plan *plan)
{
    if (!plan->x87 && !plan->mxcsr)
        return;
    LOAD(c, X86_RDI, X86_RSP, FRAME_STATE);
    LOAD(c, X86_RDX, X86_RDI, offsetof(struct thunk_state, xsave));
    if (plan->x87) {
        FXSAVE(c, X86_RDX);
        PUT(c, 0xC7, 0x42, X86_XSAVE_MXCSR + 4); /* mov dword [rdx + ...]: MXCSR_MASK */
        put32(c, X86_MXCSR_MASK);
    } else {
        STMXCSR(c, X86_RDX, X86_XSAVE_MXCSR);
    }
}

static void emit_leave(struct thunk_code *c, const struct thunk_plan *plan, uint16_t saved)
{
    if (plan->x87) {
        PUT(c, 0xDB, 0xE3); /* fninit */
        FLDCW(c, X86_RSP, FRAME_FCW);
    }
    if (plan->x87 || plan->mxcsr)
        LDMXCSR(c, X86_RSP, FRAME_MXCSR);
    if (plan->vex)
        PUT(c, 0xC5, 0xF8, 0x77);         /* vzeroupper */
    PUT(c, 0x48, 0x83, 0xC4, FRAME_SIZE); /* add rsp, ... */
    for (unsigned n = X86_GPRS; n-- > 0;)
        if (saved & BIT(n))
            pop(c, n);
    PUT(c, 0xC3);
}

void thunk_emit(struct thunk_code *c, const struct thunk_plan *plan)
{
    uint16_t used = plan->gpr | BIT(plan->base), saved;
    unsigned scratch;

    if (plan->gpr & BIT(X86_RSP))
        used |= BIT(plan->rsp);
    scratch = pick(used | BIT(X86_RDI) | BIT(X86_RSI));
    saved = (used | BIT(scratch)) & CALLEE_SAVED;

    c->size = 0;
    for (unsigned n = 0; n < X86_GPRS; n++)
        if (saved & BIT(n))
            push(c, n);
    push(c, X86_RDI);
    push(c, X86_RSI);
    push(c, X86_RAX); /* room for FRAME_MXCSR and FRAME_FCW */
    emit_load(c, plan, scratch);
    c->insn = c->size;
    put(c, plan->length, plan->code);
    emit_store(c, plan, scratch);
    c->tail = c->size;
    emit_tail(c, plan);
    c->leave = c->size;
    emit_leave(c, plan, saved);
}
