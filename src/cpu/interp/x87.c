/*
 * The x87's environment: FNSTENV, FLDENV, FNSAVE and FRSTOR (SDM volume 1, 8.1.10), and the
 * pointers to the last instruction. CPUID tells the guest that FCS and FDS are always 0.
 */
#include "cpu/interp/x87.h"

#include "cpu/core/access.h"
#include "cpu/interp/handlers.h"

#include <string.h>

/* In the image (SDM volume 1, table 10-2). */
enum { FCW = 0, FSW = 2, FTW = 4, FOP = 6, FIP = 8, FDP = 16, REGISTERS = 32, REGISTER = 16 };

#define FCW_INIT       0x037Fu
#define REGISTER_BYTES 10u
#define WORDS          7u /* of an environment, of 16 or 32 bits each */

static uint16_t get16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, 2);
    return v;
}

static void set16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, 2);
}

struct x87_pointers x87_pointers_get(const uint8_t *xsave)
{
    struct x87_pointers p = {.opcode = get16(xsave + FOP)};

    memcpy(&p.ip, xsave + FIP, 8);
    memcpy(&p.data, xsave + FDP, 8);
    return p;
}

void x87_pointers_set(uint8_t *xsave, const struct x87_pointers *pointers)
{
    set16(xsave + FOP, pointers->opcode);
    memcpy(xsave + FIP, &pointers->ip, 8);
    memcpy(xsave + FDP, &pointers->data, 8);
}

bool x87_is_noted(const struct x86_insn *insn)
{
    if (insn->info->class != X86_CLASS_X87 ||
        insn->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        insn->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_FWAIT:
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR: return false;
    default: return insn->z.opcode >= 0xD8 && insn->z.opcode <= 0xDF;
    }
}

uint16_t x87_opcode(const struct x86_insn *insn)
{
    return (uint16_t)((insn->z.opcode & 7) << 8 | insn->bytes[insn->z.raw.modrm.offset]);
}

/* Reserved bits of FCW are as FLDCW leaves them, and ES and B of FSW follow from the exceptions
 * that are pending (SDM volume 1, 8.1.3). */
void x87_settle(uint8_t *xsave)
{
    uint16_t control = (get16(xsave + FCW) & 0x1F3F) | 0x40, status = get16(xsave + FSW) & 0x7F7F;

    if (status & ~control & 0x3F)
        status |= 0x8080;
    set16(xsave + FCW, control);
    set16(xsave + FSW, status);
}

static unsigned top(const uint8_t *xsave)
{
    return xsave[FSW + 1] >> 3 & 7;
}

/* The image has the registers from the top of the stack on. Moves them for STATUS, which has
 * another TOP, and sets it. */
static void set_status(uint8_t *xsave, uint16_t status)
{
    uint8_t stack[8][REGISTER];
    unsigned up = (status >> 11 & 7) - top(xsave);

    memcpy(stack, xsave + REGISTERS, sizeof(stack));
    for (unsigned i = 0; i < 8; i++)
        memcpy(xsave + REGISTERS + i * REGISTER, stack[(i + up) & 7], REGISTER);
    set16(xsave + FSW, status);
}

/* A register's tag: valid, zero, special (SDM volume 1, 8.1.7). */
static unsigned tag_of(const uint8_t *number)
{
    uint64_t mantissa;
    unsigned exponent = get16(number + 8) & 0x7FFF;

    memcpy(&mantissa, number, 8);
    if (!exponent && !mantissa)
        return 1;
    return exponent == 0x7FFF || !exponent || !(mantissa >> 63) ? 2 : 0;
}

static uint16_t tags(const uint8_t *xsave)
{
    unsigned word = 0;

    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *number = xsave + REGISTERS + ((i - top(xsave)) & 7) * REGISTER;

        word |= (xsave[FTW] >> i & 1 ? tag_of(number) : 3) << i * 2;
    }
    return (uint16_t)word;
}

static uint8_t abridge(uint16_t word)
{
    unsigned abridged = 0;

    for (unsigned i = 0; i < 8; i++)
        abridged |= (unsigned)((word >> i * 2 & 3) != 3) << i;
    return (uint8_t)abridged;
}

/* Of the environment's words, the last four. FIP and FDP of real and virtual-8086 mode are linear
 * addresses, cut in two. */
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
    uint32_t word[WORDS] = {get16(x + FCW), get16(x + FSW), tags(x)};

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
    set16(x + FCW, (uint16_t)word[0]);
    set_status(x, (uint16_t)word[1]);
    x[FTW] = abridge((uint16_t)word[2]);
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
    c->x.xsave[FCW] |= 0x3F; /* all exceptions are masked now */
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
    memcpy(c->x.xsave, x, FDP + 8);
    memcpy(c->x.xsave + REGISTERS, x + REGISTERS, sizeof(x) - REGISTERS);
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
    for (unsigned i = 0; i < 8; i++) {
        memcpy(write_ptr(c, op, linear + i * REGISTER_BYTES, REGISTER_BYTES),
               x + REGISTERS + i * REGISTER, REGISTER_BYTES);
        commit_ptr(c, op);
    }
    set16(x + FCW, FCW_INIT);
    set_status(x, 0);
    x[FTW] = 0;
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
    memset(x + REGISTERS, 0, sizeof(x) - REGISTERS);
    for (unsigned i = 0; i < 8; i++)
        memcpy(x + REGISTERS + i * REGISTER,
               read_ptr(c, op, linear + i * REGISTER_BYTES, REGISTER_BYTES), REGISTER_BYTES);
    memcpy(c->x.xsave, x, FDP + 8);
    memcpy(c->x.xsave + REGISTERS, x + REGISTERS, sizeof(x) - REGISTERS);
    return op + 1;
}
