/*
 * From Zydis' operands to the fields of a uop.
 */
#include "cpu/interp/select.h"

uint8_t register_offset(ZydisRegister r)
{
    if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL)
        return (uint8_t)((r - ZYDIS_REGISTER_AL) * 8);
    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
        return (uint8_t)((r - ZYDIS_REGISTER_AH) * 8 + 1);
    if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
        return (uint8_t)((r - ZYDIS_REGISTER_SPL + 4) * 8);
    return (uint8_t)(ZydisRegisterGetId(r) * 8);
}

bool is_memory(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
}

bool is_register(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

bool is_immediate(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

unsigned segment_number(ZydisRegister r)
{
    static const uint8_t number[] = {X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS};

    if (r < ZYDIS_REGISTER_ES || r > ZYDIS_REGISTER_GS)
        return X86_DS;
    return number[r - ZYDIS_REGISTER_ES];
}

static uint8_t address_register(ZydisRegister r)
{
    if (r == ZYDIS_REGISTER_NONE)
        return X86_NONE;
    if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
        return X86_RIP;
    return (uint8_t)ZydisRegisterGetId(r);
}

void set_memory(const struct x86_insn *insn, unsigned i, unsigned mode, struct uop *op)
{
    const ZydisDecodedOperandMem *m = &insn->op[i].mem;

    op->base = address_register(m->base);
    op->index = address_register(m->index);
    op->scale = m->scale ? (uint8_t)__builtin_ctz(m->scale) : 0;
    op->disp = m->disp.has_displacement ? m->disp.value : 0;
    op->seg = (uint8_t)segment_number(m->segment);
    op->asize = insn->z.address_width / 8;
    if (op->base == X86_RIP)
        op->disp += op->off + op->len;
    if ((mode & MODE_SIZE) == MODE_64)
        op->ea = op->asize == 8 ? EA_64 : EA_SLOW;
    else if ((mode & MODE_FLAT) && op->asize == 4 && op->seg < X86_FS && op->seg != X86_CS)
        op->ea = EA_FLAT;
    else
        op->ea = EA_SLOW;
}

uint64_t immediate(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].imm.value.u;
}

void set_implicit_memory(const struct x86_insn *insn, unsigned mode, enum x86_gpr base,
                         struct uop *op)
{
    for (unsigned i = 0; i < insn->z.operand_count; i++) {
        if (is_memory(insn, i) && address_register(insn->op[i].mem.base) == (uint8_t)base) {
            set_memory(insn, i, mode, op);
            op->index = X86_NONE;
            return;
        }
    }
}

/* Fills in operand I: its memory operand in OP, or its register in *BYTE. Returns 1 for memory, 0
 * for a register. */
unsigned set_rm(const struct x86_insn *insn, unsigned i, unsigned mode, struct uop *op,
                uint8_t *byte)
{
    if (is_memory(insn, i)) {
        set_memory(insn, i, mode, op);
        return 1;
    }
    *byte = register_offset(insn->op[i].reg.value);
    op->ea = EA_NONE;
    return 0;
}

bool has_lock(const struct x86_insn *insn)
{
    return insn->z.attributes & ZYDIS_ATTRIB_HAS_LOCK;
}

void select_undefined(struct uop *op, int vector)
{
    op->fn = op_undefined;
    op->imm = (uint64_t)vector;
}
