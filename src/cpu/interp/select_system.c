/*
 * Which handler executes a stack, far or system instruction.
 */
#include "cpu/interp/select.h"

static bool is_segment(const struct x86_insn *insn, unsigned i)
{
    return is_register(insn, i) &&
           ZydisRegisterGetClass(insn->op[i].reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

/* --- Stack ------------------------------------------------------------------------------------ */

static void select_push(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    bool wide = op->osize == 8;

    if (is_segment(insn, 0)) {
        op->aux = (uint8_t)segment_number(insn->op[0].reg.value);
        op->fn = op_push_seg;
    } else if (is_memory(insn, 0)) {
        set_memory(insn, 0, mode, op);
        op->fn = op_push_m;
    } else if (is_register(insn, 0)) {
        op->src = register_offset(insn->op[0].reg.value);
        op->fn = wide ? op_push_r64 : op_push_r;
    } else {
        op->imm = (uint64_t)insn->op[0].imm.value.s;
        op->fn = wide ? op_push_i64 : op_push_i;
    }
}

static bool select_pop(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    if (is_segment(insn, 0)) {
        op->aux = (uint8_t)segment_number(insn->op[0].reg.value);
        op->fn = op_pop_seg;
        return true;
    }
    if (is_memory(insn, 0)) {
        set_memory(insn, 0, mode, op);
        op->fn = op_pop_m;
    } else {
        op->dst = register_offset(insn->op[0].reg.value);
        op->fn = op->osize == 8 ? op_pop_r64 : op_pop_r;
    }
    return false;
}

static bool select_stack(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    op->seg = X86_SS;
    op->osize = insn->z.operand_width / 8;
    if ((mode & MODE_SIZE) == MODE_64 && op->osize == 4)
        op->osize = 8; /* there are no 32-bit stack operations in 64-bit code */
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH: select_push(insn, mode, op); return false;
    case ZYDIS_MNEMONIC_POP: return select_pop(insn, mode, op);
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD: op->fn = op_pusha; return false;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD: op->fn = op_popa; return false;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ: op->fn = op_pushf; return false;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: op->fn = op_popf; return true;
    case ZYDIS_MNEMONIC_ENTER:
        op->imm = (uint16_t)immediate(insn, 0);
        op->aux = (uint8_t)immediate(insn, 1);
        op->fn = op_enter;
        return false;
    default: op->fn = op->osize == 8 ? op_leave64 : op_leave; return false;
    }
}

/* --- Far transfers ---------------------------------------------------------------------------- */

static bool select_far(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    op->osize = insn->z.operand_width / 8;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
        op->fn = insn->z.mnemonic == ZYDIS_MNEMONIC_CALL ? op_call_far : op_jmp_far;
        if (is_memory(insn, 0))
            set_memory(insn, 0, mode, op);
        else
            op->imm = (uint64_t)insn->op[0].ptr.segment << 32 | insn->op[0].ptr.offset;
        break;
    case ZYDIS_MNEMONIC_RET:
        op->imm = insn->z.operand_count_visible ? immediate(insn, 0) : 0;
        op->fn = op_ret_far;
        break;
    case ZYDIS_MNEMONIC_INT:
        op->imm = immediate(insn, 0) & 0xFF;
        op->fn = op_int;
        break;
    case ZYDIS_MNEMONIC_INT1: op->fn = op_int1; break;
    case ZYDIS_MNEMONIC_INT3: op->fn = op_int3; break;
    case ZYDIS_MNEMONIC_INTO: op->fn = op_into; break;
    case ZYDIS_MNEMONIC_IRET: op->osize = 2, op->fn = op_iret; break;
    case ZYDIS_MNEMONIC_IRETD: op->osize = 4, op->fn = op_iret; break;
    case ZYDIS_MNEMONIC_IRETQ: op->osize = 8, op->fn = op_iret; break;
    case ZYDIS_MNEMONIC_SYSCALL: op->fn = op_syscall; break;
    case ZYDIS_MNEMONIC_SYSENTER: op->fn = op_sysenter; break;
    case ZYDIS_MNEMONIC_SYSRET: op->fn = op_sysret; break;
    default: op->fn = op_sysexit; break;
    }
    if (op->fn == op_sysret || op->fn == op_sysexit)
        op->osize = insn->z.attributes & ZYDIS_ATTRIB_HAS_REX && insn->z.raw.rex.W ? 8 : 4;
    return true;
}

/* --- System ----------------------------------------------------------------------------------- */

struct system_handler {
    ZydisMnemonic mnemonic;
    uop_fn *fn;
    enum { NOTHING, SOURCE, DESTINATION, MEMORY } operand0;
    uint8_t aux;
    bool ends;
};

static const struct system_handler system_handlers[] = {
    {ZYDIS_MNEMONIC_CPUID, op_cpuid, NOTHING, 0, true},
    {ZYDIS_MNEMONIC_RDTSC, op_rdtsc, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_RDTSCP, op_rdtscp, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_RDPMC, op_rdpmc, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_RDPID, op_rdpid, DESTINATION, 0, false},
    {ZYDIS_MNEMONIC_RDMSR, op_rdmsr, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_WRMSR, op_wrmsr, NOTHING, 0, true},
    {ZYDIS_MNEMONIC_HLT, op_hlt, NOTHING, 0, true},
    {ZYDIS_MNEMONIC_CLI, op_cli, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_STI, op_sti, NOTHING, 0, true},
    {ZYDIS_MNEMONIC_CLTS, op_clts, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_CLAC, op_clac, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_STAC, op_stac, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_INVD, op_invd, NOTHING, 0, true},
    {ZYDIS_MNEMONIC_WBINVD, op_invd, NOTHING, 0, true},
    {ZYDIS_MNEMONIC_SWAPGS, op_swapgs, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_VMCALL, op_vmcall, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_VMMCALL, op_vmcall, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_MONITOR, op_monitor, NOTHING, 0, true},
    {ZYDIS_MNEMONIC_MWAIT, op_monitor, NOTHING, 0, true},
    {ZYDIS_MNEMONIC_XGETBV, op_xgetbv, NOTHING, 0, false},
    {ZYDIS_MNEMONIC_XSETBV, op_xsetbv, NOTHING, 0, true},
    {ZYDIS_MNEMONIC_RDFSBASE, op_fsgsbase, DESTINATION, X86_FS, false},
    {ZYDIS_MNEMONIC_RDGSBASE, op_fsgsbase, DESTINATION, X86_GS, false},
    {ZYDIS_MNEMONIC_WRFSBASE, op_fsgsbase, SOURCE, X86_FS | FSGSBASE_WRITE, false},
    {ZYDIS_MNEMONIC_WRGSBASE, op_fsgsbase, SOURCE, X86_GS | FSGSBASE_WRITE, false},
    {ZYDIS_MNEMONIC_SGDT, op_sgdt, MEMORY, 0, false},
    {ZYDIS_MNEMONIC_SIDT, op_sidt, MEMORY, 0, false},
    {ZYDIS_MNEMONIC_LGDT, op_lgdt, MEMORY, 0, false},
    {ZYDIS_MNEMONIC_LIDT, op_lidt, MEMORY, 0, false},
    {ZYDIS_MNEMONIC_SLDT, op_sldt, DESTINATION, 0, false},
    {ZYDIS_MNEMONIC_STR, op_str, DESTINATION, 0, false},
    {ZYDIS_MNEMONIC_SMSW, op_smsw, DESTINATION, 0, false},
    {ZYDIS_MNEMONIC_LLDT, op_lldt, SOURCE, 0, false},
    {ZYDIS_MNEMONIC_LTR, op_ltr, SOURCE, 0, false},
    {ZYDIS_MNEMONIC_LMSW, op_lmsw, SOURCE, 0, true},
    {ZYDIS_MNEMONIC_VERR, op_verr, SOURCE, 0, false},
    {ZYDIS_MNEMONIC_VERW, op_verw, SOURCE, 0, false},
    {ZYDIS_MNEMONIC_INVLPG, op_invlpg, MEMORY, 0, true},
    {ZYDIS_MNEMONIC_FXSAVE, op_fxsave, MEMORY, 0, false},
    {ZYDIS_MNEMONIC_FXSAVE64, op_fxsave, MEMORY, XSTATE_WIDE, false},
    {ZYDIS_MNEMONIC_FXRSTOR, op_fxrstor, MEMORY, 0, false},
    {ZYDIS_MNEMONIC_FXRSTOR64, op_fxrstor, MEMORY, XSTATE_WIDE, false},
    {ZYDIS_MNEMONIC_XSAVE, op_xsave, MEMORY, XSTATE_XSAVE, false},
    {ZYDIS_MNEMONIC_XSAVE64, op_xsave, MEMORY, XSTATE_XSAVE | XSTATE_WIDE, false},
    {ZYDIS_MNEMONIC_XSAVEOPT, op_xsave, MEMORY, XSTATE_XSAVEOPT, false},
    {ZYDIS_MNEMONIC_XSAVEOPT64, op_xsave, MEMORY, XSTATE_XSAVEOPT | XSTATE_WIDE, false},
    {ZYDIS_MNEMONIC_XSAVEC, op_xsave, MEMORY, XSTATE_XSAVEC, false},
    {ZYDIS_MNEMONIC_XSAVEC64, op_xsave, MEMORY, XSTATE_XSAVEC | XSTATE_WIDE, false},
    {ZYDIS_MNEMONIC_XRSTOR, op_xrstor, MEMORY, 0, false},
    {ZYDIS_MNEMONIC_XRSTOR64, op_xrstor, MEMORY, XSTATE_WIDE, false},
    {ZYDIS_MNEMONIC_LDMXCSR, op_ldmxcsr, MEMORY, FP_SSE, false},
    {ZYDIS_MNEMONIC_STMXCSR, op_stmxcsr, MEMORY, FP_SSE, false},
    {ZYDIS_MNEMONIC_VLDMXCSR, op_ldmxcsr, MEMORY, FP_AVX, false},
    {ZYDIS_MNEMONIC_VSTMXCSR, op_stmxcsr, MEMORY, FP_AVX, false},
};

/* MOV to and from segment, control and debug registers. */
static bool select_mov_special(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    unsigned special = is_segment(insn, 0) ? 0 : 1;
    ZydisRegister r;

    if (is_segment(insn, 0)) {
        op->aux = (uint8_t)segment_number(insn->op[0].reg.value);
        set_rm(insn, 1, mode, op, &op->src);
        op->fn = op_mov_to_seg;
        return true;
    }
    if (is_segment(insn, 1)) {
        op->aux = (uint8_t)segment_number(insn->op[1].reg.value);
        op->osize = (uint8_t)(insn->op[0].size / 8);
        set_rm(insn, 0, mode, op, &op->dst);
        op->fn = op_mov_from_seg;
        return false;
    }
    r = insn->op[0].reg.value;
    if (ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_CONTROL ||
        ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_DEBUG)
        special = 0;
    r = insn->op[special].reg.value;
    op->aux = (uint8_t)ZydisRegisterGetId(r);
    op->osize = (mode & MODE_SIZE) == MODE_64 ? 8 : 4;
    op->src = op->dst = register_offset(insn->op[1 - special].reg.value);
    if (ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_CONTROL)
        op->fn = special == 0 ? op_mov_to_cr : op_mov_from_cr;
    else
        op->fn = special == 0 ? op_mov_to_dr : op_mov_from_dr;
    return special == 0;
}

static void select_load_far(const struct x86_insn *insn, unsigned mode, struct uop *op,
                            unsigned seg)
{
    op->dst = register_offset(insn->op[0].reg.value);
    op->osize = (uint8_t)(insn->op[0].size / 8);
    op->aux = (uint8_t)seg;
    set_memory(insn, 1, mode, op);
    op->fn = op_load_far;
}

/* IN and OUT: the port is an immediate or DX. */
static void select_port(const struct x86_insn *insn, struct uop *op, bool in)
{
    unsigned port = in ? 1 : 0;

    op->osize = (uint8_t)(insn->op[1 - port].size / 8);
    op->aux = is_register(insn, port);
    if (!op->aux)
        op->imm = immediate(insn, port) & 0xFF;
    op->fn = in ? op_in : op_out;
}

static bool select_from_table(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    for (unsigned i = 0; i < ARRAY_SIZE(system_handlers); i++) {
        const struct system_handler *h = &system_handlers[i];

        if (h->mnemonic != insn->z.mnemonic)
            continue;
        op->fn = h->fn;
        op->aux = h->aux;
        switch (h->operand0) {
        case SOURCE: set_rm(insn, 0, mode, op, &op->src); break;
        case DESTINATION: set_rm(insn, 0, mode, op, &op->dst); break;
        case MEMORY: set_memory(insn, 0, mode, op); break;
        case NOTHING: break;
        }
        if (h->operand0 == SOURCE || h->operand0 == DESTINATION)
            op->osize = (uint8_t)(insn->op[0].size / 8);
        return h->ends;
    }
    select_undefined(op, X86_UD);
    return true;
}

bool select_system(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    op->seg = X86_DS;
    if (insn->info->class == X86_CLASS_STACK && !is_segment(insn, 0))
        return select_stack(insn, mode, op);
    if (insn->info->class == X86_CLASS_FAR)
        return select_far(insn, mode, op);
    op->osize = insn->z.operand_width / 8;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP: return select_stack(insn, mode, op);
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_RET: return select_far(insn, mode, op);
    case ZYDIS_MNEMONIC_MOV: return select_mov_special(insn, mode, op);
    case ZYDIS_MNEMONIC_LDS: select_load_far(insn, mode, op, X86_DS); return true;
    case ZYDIS_MNEMONIC_LES: select_load_far(insn, mode, op, X86_ES); return true;
    case ZYDIS_MNEMONIC_LFS: select_load_far(insn, mode, op, X86_FS); return true;
    case ZYDIS_MNEMONIC_LGS: select_load_far(insn, mode, op, X86_GS); return true;
    case ZYDIS_MNEMONIC_LSS: select_load_far(insn, mode, op, X86_SS); return true;
    case ZYDIS_MNEMONIC_IN: select_port(insn, op, true); return true;
    case ZYDIS_MNEMONIC_OUT: select_port(insn, op, false); return true;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
        op->dst = register_offset(insn->op[0].reg.value);
        op->osize = (uint8_t)(insn->op[0].size / 8);
        set_rm(insn, 1, mode, op, &op->src);
        op->fn = insn->z.mnemonic == ZYDIS_MNEMONIC_LAR ? op_lar : op_lsl;
        return false;
    case ZYDIS_MNEMONIC_INVPCID:
        op->dst = register_offset(insn->op[0].reg.value);
        set_memory(insn, 1, mode, op);
        op->fn = op_invpcid;
        return true;
    default: return select_from_table(insn, mode, op);
    }
}
