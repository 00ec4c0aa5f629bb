/*
 * Sensitive instructions that are frequent, as inlined code (SDM volume 2).
 */
#include "cpu/bt/translate.h"

/* Runs at level 0; elsewhere it is left to the interpreter, which raises what there is to raise. */
static bool is_supervisors(const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_SWAPGS: return true;
    default: return false;
    }
}

bool system_is_inlined(const struct translation *t, const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP: return true;
    default: return is_supervisors(insn) && t->bt->c.context != MMU_USER;
    }
}

static bool translate_sti(struct translation *t)
{
    /* No interrupt may come before the next instruction: that must follow without an exit, and one
     * that is waiting already is a matter for the interpreter. */
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

/* RDTSC and RDTSCP: the host's counter and what the guest's is ahead of it. */
static void translate_rdtsc(struct translation *t, const struct x86_insn *insn)
{
    if (t->bt->c.context == MMU_USER) {
        emit_test_mem_imm(&t->e, VCPU(c.x.cr4), X86_CR4_TSD);
        cold_add_one(t, emit_jcc(&t->e, CC_NE));
    }
    copy_as_is(t, insn);
    emit_shift_imm(&t->e, true, 4, X86_RDX, 32); /* shl */
    emit_reg(&t->e, true, OP_OR_LOAD, X86_RAX, X86_RDX);
    emit_mem(&t->e, true, OP_ADD_LOAD, X86_RAX, VCPU(tsc_offset));
    emit_mem(&t->e, true, OP_ADD_LOAD, X86_RAX, VCPU(c.x.tsc_adjust));
    emit_reg(&t->e, true, OP_LOAD, X86_RDX, X86_RAX);
    emit_shift_imm(&t->e, true, 5, X86_RDX, 32); /* shr */
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
    case ZYDIS_MNEMONIC_SWAPGS: translate_swapgs(t); return true;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP: translate_rdtsc(t, insn); return true;
    default: return false;
    }
}
