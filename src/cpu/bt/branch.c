/*
 * Branches within a code segment.
 */
#include "cpu/bt/translate.h"

/* Pushes the return address. Clobbers s0 and s1. */
static void emit_push_return(struct translation *t, const struct x86_insn *insn)
{
    struct operand place = emit_check_push(t);

    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(page));
    emit_mem(&t->e, true, OP_LEA, t->s0, at(t->s0, (int32_t)(t->offset[t->i] + insn->z.length)));
    emit_mem(&t->e, t->code64, OP_STORE, t->s0, place);
    emit_move_sp(t, -(int32_t)slot_size(t));
}

/* Translates JMP and CALL through a register or memory. */
static bool translate_indirect(struct translation *t, const struct x86_insn *insn, bool call)
{
    flags_clobber(t, X86_FLAGS_STATUS);
    if (is_word_register(t, insn, 0)) {
        unsigned target = register_of(insn, 0);

        if (target == X86_RSP)
            return false;
        if (call) {
            emit_canonical(t, target);
            emit_push_return(t, insn);
        }
        emit_reg(&t->e, t->code64, OP_LOAD, t->s0, target);
    } else {
        struct address a;

        if (!is_addressed(insn, 0) || insn->op[0].size != slot_size(t) * 8 ||
            !address_of(t, t->i, 0, &a))
            return false;
        emit_load_slot(t, &a, t->s0);
        if (call) {
            emit_canonical(t, t->s0);
            emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(temporary));
            emit_push_return(t, insn);
            emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(temporary));
        }
    }
    if (call)
        emit_exit_indirect(t);
    else
        emit_exit_branch(t, 0);
    return true;
}

static void translate_return(struct translation *t, const struct x86_insn *insn)
{
    int32_t more = insn->z.operand_count_visible ? (int32_t)insn->op[0].imm.value.u : 0;

    t->keeps_s1 = true;
    flags_clobber(t, X86_FLAGS_STATUS);
    emit_load_slot(t, &top_address, t->s0);
    emit_move_sp(t, (int32_t)slot_size(t) + more);
    emit_exit_branch(t, slot_size(t) + (unsigned)more);
}

/* Emits a jump that is taken if INSN's condition holds, or if it does not (NEGATED). Returns its
 * displacement. */
static uint8_t *emit_conditional(struct translation *t, const struct x86_insn *insn, bool negated)
{
    /* JRCXZ around a JMP around the jump; or JRCXZ around the jump. */
    static const uint8_t if_zero[] = {0xE3, 2, 0xEB, 5}, if_not_zero[] = {0xE3, 5};

    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        if (!t->code64) /* jecxz */
            emit_byte(&t->e, PREFIX_ADDRESS_32);
        if ((insn->z.mnemonic != ZYDIS_MNEMONIC_LOOP) != negated)
            emit_bytes(&t->e, if_zero, sizeof(if_zero));
        else
            emit_bytes(&t->e, if_not_zero, sizeof(if_not_zero));
        return emit_jmp(&t->e);
    default: return emit_jcc(&t->e, (insn->z.opcode & 15u) ^ negated);
    }
}

/* Translates Jcc, LOOP, JECXZ and JRCXZ. A jump forward within the region is one jump. A jump back
 * is a jump around code that looks for requests and then jumps back. */
static void translate_condition(struct translation *t, const struct x86_insn *insn, int64_t target)
{
    uint32_t live = t->flow[t->i].live_after;
    struct part *p = region_part(t, target);

    t->keeps_s1 = true;
    flags_need(t);
    if (insn->z.mnemonic == ZYDIS_MNEMONIC_LOOP)
        emit_mem(&t->e, t->code64, OP_LEA, X86_RCX, at(X86_RCX, -1));
    if (!p) {
        flags_leave(t, live);
        cold_add_target(t, emit_conditional(t, insn, false), COLD_BRANCH, target);
    } else if (!p->code) {
        cold_add_target(t, emit_conditional(t, insn, false), COLD_PART, p - t->part);
    } else {
        uint8_t *around = emit_conditional(t, insn, true);
        enum flags_place flags = t->flags;

        emit_goto(t, target, live);
        if (!t->e.full)
            emit_patch(around, t->e.at);
        t->flags = flags;
    }
    emit_goto(t, t->now->end, live);
}

bool translate_branch(struct translation *t, const struct x86_insn *insn)
{
    bool direct = insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    uint32_t live = t->flow[t->i].live_after;
    int64_t target = 0;

    if (cuts_target(t, insn))
        return false;
    if (direct)
        target = (int64_t)t->offset[t->i] + insn->z.length + insn->op[0].imm.value.s;
    if (target != (int32_t)target)
        return false;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        if (!direct)
            return translate_indirect(t, insn, false);
        emit_goto(t, target, live);
        return true;
    case ZYDIS_MNEMONIC_CALL:
        if (!direct)
            return translate_indirect(t, insn, true);
        t->keeps_s1 = true;
        flags_clobber(t, live);
        emit_push_return(t, insn);
        emit_exit_direct(t, target);
        return true;
    case ZYDIS_MNEMONIC_RET: translate_return(t, insn); return true;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        if (insn->z.address_width != (t->code64 ? 64 : 32))
            return false;
        translate_condition(t, insn, target);
        return true;
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ: return false;
    default: translate_condition(t, insn, target); return true;
    }
}
