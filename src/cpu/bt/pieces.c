/*
 * Pieces of code that the translations of several kinds of instructions have in common.
 */
#include "cpu/bt/translate.h"

bool copy_as_is(struct translation *t, const struct x86_insn *insn)
{
    return emit_insn(&t->e, insn, false, (struct operand){0});
}

const struct address top_address = {X86_RSP, X86_NONE, 0, X86_DS, false, false, 0};

void emit_move_sp(struct translation *t, int32_t delta)
{
    emit_mem(&t->e, t->code64, OP_LEA, X86_RSP, at(X86_RSP, delta));
}

bool is_word_register(const struct translation *t, const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(insn->op[i].reg.value) ==
               (t->code64 ? ZYDIS_REGCLASS_GPR64 : ZYDIS_REGCLASS_GPR32);
}

bool is_addressed(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
           insn->op[i].mem.type == ZYDIS_MEMOP_TYPE_MEM;
}

struct operand emit_check_push(struct translation *t)
{
    unsigned size = slot_size(t);
    struct address a = top_address;

    a.disp = -(int32_t)size;
    return emit_check(t, &a, size, true, 1);
}

void emit_load_slot(struct translation *t, const struct address *a, unsigned reg)
{
    struct operand place = emit_check(t, a, slot_size(t), false, 1);

    emit_mem(&t->e, t->code64, OP_LOAD, reg, place);
}

void emit_canonical(struct translation *t, unsigned target)
{
    if (!t->code64)
        return;
    emit_reg(&t->e, true, OP_LOAD, t->s1, target);
    emit_shift_imm(&t->e, true, SHIFT_N_SHL, t->s1, 16);
    emit_shift_imm(&t->e, true, SHIFT_N_SAR, t->s1, 16);
    emit_reg(&t->e, true, OP_CMP_LOAD, t->s1, target);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
}
