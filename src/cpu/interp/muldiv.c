/*
 * MUL, IMUL, DIV, IDIV. The handlers raise #DE for quotients that do not fit; the host never does.
 */
#include "cpu/interp/operand.h"
#include "cpu/interp/compute.h"
#include "cpu/interp/handlers.h"

#define RAX 0
#define RDX 16 /* byte offset of X86_RDX */

/* Two- and three-operand IMUL: DST = A * B cut to size; CF and OF say whether it was cut. */
#define IMUL(B, INSN)                                                                              \
    static inline uint##B##_t imul##B(struct vcpu *c, uint##B##_t a, uint##B##_t b)                \
    {                                                                                              \
        uint32_t flags;                                                                            \
        __asm__(INSN " %[b], %[a]" FLAGS_OUT : [a] "+r"(a), "=&a"(flags) : [b] "r"(b) : "cc");     \
        c->cc = (uint16_t)flags;                                                                   \
        return a;                                                                                  \
    }                                                                                              \
    static inline uint##B##_t factor##B(struct vcpu *c, const struct uop *op)                      \
    {                                                                                              \
        return load##B(c, op, ea_linear(c, op, B / 8, MMU_READ));                                  \
    }                                                                                              \
    static const struct uop *imul2_##B##_r(struct vcpu *c, const struct uop *op)                   \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, imul##B(c, REG##B(c, op->dst), REG##B(c, op->src)));            \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *imul2_##B##_m(struct vcpu *c, const struct uop *op)                   \
    {                                                                                              \
        uint##B##_t b = factor##B(c, op);                                                          \
        set_reg(c, op->dst, B / 8, imul##B(c, REG##B(c, op->dst), b));                             \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *imul3_##B##_r(struct vcpu *c, const struct uop *op)                   \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, imul##B(c, REG##B(c, op->src), (uint##B##_t)op->imm));          \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *imul3_##B##_m(struct vcpu *c, const struct uop *op)                   \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, imul##B(c, factor##B(c, op), (uint##B##_t)op->imm));            \
        return op + 1;                                                                             \
    }

IMUL(16, "imulw")
IMUL(32, "imull")
IMUL(64, "imulq")

uop_fn *const imul2_handlers[SIZES][2] = {
    {0}, {imul2_16_r, imul2_16_m}, {imul2_32_r, imul2_32_m}, {imul2_64_r, imul2_64_m}};
uop_fn *const imul3_handlers[SIZES][2] = {
    {0}, {imul3_16_r, imul3_16_m}, {imul3_32_r, imul3_32_m}, {imul3_64_r, imul3_64_m}};

/* One-operand forms on rDX:rAX. */
#define WIDE_MULTIPLY(NAME, B, INSN)                                                               \
    static void NAME##B(struct vcpu *c, const struct uop *op, uint##B##_t factor)                  \
    {                                                                                              \
        uint64_t low = REG64(c, RAX), high, flags;                                                 \
        __asm__(INSN " %[f]\n\tmovq %%rax, %[low]" FLAGS_OUT                                       \
                : [low] "=&r"(low), "=&a"(flags), "=&d"(high)                                      \
                : [f] "r"(factor), "1"(low)                                                        \
                : "cc");                                                                           \
        c->cc = (uint16_t)flags;                                                                   \
        set_reg(c, RAX, B / 8, low);                                                               \
        set_reg(c, RDX, B / 8, high);                                                              \
    }

WIDE_MULTIPLY(mul, 16, "mulw")
WIDE_MULTIPLY(mul, 32, "mull")
WIDE_MULTIPLY(mul, 64, "mulq")
WIDE_MULTIPLY(imulw, 16, "imulw")
WIDE_MULTIPLY(imulw, 32, "imull")
WIDE_MULTIPLY(imulw, 64, "imulq")

/* 8 bits: AX = AL * factor. */
#define BYTE_MULTIPLY(NAME, INSN)                                                                  \
    static void NAME##8(struct vcpu * c, const struct uop *op, uint8_t factor)                     \
    {                                                                                              \
        uint32_t product, flags = REG8(c, RAX);                                                    \
        __asm__(INSN " %[f]\n\tmovl %%eax, %[p]" FLAGS_OUT                                         \
                : [p] "=&r"(product), "+&a"(flags)                                                 \
                : [f] "q"(factor)                                                                  \
                : "cc");                                                                           \
        c->cc = (uint16_t)flags;                                                                   \
        REG16(c, RAX) = (uint16_t)product;                                                         \
    }

BYTE_MULTIPLY(mul, "mulb")
BYTE_MULTIPLY(imulw, "imulb")

/* Type WIDE, and its signed form, hold a whole dividend. Status flags are undefined after a
 * division; here they stay as they were. */
#define DIVIDE(B, WIDE)                                                                            \
    static void div##B(struct vcpu *c, const struct uop *op, uint##B##_t divisor)                  \
    {                                                                                              \
        unsigned WIDE dividend =                                                                   \
            (unsigned WIDE)REG##B(c, RDX) << B | (unsigned WIDE)REG##B(c, RAX);                    \
        if (REG##B(c, RDX) >= divisor)                                                             \
            raise_fault(c, op, X86_DE);                                                            \
        set_reg(c, RAX, B / 8, (uint64_t)(dividend / divisor));                                    \
        set_reg(c, RDX, B / 8, (uint64_t)(dividend % divisor));                                    \
    }                                                                                              \
    static void idiv##B(struct vcpu *c, const struct uop *op, uint##B##_t factor)                  \
    {                                                                                              \
        signed WIDE dividend =                                                                     \
            (signed WIDE)((unsigned WIDE)REG##B(c, RDX) << B | (unsigned WIDE)REG##B(c, RAX));     \
        int##B##_t divisor = (int##B##_t)factor;                                                   \
        signed WIDE quotient;                                                                      \
        /* The one overflow of the wide division itself. */                                        \
        if (divisor == 0 || (divisor == -1 && REG##B(c, RDX) == (uint##B##_t)1 << (B - 1)))        \
            raise_fault(c, op, X86_DE);                                                            \
        quotient = dividend / divisor;                                                             \
        if (quotient != (int##B##_t)quotient)                                                      \
            raise_fault(c, op, X86_DE);                                                            \
        set_reg(c, RAX, B / 8, (uint64_t)quotient);                                                \
        set_reg(c, RDX, B / 8, (uint64_t)(dividend % divisor));                                    \
    }

DIVIDE(16, int)
DIVIDE(32, long)
DIVIDE(64, __int128)

static void div8(struct vcpu *c, const struct uop *op, uint8_t divisor)
{
    unsigned dividend = REG16(c, RAX);

    if (dividend >> 8 >= divisor)
        raise_fault(c, op, X86_DE);
    REG16(c, RAX) = (uint16_t)(dividend / divisor | (dividend % divisor) << 8);
}

static void idiv8(struct vcpu *c, const struct uop *op, uint8_t factor)
{
    int dividend = (int16_t)REG16(c, RAX);
    int divisor = (int8_t)factor;

    if (divisor == 0 || dividend / divisor != (int8_t)(dividend / divisor))
        raise_fault(c, op, X86_DE);
    REG16(c, RAX) = (uint16_t)((uint8_t)(dividend / divisor) | (uint8_t)(dividend % divisor) << 8);
}

#define MULDIV(NAME, B)                                                                            \
    static const struct uop *NAME##B##_r(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        NAME##B(c, op, REG##B(c, op->dst));                                                        \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_m(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        NAME##B(c, op, load##B(c, op, ea_linear(c, op, B / 8, MMU_READ)));                         \
        return op + 1;                                                                             \
    }
#define MULDIV_SIZES(NAME)                                                                         \
    MULDIV(NAME, 8)                                                                                \
    MULDIV(NAME, 16)                                                                               \
    MULDIV(NAME, 32)                                                                               \
    MULDIV(NAME, 64)

MULDIV_SIZES(mul)
MULDIV_SIZES(imulw)
MULDIV_SIZES(div)
MULDIV_SIZES(idiv)

uop_fn *const muldiv_handlers[MULDIVS][SIZES][2] = {
    [MD_MUL] = {FORMS2_BY_SIZE(mul)},
    [MD_IMUL] = {FORMS2_BY_SIZE(imulw)},
    [MD_DIV] = {FORMS2_BY_SIZE(div)},
    [MD_IDIV] = {FORMS2_BY_SIZE(idiv)},
};
