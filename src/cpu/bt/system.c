/*
 * Sensitive instructions that are frequent, as inlined code (SDM volume 2).
 */
#include "cpu/bt/translate.h"

/* --- RFLAGS ---------------------------------------------------------------------------------- */

void emit_flags_image(struct translation *t)
{
    emit_mem(&t->e, false, OP_LOAD_ZX16, t->s0, VCPU(c.cc));
    emit_reg(&t->e, false, OP_LOAD, t->s1, t->s0);
    emit_shift_imm(&t->e, false, SHIFT_N_SHR, t->s0, 8);
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s0, 0xD5);
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s1, 1);
    emit_shift_imm(&t->e, false, SHIFT_N_SHL, t->s1, 11);
    emit_reg(&t->e, false, OP_OR_LOAD, t->s0, t->s1);
    emit_mem(&t->e, false, OP_LOAD, t->s1, VCPU(c.x.rflags));
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s1,
                 ~(int32_t)(X86_FLAGS_STATUS | X86_FLAG_RF | X86_FLAG_VM));
    emit_reg(&t->e, false, OP_OR_LOAD, t->s0, t->s1);
}

/* Stores s0 as the guest's RFLAGS and its status flags as vcpu.cc. The host's own flags do not hold
 * the guest's. Clobbers s0 and s1. */
static void emit_set_flags(struct translation *t)
{
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(c.x.rflags));
    emit_reg(&t->e, false, OP_LOAD, t->s1, t->s0);
    emit_shift_imm(&t->e, false, SHIFT_N_SHL, t->s1, 8);
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s1, 0xD500);
    emit_shift_imm(&t->e, false, SHIFT_N_SHR, t->s0, 11);
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s0, 1);
    emit_reg(&t->e, false, OP_OR_LOAD, t->s1, t->s0);
    emit_byte(&t->e, PREFIX_16);
    emit_mem(&t->e, false, OP_STORE, t->s1, VCPU(c.cc));
}

/* Leaves the instruction to the interpreter if s0 (the new RFLAGS) sets IF while an interrupt may
 * be pending. Clobbers s1. */
static void emit_check_masked(struct translation *t)
{
    emit_reg(&t->e, false, OP_LOAD, t->s1, t->s0);
    emit_shift_imm(&t->e, false, SHIFT_N_SHR, t->s1, 9);
    emit_mem(&t->e, false, OP_AND_LOAD, t->s1, VCPU(c.interrupt_masked));
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
}

/* POPFQ and POPFD inline. Leaves the instruction to the interpreter if it would change a flag with
 * side effects: TF, AC, NT, IOPL and so on; or IF while an interrupt is pending, or while the guest
 * may not change IF. */
void translate_popf(struct translation *t)
{
    uint32_t may = X86_FLAGS_STATUS | (t->bt->c.context == MMU_USER ? 0 : X86_FLAG_IF);

    emit_load_slot(t, &top_address, t->s0);
    emit_mem(&t->e, t->code64, OP_LOAD, t->s1, VCPU(c.x.rflags));
    emit_reg(&t->e, t->code64, OP_XOR_LOAD, t->s1, t->s0);
    emit_alu_imm(&t->e, t->code64, ALU_N_AND, t->s1, (int32_t)~may);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
    emit_check_masked(t);
    emit_set_flags(t);
    emit_move_sp(t, (int32_t)slot_size(t));
}

/* CLD and STD: the host's DF stays 0; string instructions look at the guest's. */
void translate_direction(struct translation *t, const struct x86_insn *insn)
{
    flags_clobber(t, live_before(&t->flow[t->i]));
    if (insn->z.mnemonic == ZYDIS_MNEMONIC_STD)
        emit_alu_mem_imm(&t->e, true, ALU_N_OR, VCPU(c.x.rflags), X86_FLAG_DF);
    else
        emit_alu_mem_imm(&t->e, true, ALU_N_AND, VCPU(c.x.rflags), ~(int32_t)X86_FLAG_DF);
}

/* --- Context ---------------------------------------------------------------------------------- */

/* Makes context number s0 the present one, with its table of the software TLB. Clobbers s0. */
static void emit_set_context(struct translation *t)
{
    struct operand table = VCPU(c.mmu.table);

    table.index = (uint8_t)t->s0;
    table.scale = 3;
    emit_mem(&t->e, false, OP_STORE, t->s0, VCPU(c.context));
    emit_mem(&t->e, true, OP_LOAD, t->s0, table);
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(c.tlb));
    emit_write_fs(&t->e, t->s0);
}

/* Enters the supervisor's context that follows from CR4.SMAP and RFLAGS.AC (see mmu_context). */
static void emit_supervisor(struct translation *t)
{
    _Static_assert(MMU_SUPER == 0 && MMU_SUPER_AC == 1, "without SMAP or with AC, 1");

    emit_mem(&t->e, false, OP_LOAD, t->s0, VCPU(c.x.cr4));
    emit_reg(&t->e, false, OP_GROUP_UNARY, UNARY_N_NOT, t->s0);
    emit_shift_imm(&t->e, false, SHIFT_N_SHR, t->s0, (unsigned)__builtin_ctz(X86_CR4_SMAP));
    emit_mem(&t->e, false, OP_LOAD, t->s1, VCPU(c.x.rflags));
    emit_shift_imm(&t->e, false, SHIFT_N_SHR, t->s1, (unsigned)__builtin_ctz(X86_FLAG_AC));
    emit_reg(&t->e, false, OP_OR_LOAD, t->s0, t->s1);
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s0, 1);
    emit_set_context(t);
}

/* Translates STAC and CLAC. */
static void translate_ac(struct translation *t, bool set)
{
    if (set)
        emit_alu_mem_imm(&t->e, true, ALU_N_OR, VCPU(c.x.rflags), X86_FLAG_AC);
    else
        emit_alu_mem_imm(&t->e, true, ALU_N_AND, VCPU(c.x.rflags), ~(int32_t)X86_FLAG_AC);
    emit_supervisor(t);
}

/* --- System calls ----------------------------------------------------------------------------- */

/* Loads segment N with a flat segment of attributes ATTR and the selector in s0. Clobbers s0. */
static void emit_flat_segment(struct translation *t, unsigned n, unsigned attr)
{
    int32_t seg = (int32_t)(offsetof(struct bt, c.x.seg) + n * sizeof(struct x86_seg));

    _Static_assert(offsetof(struct x86_seg, selector) == offsetof(struct x86_seg, attr) + 2,
                   "the two are stored as one");
    emit_shift_imm(&t->e, false, SHIFT_N_SHL, t->s0, 16);
    emit_alu_imm(&t->e, false, ALU_N_OR, t->s0,
                 (int32_t)(attr | X86_ATTR_G | X86_ATTR_P | X86_ATTR_S | X86_ATTR_WRITE |
                           X86_ATTR_ACCESSED));
    emit_mem(&t->e, false, OP_STORE, t->s0, vcpu_at(seg + (int32_t)offsetof(struct x86_seg, attr)));
    emit_store_imm(&t->e, false, vcpu_at(seg + (int32_t)offsetof(struct x86_seg, limit)), -1);
    emit_store_imm(&t->e, true, vcpu_at(seg + (int32_t)offsetof(struct x86_seg, base)), 0);
}

/* Loads CS and SS as SYSCALL and SYSRET do (SDM volume 2): the selector is the 16 bits at byte
 * FIELD of STAR, plus CS_MORE for CS and 8 for SS. LEVEL is the new CPL, and the RPL of both. */
static void emit_flat_segments(struct translation *t, unsigned field, unsigned cs_more,
                               unsigned level)
{
    unsigned dpl = level << X86_ATTR_DPL_SHIFT;
    struct operand star = VCPU(c.x.star);

    star.disp += (int32_t)field;
    for (unsigned ss = 0; ss < 2; ss++) {
        emit_mem(&t->e, false, OP_LOAD_ZX16, t->s0, star);
        emit_alu_imm(&t->e, false, ALU_N_ADD, t->s0, ss ? 8 : (int32_t)cs_more);
        if (level)
            emit_alu_imm(&t->e, false, ALU_N_OR, t->s0, (int32_t)level);
        else
            emit_alu_imm(&t->e, false, ALU_N_AND, t->s0, 0xFFFC);
        emit_flat_segment(t, ss ? X86_SS : X86_CS,
                          dpl | (ss ? X86_ATTR_DB : X86_ATTR_CODE | X86_ATTR_L));
    }
}

/* Goes on at the other privilege level, at the address in s0. */
static void emit_go_to_level(struct translation *t, bool user)
{
    emit_mem(&t->e, true, OP_LOAD, t->s1, VCPU(level_view[user]));
    emit_mem(&t->e, true, OP_STORE, t->s1, VCPU(jump_view));
    emit_exit_indirect(t);
}

/* Leaves the instruction to the interpreter unless EFER.SCE is set. */
static void emit_need_sce(struct translation *t)
{
    flags_clobber(t, X86_FLAGS_STATUS);
    emit_test_mem_imm(&t->e, VCPU(c.x.efer), X86_EFER_SCE);
    cold_add_one(t, emit_jcc(&t->e, CC_E));
}

/* SYSCALL from level 3. TF is 0 wherever translated code runs, and IF can only be cleared. */
static void translate_syscall(struct translation *t, const struct x86_insn *insn)
{
    emit_need_sce(t);
    if (t->bt->c.core->machine.measure)
        emit_alu_mem_imm(&t->e, true, ALU_N_ADD, VCPU(c.exits[CAUSE_SYSCALL]), 1);
    emit_flags_image(t);
    emit_reg(&t->e, true, OP_LOAD, X86_R11, t->s0);
    emit_mem(&t->e, true, OP_LOAD, X86_RCX, VCPU(page));
    emit_mem(&t->e, true, OP_LEA, X86_RCX, at(X86_RCX, t->offset[t->i] + insn->z.length));
    emit_mem(&t->e, true, OP_LOAD, t->s1, VCPU(c.x.sfmask));
    emit_reg(&t->e, true, OP_GROUP_UNARY, UNARY_N_NOT, t->s1);
    emit_reg(&t->e, true, OP_AND_LOAD, t->s0, t->s1);
    emit_alu_imm(&t->e, true, ALU_N_OR, t->s0, X86_FLAG_ONE);
    emit_set_flags(t);
    emit_flat_segments(t, 4, 0, 0);
    emit_supervisor(t);
    emit_mem(&t->e, true, OP_LOAD, t->s0,
             VCPU(c.x.lstar)); /* canonical, because WRMSR checks that */
    emit_go_to_level(t, false);
}

/* SYSRET to 64-bit code. The interpreter executes it if it sets a flag with side effects. */
static void translate_sysret(struct translation *t)
{
    emit_need_sce(t);
    emit_canonical(t, X86_RCX);
    emit_reg(&t->e, true, OP_LOAD, t->s0, X86_R11);
    emit_test_imm(&t->e, t->s0, X86_FLAG_TF | X86_FLAG_RF | X86_FLAG_VM | X86_FLAG_AC);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
    emit_check_masked(t);
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s0, 0x3C7FD7);
    emit_alu_imm(&t->e, false, ALU_N_OR, t->s0, X86_FLAG_ONE);
    emit_set_flags(t);
    emit_flat_segments(t, 6, 16, 3);
    emit_load_imm(&t->e, t->s0, MMU_USER);
    emit_set_context(t);
    emit_reg(&t->e, true, OP_LOAD, t->s0, X86_RCX);
    emit_go_to_level(t, true);
}

/* --- IRETQ ------------------------------------------------------------------------------------ */

/* Offsets in the frame that RSP points at. */
enum { FRAME_RIP = 0, FRAME_CS = 8, FRAME_FLAGS = 16, FRAME_RSP = 24, FRAME_SS = 32, FRAME = 40 };

/* Descriptors of flat segments for level 3, accessed already: 64-bit code and data. */
#define FLAT_CODE 0x00AFFB000000FFFFULL
#define FLAT_DATA 0x00CFF3000000FFFFULL

/* Leaves the instruction to the interpreter unless ZF is set. */
static void emit_one_unless_equal(struct translation *t)
{
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
}

/* Leaves the instruction to the interpreter unless the frame's CS and SS are the selectors that
 * SYSRET loads, and lie in the GDT. s1 is the frame's host address. */
static void emit_check_selectors(struct translation *t)
{
    struct operand star = VCPU(c.x.star);

    star.disp += 6;
    emit_mem(&t->e, false, OP_LOAD_ZX16, t->s0, star);
    emit_alu_imm(&t->e, false, ALU_N_ADD, t->s0, 16);
    emit_alu_imm(&t->e, false, ALU_N_OR, t->s0, 3);
    emit_byte(&t->e, PREFIX_16);
    emit_mem(&t->e, false, OP_CMP_LOAD, t->s0, at(t->s1, FRAME_CS));
    emit_one_unless_equal(t);
    emit_alu_imm(&t->e, false, ALU_N_SUB, t->s0, 8);
    emit_byte(&t->e, PREFIX_16);
    emit_mem(&t->e, false, OP_CMP_LOAD, t->s0, at(t->s1, FRAME_SS));
    emit_one_unless_equal(t);
    emit_test_imm(&t->e, t->s0, 4); /* the LDT's? */
    emit_one_unless_equal(t);
}

/* Leaves it to the interpreter unless their descriptors, which stand side by side, are those of
 * flat segments. Clobbers s0 and s1. */
static void emit_check_descriptors(struct translation *t)
{
    const struct address both = {X86_NONE, X86_NONE, 0, X86_DS, false, true, 0};
    struct operand star = VCPU(c.x.star);

    star.disp += 6;
    emit_mem(&t->e, false, OP_LOAD_ZX16, t->s0, star);
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s0, 0xFFF8);
    emit_mem(&t->e, false, OP_LOAD_ZX16, t->s1, VCPU(c.x.gdtr.limit));
    emit_alu_imm(&t->e, false, ALU_N_SUB, t->s1, 23);
    emit_reg(&t->e, false, OP_CMP_LOAD, t->s0, t->s1);
    cold_add_one(t, emit_jcc(&t->e, CC_G));
    emit_alu_imm(&t->e, false, ALU_N_ADD, t->s0, 8);
    emit_mem(&t->e, true, OP_ADD_LOAD, t->s0, VCPU(c.x.gdtr.base));
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(temporary));
    emit_mem(&t->e, true, OP_LEA, t->s0, emit_check(t, &both, 16, false, 1));
    emit_load_imm(&t->e, t->s1, FLAT_DATA);
    emit_mem(&t->e, true, OP_CMP_LOAD, t->s1, at(t->s0, 0));
    emit_one_unless_equal(t);
    emit_load_imm(&t->e, t->s1, FLAT_CODE);
    emit_mem(&t->e, true, OP_CMP_LOAD, t->s1, at(t->s0, 8));
    emit_one_unless_equal(t);
}

/* Returns the doubleword that holds the attributes and, in its upper half, the selector. */
static struct operand segment_word(enum x86_segment segment)
{
    _Static_assert(offsetof(struct x86_seg, selector) == offsetof(struct x86_seg, attr) + 2, "");
    return vcpu_at((int32_t)(offsetof(struct bt, c.x.seg) + segment * sizeof(struct x86_seg) +
                             offsetof(struct x86_seg, attr)));
}

/* Leaves the instruction to the interpreter unless the data segments are null already, with all of
 * the selector 0: then the return to level 3 changes none of them. */
static void emit_check_null(struct translation *t)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    emit_load_imm(&t->e, t->s0, X86_ATTR_UNUSABLE);
    for (unsigned i = 0; i < sizeof(data); i++)
        emit_mem(&t->e, false, OP_AND_LOAD, t->s0, segment_word(data[i]));
    cold_add_one(t, emit_jcc(&t->e, CC_E));
    emit_mem(&t->e, false, OP_LOAD, t->s0, segment_word(data[0]));
    for (unsigned i = 1; i < sizeof(data); i++)
        emit_mem(&t->e, false, OP_OR_LOAD, t->s0, segment_word(data[i]));
    emit_shift_imm(&t->e, false, SHIFT_N_SHR, t->s0, 16);
    emit_one_unless_equal(t);
}

/* IRETQ to 64-bit code at level 3, as kernels use it. The interpreter executes all other forms, and
 * IRETQ in an NMI handler, because another NMI may be pending. RF, which every fault has saved as
 * 1, is dropped: it concerns instruction breakpoints only, and while one is armed the interpreter
 * executes the instruction. */
static void translate_iret(struct translation *t)
{
    const uint32_t loaded =
        X86_FLAGS_STATUS | X86_FLAG_IF | X86_FLAG_DF | X86_FLAG_IOPL | X86_FLAG_NT | X86_FLAG_ID;

    flags_clobber(t, X86_FLAGS_STATUS);
    emit_test_mem_imm(&t->e, VCPU(c.x.rflags), X86_FLAG_NT | X86_FLAG_AC);
    emit_one_unless_equal(t);
    emit_cmp_mem8(&t->e, VCPU(c.x.nmi_blocked), 0);
    emit_one_unless_equal(t);
    emit_cmp_mem8(&t->e, VCPU(c.watches_code), 0);
    emit_one_unless_equal(t);
    emit_check_null(t);
    emit_mem(&t->e, true, OP_LEA, t->s1, emit_check(t, &top_address, FRAME, false, 1));
    emit_mem(&t->e, true, OP_STORE, t->s1, VCPU(frame));
    emit_check_selectors(t);
    emit_check_descriptors(t);
    emit_mem(&t->e, true, OP_LOAD, t->s1, VCPU(frame));
    emit_mem(&t->e, true, OP_LOAD, t->s0, at(t->s1, FRAME_RIP));
    emit_canonical(t, t->s0);
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(temporary));
    emit_mem(&t->e, true, OP_LOAD, t->s1, VCPU(frame));
    emit_mem(&t->e, true, OP_LOAD, t->s0, at(t->s1, FRAME_FLAGS));
    emit_test_imm(&t->e, t->s0,
                  X86_FLAG_TF | X86_FLAG_VM | X86_FLAG_AC | X86_FLAG_VIF | X86_FLAG_VIP);
    emit_one_unless_equal(t);
    emit_check_masked(t);
    emit_mem(&t->e, true, OP_LOAD, t->s1, VCPU(frame));
    emit_mem(&t->e, true, OP_LOAD, X86_RSP, at(t->s1, FRAME_RSP));
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s0, (int32_t)loaded);
    emit_alu_imm(&t->e, false, ALU_N_OR, t->s0, X86_FLAG_ONE);
    emit_set_flags(t);
    emit_flat_segments(t, 6, 16, 3);
    emit_load_imm(&t->e, t->s0, MMU_USER);
    emit_set_context(t);
    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(temporary));
    emit_go_to_level(t, true);
}

bool translate_far(struct translation *t, const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL: translate_syscall(t, insn); return true;
    case ZYDIS_MNEMONIC_SYSRET: translate_sysret(t); return true;
    default: translate_iret(t); return true;
    }
}

/* --- Other instructions ----------------------------------------------------------------------- */

/* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE. */
static void translate_base(struct translation *t, const struct x86_insn *insn)
{
    ZydisMnemonic m = insn->z.mnemonic;
    bool wide = insn->op[0].size == 64;
    unsigned reg = register_of(insn, 0);
    unsigned n = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_WRFSBASE ? X86_FS : X86_GS;
    int32_t base = (int32_t)(offsetof(struct bt, c.x.seg) + n * sizeof(struct x86_seg) +
                             offsetof(struct x86_seg, base));

    emit_test_mem_imm(&t->e, VCPU(c.x.cr4), X86_CR4_FSGSBASE);
    cold_add_one(t, emit_jcc(&t->e, CC_E));
    if (m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_RDGSBASE) {
        emit_mem(&t->e, wide, OP_LOAD, reg, vcpu_at(base));
        return;
    }
    if (wide)
        emit_canonical(t, reg);
    emit_reg(&t->e, wide, OP_LOAD, t->s0, reg);
    emit_mem(&t->e, true, OP_STORE, t->s0, vcpu_at(base));
    emit_mem(&t->e, true, OP_STORE, t->s0,
             vcpu_at((int32_t)(offsetof(struct bt, c.base) + n * sizeof(uint64_t))));
}

/* MOV of a segment's selector to a register, all of it or its lower half, or, as a word, to memory.
 */
static bool translate_selector(struct translation *t, const struct x86_insn *insn)
{
    unsigned from = register_of(insn, 1);
    struct operand selector =
        vcpu_at((int32_t)(offsetof(struct bt, c.x.seg) + from * sizeof(struct x86_seg) +
                          offsetof(struct x86_seg, selector)));
    struct address a;

    if (register_class(insn, 0) == ZYDIS_REGCLASS_GPR16) {
        emit_byte(&t->e, PREFIX_16);
        emit_mem(&t->e, false, OP_LOAD, register_of(insn, 0), selector);
        return true;
    }
    if (insn->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        emit_mem(&t->e, false, OP_LOAD_ZX16, register_of(insn, 0), selector);
        return true;
    }
    if (!address_of(t, t->i, 0, &a))
        return false;
    emit_mem(&t->e, true, OP_LEA, t->s1, emit_check(t, &a, 2, true, 1));
    emit_mem(&t->e, false, OP_LOAD_ZX16, t->s0, selector);
    emit_byte(&t->e, PREFIX_16);
    emit_mem(&t->e, false, OP_STORE, t->s0, at(t->s1, 0));
    return true;
}

/* Translates MOV from a segment register or from CR0, CR2, CR3 or CR4; scope.c has left all other
 * forms to the interpreter. Returns false to leave this one to it, too. */
static bool translate_move(struct translation *t, const struct x86_insn *insn)
{
    unsigned to;

    if (register_class(insn, 1) == ZYDIS_REGCLASS_SEGMENT)
        return translate_selector(t, insn);
    to = register_of(insn, 0);
    switch (register_of(insn, 1)) {
    case 0: emit_mem(&t->e, t->code64, OP_LOAD, to, VCPU(c.x.cr0)); return true;
    case 2: emit_mem(&t->e, t->code64, OP_LOAD, to, VCPU(c.x.cr2)); return true;
    case 3: emit_mem(&t->e, t->code64, OP_LOAD, to, VCPU(c.x.cr3)); return true;
    default: emit_mem(&t->e, t->code64, OP_LOAD, to, VCPU(c.x.cr4)); return true;
    }
}

static bool translate_sti(struct translation *t)
{
    /* No interrupt may be delivered before the next instruction: that must follow without an exit,
     * and if an interrupt may be pending already, the interpreter executes STI. */
    if (instructions_left(t) == 1)
        return false;
    emit_alu_mem_imm(&t->e, false, ALU_N_CMP, VCPU(c.interrupt_masked), 0);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
    emit_alu_mem_imm(&t->e, true, ALU_N_OR, VCPU(c.x.rflags), X86_FLAG_IF);
    return true;
}

static void translate_swapgs(struct translation *t)
{
    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(c.x.seg[X86_GS].base));
    emit_mem(&t->e, true, OP_LOAD, t->s1, VCPU(c.x.kernel_gs_base));
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(c.x.kernel_gs_base));
    emit_mem(&t->e, true, OP_STORE, t->s1, VCPU(c.x.seg[X86_GS].base));
    emit_mem(&t->e, true, OP_STORE, t->s1, VCPU(c.base[X86_GS]));
}

/* RDTSC and RDTSCP: the host's counter plus the guest's offset. */
static void translate_rdtsc(struct translation *t, const struct x86_insn *insn)
{
    if (t->bt->c.context == MMU_USER) {
        emit_test_mem_imm(&t->e, VCPU(c.x.cr4), X86_CR4_TSD);
        cold_add_one(t, emit_jcc(&t->e, CC_NE));
    }
    copy_as_is(t, insn);
    emit_shift_imm(&t->e, true, SHIFT_N_SHL, X86_RDX, 32);
    emit_reg(&t->e, true, OP_OR_LOAD, X86_RAX, X86_RDX);
    emit_mem(&t->e, true, OP_ADD_LOAD, X86_RAX, VCPU(tsc_offset));
    emit_mem(&t->e, true, OP_ADD_LOAD, X86_RAX, VCPU(c.x.tsc_adjust));
    emit_reg(&t->e, true, OP_LOAD, X86_RDX, X86_RAX);
    emit_shift_imm(&t->e, true, SHIFT_N_SHR, X86_RDX, 32);
    emit_reg(&t->e, false, OP_LOAD, X86_RAX, X86_RAX);
    if (insn->z.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
        emit_mem(&t->e, false, OP_LOAD, X86_RCX, VCPU(c.x.tsc_aux));
}

bool translate_system(struct translation *t, const struct x86_insn *insn)
{
    flags_clobber(t, live_before(&t->flow[t->i]));
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        emit_alu_mem_imm(&t->e, true, ALU_N_AND, VCPU(c.x.rflags), ~(int32_t)X86_FLAG_IF);
        return true;
    case ZYDIS_MNEMONIC_STI: return translate_sti(t);
    case ZYDIS_MNEMONIC_STAC: translate_ac(t, true); return true;
    case ZYDIS_MNEMONIC_CLAC: translate_ac(t, false); return true;
    case ZYDIS_MNEMONIC_SWAPGS: translate_swapgs(t); return true;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP: translate_rdtsc(t, insn); return true;
    case ZYDIS_MNEMONIC_MOV: return translate_move(t, insn);
    default: translate_base(t, insn); return true;
    }
}
