/*
 * Bit tests, exchanges, compare-and-exchange, byte swaps, and the decimal adjustments of 16- and
 * 32-bit code.
 */
#include "cpu/interp/operand.h"
#include "cpu/interp/compute.h"
#include "cpu/interp/handlers.h"

/* Atomic operations on operands that may be misaligned, which the compilers' own must not be. */
#define EXCHANGE(B, SUFFIX)                                                                        \
    static inline uint##B##_t exchange##B(memory##B *p, uint##B##_t a)                             \
    {                                                                                              \
        __asm__ volatile("xchg" SUFFIX " %[a], %[m]" : [m] "+m"(*p), [a] "+q"(a) : : "memory");    \
        return a;                                                                                  \
    }

EXCHANGE(8, "b")
EXCHANGE(16, "w")
EXCHANGE(32, "l")
EXCHANGE(64, "q")

static inline bool replace64(memory64 *p, uint64_t *old, uint64_t desired)
{
    bool equal;

    __asm__ volatile("lock cmpxchgq %[b], %[m]"
                     : [m] "+m"(*p), "+a"(*old), "=@ccz"(equal)
                     : [b] "r"(desired)
                     : "memory");
    return equal;
}

/* --- BT, BTS, BTR, BTC ------------------------------------------------------------------------ */

/* Of the flags only CF is defined; the others are as the host's instruction leaves them. BIT is
 * within the operand. Memory forms take a pointer, and are locked if aux says so. */
#define BIT_TEST(NAME, B, INSN, LOCK, WRITES)                                                      \
    static inline uint##B##_t NAME##B(struct vcpu *c, uint##B##_t a, uint##B##_t bit)              \
    {                                                                                              \
        uint32_t flags = c->cc;                                                                    \
        __asm__("sahf\n\t" INSN " %[b], %[a]" FLAGS_OUT                                            \
                : [a] "+r"(a), "+&a"(flags)                                                        \
                : [b] "r"(bit)                                                                     \
                : "cc");                                                                           \
        c->cc = (uint16_t)((flags & ~CC_OF) | (c->cc & CC_OF));                                    \
        return a;                                                                                  \
    }                                                                                              \
    static const struct uop *NAME##B##_r(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        uint##B##_t bit = op->src == 0xFF ? (uint##B##_t)op->imm : REG##B(c, op->src);             \
        uint##B##_t a = NAME##B(c, REG##B(c, op->dst), bit & (B - 1));                             \
        if (WRITES)                                                                                \
            set_reg(c, op->dst, B / 8, a);                                                         \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_at(struct vcpu *c, const struct uop *op, uint64_t linear,   \
                                          uint##B##_t bit)                                         \
    {                                                                                              \
        if (!(WRITES)) {                                                                           \
            NAME##B(c, load##B(c, op, linear), bit);                                               \
        } else if (op->aux) {                                                                      \
            memory##B *p = locked_ptr(c, op, linear, B / 8);                                       \
            uint32_t flags = c->cc;                                                                \
            __asm__ volatile("sahf\n\t" LOCK INSN " %[b], %[m]" FLAGS_OUT                          \
                             : [m] "+m"(*p), "+&a"(flags)                                          \
                             : [b] "r"(bit)                                                        \
                             : "cc", "memory");                                                    \
            c->cc = (uint16_t)((flags & ~CC_OF) | (c->cc & CC_OF));                                \
            commit_locked(c);                                                                      \
        } else {                                                                                   \
            volatile memory##B *p = rmw_ptr(c, op, linear, B / 8);                                 \
            *p = NAME##B(c, *p, bit);                                                              \
            commit_ptr(c, op);                                                                     \
        }                                                                                          \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *NAME##B##_mi(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        uint64_t linear = ea_linear(c, op, B / 8, (WRITES) ? MMU_WRITE : MMU_READ);                \
        return NAME##B##_at(c, op, linear, op->imm & (B - 1));                                     \
    }                                                                                              \
    /* The bit offset is signed and reaches beyond the operand. */                                 \
    static const struct uop *NAME##B##_mr(struct vcpu *c, const struct uop *op)                    \
    {                                                                                              \
        int##B##_t offset = (int##B##_t)REG##B(c, op->src);                                        \
        struct uop moved = *op;                                                                    \
        uint64_t linear;                                                                           \
        moved.disp += (int64_t)(offset >> (B == 64 ? 6 : B == 32 ? 5 : 4)) * (B / 8);              \
        linear = ea_linear(c, &moved, B / 8, (WRITES) ? MMU_WRITE : MMU_READ);                     \
        return NAME##B##_at(c, op, linear, offset & (B - 1));                                      \
    }

#define BIT_TEST_SIZES(NAME, INSN, LOCK, WRITES)                                                   \
    BIT_TEST(NAME, 16, INSN "w", LOCK, WRITES)                                                     \
    BIT_TEST(NAME, 32, INSN "l", LOCK, WRITES)                                                     \
    BIT_TEST(NAME, 64, INSN "q", LOCK, WRITES)

BIT_TEST_SIZES(bt, "bt", "", false)
BIT_TEST_SIZES(bts, "bts", "lock ", true)
BIT_TEST_SIZES(btr, "btr", "lock ", true)
BIT_TEST_SIZES(btc, "btc", "lock ", true)

#define BIT_FORMS(NAME, B) {NAME##B##_r, NAME##B##_mi, NAME##B##_mr},
#define BIT_BY_SIZE(NAME)  {0}, BIT_FORMS(NAME, 16) BIT_FORMS(NAME, 32) BIT_FORMS(NAME, 64)

uop_fn *const bit_handlers[BIT_TESTS][SIZES][3] = {
    [BIT_BT] = {BIT_BY_SIZE(bt)},
    [BIT_BTS] = {BIT_BY_SIZE(bts)},
    [BIT_BTR] = {BIT_BY_SIZE(btr)},
    [BIT_BTC] = {BIT_BY_SIZE(btc)},
};

/* --- XADD, CMPXCHG, XCHG ---------------------------------------------------------------------- */

/* Memory forms are always executed as the locked form, which differs only in being atomic: so there
 * need not be a second version. */
#define EXCHANGES(B, SUFFIX)                                                                       \
    static const struct uop *xadd##B##_r(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        uint##B##_t a = REG##B(c, op->dst), b = REG##B(c, op->src);                                \
        uint32_t flags;                                                                            \
        __asm__("xadd" SUFFIX " %[b], %[a]" FLAGS_OUT                                              \
                : [a] "+q"(a), [b] "+q"(b), "=&a"(flags)                                           \
                :                                                                                  \
                : "cc");                                                                           \
        c->cc = (uint16_t)flags;                                                                   \
        set_reg(c, op->src, B / 8, b);                                                             \
        set_reg(c, op->dst, B / 8, a);                                                             \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *xadd##B##_m(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        memory##B *p = locked_ptr(c, op, ea_linear(c, op, B / 8, MMU_WRITE), B / 8);               \
        uint##B##_t b = REG##B(c, op->src);                                                        \
        uint32_t flags;                                                                            \
        __asm__ volatile("lock xadd" SUFFIX " %[b], %[m]" FLAGS_OUT                                \
                         : [m] "+m"(*p), [b] "+q"(b), "=&a"(flags)                                 \
                         :                                                                         \
                         : "cc", "memory");                                                        \
        commit_locked(c);                                                                          \
        c->cc = (uint16_t)flags;                                                                   \
        set_reg(c, op->src, B / 8, b);                                                             \
        return op + 1;                                                                             \
    }                                                                                              \
    static inline uint##B##_t cmpxchg##B(struct vcpu *c, memory##B *p, uint##B##_t expected,       \
                                         uint##B##_t desired)                                      \
    {                                                                                              \
        uint64_t rax = expected, old, flags;                                                       \
        __asm__ volatile("lock cmpxchg" SUFFIX " %[b], %[m]\n\tmovq %%rax, %[old]" FLAGS_OUT       \
                         : [m] "+m"(*p), [old] "=&r"(old), "=&a"(flags)                            \
                         : [b] "q"(desired), "2"(rax)                                              \
                         : "cc", "memory");                                                        \
        c->cc = (uint16_t)flags;                                                                   \
        return (uint##B##_t)old;                                                                   \
    }                                                                                              \
    static const struct uop *cmpxchg##B##_r(struct vcpu *c, const struct uop *op)                  \
    {                                                                                              \
        memory##B a = REG##B(c, op->dst);                                                          \
        uint##B##_t old = cmpxchg##B(c, &a, REG##B(c, 0), REG##B(c, op->src));                     \
        if (c->cc & CC_ZF)                                                                         \
            set_reg(c, op->dst, B / 8, a);                                                         \
        else                                                                                       \
            set_reg(c, 0, B / 8, old);                                                             \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *cmpxchg##B##_m(struct vcpu *c, const struct uop *op)                  \
    {                                                                                              \
        memory##B *p = locked_ptr(c, op, ea_linear(c, op, B / 8, MMU_WRITE), B / 8);               \
        uint##B##_t old = cmpxchg##B(c, p, REG##B(c, 0), REG##B(c, op->src));                      \
        commit_locked(c);                                                                          \
        if (!(c->cc & CC_ZF))                                                                      \
            set_reg(c, 0, B / 8, old);                                                             \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *xchg##B##_r(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        uint##B##_t a = REG##B(c, op->dst);                                                        \
        set_reg(c, op->dst, B / 8, REG##B(c, op->src));                                            \
        set_reg(c, op->src, B / 8, a);                                                             \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct uop *xchg##B##_m(struct vcpu *c, const struct uop *op)                     \
    {                                                                                              \
        memory##B *p = locked_ptr(c, op, ea_linear(c, op, B / 8, MMU_WRITE), B / 8);               \
        uint##B##_t old = exchange##B(p, REG##B(c, op->src));                                      \
        commit_locked(c);                                                                          \
        set_reg(c, op->src, B / 8, old);                                                           \
        return op + 1;                                                                             \
    }

EXCHANGES(8, "b")
EXCHANGES(16, "w")
EXCHANGES(32, "l")
EXCHANGES(64, "q")

uop_fn *const xadd_handlers[SIZES][2] = {FORMS2_BY_SIZE(xadd)};
uop_fn *const cmpxchg_handlers[SIZES][2] = {FORMS2_BY_SIZE(cmpxchg)};
uop_fn *const xchg_handlers[SIZES][2] = {FORMS2_BY_SIZE(xchg)};

const struct uop *op_cmpxchg8b(struct vcpu *c, const struct uop *op)
{
    unaligned64 *p = locked_ptr(c, op, ea_linear(c, op, 8, MMU_WRITE), 8);
    uint64_t expected = REG64(c, X86_RDX * 8) << 32 | REG32(c, X86_RAX * 8);
    uint64_t desired = REG64(c, X86_RCX * 8) << 32 | REG32(c, X86_RBX * 8);
    bool equal = replace64(p, &expected, desired);

    commit_locked(c);
    c->cc = (uint16_t)(equal ? c->cc | CC_ZF : c->cc & ~CC_ZF);
    if (!equal) {
        c->x.reg[X86_RAX] = (uint32_t)expected;
        c->x.reg[X86_RDX] = expected >> 32;
    }
    return op + 1;
}

const struct uop *op_cmpxchg16b(struct vcpu *c, const struct uop *op)
{
    uint64_t linear = ea_linear(c, op, 16, MMU_WRITE);
    uint64_t rax = c->x.reg[X86_RAX], rdx = c->x.reg[X86_RDX];
    uint64_t(*p)[2];
    bool equal;

    if (linear & 15)
        raise_error(c, op, X86_GP, 0);
    p = locked_ptr(c, op, linear, 16);
    __asm__ volatile("lock cmpxchg16b %[m]"
                     : [m] "+m"(*p), "+a"(rax), "+d"(rdx), "=@ccz"(equal)
                     : "b"(c->x.reg[X86_RBX]), "c"(c->x.reg[X86_RCX])
                     : "memory");
    commit_locked(c);
    c->cc = (uint16_t)(equal ? c->cc | CC_ZF : c->cc & ~CC_ZF);
    c->x.reg[X86_RAX] = rax;
    c->x.reg[X86_RDX] = rdx;
    return op + 1;
}

/* --- BSWAP, MOVBE ----------------------------------------------------------------------------- */

static uint64_t swap_bytes(uint64_t value, unsigned size)
{
    return __builtin_bswap64(value) >> (64 - size * 8);
}

const struct uop *op_bswap(struct vcpu *c, const struct uop *op)
{
    /* BSWAP of 16 bits is undefined in the manual; processors store 0. */
    uint64_t value = op->osize == 2 ? 0 : swap_bytes(get_reg(c, op->dst, op->osize), op->osize);

    set_reg(c, op->dst, op->osize, value);
    return op + 1;
}

const struct uop *op_movbe_load(struct vcpu *c, const struct uop *op)
{
    uint64_t value = load_sized(c, op, ea_linear(c, op, op->osize, MMU_READ), op->osize);

    set_reg(c, op->dst, op->osize, swap_bytes(value, op->osize));
    return op + 1;
}

const struct uop *op_movbe_store(struct vcpu *c, const struct uop *op)
{
    uint64_t value = swap_bytes(get_reg(c, op->src, op->osize), op->osize);

    store_sized(c, op, ea_linear(c, op, op->osize, MMU_WRITE), op->osize, value);
    return op + 1;
}

/* --- Decimal adjustment (SDM volume 2); no host instruction can do it in 64-bit code ---------- */

static void set_result_flags(struct vcpu *c, uint8_t al)
{
    c->cc &= ~(CC_SF | CC_ZF | CC_PF);
    c->cc |= (uint16_t)((al & 0x80 ? CC_SF : 0) | (al == 0 ? CC_ZF : 0) |
                        (__builtin_parity(al) ? 0 : CC_PF));
}

static const struct uop *ascii_adjust(struct vcpu *c, const struct uop *op, int sign)
{
    uint16_t ax = REG16(c, 0);

    if ((ax & 0xF) > 9 || (c->cc & CC_AF)) {
        ax = (uint16_t)(ax + sign * 0x106);
        c->cc |= CC_AF | CC_CF;
    } else {
        c->cc &= ~(CC_AF | CC_CF);
    }
    REG16(c, 0) = ax & 0xFF0F;
    set_result_flags(c, ax & 0xF);
    return op + 1;
}

const struct uop *op_aaa(struct vcpu *c, const struct uop *op)
{
    return ascii_adjust(c, op, 1);
}

const struct uop *op_aas(struct vcpu *c, const struct uop *op)
{
    return ascii_adjust(c, op, -1);
}

static const struct uop *decimal_adjust(struct vcpu *c, const struct uop *op, int sign)
{
    uint8_t old = REG8(c, 0), al = old;
    bool carry = c->cc & CC_CF, high = old > 0x99 || carry;

    if ((al & 0xF) > 9 || (c->cc & CC_AF)) {
        /* Subtracting 6 may borrow; adding it from a valid state sets CF by the high test. */
        high |= sign < 0 && al < 6 && carry;
        carry |= sign < 0 ? al < 6 : al > 0xF9;
        al = (uint8_t)(al + sign * 6);
        c->cc |= CC_AF;
    } else {
        c->cc &= ~CC_AF;
    }
    if (high) {
        al = (uint8_t)(al + sign * 0x60);
        carry = true;
    } else if (sign > 0) {
        carry = false;
    }
    c->cc = (uint16_t)(carry ? c->cc | CC_CF : c->cc & ~CC_CF);
    REG8(c, 0) = al;
    set_result_flags(c, al);
    return op + 1;
}

const struct uop *op_daa(struct vcpu *c, const struct uop *op)
{
    return decimal_adjust(c, op, 1);
}

const struct uop *op_das(struct vcpu *c, const struct uop *op)
{
    return decimal_adjust(c, op, -1);
}

const struct uop *op_aam(struct vcpu *c, const struct uop *op)
{
    uint8_t al = REG8(c, 0), base = (uint8_t)op->imm;

    if (base == 0)
        raise_fault(c, op, X86_DE);
    REG16(c, 0) = (uint16_t)(al / base << 8 | al % base);
    c->cc &= ~(CC_OF | CC_CF | CC_AF);
    set_result_flags(c, REG8(c, 0));
    return op + 1;
}

const struct uop *op_aad(struct vcpu *c, const struct uop *op)
{
    REG16(c, 0) = (uint8_t)(REG8(c, 0) + REG8(c, 1) * (uint8_t)op->imm);
    c->cc &= ~(CC_OF | CC_CF | CC_AF);
    set_result_flags(c, REG8(c, 0));
    return op + 1;
}
