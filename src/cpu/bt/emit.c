/*
 * The emitter (SDM volume 2, chapter 2).
 */
#include "cpu/bt/emit.h"

#include <stdatomic.h>
#include <string.h>

#define REX_W 8
#define REX_R 4
#define REX_X 2
#define REX_B 1

void emit_byte(struct emitter *e, uint8_t byte)
{
    if (e->at == e->end)
        e->full = true;
    else
        *e->at++ = byte;
}

void emit_bytes(struct emitter *e, const void *bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        emit_byte(e, ((const uint8_t *)bytes)[i]);
}

void emit_u32(struct emitter *e, uint32_t value)
{
    emit_bytes(e, &value, 4);
}

void emit_u64(struct emitter *e, uint64_t value)
{
    emit_bytes(e, &value, 8);
}

/* The REX bits that REG in ModRM.reg and the operand need. */
static uint8_t rex_of(unsigned reg, struct operand m)
{
    return (uint8_t)((reg & 8 ? REX_R : 0) | (m.index != X86_NONE && (m.index & 8) ? REX_X : 0) |
                     (m.base != X86_NONE && (m.base & 8) ? REX_B : 0));
}

/* ModRM, SIB and displacement. */
static void emit_modrm(struct emitter *e, unsigned reg, struct operand m)
{
    uint8_t r = (uint8_t)((reg & 7) << 3);
    bool sib = m.index != X86_NONE || m.base == X86_NONE || (m.base & 7) == X86_RSP;
    uint8_t index = m.index == X86_NONE ? 4 : m.index & 7;

    if (m.base == X86_NONE) { /* SIB without base: disp32 */
        emit_byte(e, r | 4);
        emit_byte(e, (uint8_t)(m.scale << 6 | index << 3 | 5));
        emit_u32(e, (uint32_t)m.disp);
        return;
    }
    if (m.disp == 0 && (m.base & 7) != X86_RBP)
        r |= 0x00;
    else if (m.disp >= -128 && m.disp <= 127)
        r |= 0x40;
    else
        r |= 0x80;
    emit_byte(e, r | (sib ? 4 : m.base & 7));
    if (sib)
        emit_byte(e, (uint8_t)(m.scale << 6 | index << 3 | (m.base & 7)));
    if (r & 0x40)
        emit_byte(e, (uint8_t)m.disp);
    else if (r & 0x80)
        emit_u32(e, (uint32_t)m.disp);
}

static void emit_opcode(struct emitter *e, unsigned opcode)
{
    if (opcode >= 0x0F00)
        emit_byte(e, 0x0F);
    emit_byte(e, (uint8_t)opcode);
}

void emit_mem(struct emitter *e, bool wide, unsigned opcode, unsigned reg, struct operand m)
{
    uint8_t rex = (uint8_t)((wide ? REX_W : 0) | rex_of(reg, m));

    if (m.segment)
        emit_byte(e, m.segment);
    if (rex)
        emit_byte(e, 0x40 | rex);
    emit_opcode(e, opcode);
    emit_modrm(e, reg, m);
}

void emit_reg(struct emitter *e, bool wide, unsigned opcode, unsigned reg, unsigned rm)
{
    uint8_t rex = (uint8_t)((wide ? REX_W : 0) | (reg & 8 ? REX_R : 0) | (rm & 8 ? REX_B : 0));

    if (rex)
        emit_byte(e, 0x40 | rex);
    emit_opcode(e, opcode);
    emit_byte(e, (uint8_t)(0xC0 | (reg & 7) << 3 | (rm & 7)));
}

void emit_alu_imm(struct emitter *e, bool wide, unsigned n, unsigned reg, int32_t imm)
{
    bool small = imm >= -128 && imm <= 127;

    emit_reg(e, wide, small ? 0x83 : 0x81, n, reg);
    if (small)
        emit_byte(e, (uint8_t)imm);
    else
        emit_u32(e, (uint32_t)imm);
}

void emit_alu_mem_imm(struct emitter *e, bool wide, unsigned n, struct operand m, int32_t imm)
{
    bool small = imm >= -128 && imm <= 127;

    emit_mem(e, wide, small ? 0x83 : 0x81, n, m);
    if (small)
        emit_byte(e, (uint8_t)imm);
    else
        emit_u32(e, (uint32_t)imm);
}

void emit_test_imm(struct emitter *e, unsigned reg, uint32_t imm)
{
    emit_reg(e, false, 0xF7, 0, reg);
    emit_u32(e, imm);
}

void emit_test_mem_imm(struct emitter *e, struct operand m, uint32_t imm)
{
    emit_mem(e, false, 0xF7, 0, m);
    emit_u32(e, imm);
}

void emit_test_mem8(struct emitter *e, struct operand m, uint8_t imm)
{
    emit_mem(e, false, 0xF6, 0, m);
    emit_byte(e, imm);
}

void emit_cmp_mem8(struct emitter *e, struct operand m, uint8_t imm)
{
    emit_mem(e, false, 0x80, ALU_N_CMP, m);
    emit_byte(e, imm);
}

void emit_store_imm(struct emitter *e, bool wide, struct operand m, int32_t imm)
{
    emit_mem(e, wide, 0xC7, 0, m);
    emit_u32(e, (uint32_t)imm);
}

void emit_load_imm(struct emitter *e, unsigned reg, uint64_t imm)
{
    emit_byte(e, (uint8_t)(0x48 | (reg & 8 ? REX_B : 0)));
    emit_byte(e, (uint8_t)(0xB8 | (reg & 7)));
    emit_u64(e, imm);
}

void emit_rorx32(struct emitter *e, unsigned reg, unsigned rm, unsigned count)
{
    emit_byte(e, 0xC4);
    emit_byte(e, (uint8_t)((reg & 8 ? 0 : 0x80) | 0x40 | (rm & 8 ? 0 : 0x20) | 3));
    emit_byte(e, 0x7B); /* W0, vvvv 1111, L0, pp F2 */
    emit_byte(e, 0xF0);
    emit_byte(e, (uint8_t)(0xC0 | (reg & 7) << 3 | (rm & 7)));
    emit_byte(e, (uint8_t)count);
}

void emit_write_fs(struct emitter *e, unsigned reg)
{
    emit_byte(e, 0xF3);
    emit_reg(e, true, 0x0FAE, 2, reg);
}

void emit_shift_imm(struct emitter *e, bool wide, unsigned n, unsigned reg, unsigned count)
{
    emit_reg(e, wide, 0xC1, n, reg);
    emit_byte(e, (uint8_t)count);
}

uint8_t *emit_jmp(struct emitter *e)
{
    uint8_t *branch;

    emit_byte(e, 0xE9);
    branch = e->at;
    emit_u32(e, 0);
    return branch;
}

uint8_t *emit_jcc(struct emitter *e, unsigned condition)
{
    uint8_t *branch;

    emit_byte(e, 0x0F);
    emit_byte(e, (uint8_t)(0x80 | condition));
    branch = e->at;
    emit_u32(e, 0);
    return branch;
}

uint8_t *emit_jmp_aligned(struct emitter *e)
{
    static const uint8_t nop[] = {0x90, 0x90, 0x90};

    emit_bytes(e, nop, (unsigned)(-((uintptr_t)e->at + 1) & 3));
    return emit_jmp(e);
}

void emit_patch(uint8_t *branch, const uint8_t *target)
{
    int32_t distance = (int32_t)(target - (branch + 4));

    memcpy(branch, &distance, 4);
}

/* About code that one processor changes while another executes it, the manual promises something
 * only if the other serializes in between (SDM volume 3, 9.1.3); it warns of a mixture of old and
 * new bytes, and of bytes that were fetched long ago. Here there is no mixture: an aligned
 * doubleword lies in one cache line, is stored as a whole (9.1.1) and fetched as a whole, and the
 * opcode in front of it does not change. Old bytes do no harm: the old branch leads to the
 * dispatcher. */
void emit_patch_running(uint8_t *branch, const uint8_t *target)
{
    atomic_store_explicit((_Atomic int32_t *)(void *)branch, (int32_t)(target - (branch + 4)),
                          memory_order_release);
}

void emit_jmp_to(struct emitter *e, const uint8_t *target)
{
    uint8_t *branch = emit_jmp(e);

    if (!e->full)
        emit_patch(branch, target);
}

void emit_jmp_mem(struct emitter *e, struct operand m)
{
    emit_mem(e, false, 0xFF, 4, m);
}

/* --- Guest instructions ----------------------------------------------------------------------- */

static bool has_high_byte_register(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->z.operand_count_visible; i++)
        if (insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            insn->op[i].reg.value >= ZYDIS_REGISTER_AH &&
            insn->op[i].reg.value <= ZYDIS_REGISTER_BH)
            return true;
    return false;
}

/* Emits the legacy prefixes, except those for segment and address size, and then REX with new X and
 * B. */
static bool emit_prefixes(struct emitter *e, const struct x86_insn *insn, bool replace, uint8_t xb)
{
    unsigned head = insn->z.raw.prefix_count;
    uint8_t rex = 0;

    for (unsigned i = 0; i < head; i++) {
        uint8_t byte = insn->bytes[i];

        if (insn->z.attributes & ZYDIS_ATTRIB_HAS_REX && i == insn->z.raw.rex.offset)
            rex = byte;
        else if (byte == 0x66 || byte == 0xF0 || byte == 0xF2 || byte == 0xF3)
            emit_byte(e, byte);
    }
    if (replace) {
        rex = (uint8_t)(rex & ~(REX_X | REX_B)) | xb;
        if (xb)
            rex |= 0x40;
    }
    if (rex) {
        if (has_high_byte_register(insn))
            return false;
        emit_byte(e, rex);
    }
    return true;
}

static bool is_code32(const struct x86_insn *insn)
{
    return insn->z.machine_mode == ZYDIS_MACHINE_MODE_LEGACY_32;
}

/* Whether the bit W would make an operand 64 bits wide; other instructions use it for something
 * else. */
static bool has_32_bit_operand(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->z.operand_count_visible; i++)
        if (insn->op[i].size == 32 && (insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER ||
                                       insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY))
            return true;
    return false;
}

/* Emits VEX with new X and B; its form of two bytes becomes that of three if B or X is needed. */
static void emit_vex(struct emitter *e, const struct x86_insn *insn, bool replace, uint8_t xb)
{
    const uint8_t *v = insn->bytes + insn->z.raw.vex.offset;
    uint8_t three[3];

    if (!replace && !is_code32(insn)) {
        emit_bytes(e, v, insn->z.raw.vex.size);
        return;
    }
    if (v[0] == 0xC5) {
        three[1] = (v[1] & 0x80) | 0x61; /* R from the two-byte form, map 0F */
        three[2] = v[1] & 0x7F;
    } else {
        three[1] = v[1];
        three[2] = v[2];
    }
    three[0] = 0xC4;
    if (is_code32(insn)) { /* which ignores these bits */
        three[1] |= 0xE0;
        three[2] |= 0x40;
        if (has_32_bit_operand(insn))
            three[2] &= 0x7F;
    }
    three[1] = (uint8_t)((three[1] | 0x60) & ~((xb & REX_X ? 0x40 : 0) | (xb & REX_B ? 0x20 : 0)));
    emit_bytes(e, three, 3);
}

/* Whether INSN has a short form that the emitter must replace by a long one: MOV of a bare
 * displacement, which has no ModRM for another operand, or INC or DEC of one byte, which is a REX
 * prefix in 64-bit code. */
static bool is_short_form(const struct x86_insn *insn)
{
    return is_code32(insn) && insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
           insn->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
           ((insn->z.opcode & 0xF0) == 0x40 || (insn->z.opcode & 0xFC) == 0xA0);
}

/* Emits the long form, which has a ModRM byte. */
static void emit_short_form(struct emitter *e, const struct x86_insn *insn, struct operand m)
{
    static const uint8_t mov[] = {0x8A, 0x8B, 0x88, 0x89}; /* of AL and rAX, from A0h on */
    uint8_t opcode = insn->z.opcode;

    if ((opcode & 0xF0) == 0x40) {
        emit_byte(e, 0xFF);
        emit_byte(e, 0xC0 | (opcode & 0x0F));
    } else {
        emit_byte(e, mov[opcode & 3]);
        emit_modrm(e, X86_RAX, m);
    }
}

/* Corrects what 32-bit code may and 64-bit code may not have: opcode 82h, which is 80h, and the top
 * bit of a register in an immediate, which 32-bit code ignores. */
static void correct_bytes(const struct x86_insn *insn, uint8_t *bytes)
{
    if (insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
        insn->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && insn->z.opcode == 0x82)
        bytes[insn->z.raw.prefix_count] = 0x80;
    for (unsigned i = 0; i < insn->z.operand_count_visible; i++)
        if (insn->op[i].encoding == ZYDIS_OPERAND_ENCODING_IS4)
            bytes[insn->z.length - 1] &= 0x7F;
}

bool emit_insn(struct emitter *e, const struct x86_insn *insn, bool replace, struct operand m)
{
    const ZydisDecodedInstruction *z = &insn->z;
    uint8_t xb = replace ? rex_of(0, m) : 0;
    const uint8_t *start = e->at;
    uint8_t bytes[X86_LENGTH_MAX];
    unsigned opcode, after;

    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        emit_vex(e, insn, replace, xb);
        opcode = z->raw.vex.offset + z->raw.vex.size;
    } else {
        if (!emit_prefixes(e, insn, replace, xb))
            return false;
        opcode = z->raw.prefix_count;
    }
    if (is_short_form(insn)) {
        emit_short_form(e, insn, m);
        return e->at - start <= X86_LENGTH_MAX;
    }
    memcpy(bytes, insn->bytes, sizeof(bytes));
    if (is_code32(insn))
        correct_bytes(insn, bytes);
    if (!replace) {
        emit_bytes(e, bytes + opcode, z->length - opcode);
        return e->at - start <= X86_LENGTH_MAX;
    }
    emit_bytes(e, bytes + opcode, z->raw.modrm.offset - opcode);
    emit_modrm(e, z->raw.modrm.reg, m);
    after = z->raw.modrm.offset + 1u + (z->raw.sib.offset ? 1 : 0) + z->raw.disp.size / 8;
    emit_bytes(e, bytes + after, z->length - after);
    /* Needless prefixes can make it longer than the processor takes. */
    return e->at - start <= X86_LENGTH_MAX;
}
