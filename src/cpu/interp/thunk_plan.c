/*
 * Thunks, first step: which of the guest's registers an instruction touches, and its bytes as a
 * thunk can run them. The encoding (SDM volume 2, chapter 2) changes where the operand does:
 *
 *  - a memory operand becomes [base], base being a register that the instruction does not use;
 *  - RSP as an operand becomes another register, because the host needs its stack;
 *  - prefixes for segments and address size go; the operand-size prefix comes or goes where code of
 *    16 bits means another size by default.
 *
 * The result is decoded and compared with the original, which shows whether it is right.
 */
#include "cpu/interp/thunk_impl.h"

#include "base/util.h"

#include <string.h>

#define BIT(n) (1u << (n))

/* Registers that need no REX prefix and are not special as a base; those the ABI lets a function
 * change come first. */
static const uint8_t low_registers[] = {X86_RDI, X86_RSI, X86_RDX, X86_RCX, X86_RAX, X86_RBX};

static bool pick_register(uint8_t *reg, uint16_t taken)
{
    for (unsigned i = 0; i < ARRAY_SIZE(low_registers); i++) {
        if (!(taken & BIT(low_registers[i]))) {
            *reg = low_registers[i];
            return true;
        }
    }
    return false;
}

/* The number of a general-purpose register in the encoding, or -1 for other registers. AH..BH are
 * part of RAX..RBX. */
static int gpr_number(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg) -
               ZYDIS_REGISTER_RAX;
    default: return -1;
    }
}

static bool plan_register(struct thunk_plan *plan, const ZydisDecodedOperand *op)
{
    bool written = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    int gpr = gpr_number(op->reg.value);
    uint16_t vector = 0;

    switch (ZydisRegisterGetClass(op->reg.value)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        /* RSP where no bits of the instruction name it: a stack operation. */
        if (gpr == X86_RSP && op->encoding == ZYDIS_OPERAND_ENCODING_NONE)
            return false;
        plan->gpr |= BIT(gpr);
        plan->gpr_store |= written ? BIT(gpr) : 0;
        return true;
    case ZYDIS_REGCLASS_YMM:
        vector = BIT(op->reg.value - ZYDIS_REGISTER_YMM0);
        plan->vector_high |= vector;
        break;
    case ZYDIS_REGCLASS_XMM: vector = BIT(op->reg.value - ZYDIS_REGISTER_XMM0); break;
    case ZYDIS_REGCLASS_X87:
    case ZYDIS_REGCLASS_MMX: plan->x87 = true; return true;
    case ZYDIS_REGCLASS_FLAGS: return true; /* see plan_flags */
    default:
        return op->reg.value == ZYDIS_REGISTER_X87CONTROL ||
               op->reg.value == ZYDIS_REGISTER_X87STATUS || op->reg.value == ZYDIS_REGISTER_X87TAG;
    }
    plan->vector |= vector;
    plan->vector_store |= written ? vector : 0;
    return true;
}

static bool plan_operands(struct thunk_plan *plan, const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &insn->op[i];

        switch (op->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            if (!plan_register(plan, op))
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            /* One operand, by ModRM, and not the many of a gather or an address as such. */
            if (plan->memory || op->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
                op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
                return false;
            plan->memory = true;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            if (op->imm.is_relative)
                return false;
            break;
        default: return false;
        }
    }
    return true;
}

static bool plan_flags(struct thunk_plan *plan, const struct x86_insn *insn)
{
    const ZydisAccessedFlags *flags = insn->z.cpu_flags;
    uint32_t written, undefined = insn->info->undefined;

    if (!flags)
        return true;
    written = flags->modified | flags->set_0 | flags->set_1 | flags->undefined;
    if ((written | flags->tested) & ~X86_FLAGS_STATUS)
        return false;
    /* All flags come back from the instruction, and go into it unless it surely writes them all;
     * after a shift by zero, or where they are undefined, it may not. */
    plan->flags_store = written ? X86_FLAGS_STATUS : 0;
    plan->flags_load = flags->tested || undefined || (written && written != X86_FLAGS_STATUS);
    return true;
}

/* Types 2, 3 and 11 are the ones with SIMD floating-point exceptions (SDM volume 2, 2.4). */
static bool uses_mxcsr(const struct x86_insn *insn)
{
    switch (insn->z.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11: return true;
    default: return false;
    }
}

/* Whether INSN cannot be a thunk, though its operands look so. */
static bool is_excluded(const struct x86_insn *insn, bool memory)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS: /* the bit may lie far from the operand */
        return memory && insn->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: /* what is masked out must not be touched */ return true;
    case ZYDIS_MNEMONIC_BOUND: /* #BR is no result of a thunk */ return true;
    default: return false;
    }
}

static bool is_code64(const struct x86_insn *insn)
{
    return insn->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
}

/* How the operand's register is encoded now that RSP has another name. */
static void rename_rsp(struct thunk_plan *plan, const struct x86_insn *insn, uint8_t *vex_byte,
                       uint8_t *opcode_end, uint8_t *modrm)
{
    for (unsigned i = 0; i < insn->z.operand_count_visible; i++) {
        const ZydisDecodedOperand *op = &insn->op[i];

        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || gpr_number(op->reg.value) != X86_RSP)
            continue;
        switch (op->encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG: *modrm = (*modrm & ~0x38) | plan->rsp << 3; break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM: *modrm = (*modrm & ~0x07) | plan->rsp; break;
        case ZYDIS_OPERAND_ENCODING_OPCODE: *opcode_end = (*opcode_end & ~0x07) | plan->rsp; break;
        case ZYDIS_OPERAND_ENCODING_NDSNDD:
            *vex_byte = (*vex_byte & ~0x78) | (~plan->rsp & 15) << 3;
            break;
        default: break; /* whether that is right, the comparison of the results shows */
        }
    }
}

static bool has_gpr8_operand(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->z.operand_count_visible; i++)
        if (insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(insn->op[i].reg.value) == ZYDIS_REGCLASS_GPR8)
            return true;
    return false;
}

/* Emits the prefixes of the copy. OPERAND_SIZE: with 66h. */
static void encode_prefixes(struct thunk_plan *plan, const struct x86_insn *insn, bool operand_size)
{
    uint8_t repeat = 0, rex = 0;
    bool lock = insn->z.attributes & ZYDIS_ATTRIB_HAS_LOCK;

    for (unsigned i = 0; i < insn->z.raw.prefix_count; i++) {
        uint8_t value = insn->z.raw.prefixes[i].value;

        if (insn->z.raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY && (value & 0xFE) == 0xF2)
            repeat = value;
        if (is_code64(insn) && (value & 0xF0) == 0x40 &&
            insn->z.raw.prefixes[i].type != ZYDIS_PREFIX_TYPE_IGNORED)
            rex = plan->memory ? value & ~0x03 : value;
    }
    if (rex == 0x40 && !has_gpr8_operand(insn)) /* it only made SPL to DIL of AH to BH */
        rex = 0;
    if (lock)
        plan->code[plan->length++] = 0xF0;
    if (operand_size)
        plan->code[plan->length++] = 0x66;
    if (repeat)
        plan->code[plan->length++] = repeat;
    if (rex)
        plan->code[plan->length++] = rex;
}

static bool has_gpr_operand(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->z.operand_count; i++)
        if (insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            gpr_number(insn->op[i].reg.value) >= 0)
            return true;
    return false;
}

/* The VEX prefix: outside 64-bit code some of its bits are ignored, and inverted bits of registers
 * must say "low" there. */
static void clean_vex(const struct thunk_plan *plan, const struct x86_insn *insn, uint8_t *vex)
{
    if (vex[0] != 0xC4)
        return;
    if (plan->memory)
        vex[1] |= 0x60;
    if (!is_code64(insn)) {
        vex[1] |= 0xE0;
        vex[2] |= 0x40;
        if (has_gpr_operand(insn)) /* W would make it 64 bits wide */
            vex[2] &= ~0x80;
    }
}

static void encode(struct thunk_plan *plan, const struct x86_insn *insn, bool operand_size)
{
    const ZydisDecodedInstruction *z = &insn->z;
    bool vex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX, has_modrm = z->raw.modrm.offset != 0;
    /* Up to the ModRM byte, or all of it. */
    unsigned from = z->raw.prefix_count, to = has_modrm ? z->raw.modrm.offset : z->length;
    uint8_t modrm = insn->bytes[z->raw.modrm.offset], none = 0;
    uint8_t *head, *vex_byte, *opcode_end;

    plan->length = 0;
    if (!vex)
        encode_prefixes(plan, insn, operand_size);
    head = &plan->code[plan->length];
    memcpy(head, insn->bytes + from, to - from);
    plan->length += to - from;
    if (vex)
        clean_vex(plan, insn, head);
    vex_byte = !vex ? &none : head[0] == 0xC5 ? &head[1] : &head[2];
    opcode_end = &plan->code[plan->length - 1];
    rename_rsp(plan, insn, vex_byte, opcode_end, &modrm);
    if (!has_modrm)
        return;
    if (plan->memory)
        modrm = (modrm & 0x38) | plan->base;
    plan->code[plan->length++] = modrm;
    from = z->raw.modrm.offset + 1;
    if (z->raw.sib.offset)
        from++;
    from += z->raw.disp.size / 8;
    memcpy(&plan->code[plan->length], insn->bytes + from, z->length - from);
    plan->length += z->length - from;
    /* A register in an immediate: its top bit is ignored outside 64-bit code. */
    for (unsigned i = 0; i < z->operand_count_visible && !is_code64(insn); i++)
        if (insn->op[i].encoding == ZYDIS_OPERAND_ENCODING_IS4)
            plan->code[plan->length - 1] &= 0x7F;
}

static bool same_operand(const struct thunk_plan *plan, const ZydisDecodedOperand *a,
                         const ZydisDecodedOperand *b)
{
    if (a->type != b->type || a->size != b->size || a->actions != b->actions)
        return false;
    switch (a->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (gpr_number(a->reg.value) == X86_RSP)
            return gpr_number(b->reg.value) == plan->rsp;
        return a->reg.value == b->reg.value;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return gpr_number(b->mem.base) == plan->base && b->mem.index == ZYDIS_REGISTER_NONE &&
               b->mem.disp.value == 0;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: return a->imm.value.u == b->imm.value.u;
    default: return false;
    }
}

/* Whether the copy, decoded, does what INSN does. */
static bool check(const struct thunk_plan *plan, const struct x86_insn *insn)
{
    struct x86_insn copy;

    if (x86_decode(X86_CODE64, false, plan->code, plan->length, &copy) != plan->length ||
        copy.z.mnemonic != insn->z.mnemonic ||
        copy.z.operand_count_visible != insn->z.operand_count_visible)
        return false;
    for (unsigned i = 0; i < insn->z.operand_count_visible; i++)
        if (!same_operand(plan, &insn->op[i], &copy.op[i]))
            return false;
    return true;
}

bool thunk_plan_make(struct thunk_plan *plan, const struct x86_insn *insn)
{
    bool has_66 = false;

    memset(plan, 0, sizeof(*plan));
    if (insn->info->class != X86_CLASS_INTEGER && insn->info->class != X86_CLASS_NATIVE &&
        insn->info->class != X86_CLASS_X87)
        return false;
    plan->x87 = insn->info->class == X86_CLASS_X87;
    if (!plan_operands(plan, insn) || !plan_flags(plan, insn) || is_excluded(insn, plan->memory))
        return false;
    plan->mxcsr = uses_mxcsr(insn) && !plan->x87;
    plan->vex = insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && plan->vector;
    if (insn->z.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER ||
        insn->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL) {
        plan->vex = true;
        plan->clear_high = is_code64(insn) ? 0xFFFF : 0xFF;
        if (insn->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL)
            plan->clear_low = plan->clear_high;
    }
    if (!pick_register(&plan->base, plan->gpr) ||
        !pick_register(&plan->rsp, plan->gpr | BIT(plan->base)))
        return false;
    for (unsigned i = 0; i < insn->z.raw.prefix_count; i++)
        if (insn->z.raw.prefixes[i].value == 0x66 &&
            insn->z.raw.prefixes[i].type != ZYDIS_PREFIX_TYPE_IGNORED)
            has_66 = true;
    encode(plan, insn, has_66);
    if (check(plan, insn))
        return true;
    encode(plan, insn, !has_66);
    return check(plan, insn);
}
