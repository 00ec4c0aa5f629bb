/*
 * ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST in every form and size.
 *
 * The host's own instruction does the arithmetic, so the flags are those of a real processor. They
 * are stored as LAHF and SETO give them.
 */
#include "cpu/interp/operand.h"
#include "cpu/interp/compute.h"
#include "cpu/interp/handlers.h"

/* Loads the host's CF from c->cc, for instructions that read it. */
#define CARRY_IN "btw $8, %[cc]\n\t"
#define NO_CARRY ""
/* Executes a OP b on the host and returns the result in a. */
#define COMPUTE(INSN, PREPARE)                                                                     \
    __asm__(PREPARE INSN " %[b], %[a]" FLAGS_OUT                                                   \
            : [a] "+q"(a), "=&a"(flags)                                                            \
            : [b] "q"(b), [cc] "m"(c->cc)                                                          \
            : "cc");                                                                               \
    c->cc = (uint16_t)flags

/* Does the same on memory, as one locked instruction. */
#define COMPUTE_LOCKED(INSN, PREPARE, TYPE)                                                        \
    __asm__ volatile(PREPARE "lock " INSN " %[b], %[m]" FLAGS_OUT                                  \
                     : [m] "+m"(*(TYPE *)p), "=&a"(flags)                                          \
                     : [b] "q"(b), [cc] "m"(c->cc)                                                 \
                     : "cc", "memory");                                                            \
    c->cc = (uint16_t)flags

/* Handlers that write their first operand. */
#define WRITING(NAME, B, INSN, PREPARE)                                                            \
    static inline uint##B##_t NAME##B(struct vcpu *c, uint##B##_t a, uint##B##_t b)                \
    {                                                                                              \
        uint32_t flags;                                                                            \
        COMPUTE(INSN, PREPARE);                                                                    \
        return a;                                                                                  \
    }                                                                                              \
    static const struct uop *NAME##B##_rr(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, NAME##B(c, REG##B(c, op->dst), REG##B(c, op->src)));            \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_ri(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        set_reg(c, op->dst, B / 8, NAME##B(c, REG##B(c, op->dst), (uint##B##_t)op->imm));          \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_rm(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        uint##B##_t b = load##B(c, op, ea_linear(c, op, B / 8, MMU_READ));                         \
        set_reg(c, op->dst, B / 8, NAME##B(c, REG##B(c, op->dst), b));                             \
        return op + 1;                                                                             \
    }                                                                                              \
    static inline const struct uop *NAME##B##_m(struct vcpu *c, const struct uop *op,              \
                                                uint##B##_t b)                                     \
    {                                                                                              \
        volatile memory##B *p = rmw_ptr(c, op, ea_linear(c, op, B / 8, MMU_WRITE), B / 8);         \
        *p = NAME##B(c, *p, b);                                                                    \
        commit_ptr(c, op);                                                                         \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_mr(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        return NAME##B##_m(c, op, REG##B(c, op->src));                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_mi(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        return NAME##B##_m(c, op, (uint##B##_t)op->imm);                                           \
    }                                                                                              \
    static inline const struct uop *NAME##B##_lock(struct vcpu *c, const struct uop *op,           \
                                                   uint##B##_t b)                                  \
    {                                                                                              \
        void *p = locked_ptr(c, op, ea_linear(c, op, B / 8, MMU_WRITE), B / 8);                    \
        uint32_t flags;                                                                            \
        COMPUTE_LOCKED(INSN, PREPARE, memory##B);                                                  \
        commit_locked(c);                                                                          \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_lock_mr(struct vcpu *c, const struct uop *op)               \
    {                                                                                              \
        return NAME##B##_lock(c, op, REG##B(c, op->src));                                          \
    }                                                                                              \
    static const struct uop *NAME##B##_lock_mi(struct vcpu *c, const struct uop *op)               \
    {                                                                                              \
        return NAME##B##_lock(c, op, (uint##B##_t)op->imm);                                        \
    }

/* Handlers that only set flags. */
#define COMPARING(NAME, B, INSN)                                                                   \
    static inline void NAME##B(struct vcpu *c, uint##B##_t a, uint##B##_t b)                       \
    {                                                                                              \
        uint32_t flags;                                                                            \
        __asm__(INSN " %[b], %[a]" FLAGS_OUT : "=&a"(flags) : [a] "q"(a), [b] "q"(b) : "cc");      \
        c->cc = (uint16_t)flags;                                                                   \
    }                                                                                              \
    static const struct uop *NAME##B##_rr(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        NAME##B(c, REG##B(c, op->dst), REG##B(c, op->src));                                        \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_ri(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        NAME##B(c, REG##B(c, op->dst), (uint##B##_t)op->imm);                                      \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_rm(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        NAME##B(c, REG##B(c, op->dst), load##B(c, op, ea_linear(c, op, B / 8, MMU_READ)));         \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_mr(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        NAME##B(c, load##B(c, op, ea_linear(c, op, B / 8, MMU_READ)), REG##B(c, op->src));         \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_mi(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        NAME##B(c, load##B(c, op, ea_linear(c, op, B / 8, MMU_READ)), (uint##B##_t)op->imm);       \
        return op + 1;                                                                             \
    }

#define WRITING_SIZES(NAME, INSN, PREPARE)                                                         \
    WRITING(NAME, 8, INSN "b", PREPARE)                                                            \
    WRITING(NAME, 16, INSN "w", PREPARE)                                                           \
    WRITING(NAME, 32, INSN "l", PREPARE)                                                           \
    WRITING(NAME, 64, INSN "q", PREPARE)
#define COMPARING_SIZES(NAME, INSN)                                                                \
    COMPARING(NAME, 8, INSN "b")                                                                   \
    COMPARING(NAME, 16, INSN "w")                                                                  \
    COMPARING(NAME, 32, INSN "l")                                                                  \
    COMPARING(NAME, 64, INSN "q")

WRITING_SIZES(add, "add", NO_CARRY)
WRITING_SIZES(or, "or", NO_CARRY)
WRITING_SIZES(adc, "adc", CARRY_IN)
WRITING_SIZES(sbb, "sbb", CARRY_IN)
WRITING_SIZES(and, "and", NO_CARRY)
WRITING_SIZES(sub, "sub", NO_CARRY)
WRITING_SIZES(xor, "xor", NO_CARRY)
COMPARING_SIZES(cmp, "cmp")
COMPARING_SIZES(test, "test")

#define BY_FORM(NAME, B) {NAME##B##_rr, NAME##B##_rm, NAME##B##_mr, NAME##B##_ri, NAME##B##_mi},
#define BY_SIZE(NAME)    BY_FORM(NAME, 8) BY_FORM(NAME, 16) BY_FORM(NAME, 32) BY_FORM(NAME, 64)

uop_fn *const alu_handlers[ALUS][SIZES][FORMS] = {
    [ALU_ADD] = {BY_SIZE(add)}, [ALU_OR] = {BY_SIZE(or)},   [ALU_ADC] = {BY_SIZE(adc)},
    [ALU_SBB] = {BY_SIZE(sbb)}, [ALU_AND] = {BY_SIZE(and)}, [ALU_SUB] = {BY_SIZE(sub)},
    [ALU_XOR] = {BY_SIZE(xor)}, [ALU_CMP] = {BY_SIZE(cmp)}, [ALU_TEST] = {BY_SIZE(test)},
};

#define LOCKED(NAME, B)      {NAME##B##_lock_mr, NAME##B##_lock_mi},
#define LOCKED_BY_SIZE(NAME) LOCKED(NAME, 8) LOCKED(NAME, 16) LOCKED(NAME, 32) LOCKED(NAME, 64)

uop_fn *const alu_locked_handlers[ALUS][SIZES][2] = {
    [ALU_ADD] = {LOCKED_BY_SIZE(add)}, [ALU_OR] = {LOCKED_BY_SIZE(or)},
    [ALU_ADC] = {LOCKED_BY_SIZE(adc)}, [ALU_SBB] = {LOCKED_BY_SIZE(sbb)},
    [ALU_AND] = {LOCKED_BY_SIZE(and)}, [ALU_SUB] = {LOCKED_BY_SIZE(sub)},
    [ALU_XOR] = {LOCKED_BY_SIZE(xor)},
};
