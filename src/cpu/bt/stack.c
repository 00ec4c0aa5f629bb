/*
 * PUSH, POP, and other instructions that use the stack.
 */
#include "cpu/bt/translate.h"

static const struct address frame_address = {X86_RBP, X86_NONE, 0, X86_DS, false, false, 0};

/* Pushes bt.temporary. */
static void emit_push_temporary(struct translation *t)
{
    struct operand place = emit_check_push(t);

    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(temporary));
    emit_mem(&t->e, t->code64, OP_STORE, t->s0, place);
    emit_move_sp(t, -(int32_t)slot_size(t));
}

static bool is_segment_register(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(insn->op[i].reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

/* Processors write only 16 of a slot's 32 bits. */
static void translate_push_segment(struct translation *t, const struct x86_insn *insn)
{
    struct operand place = emit_check_push(t);

    emit_mem(&t->e, false, OP_LOAD_ZX16, t->s0,
             vcpu_at((int32_t)(offsetof(struct bt, c.x.seg) +
                               register_of(insn, 0) * sizeof(struct x86_seg) +
                               offsetof(struct x86_seg, selector))));
    if (!t->code64)
        emit_byte(&t->e, PREFIX_16);
    emit_mem(&t->e, t->code64, OP_STORE, t->s0, place);
    emit_move_sp(t, -(int32_t)slot_size(t));
}

static bool translate_push(struct translation *t, const struct x86_insn *insn)
{
    struct operand place;
    struct address a;

    if (insn->z.operand_width == 16)
        return false;
    if (insn->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!is_addressed(insn, 0) || !address_of(t, t->i, 0, &a))
            return false;
        emit_load_slot(t, &a, t->s0);
        emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(temporary));
        emit_push_temporary(t);
        return true;
    }
    if (is_segment_register(insn, 0)) {
        translate_push_segment(t, insn);
        return true;
    }
    if (!is_word_register(t, insn, 0) && insn->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return false;
    place = emit_check_push(t);
    if (is_word_register(t, insn, 0))
        emit_mem(&t->e, t->code64, OP_STORE, register_of(insn, 0), place);
    else
        emit_store_imm(&t->e, t->code64, place, (int32_t)insn->op[0].imm.value.s);
    emit_move_sp(t, -(int32_t)slot_size(t));
    return true;
}

static void translate_pushf(struct translation *t)
{
    emit_flags_image(t);
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(temporary));
    emit_push_temporary(t);
}

bool translate_stack(struct translation *t, const struct x86_insn *insn)
{
    t->keeps_s1 = true;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH: return translate_push(t, insn);
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
        t->keeps_s1 = false;
        flags_clobber(t, live_before(&t->flow[t->i]));
        translate_pushf(t);
        return true;
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        t->keeps_s1 = false;
        flags_clobber(t, live_before(&t->flow[t->i]));
        translate_popf(t);
        return true;
    case ZYDIS_MNEMONIC_POP:
        if (!is_word_register(t, insn, 0))
            return false;
        emit_load_slot(t, &top_address, register_of(insn, 0));
        if (register_of(insn, 0) != X86_RSP)
            emit_move_sp(t, (int32_t)slot_size(t));
        return true;
    case ZYDIS_MNEMONIC_LEAVE:
        if (insn->z.operand_width == 16)
            return false;
        emit_load_slot(t, &frame_address, t->s0);
        emit_mem(&t->e, t->code64, OP_LEA, X86_RSP, at(X86_RBP, (int32_t)slot_size(t)));
        emit_reg(&t->e, true, OP_LOAD, X86_RBP, t->s0);
        return true;
    default: return false;
    }
}
