/*
 * Translation of a region, instruction by instruction: what is copied, what is changed, and what
 * is left to the interpreter.
 */
#include "cpu/bt/translate.h"

#include <string.h>

#define ENTRY_ALIGN 16

/* What the instruction wants of the flags before it: those it reads, and where it writes only some,
 * the others that are wanted after it. */
static uint32_t flags_input(const struct flow *f)
{
    return f->flags_in | (f->flags_may ? f->live_after & ~f->flags_out : 0);
}

bool copy_as_is(struct translation *t, const struct x86_insn *insn)
{
    return emit_insn(&t->e, insn, false, (struct operand){0});
}

/* --- Copies with another memory operand ------------------------------------------------------ */

/* Whether a misaligned operand raises #GP (SDM volume 2, 2.4: types 1, 2 and 4). */
static bool must_align(const struct x86_insn *insn, unsigned size)
{
    if (size < 16)
        return false;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_CMPXCHG16B: return true;
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM: return false;
    default: break;
    }
    switch (insn->z.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE1:
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE4:
    case ZYDIS_EXCEPTION_CLASS_AVX1: return true;
    default: return insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && size == 16;
    }
}

/* Whether the processor locks the access to a memory operand: XCHG does so without a prefix. */
static bool is_locked(const struct x86_insn *insn)
{
    return (insn->z.attributes & ZYDIS_ATTRIB_HAS_LOCK) || insn->z.mnemonic == ZYDIS_MNEMONIC_XCHG;
}

/* The alignment of an operand in memory that the copy of an instruction relies on. A locked access
 * to two cache lines would stall the host; the interpreter makes those (access.h). */
static unsigned alignment_wanted(const struct x86_insn *insn, unsigned size)
{
    return must_align(insn, size) || is_locked(insn) ? size : 1;
}

/* Whether nothing can leave the code before the next instruction has become the x87's last. */
static bool is_noted_next(const struct translation *t)
{
    const struct x86_insn *next = &t->insn[t->i + 1];

    return t->i + 1 < (unsigned)t->now->first + t->now->count && t->beyond.insn != t->i + 2 &&
           x87_is_noted(next) && !region_is_foreign(t, next) && memory_operand(t, next) == -1;
}

/* Notes the present instruction as the x87's last one. Flags stay; s0 does not. */
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

/* Copies an instruction, its memory operand checked and replaced. False: leave it to others. */
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
        /* Loading the flags takes s0 for a moment; an address in it is made again. */
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
    if (!t->wide) /* a bare displacement has another encoding */
        return emit_insn(&t->e, insn, true, (struct operand){a.base, a.index, a.scale, 0, a.disp});
    if (!a.rip)
        return copy_as_is(t, insn);
    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(page));
    return emit_insn(&t->e, insn, true, at(t->s0, a.disp));
}

/* DIV and IDIV: #DE is never raised by the host; what might raise it is left to others. */
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
        emit_shift_imm(&t->e, wide, 7, t->s0, size - 1);
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
    if (f->live_after) /* undefined, but what this processor does with them */
        flags_need(t);
    emit_reg(&t->e, wide, 0xF7, is_signed ? 7 : 6, divisor);
    t->flags = f->live_after ? FLAGS_HOST : FLAGS_MEMORY;
    return true;
}

/* --- Floating-point control ------------------------------------------------------------------- */

/* LDMXCSR and FLDCW, as long as they leave all exceptions masked: the operand's bits CHECKED must
 * be MASKS. It is read once, because others may be writing to it. */
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
    emit_mem(&t->e, false, OP_STORE, t->s0, VCPU(target));
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s0, (int32_t)checked);
    emit_alu_imm(&t->e, false, ALU_N_CMP, t->s0, (int32_t)masks);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
    if (mxcsr)
        emit_mem(&t->e, false, OP_GROUP_FILES, LDMXCSR, VCPU(target));
    else
        emit_mem(&t->e, false, OP_GROUP_X87, FLDCW, VCPU(target));
    return true;
}

static bool translate_mxcsr(struct translation *t, const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        return translate_load_control(t, insn, ~(uint32_t)X86_MXCSR_MASK | MXCSR_MASKS,
                                      MXCSR_MASKS);
    default: return translate_copy(t, insn);
    }
}

/* Of BT and its kin: whether a register names a bit in memory. */
static bool is_bit_string(const struct x86_insn *insn)
{
    return insn->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
           insn->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

/* TO = how many bytes from an operand of BITS bits the one lies that has the bit that BIT names. */
static void emit_bit_place(struct translation *t, unsigned to, unsigned bit, unsigned bits)
{
    unsigned shift = (unsigned)__builtin_ctz(bits);

    emit_reg(&t->e, true, bits == 64 ? OP_LOAD : OP_MOVSXD, to, bit);
    emit_shift_imm(&t->e, true, 7, to, shift);     /* sar */
    emit_shift_imm(&t->e, true, 4, to, shift - 3); /* shl */
}

/* BT and its kin with a bit that a register names, which may lie far from the operand: the host's
 * own finds its place as the guest's does, from where the operand would be if the place's page were
 * all there is. */
static bool translate_bit_string(struct translation *t, const struct x86_insn *insn)
{
    const struct flow *f = &t->flow[t->i];
    const struct address place = {X86_NONE, X86_NONE, 0, X86_DS, false, true, 0};
    unsigned bits = insn->op[0].size, bit = register_of(insn, 1);
    struct address a;

    if (bits == 16 || memory_operand(t, insn) != 0 || !address_of(t, t->i, 0, &a) ||
        (!t->wide && a.segment != X86_DS))
        return false;
    flags_clobber(t, live_before(f));
    emit_address(t, &a, t->s0);
    emit_bit_place(t, t->s1, bit, bits);
    emit_mem(&t->e, t->wide, OP_LEA, t->s0, at_index(t->s0, t->s1, 0));
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(target));
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

/* --- Stack ----------------------------------------------------------------------------------- */

const struct address top_address = {X86_RSP, X86_NONE, 0, X86_DS, false, false, 0};
static const struct address frame_address = {X86_RBP, X86_NONE, 0, X86_DS, false, false, 0};

void emit_move_sp(struct translation *t, int32_t delta)
{
    emit_mem(&t->e, t->wide, OP_LEA, X86_RSP, at(X86_RSP, delta));
}

unsigned register_of(const struct x86_insn *insn, unsigned i)
{
    return (unsigned)ZydisRegisterGetId(insn->op[i].reg.value);
}

/* Whether operand I is a register as wide as a stack slot. */
static bool is_word_register(const struct translation *t, const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(insn->op[i].reg.value) ==
               (t->wide ? ZYDIS_REGCLASS_GPR64 : ZYDIS_REGCLASS_GPR32);
}

/* Whether operand I is memory that an address can be made of; hidden operands are others' business.
 */
static bool is_addressed(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
           insn->op[i].mem.type == ZYDIS_MEMOP_TYPE_MEM;
}

/* Where a push goes. */
static struct operand emit_check_push(struct translation *t)
{
    unsigned size = slot_size(t);
    struct address a = top_address;

    a.disp = -(int32_t)size;
    return emit_check(t, &a, size, true, 1);
}

void emit_load_slot(struct translation *t, const struct address *a, unsigned reg)
{
    struct operand place = emit_check(t, a, slot_size(t), false, 1);

    emit_mem(&t->e, t->wide, OP_LOAD, reg, place);
}

/* Pushes what is in vcpu.target. */
static void emit_push_target(struct translation *t)
{
    struct operand place = emit_check_push(t);

    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(target));
    emit_mem(&t->e, t->wide, OP_STORE, t->s0, place);
    emit_move_sp(t, -(int32_t)slot_size(t));
}

static bool is_segment_register(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(insn->op[i].reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

/* Of a slot of 32 bits, processors write 16. */
static void translate_push_segment(struct translation *t, const struct x86_insn *insn)
{
    struct operand place = emit_check_push(t);

    emit_mem(&t->e, false, OP_LOAD_ZX16, t->s0,
             vcpu_at((int32_t)(offsetof(struct bt, c.x.seg) +
                               register_of(insn, 0) * sizeof(struct x86_seg) +
                               offsetof(struct x86_seg, selector))));
    if (!t->wide)
        emit_byte(&t->e, 0x66);
    emit_mem(&t->e, t->wide, OP_STORE, t->s0, place);
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
        emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(target));
        emit_push_target(t);
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
        emit_mem(&t->e, t->wide, OP_STORE, register_of(insn, 0), place);
    else
        emit_store_imm(&t->e, t->wide, place, (int32_t)insn->op[0].imm.value.s);
    emit_move_sp(t, -(int32_t)slot_size(t));
    return true;
}

static void translate_pushf(struct translation *t)
{
    emit_flags_image(t);
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(target));
    emit_push_target(t);
}

static bool translate_stack(struct translation *t, const struct x86_insn *insn)
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
        emit_mem(&t->e, t->wide, OP_LEA, X86_RSP, at(X86_RBP, (int32_t)slot_size(t)));
        emit_reg(&t->e, true, OP_LOAD, X86_RBP, t->s0);
        return true;
    default: return false;
    }
}

/* --- Branches -------------------------------------------------------------------------------- */

void emit_canonical(struct translation *t, unsigned target)
{
    if (!t->wide)
        return;
    emit_reg(&t->e, true, OP_LOAD, t->s1, target);
    emit_shift_imm(&t->e, true, 4, t->s1, 16); /* shl */
    emit_shift_imm(&t->e, true, 7, t->s1, 16); /* sar */
    emit_reg(&t->e, true, OP_CMP_LOAD, t->s1, target);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
}

/* Pushes the return address; the target stays wherever it is but not in s0 or s1. */
static void emit_push_return(struct translation *t, const struct x86_insn *insn)
{
    struct operand place = emit_check_push(t);

    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(page));
    emit_mem(&t->e, true, OP_LEA, t->s0, at(t->s0, (int32_t)(t->offset[t->i] + insn->z.length)));
    emit_mem(&t->e, t->wide, OP_STORE, t->s0, place);
    emit_move_sp(t, -(int32_t)slot_size(t));
}

/* JMP and CALL by a register or memory. */
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
        emit_reg(&t->e, t->wide, OP_LOAD, t->s0, target);
    } else {
        struct address a;

        if (!is_addressed(insn, 0) || insn->op[0].size != slot_size(t) * 8 ||
            !address_of(t, t->i, 0, &a))
            return false;
        emit_load_slot(t, &a, t->s0);
        if (call) {
            emit_canonical(t, t->s0);
            emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(target));
            emit_push_return(t, insn);
            emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(target));
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

/* A jump to be made if INSN's condition holds, or if it does not (NEGATED). */
static uint8_t *emit_conditional(struct translation *t, const struct x86_insn *insn, bool negated)
{
    /* jrcxz over a jump that jumps over the jump to be made; or over that one itself. */
    static const uint8_t if_zero[] = {0xE3, 2, 0xEB, 5}, if_not_zero[] = {0xE3, 5};

    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        if (!t->wide) /* jecxz */
            emit_byte(&t->e, 0x67);
        if ((insn->z.mnemonic != ZYDIS_MNEMONIC_LOOP) != negated)
            emit_bytes(&t->e, if_zero, sizeof(if_zero));
        else
            emit_bytes(&t->e, if_not_zero, sizeof(if_not_zero));
        return emit_jmp(&t->e);
    default: return emit_jcc(&t->e, (insn->z.opcode & 15u) ^ negated);
    }
}

/* Jcc, LOOP, JECXZ and JRCXZ. A jump ahead within the region is one; a jump back is a jump around
 * the way back, which looks for requests. */
static void translate_condition(struct translation *t, const struct x86_insn *insn, int64_t target)
{
    uint32_t live = t->flow[t->i].live_after;
    struct part *p = region_part(t, target);

    t->keeps_s1 = true;
    flags_need(t);
    if (insn->z.mnemonic == ZYDIS_MNEMONIC_LOOP)
        emit_mem(&t->e, t->wide, OP_LEA, X86_RCX, at(X86_RCX, -1));
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

static bool translate_branch(struct translation *t, const struct x86_insn *insn)
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
        if (insn->z.address_width != (t->wide ? 64 : 32))
            return false;
        translate_condition(t, insn, target);
        return true;
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ: return false;
    default: translate_condition(t, insn, target); return true;
    }
}

/* --- Dispatch -------------------------------------------------------------------------------- */

static bool translate_integer(struct translation *t, const struct x86_insn *insn)
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
    case ZYDIS_MNEMONIC_PAUSE: /* the interpreter gives the core away */
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

static bool translate_native(struct translation *t, const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL: /* 32-bit code's leave the upper eight alone */
        return t->wide && copy_as_is(t, insn);
    case ZYDIS_MNEMONIC_VMASKMOVPS: /* what is masked out must not be touched */
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU: return false;
    default: return translate_copy(t, insn);
    }
}

/* Whether INSN's handler is big, so that it is inlined only where it proves to be frequent. */
static bool has_big_handler(const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: return is_bit_string(insn);
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: return true;
    default: return insn->info->class == X86_CLASS_STRING && string_repeats(insn);
    }
}

/* Whether the present instruction's handler waits for it to be frequent. */
static bool is_deferred(const struct translation *t)
{
    return t->cache->switches.inline_after && has_big_handler(&t->insn[t->i]) &&
           !(t->again && t->i == 0);
}

static bool translate_insn(struct translation *t, const struct x86_insn *insn)
{
    if (region_is_foreign(t, insn) || is_deferred(t))
        return false;
    switch ((enum x86_class)insn->info->class) {
    case X86_CLASS_INTEGER: return translate_integer(t, insn);
    case X86_CLASS_NATIVE: return translate_native(t, insn);
    case X86_CLASS_X87:
        if (insn->z.mnemonic == ZYDIS_MNEMONIC_FLDCW)
            return translate_load_control(t, insn, FCW_MASKS, FCW_MASKS);
        return !is_x87_control(insn) && translate_copy(t, insn);
    case X86_CLASS_XSTATE: return translate_mxcsr(t, insn);
    case X86_CLASS_STACK: return translate_stack(t, insn);
    case X86_CLASS_BRANCH: return translate_branch(t, insn);
    case X86_CLASS_STRING: return translate_string(t, insn);
    case X86_CLASS_SYSTEM: return translate_system(t, insn);
    case X86_CLASS_FAR: return translate_far(t, insn);
    default: return false;
    }
}

/* Counts the part's instructions, if that is wanted; without touching flags that are live. */
static void emit_count(struct translation *t, const struct part *p)
{
    if (!t->bt->c.core->machine.measure)
        return;
    if (!p->live) {
        emit_alu_mem_imm(&t->e, true, ALU_N_ADD, VCPU(c.instructions), p->count);
        return;
    }
    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(c.instructions));
    emit_mem(&t->e, true, OP_LEA, t->s0, at(t->s0, p->count));
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(c.instructions));
}

static void emit_part(struct translation *t, struct part *p)
{
    t->now = p;
    t->i = p->first;
    p->code = t->e.at;
    if (!p->inherits)
        group_forget(t);
    t->flags = p->live ? FLAGS_HOST : FLAGS_MEMORY;
    t->x87_page = false;
    emit_count(t, p);
    for (; t->i < (unsigned)p->first + p->count && !t->e.full; t->i++) {
        const struct x86_insn *insn = &t->insn[t->i];
        enum flags_place flags = t->flags;
        uint8_t *start = t->e.at;
        unsigned colds = t->colds;

        t->keeps_s1 = false;
        if (t->beyond.insn == t->i + 1)
            emit_check_beyond(t);
        if (!translate_insn(t, insn)) {
            t->e.at = start; /* whatever it began */
            t->colds = colds;
            t->flags = flags;
            t->x87_page = false;
            if (insn->info->class != X86_CLASS_FAR && insn->info->class != X86_CLASS_BRANCH) {
                emit_one(t, is_deferred(t) && !region_is_foreign(t, insn));
                continue;
            }
            flags_leave(t, X86_FLAGS_STATUS);
            emit_exit_one(t, t->i, instructions_left(t));
            return;
        }
        if (group_breaks(t, t->i))
            group_forget(t);
        else
            group_after(t, t->keeps_s1);
        if (insn->info->class == X86_CLASS_BRANCH || insn->info->class == X86_CLASS_FAR)
            return;
    }
    if (t->e.full)
        return;
    t->i--;
    emit_goto(t, p->end, t->flow[t->i].live_after);
}

/* Where the next code will be: behind the length of its check. */
static void begin(struct translation *t)
{
    struct bt_cache *cache = t->cache;

    cache->used = (uint32_t)ALIGN_UP(cache->used + sizeof(struct bt_front), ENTRY_ALIGN);
    t->e = (struct emitter){.at = cache->write + cache->used,
                            .end = cache->write + cache->switches.code_size};
}

/* Keeps what was emitted. Returns it as it will be run; NULL if it has met the end. */
static const void *finish(struct translation *t)
{
    struct bt_cache *cache = t->cache;
    const void *code = cache->run + cache->used;

    if (t->e.full) {
        /* What does not fit into an empty cache never will. */
        t->bt->full = cache->used > ALIGN_UP(cache->first + sizeof(struct bt_front), ENTRY_ALIGN);
        return NULL;
    }
    cache->used = (uint32_t)(t->e.at - cache->write);
    return code;
}

static const void *emit_region(struct translation *t)
{
    const void *code;

    begin(t);
    t->now = &t->part[0];
    emit_entry(t, t->part[0].start, t->part[0].live);
    for (unsigned n = 0; n < t->parts; n++)
        emit_part(t, &t->part[n]);
    emit_cold(t);
    code = finish(t);
    for (unsigned n = 0; code && n < t->parts; n++)
        if (!t->part[n].inherits)
            bt_entry_add(t, &t->part[n], n ? NULL : code);
    return code;
}

/* A translation of what is at GPA. NULL, with bt.full, if there may be no room for it. */
static struct translation *start(struct bt *bt, uint64_t gpa, uint32_t generation)
{
    struct bt_cache *cache = bt->cache;
    struct translation *t = &cache->work;

    bt->full = cache->switches.code_size - cache->used < ENTRY_ALIGN * 2 ||
               BT_SITES - cache->site_count < COLDS + REGION_MAX ||
               bt_entries_full(&cache->entries);
    if (bt->full)
        return NULL;
    memset(t, 0, offsetof(struct translation, index));
    t->bt = bt;
    t->cache = cache;
    t->gpa = gpa;
    t->generation = generation;
    t->narrow = bt->narrow || cache->switches.narrow;
    return t;
}

static const void *translate(struct bt *bt, uint64_t gpa, uint32_t generation, bool again)
{
    struct translation *t = start(bt, gpa, generation);
    const void *code;

    if (!t)
        return NULL;
    t->again = again;
    if (!region_find(t))
        return NULL;
    code = emit_region(t);
    if (code) {
        bt->translations++;
        bt->retranslations += again;
        bt->translated_instructions += t->count;
    }
    return code;
}

const void *bt_translate(struct bt *bt, uint64_t gpa, uint32_t generation)
{
    return translate(bt, gpa, generation, false);
}

const void *bt_translate_again(struct bt *bt, uint64_t gpa, uint32_t generation)
{
    return translate(bt, gpa, generation, true);
}

const void *bt_entrance_add(struct bt *bt, struct bt_entry *entry)
{
    struct translation *t = start(bt, entry->key & BT_KEY_GPA, entry->generation);
    const void *code;

    if (!t)
        return NULL;
    t->s0 = entry->s0;
    t->s1 = entry->s1;
    t->files = entry->files;
    begin(t);
    emit_entry(t, t->gpa & (MEM_PAGE_SIZE - 1), entry->live);
    emit_jmp_to(&t->e, t->cache->write + entry->inside);
    emit_cold(t);
    code = finish(t);
    if (code)
        atomic_store_explicit(&entry->entrance, (uint32_t)((const uint8_t *)code - t->cache->run),
                              memory_order_release);
    return code;
}
