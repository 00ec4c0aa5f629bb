/*
 * Which handler executes an instruction, and with what operands: makes a uop of what Zydis says.
 * The forms of system instructions are in select_system.c, single operands in select_operand.c.
 */
#include "cpu/interp/select.h"

#include "cpu/interp/block.h"
#include "x86/x87.h"

/* Returns the size index (SIZE_*) of operand I, or -1 if it is of no integer's size. */
static int size_of(const struct x86_insn *insn, unsigned i)
{
    switch (insn->op[i].size) {
    case 8: return SIZE_8;
    case 16: return SIZE_16;
    case 32: return SIZE_32;
    case 64: return SIZE_64;
    default: return -1;
    }
}

/* Fills in two operands of OP and returns their form. */
static enum form set_form(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    if (is_memory(insn, 0)) {
        set_memory(insn, 0, mode, op);
        if (is_immediate(insn, 1)) {
            op->imm = immediate(insn, 1);
            return FORM_MI;
        }
        op->src = register_offset(insn->op[1].reg.value);
        return FORM_MR;
    }
    op->dst = register_offset(insn->op[0].reg.value);
    if (is_immediate(insn, 1)) {
        op->imm = immediate(insn, 1);
        return FORM_RI;
    }
    if (is_memory(insn, 1)) {
        set_memory(insn, 1, mode, op);
        return FORM_RM;
    }
    op->src = register_offset(insn->op[1].reg.value);
    return FORM_RR;
}

static unsigned condition_of(const struct x86_insn *insn)
{
    return insn->z.opcode & 15;
}

/* --- Integer instructions --------------------------------------------------------------------- */

static void select_alu(const struct x86_insn *insn, unsigned mode, struct uop *op, enum alu alu)
{
    int size = size_of(insn, 0);
    enum form form = set_form(insn, mode, op);

    if (has_lock(insn))
        op->fn = alu_locked_handlers[alu][size][form == FORM_MI];
    else
        op->fn = alu_handlers[alu][size][form];
}

static void select_unary(const struct x86_insn *insn, unsigned mode, struct uop *op,
                         enum unary unary)
{
    int size = size_of(insn, 0);
    unsigned memory = set_rm(insn, 0, mode, op, &op->dst);

    op->fn =
        has_lock(insn) ? unary_locked_handlers[unary][size] : unary_handlers[unary][size][memory];
}

static void select_shift(const struct x86_insn *insn, unsigned mode, struct uop *op,
                         enum shift shift)
{
    unsigned memory = set_rm(insn, 0, mode, op, &op->dst);

    if (is_immediate(insn, 1)) {
        op->imm = immediate(insn, 1);
        op->fn = shift_handlers[shift][size_of(insn, 0)][memory];
    } else {
        op->fn = shift_cl_handlers[shift][size_of(insn, 0)][memory];
    }
}

static void select_double_shift(const struct x86_insn *insn, unsigned mode, struct uop *op,
                                bool right)
{
    unsigned memory = set_rm(insn, 0, mode, op, &op->dst);

    op->src = register_offset(insn->op[1].reg.value);
    op->aux = !is_immediate(insn, 2);
    if (!op->aux)
        op->imm = immediate(insn, 2);
    op->fn = shld_handlers[right][size_of(insn, 0)][memory];
}

static void select_imul(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    unsigned operands = insn->z.operand_count_visible, memory;

    if (operands == 1) {
        memory = set_rm(insn, 0, mode, op, &op->dst);
        op->fn = muldiv_handlers[MD_IMUL][size_of(insn, 0)][memory];
        return;
    }
    op->dst = register_offset(insn->op[0].reg.value);
    memory = set_rm(insn, 1, mode, op, &op->src);
    if (operands == 3) {
        op->imm = immediate(insn, 2);
        op->fn = imul3_handlers[size_of(insn, 0)][memory];
    } else {
        op->fn = imul2_handlers[size_of(insn, 0)][memory];
    }
}

static void select_muldiv(const struct x86_insn *insn, unsigned mode, struct uop *op,
                          enum muldiv kind)
{
    unsigned memory = set_rm(insn, 0, mode, op, &op->dst);

    op->fn = muldiv_handlers[kind][size_of(insn, 0)][memory];
}

static void select_bit(const struct x86_insn *insn, unsigned mode, struct uop *op,
                       enum bit_test test)
{
    unsigned memory = set_rm(insn, 0, mode, op, &op->dst);
    bool imm = is_immediate(insn, 1);

    op->aux = has_lock(insn);
    if (imm) {
        op->imm = immediate(insn, 1);
        op->src = 0xFF;
    } else {
        op->src = register_offset(insn->op[1].reg.value);
    }
    op->fn = bit_handlers[test][size_of(insn, 0)][memory ? (imm ? 1 : 2) : 0];
}

/* XADD, CMPXCHG, XCHG; XCHG may have its memory operand second. */
static void select_exchange(const struct x86_insn *insn, unsigned mode, struct uop *op,
                            uop_fn *const handlers[SIZES][2])
{
    unsigned rm = is_memory(insn, 1) ? 1 : 0;
    unsigned memory = set_rm(insn, rm, mode, op, &op->dst);

    op->src = register_offset(insn->op[1 - rm].reg.value);
    op->fn = handlers[size_of(insn, 0)][memory];
}

static void select_mov(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    int size = size_of(insn, 0);

    op->fn = mov_handlers[size][set_form(insn, mode, op)];
}

static void select_extend(const struct x86_insn *insn, unsigned mode, struct uop *op,
                          uop_fn *const handlers[][SIZES][2])
{
    unsigned memory = set_rm(insn, 1, mode, op, &op->src);

    op->dst = register_offset(insn->op[0].reg.value);
    op->fn = handlers[size_of(insn, 1)][size_of(insn, 0)][memory];
}

static void select_cmov(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    unsigned memory = set_rm(insn, 1, mode, op, &op->src);

    op->dst = register_offset(insn->op[0].reg.value);
    op->aux = (uint8_t)condition_of(insn);
    op->fn = cmov_handlers[size_of(insn, 0)][memory];
}

static void select_setcc(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    op->aux = (uint8_t)condition_of(insn);
    op->fn = setcc_handlers[set_rm(insn, 0, mode, op, &op->dst)];
}

static void select_lea(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    set_memory(insn, 1, mode, op);
    op->dst = register_offset(insn->op[0].reg.value);
    op->fn = lea_handlers[size_of(insn, 0)];
}

static void select_memory_op(const struct x86_insn *insn, unsigned i, unsigned mode, struct uop *op,
                             uop_fn *fn)
{
    set_memory(insn, i, mode, op);
    op->fn = fn;
}

static bool select_two_operand(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOV: select_mov(insn, mode, op); return true;
    case ZYDIS_MNEMONIC_ADD: select_alu(insn, mode, op, ALU_ADD); return true;
    case ZYDIS_MNEMONIC_OR: select_alu(insn, mode, op, ALU_OR); return true;
    case ZYDIS_MNEMONIC_ADC: select_alu(insn, mode, op, ALU_ADC); return true;
    case ZYDIS_MNEMONIC_SBB: select_alu(insn, mode, op, ALU_SBB); return true;
    case ZYDIS_MNEMONIC_AND: select_alu(insn, mode, op, ALU_AND); return true;
    case ZYDIS_MNEMONIC_SUB: select_alu(insn, mode, op, ALU_SUB); return true;
    case ZYDIS_MNEMONIC_XOR: select_alu(insn, mode, op, ALU_XOR); return true;
    case ZYDIS_MNEMONIC_CMP: select_alu(insn, mode, op, ALU_CMP); return true;
    case ZYDIS_MNEMONIC_TEST: select_alu(insn, mode, op, ALU_TEST); return true;
    case ZYDIS_MNEMONIC_LEA: select_lea(insn, mode, op); return true;
    case ZYDIS_MNEMONIC_MOVZX: select_extend(insn, mode, op, movzx_handlers); return true;
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD: select_extend(insn, mode, op, movsx_handlers); return true;
    case ZYDIS_MNEMONIC_ROL: select_shift(insn, mode, op, SHIFT_ROL); return true;
    case ZYDIS_MNEMONIC_ROR: select_shift(insn, mode, op, SHIFT_ROR); return true;
    case ZYDIS_MNEMONIC_RCL: select_shift(insn, mode, op, SHIFT_RCL); return true;
    case ZYDIS_MNEMONIC_RCR: select_shift(insn, mode, op, SHIFT_RCR); return true;
    case ZYDIS_MNEMONIC_SHL: select_shift(insn, mode, op, SHIFT_SHL); return true;
    case ZYDIS_MNEMONIC_SHR: select_shift(insn, mode, op, SHIFT_SHR); return true;
    case ZYDIS_MNEMONIC_SAR: select_shift(insn, mode, op, SHIFT_SAR); return true;
    case ZYDIS_MNEMONIC_SHLD: select_double_shift(insn, mode, op, false); return true;
    case ZYDIS_MNEMONIC_SHRD: select_double_shift(insn, mode, op, true); return true;
    case ZYDIS_MNEMONIC_BT: select_bit(insn, mode, op, BIT_BT); return true;
    case ZYDIS_MNEMONIC_BTS: select_bit(insn, mode, op, BIT_BTS); return true;
    case ZYDIS_MNEMONIC_BTR: select_bit(insn, mode, op, BIT_BTR); return true;
    case ZYDIS_MNEMONIC_BTC: select_bit(insn, mode, op, BIT_BTC); return true;
    case ZYDIS_MNEMONIC_XADD: select_exchange(insn, mode, op, xadd_handlers); return true;
    case ZYDIS_MNEMONIC_CMPXCHG: select_exchange(insn, mode, op, cmpxchg_handlers); return true;
    case ZYDIS_MNEMONIC_XCHG: select_exchange(insn, mode, op, xchg_handlers); return true;
    default: return false;
    }
}

static bool select_one_operand(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_INC: select_unary(insn, mode, op, UNARY_INC); return true;
    case ZYDIS_MNEMONIC_DEC: select_unary(insn, mode, op, UNARY_DEC); return true;
    case ZYDIS_MNEMONIC_NEG: select_unary(insn, mode, op, UNARY_NEG); return true;
    case ZYDIS_MNEMONIC_NOT: select_unary(insn, mode, op, UNARY_NOT); return true;
    case ZYDIS_MNEMONIC_MUL: select_muldiv(insn, mode, op, MD_MUL); return true;
    case ZYDIS_MNEMONIC_IMUL: select_imul(insn, mode, op); return true;
    case ZYDIS_MNEMONIC_DIV: select_muldiv(insn, mode, op, MD_DIV); return true;
    case ZYDIS_MNEMONIC_IDIV: select_muldiv(insn, mode, op, MD_IDIV); return true;
    case ZYDIS_MNEMONIC_CMPXCHG8B: select_memory_op(insn, 0, mode, op, op_cmpxchg8b); return true;
    case ZYDIS_MNEMONIC_CMPXCHG16B: select_memory_op(insn, 0, mode, op, op_cmpxchg16b); return true;
    case ZYDIS_MNEMONIC_BSWAP:
        op->dst = register_offset(insn->op[0].reg.value);
        op->osize = (uint8_t)(insn->op[0].size / 8);
        op->fn = op_bswap;
        return true;
    case ZYDIS_MNEMONIC_MOVBE:
        op->osize = (uint8_t)(insn->op[0].size / 8);
        if (is_memory(insn, 0)) {
            op->src = register_offset(insn->op[1].reg.value);
            select_memory_op(insn, 0, mode, op, op_movbe_store);
        } else {
            op->dst = register_offset(insn->op[0].reg.value);
            select_memory_op(insn, 1, mode, op, op_movbe_load);
        }
        return true;
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAD:
        op->imm = immediate(insn, 0);
        op->fn = insn->z.mnemonic == ZYDIS_MNEMONIC_AAM ? op_aam : op_aad;
        return true;
    case ZYDIS_MNEMONIC_XLAT:
        set_implicit_memory(insn, mode, X86_RBX, op);
        op->fn = op_xlat;
        return true;
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB: select_memory_op(insn, 0, mode, op, op_flush_line); return true;
    case ZYDIS_MNEMONIC_BOUND:
        op->dst = register_offset(insn->op[0].reg.value);
        op->osize = (uint8_t)(insn->op[0].size / 8);
        select_memory_op(insn, 1, mode, op, op_bound);
        return true;
    case ZYDIS_MNEMONIC_ARPL:
        op->src = register_offset(insn->op[1].reg.value);
        set_rm(insn, 0, mode, op, &op->dst);
        op->fn = op_arpl;
        return true;
    default: return false;
    }
}

/* Returns the handler of an instruction that has no operands to choose by, or NULL. */
static uop_fn *plain_handler(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_CBW: return op_cbw;
    case ZYDIS_MNEMONIC_CWDE: return op_cwde;
    case ZYDIS_MNEMONIC_CDQE: return op_cdqe;
    case ZYDIS_MNEMONIC_CWD: return op_cwd;
    case ZYDIS_MNEMONIC_CDQ: return op_cdq;
    case ZYDIS_MNEMONIC_CQO: return op_cqo;
    case ZYDIS_MNEMONIC_LAHF: return op_lahf;
    case ZYDIS_MNEMONIC_SAHF: return op_sahf;
    case ZYDIS_MNEMONIC_SALC: return op_salc;
    case ZYDIS_MNEMONIC_CLC: return op_clc;
    case ZYDIS_MNEMONIC_STC: return op_stc;
    case ZYDIS_MNEMONIC_CMC: return op_cmc;
    case ZYDIS_MNEMONIC_CLD: return op_cld;
    case ZYDIS_MNEMONIC_STD: return op_std;
    case ZYDIS_MNEMONIC_PAUSE: return op_pause;
    case ZYDIS_MNEMONIC_MFENCE: return op_mfence;
    case ZYDIS_MNEMONIC_AAA: return op_aaa;
    case ZYDIS_MNEMONIC_AAS: return op_aas;
    case ZYDIS_MNEMONIC_DAA: return op_daa;
    case ZYDIS_MNEMONIC_DAS: return op_das;
    /* x86 orders loads and stores already. Prefetches and NOPs access nothing. */
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2: return op_nop;
    default: return NULL;
    }
}

static bool select_integer(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    if (select_two_operand(insn, mode, op) || select_one_operand(insn, mode, op))
        return true;
    op->fn = plain_handler(insn->z.mnemonic);
    if (op->fn)
        return true;
    switch (insn->z.meta.category) {
    case ZYDIS_CATEGORY_CMOV: select_cmov(insn, mode, op); return true;
    case ZYDIS_CATEGORY_SETCC: select_setcc(insn, mode, op); return true;
    default: return false;
    }
}

/* --- Branches --------------------------------------------------------------------------------- */

static void select_direct(const struct x86_insn *insn, struct uop *op)
{
    op->imm = op->off + op->len + (uint64_t)insn->op[0].imm.value.s;
}

static void select_loop(const struct x86_insn *insn, struct uop *op)
{
    select_direct(insn, op);
    op->fn = op_loop;
    op->asize = insn->z.address_width / 8;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_LOOPNE: op->aux = LOOP_IF_NOT_ZERO; break;
    case ZYDIS_MNEMONIC_LOOPE: op->aux = LOOP_IF_ZERO; break;
    case ZYDIS_MNEMONIC_LOOP: op->aux = LOOP_ALWAYS; break;
    default: op->aux = LOOP_JCXZ; break;
    }
}

static void select_jump(const struct x86_insn *insn, unsigned mode, struct uop *op, bool call)
{
    bool long64 = (mode & MODE_SIZE) == MODE_64;
    unsigned memory;

    op->seg = X86_SS;
    if (is_immediate(insn, 0)) {
        select_direct(insn, op);
        op->fn = long64 ? (call ? op_call : op_jmp) : call ? op_call_legacy : op_jmp_legacy;
        return;
    }
    memory = set_rm(insn, 0, mode, op, &op->src);
    if (!long64)
        op->fn = call ? op_call_indirect_legacy : op_jmp_indirect_legacy;
    else if (memory)
        op->fn = call ? op_call_m : op_jmp_m;
    else
        op->fn = call ? op_call_r : op_jmp_r;
}

static void select_branch(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    bool long64 = (mode & MODE_SIZE) == MODE_64;

    op->osize = long64 ? 8 : insn->z.operand_width / 8;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_CALL: select_jump(insn, mode, op, true); break;
    case ZYDIS_MNEMONIC_JMP: select_jump(insn, mode, op, false); break;
    case ZYDIS_MNEMONIC_RET:
        op->seg = X86_SS;
        op->imm = insn->z.operand_count_visible ? immediate(insn, 0) : 0;
        op->fn = long64 ? op_ret : op_ret_legacy;
        break;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: select_loop(insn, op); break;
    default:
        select_direct(insn, op);
        op->aux = (uint8_t)condition_of(insn);
        op->fn = long64 ? jcc_handlers[op->aux] : op_jcc_legacy;
        break;
    }
}

/* --- Strings ---------------------------------------------------------------------------------- */

static uint8_t repetition(const struct x86_insn *insn)
{
    uint8_t rep = STRING_ONCE;

    for (unsigned i = 0; i < insn->z.raw.prefix_count; i++) {
        if (insn->z.raw.prefixes[i].value == 0xF3)
            rep = STRING_REP;
        else if (insn->z.raw.prefixes[i].value == 0xF2)
            rep = STRING_REPNE;
    }
    return rep;
}

static bool select_string(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    /* By bits 7:1 of the opcode; bit 0 tells bytes from the rest. */
    static const struct {
        uint8_t opcode;
        uop_fn *fn;
    } kinds[] = {
        {0xA4, op_movs}, {0xAA, op_stos}, {0xAC, op_lods}, {0xA6, op_cmps},
        {0xAE, op_scas}, {0x6C, op_ins},  {0x6E, op_outs},
    };
    bool port;

    op->seg = X86_DS;
    set_implicit_memory(insn, mode, X86_RSI, op);
    op->aux = repetition(insn);
    op->asize = insn->z.address_width / 8;
    op->osize = insn->z.opcode & 1 ? insn->z.operand_width / 8 : 1;
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        if ((insn->z.opcode & 0xFE) == kinds[i].opcode)
            op->fn = kinds[i].fn;
    port = op->fn == op_ins || op->fn == op_outs;
    if (port && op->osize == 8)
        op->osize = 4;
    return port;
}

/* --- Native ----------------------------------------------------------------------------------- */

/* Returns the register files (FP_*) that an instruction uses. */
static unsigned register_files(const struct x86_insn *insn)
{
    bool vex = insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    unsigned files = 0;

    /* Of the one-byte opcodes: D8 to DF, whatever extension they came with, and FWAIT. */
    if (insn->info->class == X86_CLASS_X87 && insn->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
        !vex)
        return insn->z.mnemonic == ZYDIS_MNEMONIC_FWAIT ? FP_WAIT : FP_X87;
    if (insn->z.meta.isa_ext == ZYDIS_ISA_EXT_MMX)
        return FP_MMX;
    if (x86_uses_vectors(insn))
        files = vex ? FP_AVX : FP_SSE;
    for (unsigned i = 0; i < insn->z.operand_count; i++)
        if (is_register(insn, i) &&
            ZydisRegisterGetClass(insn->op[i].reg.value) == ZYDIS_REGCLASS_MMX)
            files |= FP_MMX;
    return files;
}

static bool touches_flags(const struct x86_insn *insn)
{
    const ZydisAccessedFlags *flags = insn->z.cpu_flags;

    return flags &&
           ((flags->tested | flags->modified | flags->set_0 | flags->set_1 | flags->undefined) &
            X86_FLAGS_STATUS);
}

static unsigned vector_number(const struct x86_insn *insn, unsigned i)
{
    return (unsigned)ZydisRegisterGetId(insn->op[i].reg.value);
}

static bool gathers_by_quadword(ZydisMnemonic mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_VGATHERQPD || mnemonic == ZYDIS_MNEMONIC_VGATHERQPS ||
           mnemonic == ZYDIS_MNEMONIC_VPGATHERQD || mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ;
}

/* Selects the vector instructions that native.c executes element by element. */
static bool select_masked(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    uint8_t element = 4;

    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: element = 8; /* fall through */
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
        op->imm = vector_number(insn, 1);
        op->aux = element;
        if (is_memory(insn, 0)) {
            op->aux |= VMASKMOV_STORE;
            op->src = (uint8_t)vector_number(insn, 2);
            op->osize = (uint8_t)(insn->op[2].size / 8);
            set_memory(insn, 0, mode, op);
        } else {
            op->dst = (uint8_t)vector_number(insn, 0);
            op->osize = (uint8_t)(insn->op[0].size / 8);
            set_memory(insn, 2, mode, op);
        }
        op->fn = op_vmaskmov;
        return true;
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQQ: element = 8; /* fall through */
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERQD:
        set_memory(insn, 1, mode, op);
        op->dst = (uint8_t)vector_number(insn, 0);
        op->src = (uint8_t)vector_number(insn, 2);
        op->index = (uint8_t)ZydisRegisterGetId(insn->op[1].mem.index);
        op->osize = (uint8_t)(insn->op[0].size / 8);
        op->imm = ZydisRegisterGetClass(insn->op[1].mem.index) == ZYDIS_REGCLASS_YMM ? 32 : 16;
        op->aux = element | (gathers_by_quadword(insn->z.mnemonic) ? GATHER_INDEX_64 : 0);
        op->fn = op_gather;
        return true;
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        set_implicit_memory(insn, mode, X86_RDI, op);
        op->dst = (uint8_t)vector_number(insn, 0);
        op->src = (uint8_t)vector_number(insn, 1);
        op->osize = insn->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16;
        op->aux = insn->z.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU ? FP_AVX : FP_SSE;
        op->fn = op_maskmovdqu;
        return true;
    default: return false;
    }
}

/* Selects instructions that load or store the x87's environment: the host's is not the guest's. */
static bool select_environment(const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV: op->fn = op_fnstenv; break;
    case ZYDIS_MNEMONIC_FLDENV: op->fn = op_fldenv; break;
    case ZYDIS_MNEMONIC_FNSAVE: op->fn = op_fnsave; break;
    case ZYDIS_MNEMONIC_FRSTOR: op->fn = op_frstor; break;
    default: return false;
    }
    set_memory(insn, 0, mode, op);
    op->osize = (uint8_t)(insn->op[0].size / 8);
    return true;
}

/* Whether INSN raises a pending x87 exception before it is executed. All that use x87 or MMX
 * registers do, except for a few control instructions (SDM volume 1, 8.6). */
static bool waits(const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_CVTPI2PD: /* from memory, to XMM */
    case ZYDIS_MNEMONIC_CVTPI2PS: return false;
    default: return insn->info->class == X86_CLASS_X87;
    }
}

static void select_native(struct vcpu *c, const struct x86_insn *insn, unsigned mode,
                          struct uop *op)
{
    struct thunk_cache *thunks = interp_of(c->core)->thunks;
    thunk_fn *thunk = thunk_get(thunks, insn);

    if (!thunk && thunk_cache_full(thunks)) {
        block_renew_thunks(c);
        thunk = thunk_get(thunks, insn);
    }
    if (!thunk) {
        select_undefined(op, X86_UD);
        return;
    }
    op->fn = op_native;
    op->imm = (uintptr_t)thunk;
    op->src = (uint8_t)register_files(insn);
    if (x87_is_noted(insn)) {
        op->src |= (uint8_t)(x87_opcode(insn) >> 8 << SRC_OPCODE);
        op->dst = (uint8_t)x87_opcode(insn);
    }
    op->aux = touches_flags(insn) ? NATIVE_FLAGS : 0;
    op->aux |= x87_is_noted(insn) ? NATIVE_NOTED : 0;
    for (unsigned i = 0; i < insn->z.operand_count_visible; i++) {
        if (!is_memory(insn, i))
            continue;
        set_memory(insn, i, mode, op);
        op->osize = (uint8_t)(insn->op[i].size / 8);
        if (x86_needs_alignment(insn, insn->op[i].size / 8u))
            op->aux |= NATIVE_ALIGNED;
        if (waits(insn))
            op->aux |= NATIVE_WAITS;
        if (insn->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_READ)
            op->aux |= NATIVE_READ;
        if (insn->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            op->aux |= NATIVE_WRITE;
        /* An unmasked exception leaves what was there. */
        if ((op->src & FP_X87) && (op->aux & NATIVE_WRITE))
            op->aux |= NATIVE_READ;
    }
}

bool select_uop(struct vcpu *c, const struct x86_insn *insn, unsigned mode, struct uop *op)
{
    op->base = op->index = X86_NONE;
    op->ea = EA_NONE;
    switch ((enum x86_class)insn->info->class) {
    case X86_CLASS_INTEGER:
        if (!select_integer(insn, mode, op))
            select_native(c, insn, mode, op);
        return op->fn == op_undefined;
    case X86_CLASS_BRANCH: select_branch(insn, mode, op); return true;
    case X86_CLASS_STRING: return select_string(insn, mode, op);
    case X86_CLASS_NATIVE:
    case X86_CLASS_X87:
        if (!select_masked(insn, mode, op) && !select_environment(insn, mode, op))
            select_native(c, insn, mode, op);
        return op->fn == op_undefined;
    default: return select_system(insn, mode, op);
    }
}
