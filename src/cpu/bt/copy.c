/*
 * Instructions that are copied, with another memory operand if they have one; and those integer and
 * floating-point instructions that need more than a copy.
 */
#include "cpu/bt/translate.h"

/* Whether the processor locks the access to a memory operand: XCHG does so without a prefix. */
static bool is_locked(const struct x86_insn *insn)
{
    return (insn->z.attributes & ZYDIS_ATTRIB_HAS_LOCK) || insn->z.mnemonic == ZYDIS_MNEMONIC_XCHG;
}

/* Returns the alignment that the copy of an instruction needs of its operand in memory. A locked
 * access to two cache lines would stall the host; the interpreter makes those (core/access.h). */
static unsigned alignment_wanted(const struct x86_insn *insn, unsigned size)
{
    return x86_needs_alignment(insn, size) || is_locked(insn) ? size : 1;
}

/* Whether the next instruction will certainly be noted as the last x87 instruction, before control
 * can leave the code. */
static bool is_noted_next(const struct translation *t)
{
    const struct x86_insn *next = &t->insn[t->i + 1];

    return t->i + 1 < (unsigned)t->now->first + t->now->count && t->beyond.insn != t->i + 2 &&
           x87_is_noted(next) && !scope_excludes(t, next) && memory_operand(t, next) == -1;
}

/* Stores the present instruction's address as that of the x87's last one. Clobbers s0, not flags.
 */
static void note_x87(struct translation *t, const struct x86_insn *insn)
{
    bool noted = x87_is_noted(insn);

    if (noted && is_noted_next(t))
        return;
    if (noted && !t->x87_page) {
        emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(page));
        emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(x87.page));
        t->x87_page = true;
    }
    if (noted)
        emit_store_imm(&t->e, false, VCPU(x87.offset), t->offset[t->i]);
}

/* Copies an instruction with its memory operand checked and replaced. Returns false to leave it to
 * the interpreter. */
static bool translate_copy(struct translation *t, const struct x86_insn *insn)
{
    const struct flow *f = &t->flow[t->i];
    int memory = memory_operand(t, insn);
    struct operand place = {0};

    t->keeps_s1 = true;
    if (memory == -2)
        return false;
    if (memory >= 0) {
        const ZydisDecodedOperand *op = &insn->op[memory];
        unsigned size = op->size / 8;
        struct address a;

        if (size > 64 || !address_of(t, t->i, (unsigned)memory, &a))
            return false;
        place = emit_check(t, &a, size, op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE,
                           alignment_wanted(insn, size));
        /* flags_need overwrites s0; an address in it is loaded again. */
        if (flags_input(f) && place.base == t->s0) {
            flags_need(t);
            emit_address_base(t, &a);
        }
    }
    if (flags_input(f))
        flags_need(t);
    if (!emit_insn(&t->e, insn, memory >= 0, place))
        return false;
    if (f->flags_may)
        t->flags = FLAGS_HOST;
    if (insn->info->class == X86_CLASS_X87)
        note_x87(t, insn);
    return true;
}

static bool translate_lea(struct translation *t, const struct x86_insn *insn)
{
    struct address a;

    t->keeps_s1 = true;
    if (!address_of(t, t->i, 1, &a))
        return false;
    if (!t->code64) /* a bare displacement has another encoding */
        return emit_insn(&t->e, insn, true, (struct operand){a.base, a.index, a.scale, 0, a.disp});
    if (!a.rip)
        return copy_as_is(t, insn);
    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(page));
    return emit_insn(&t->e, insn, true, at(t->s0, a.disp));
}

/* DIV and IDIV. The host never raises #DE: the interpreter executes divisions that might. */
static bool translate_divide(struct translation *t, const struct x86_insn *insn, bool is_signed)
{
    const struct flow *f = &t->flow[t->i];
    unsigned size = insn->op[0].size, divisor;
    bool wide = size == 64;

    /* Loading the flags, which the processor keeps, would take s0 from a divisor in memory. */
    if (size < 32 || (f->live_after && insn->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY))
        return false;
    flags_clobber(t, live_before(f));
    if (is_signed) { /* only dividends that are sign extensions */
        emit_reg(&t->e, wide, OP_LOAD, t->s0, X86_RAX);
        emit_shift_imm(&t->e, wide, SHIFT_N_SAR, t->s0, size - 1);
        emit_reg(&t->e, wide, OP_CMP_LOAD, t->s0, X86_RDX);
        cold_add_one(t, emit_jcc(&t->e, CC_NE));
    }
    if (insn->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
        struct operand place;
        struct address a;

        if (memory_operand(t, insn) != 0 || !address_of(t, t->i, 0, &a))
            return false;
        place = emit_check(t, &a, size / 8, false, 1);
        emit_mem(&t->e, wide, OP_LOAD, t->s0, place);
        divisor = t->s0;
    } else {
        divisor = (unsigned)(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
                                                              insn->op[0].reg.value) -
                             ZYDIS_REGISTER_RAX);
    }
    if (is_signed) { /* by neither 0 nor -1 */
        emit_mem(&t->e, wide, OP_LEA, t->s1, at(divisor, 1));
        emit_alu_imm(&t->e, wide, ALU_N_CMP, t->s1, 1);
        cold_add_one(t, emit_jcc(&t->e, CC_BE));
    } else {
        emit_reg(&t->e, wide, OP_CMP_LOAD, X86_RDX, divisor);
        cold_add_one(t, emit_jcc(&t->e, CC_AE));
    }
    if (f->live_after) /* undefined by the manual; the guest sees what this processor does */
        flags_need(t);
    emit_reg(&t->e, wide, OP_GROUP_UNARY, is_signed ? UNARY_N_IDIV : UNARY_N_DIV, divisor);
    t->flags = f->live_after ? FLAGS_HOST : FLAGS_MEMORY;
    return true;
}

/* --- Floating-point control ------------------------------------------------------------------- */

/* LDMXCSR and FLDCW. Leaves them to the interpreter unless they mask all exceptions: the operand's
 * bits CHECKED must equal MASKS. Reads the operand once, because another vCPU may be writing to it.
 */
static bool translate_load_control(struct translation *t, const struct x86_insn *insn,
                                   uint32_t checked, uint32_t masks)
{
    int memory = memory_operand(t, insn);
    bool mxcsr = insn->op[0].size == 32;
    struct operand place;
    struct address a;

    if (memory < 0 || !address_of(t, t->i, (unsigned)memory, &a))
        return false;
    flags_clobber(t, live_before(&t->flow[t->i]));
    place = emit_check(t, &a, insn->op[memory].size / 8, false, 1);
    emit_mem(&t->e, false, mxcsr ? OP_LOAD : OP_LOAD_ZX16, t->s0, place);
    emit_mem(&t->e, false, OP_STORE, t->s0, VCPU(temporary));
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s0, (int32_t)checked);
    emit_alu_imm(&t->e, false, ALU_N_CMP, t->s0, (int32_t)masks);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
    if (mxcsr)
        emit_mem(&t->e, false, OP_GROUP_FILES, LDMXCSR, VCPU(temporary));
    else
        emit_mem(&t->e, false, OP_GROUP_X87, FLDCW, VCPU(temporary));
    return true;
}

bool translate_mxcsr(struct translation *t, const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        return translate_load_control(t, insn, ~(uint32_t)X86_MXCSR_MASK | MXCSR_MASKS,
                                      MXCSR_MASKS);
    default: return translate_copy(t, insn);
    }
}

bool is_bit_string(const struct x86_insn *insn)
{
    return insn->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
           insn->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

/* Loads TO with the distance in bytes from an operand of BITS bits to the operand-sized place that
 * holds the bit with the number in register BIT. */
static void emit_bit_place(struct translation *t, unsigned to, unsigned bit, unsigned bits)
{
    unsigned shift = (unsigned)__builtin_ctz(bits);

    emit_reg(&t->e, true, bits == 64 ? OP_LOAD : OP_MOVSXD, to, bit);
    emit_shift_imm(&t->e, true, SHIFT_N_SAR, to, shift);
    emit_shift_imm(&t->e, true, SHIFT_N_SHL, to, shift - 3);
}

/* BT, BTS, BTR and BTC with a bit that a register names. The bit may lie far from the operand, so
 * the page of the place with the bit is checked. The host's instruction adds the same distance as
 * the guest's, so it is given the host address of the place minus that distance. */
static bool translate_bit_string(struct translation *t, const struct x86_insn *insn)
{
    const struct flow *f = &t->flow[t->i];
    const struct address place = {X86_NONE, X86_NONE, 0, X86_DS, false, true, 0};
    unsigned bits = insn->op[0].size, bit = register_of(insn, 1);
    struct address a;

    if (bits == 16 || memory_operand(t, insn) != 0 || !address_of(t, t->i, 0, &a) ||
        (!t->code64 && a.segment != X86_DS))
        return false;
    flags_clobber(t, live_before(f));
    emit_address(t, &a, t->s0);
    emit_bit_place(t, t->s1, bit, bits);
    emit_mem(&t->e, t->code64, OP_LEA, t->s0, at_index(t->s0, t->s1, 0));
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(temporary));
    emit_mem(&t->e, true, OP_LEA, t->s1,
             emit_check(t, &place, bits / 8, insn->z.mnemonic != ZYDIS_MNEMONIC_BT,
                        alignment_wanted(insn, bits / 8)));
    emit_bit_place(t, t->s0, bit, bits);
    emit_reg(&t->e, true, OP_SUB_LOAD, t->s1, t->s0);
    if (flags_input(f))
        flags_need(t);
    if (!emit_insn(&t->e, insn, true, at(t->s1, 0)))
        return false;
    t->flags = FLAGS_HOST;
    return true;
}

/* Instructions that may unmask x87 exceptions, or show or change where the last one was. */
static bool is_x87_control(const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_MASKMOVQ: return true;
    default: return false;
    }
}

bool translate_x87(struct translation *t, const struct x86_insn *insn)
{
    if (insn->z.mnemonic == ZYDIS_MNEMONIC_FLDCW)
        return translate_load_control(t, insn, FCW_MASKS, FCW_MASKS);
    return !is_x87_control(insn) && translate_copy(t, insn);
}

bool translate_integer(struct translation *t, const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_LEA: return translate_lea(t, insn);
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD: translate_direction(t, insn); return true;
    case ZYDIS_MNEMONIC_DIV: return translate_divide(t, insn, false);
    case ZYDIS_MNEMONIC_IDIV: return translate_divide(t, insn, true);
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (is_bit_string(insn))
            return translate_bit_string(t, insn);
        return translate_copy(t, insn);
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2: return true;
    case ZYDIS_MNEMONIC_PAUSE: /* the interpreter yields the core */
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_AAA: /* from here on: does not exist in 64-bit code */
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAS:
    case ZYDIS_MNEMONIC_ARPL:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
    case ZYDIS_MNEMONIC_SALC: return false;
    default: return translate_copy(t, insn);
    }
}

bool translate_native(struct translation *t, const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL: /* 32-bit code's leave the upper eight alone */
        return t->code64 && copy_as_is(t, insn);
    case ZYDIS_MNEMONIC_VMASKMOVPS: /* what is masked out must not be touched */
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU: return false;
    default: return translate_copy(t, insn);
    }
}
