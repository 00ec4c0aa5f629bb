/*
 * INC, DEC, NEG, NOT; shifts, rotates and double shifts. The host's instruction computes; flags
 * as in alu.c.
 */
#include "cpu/interp/operand.h"
#include "cpu/interp/compute.h"
#include "cpu/interp/handlers.h"

/* --- INC, DEC, NEG, NOT --------------------------------------------------------------------- */

/* INC and DEC do not change CF, so the guest's is loaded first; NEG overwrites it. */
#define UNARY(NAME, B, INSN)                                                                       \
    static inline uint##B##_t NAME##B(struct vcpu *c, uint##B##_t a)                               \
    {                                                                                              \
        uint32_t flags;                                                                            \
        __asm__("btw $8, %[cc]\n\t" INSN " %[a]" FLAGS_OUT                                         \
                : [a] "+q"(a), "=&a"(flags)                                                        \
                : [cc] "m"(c->cc)                                                                  \
                : "cc");                                                                           \
        c->cc = (uint16_t)flags;                                                                   \
        return a;                                                                                  \
    }                                                                                              \
    UNARY_FORMS(NAME, B)                                                                           \
    static const struct uop *NAME##B##_lock(struct vcpu *c, const struct uop *op)                  \
    {                                                                                              \
        void *p = locked_ptr(c, op, ea_linear(c, op, B / 8, MMU_WRITE), B / 8);                    \
        uint32_t flags;                                                                            \
        __asm__ volatile("btw $8, %[cc]\n\tlock " INSN " %[m]" FLAGS_OUT                           \
                         : [m] "+m"(*(memory##B *)p), "=&a"(flags)                                 \
                         : [cc] "m"(c->cc)                                                         \
                         : "cc", "memory");                                                        \
        c->cc = (uint16_t)flags;                                                                   \
        commit_locked(c);                                                                          \
        return op + 1;                                                                             \
    }

#define UNARY_FORMS(NAME, B)                                                                       \
    static const struct uop *NAME##B##_r(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, NAME##B(c, REG##B(c, op->dst)));                                \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_m(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        volatile memory##B *p = rmw_ptr(c, op, ea_linear(c, op, B / 8, MMU_WRITE), B / 8);         \
        *p = NAME##B(c, *p);                                                                       \
        commit_ptr(c, op);                                                                         \
        return op + 1;                                                                             \
    }

#define NOT(B)                                                                                     \
    static inline uint##B##_t complement##B(struct vcpu *c, uint##B##_t a)                         \
    {                                                                                              \
        return (uint##B##_t) ~a;                                                                   \
    }                                                                                              \
    UNARY_FORMS(complement, B)                                                                     \
    static const struct uop *complement##B##_lock(struct vcpu *c, const struct uop *op)            \
    {                                                                                              \
        memory##B *p = locked_ptr(c, op, ea_linear(c, op, B / 8, MMU_WRITE), B / 8);               \
        __asm__ volatile("lock xor %[ones], %[m]"                                                  \
                         : [m] "+m"(*p)                                                            \
                         : [ones] "q"((uint##B##_t) - 1)                                           \
                         : "cc", "memory");                                                        \
        commit_locked(c);                                                                          \
        return op + 1;                                                                             \
    }

#define UNARY_SIZES(NAME, INSN)                                                                    \
    UNARY(NAME, 8, INSN "b")                                                                       \
    UNARY(NAME, 16, INSN "w")                                                                      \
    UNARY(NAME, 32, INSN "l")                                                                      \
    UNARY(NAME, 64, INSN "q")

UNARY_SIZES(inc, "inc")
UNARY_SIZES(dec, "dec")
UNARY_SIZES(neg, "neg")
NOT(8)
NOT(16)
NOT(32)
NOT(64)

#define LOCKED_BY_SIZE(NAME) NAME##8_lock, NAME##16_lock, NAME##32_lock, NAME##64_lock

uop_fn *const unary_handlers[UNARIES][SIZES][2] = {
    [UNARY_INC] = {FORMS2_BY_SIZE(inc)},
    [UNARY_DEC] = {FORMS2_BY_SIZE(dec)},
    [UNARY_NEG] = {FORMS2_BY_SIZE(neg)},
    [UNARY_NOT] = {FORMS2_BY_SIZE(complement)},
};

uop_fn *const unary_locked_handlers[UNARIES][SIZES] = {
    [UNARY_INC] = {LOCKED_BY_SIZE(inc)},
    [UNARY_DEC] = {LOCKED_BY_SIZE(dec)},
    [UNARY_NEG] = {LOCKED_BY_SIZE(neg)},
    [UNARY_NOT] = {LOCKED_BY_SIZE(complement)},
};

/* --- Shifts and rotates -------------------------------------------------------------------------
 */

/* A masked count of 0 changes no flag. The status flags but OF are loaded first, because rotates
 * keep most of them and RCL and RCR read CF; OF is defined by the host for a count of 1 and
 * undefined otherwise (SDM volume 2, SAL and RCL). */
#define SHIFT(NAME, B, INSN)                                                                       \
    static inline uint##B##_t NAME##B(struct vcpu *c, uint##B##_t a, uint8_t count)                \
    {                                                                                              \
        uint32_t flags = c->cc;                                                                    \
        if (!(count & (B == 64 ? 63 : 31)))                                                        \
            return a;                                                                              \
        __asm__("sahf\n\t" INSN " %%cl, %[a]" FLAGS_OUT                                            \
                : [a] "+q"(a), "+&a"(flags)                                                        \
                : "c"(count)                                                                       \
                : "cc");                                                                           \
        c->cc = (uint16_t)flags;                                                                   \
        return a;                                                                                  \
    }                                                                                              \
    static inline const struct uop *NAME##B##_mem(struct vcpu *c, const struct uop *op,            \
                                                  uint8_t count)                                   \
    {                                                                                              \
        volatile memory##B *p = rmw_ptr(c, op, ea_linear(c, op, B / 8, MMU_WRITE), B / 8);         \
        *p = NAME##B(c, *p, count);                                                                \
        commit_ptr(c, op);                                                                         \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_r(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, NAME##B(c, REG##B(c, op->dst), (uint8_t)op->imm));              \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_m(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        return NAME##B##_mem(c, op, (uint8_t)op->imm);                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_cl_r(struct vcpu *c, const struct uop *op)                  \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, NAME##B(c, REG##B(c, op->dst), (uint8_t)c->x.reg[X86_RCX]));    \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_cl_m(struct vcpu *c, const struct uop *op)                  \
    {                                                                                              \
        return NAME##B##_mem(c, op, (uint8_t)c->x.reg[X86_RCX]);                                   \
    }

#define SHIFT_SIZES_OF(NAME, INSN)                                                                 \
    SHIFT(NAME, 8, INSN "b")                                                                       \
    SHIFT(NAME, 16, INSN "w")                                                                      \
    SHIFT(NAME, 32, INSN "l")                                                                      \
    SHIFT(NAME, 64, INSN "q")

SHIFT_SIZES_OF(rol, "rol")
SHIFT_SIZES_OF(ror, "ror")
SHIFT_SIZES_OF(rcl, "rcl")
SHIFT_SIZES_OF(rcr, "rcr")
SHIFT_SIZES_OF(shl, "shl")
SHIFT_SIZES_OF(shr, "shr")
SHIFT_SIZES_OF(sar, "sar")

uop_fn *const shift_handlers[SHIFTS][SIZES][2] = {
    [SHIFT_ROL] = {FORMS2_BY_SIZE(rol)}, [SHIFT_ROR] = {FORMS2_BY_SIZE(ror)},
    [SHIFT_RCL] = {FORMS2_BY_SIZE(rcl)}, [SHIFT_RCR] = {FORMS2_BY_SIZE(rcr)},
    [SHIFT_SHL] = {FORMS2_BY_SIZE(shl)}, [SHIFT_SHR] = {FORMS2_BY_SIZE(shr)},
    [SHIFT_SAR] = {FORMS2_BY_SIZE(sar)},
};

#define CL_FORMS(NAME, B) {NAME##B##_cl_r, NAME##B##_cl_m},
#define CL_BY_SIZE(NAME)  CL_FORMS(NAME, 8) CL_FORMS(NAME, 16) CL_FORMS(NAME, 32) CL_FORMS(NAME, 64)

uop_fn *const shift_cl_handlers[SHIFTS][SIZES][2] = {
    [SHIFT_ROL] = {CL_BY_SIZE(rol)}, [SHIFT_ROR] = {CL_BY_SIZE(ror)},
    [SHIFT_RCL] = {CL_BY_SIZE(rcl)}, [SHIFT_RCR] = {CL_BY_SIZE(rcr)},
    [SHIFT_SHL] = {CL_BY_SIZE(shl)}, [SHIFT_SHR] = {CL_BY_SIZE(shr)},
    [SHIFT_SAR] = {CL_BY_SIZE(sar)},
};

/* --- SHLD, SHRD ------------------------------------------------------------------------------- */

#define DOUBLE_SHIFT(NAME, B, INSN)                                                                \
    static inline uint##B##_t NAME##B(struct vcpu *c, const struct uop *op, uint##B##_t a)         \
    {                                                                                              \
        uint8_t count = op->aux ? (uint8_t)c->x.reg[X86_RCX] : (uint8_t)op->imm;                   \
        uint##B##_t b = REG##B(c, op->src);                                                        \
        uint32_t flags = c->cc;                                                                    \
        if (!(count & (B == 64 ? 63 : 31)))                                                        \
            return a;                                                                              \
        __asm__("sahf\n\t" INSN " %%cl, %[b], %[a]" FLAGS_OUT                                      \
                : [a] "+r"(a), "+&a"(flags)                                                        \
                : [b] "r"(b), "c"(count)                                                           \
                : "cc");                                                                           \
        c->cc = (uint16_t)flags;                                                                   \
        return a;                                                                                  \
    }                                                                                              \
    static const struct uop *NAME##B##_r(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, NAME##B(c, op, REG##B(c, op->dst)));                            \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_m(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        volatile memory##B *p = rmw_ptr(c, op, ea_linear(c, op, B / 8, MMU_WRITE), B / 8);         \
        *p = NAME##B(c, op, *p);                                                                   \
        commit_ptr(c, op);                                                                         \
        return op + 1;                                                                             \
    }

DOUBLE_SHIFT(shld, 16, "shldw")
DOUBLE_SHIFT(shld, 32, "shldl")
DOUBLE_SHIFT(shld, 64, "shldq")
DOUBLE_SHIFT(shrd, 16, "shrdw")
DOUBLE_SHIFT(shrd, 32, "shrdl")
DOUBLE_SHIFT(shrd, 64, "shrdq")

uop_fn *const shld_handlers[2][SIZES][2] = {
    {{0}, FORMS2(shld, 16) FORMS2(shld, 32) FORMS2(shld, 64)},
    {{0}, FORMS2(shrd, 16) FORMS2(shrd, 32) FORMS2(shrd, 64)},
};
