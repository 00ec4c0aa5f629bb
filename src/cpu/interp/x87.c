/*
 * The x87's environment: FNSTENV, FLDENV, FNSAVE and FRSTOR (SDM volume 1, 8.1.10). CPUID tells the
 * guest that FCS and FDS are always 0.
 */
#include "x86/x87.h"

#include "cpu/interp/handlers.h"
#include "cpu/interp/operand.h"

#include <string.h>

#define FCW_INIT       0x037Fu
#define REGISTER_BYTES 10u
#define WORDS          7u /* of an environment, of 16 or 32 bits each */

static unsigned top(const uint8_t *xsave)
{
    return xsave[X87_FSW + 1] >> 3 & 7;
}

/* The image has the registers from the top of the stack on. Moves them for STATUS, which has
 * another TOP, and sets it. */
static void set_status(uint8_t *xsave, uint16_t status)
{
    uint8_t stack[8][X87_REGISTER];
    unsigned up = (status >> 11 & 7) - top(xsave);

    memcpy(stack, xsave + X87_REGISTERS, sizeof(stack));
    for (unsigned i = 0; i < 8; i++)
        memcpy(xsave + X87_REGISTERS + i * X87_REGISTER, stack[(i + up) & 7], X87_REGISTER);
    x87_set_word(xsave + X87_FSW, status);
}

/* Returns a register's tag: 0 valid, 1 zero, 2 special (SDM volume 1, 8.1.7). */
static unsigned tag_of(const uint8_t *number)
{
    uint64_t mantissa;
    unsigned exponent = x87_word(number + 8) & 0x7FFF;

    memcpy(&mantissa, number, 8);
    if (!exponent && !mantissa)
        return 1;
    return exponent == 0x7FFF || !exponent || !(mantissa >> 63) ? 2 : 0;
}

static uint16_t tags(const uint8_t *xsave)
{
    unsigned word = 0;

    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *number = xsave + X87_REGISTERS + ((i - top(xsave)) & 7) * X87_REGISTER;

        word |= (xsave[X87_FTW] >> i & 1 ? tag_of(number) : 3) << i * 2;
    }
    return (uint16_t)word;
}

/* Returns the tag word in the form of FXSAVE: a bit for each register, set if it is not empty. */
static uint8_t abridge(uint16_t word)
{
    unsigned abridged = 0;

    for (unsigned i = 0; i < 8; i++)
        abridged |= (unsigned)((word >> i * 2 & 3) != 3) << i;
    return (uint8_t)abridged;
}

/* Stores instruction pointer, opcode and operand pointer in words 3 to 6 of the environment. WIDE:
 * the 32-bit form. In real and virtual-8086 mode the pointers are linear addresses, each cut in
 * two.
 */
static void put_pointers(const struct vcpu *c, bool wide, uint32_t word[WORDS])
{
    struct x87_pointers p = x87_pointers_get(c->x.xsave);
    uint32_t ip = (uint32_t)p.ip, data = (uint32_t)p.data;

    word[3] = ip;
    word[5] = data;
    if (c->mode & MODE_REAL) {
        word[3] &= 0xFFFF;
        word[4] = (ip >> 16 & (wide ? 0xFFFF : 0xF)) << 12 | p.opcode;
        word[5] &= 0xFFFF;
        word[6] = (data >> 16 & (wide ? 0xFFFF : 0xF)) << 12;
    } else {
        word[4] = wide ? (uint32_t)p.opcode << 16 : 0;
        word[6] = 0;
    }
}

/* Returns the pointers that words 3 to 6 of an environment hold (see put_pointers). */
static struct x87_pointers take_pointers(const struct vcpu *c, bool wide,
                                         const uint32_t word[WORDS])
{
    struct x87_pointers p = {.ip = word[3], .data = word[5]};

    if (c->mode & MODE_REAL) {
        p.ip = (word[3] & 0xFFFF) | (word[4] & 0xFFFFF000) << 4;
        p.data = (word[5] & 0xFFFF) | (word[6] & 0xFFFFF000) << 4;
        p.opcode = word[4] & 0x7FF;
    } else if (wide) {
        p.opcode = word[4] >> 16 & 0x7FF;
    }
    return p;
}

/* Bytes of an environment, and of one word of it; osize: of the whole operand. */
static unsigned word_size(const struct uop *op)
{
    return op->osize == 14 || op->osize == 94 ? 2 : 4;
}

static void store_environment(struct vcpu *c, const struct uop *op, uint64_t linear)
{
    const uint8_t *x = c->x.xsave;
    unsigned size = word_size(op);
    uint32_t word[WORDS] = {x87_word(x + X87_FCW), x87_word(x + X87_FSW), tags(x)};

    put_pointers(c, size == 4, word);
    for (unsigned i = 0; i < WORDS; i++) {
        if (size == 4 && (i < 3 || i == 6)) /* reserved bits are stored as ones */
            word[i] |= i == 6 && (c->mode & MODE_REAL) ? 0 : 0xFFFF0000;
        store_sized(c, op, linear + i * size, size, word[i]);
    }
}

static void load_environment(struct vcpu *c, const struct uop *op, uint64_t linear, uint8_t *x)
{
    unsigned size = word_size(op);
    uint32_t word[WORDS];
    struct x87_pointers p;

    for (unsigned i = 0; i < WORDS; i++)
        word[i] = (uint32_t)load_sized(c, op, linear + i * size, size);
    p = take_pointers(c, size == 4, word);
    x87_set_word(x + X87_FCW, (uint16_t)word[0]);
    set_status(x, (uint16_t)word[1]);
    x[X87_FTW] = abridge((uint16_t)word[2]);
    x87_pointers_set(x, &p);
    x87_settle(x);
}

const struct uop *op_fnstenv(struct vcpu *c, const struct uop *op)
{
    uint64_t linear;

    fp_check(c, op, FP_X87);
    linear = ea_linear(c, op, op->osize, MMU_WRITE);
    probe_write(c, op, linear, op->osize);
    store_environment(c, op, linear);
    c->x.xsave[X87_FCW] |= 0x3F; /* all exceptions are masked now */
    x87_settle(c->x.xsave);
    return op + 1;
}

const struct uop *op_fldenv(struct vcpu *c, const struct uop *op)
{
    uint8_t x[X86_XSAVE_XMM];

    fp_check(c, op, FP_X87);
    x87_check(c, op);
    memcpy(x, c->x.xsave, sizeof(x));
    load_environment(c, op, ea_linear(c, op, op->osize, MMU_READ), x);
    memcpy(c->x.xsave, x, X87_FDP + 8);
    memcpy(c->x.xsave + X87_REGISTERS, x + X87_REGISTERS, sizeof(x) - X87_REGISTERS);
    return op + 1;
}

const struct uop *op_fnsave(struct vcpu *c, const struct uop *op)
{
    const struct x87_pointers none = {0};
    uint8_t *x = c->x.xsave;
    uint64_t linear;

    fp_check(c, op, FP_X87);
    linear = ea_linear(c, op, op->osize, MMU_WRITE);
    probe_write(c, op, linear, op->osize);
    store_environment(c, op, linear);
    linear += WORDS * word_size(op);
    for (unsigned i = 0; i < 8; i++)
        store_bytes(c, op, linear + i * REGISTER_BYTES, x + X87_REGISTERS + i * X87_REGISTER,
                    REGISTER_BYTES);
    x87_set_word(x + X87_FCW, FCW_INIT);
    set_status(x, 0);
    x[X87_FTW] = 0;
    x87_pointers_set(x, &none);
    return op + 1;
}

const struct uop *op_frstor(struct vcpu *c, const struct uop *op)
{
    uint8_t x[X86_XSAVE_XMM];
    uint64_t linear;

    fp_check(c, op, FP_X87);
    x87_check(c, op);
    memcpy(x, c->x.xsave, sizeof(x));
    linear = ea_linear(c, op, op->osize, MMU_READ);
    load_environment(c, op, linear, x);
    linear += WORDS * word_size(op);
    memset(x + X87_REGISTERS, 0, sizeof(x) - X87_REGISTERS);
    for (unsigned i = 0; i < 8; i++)
        load_bytes(c, op, linear + i * REGISTER_BYTES, x + X87_REGISTERS + i * X87_REGISTER,
                   REGISTER_BYTES);
    memcpy(c->x.xsave, x, X87_FDP + 8);
    memcpy(c->x.xsave + X87_REGISTERS, x + X87_REGISTERS, sizeof(x) - X87_REGISTERS);
    return op + 1;
}
