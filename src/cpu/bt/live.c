/*
 * Flow of status flags and use of registers.
 */
#include "cpu/bt/bt.h"

#include <string.h>

/* Whether INSN writes its flags in any case. Shifts and rotates by 0 write none, and flags that the
 * instruction table calls undefined may stay as they were. */
static bool writes_for_sure(const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
        return insn->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
               (insn->op[1].imm.value.u & (insn->op[0].size == 64 ? 63 : 31)) != 0;
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: return false;
    default: return true;
    }
}

/* Notes in FLOW that an instruction uses register R if that is a general-purpose one; WRITE: it
 * writes it. */
static void note_register(struct flow *flow, ZydisRegister r, bool write)
{
    uint16_t bit;

    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        r = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
        bit = (uint16_t)(1u << (r - ZYDIS_REGISTER_RAX));
        flow->registers |= bit;
        flow->written |= write ? bit : 0;
        break;
    default: break;
    }
}

void flow_of(const struct x86_insn *insn, struct flow *flow)
{
    const ZydisAccessedFlags *flags = insn->z.cpu_flags;

    *flow = (struct flow){0};
    for (unsigned i = 0; i < insn->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &insn->op[i];

        if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            note_register(flow, op->reg.value, op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
        } else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            note_register(flow, op->mem.base, false);
            note_register(flow, op->mem.index, false);
        }
    }
    if (insn->info->class == X86_CLASS_STRING) /* the decoder does not say it of all */
        flow->written |= 1u << X86_RSI | 1u << X86_RDI | 1u << X86_RCX;
    if (!flags)
        return;
    flow->flags_in = flags->tested & X86_FLAGS_STATUS;
    flow->flags_may =
        (flags->modified | flags->set_0 | flags->set_1 | flags->undefined) & X86_FLAGS_STATUS;
    if (writes_for_sure(insn) && !insn->info->undefined)
        flow->flags_out = flow->flags_may;
    else if (writes_for_sure(insn))
        flow->flags_out = flow->flags_may & ~(uint32_t)insn->info->undefined;
    if (insn->z.mnemonic == ZYDIS_MNEMONIC_AND || insn->z.mnemonic == ZYDIS_MNEMONIC_OR ||
        insn->z.mnemonic == ZYDIS_MNEMONIC_XOR || insn->z.mnemonic == ZYDIS_MNEMONIC_TEST)
        flow->flags_out = X86_FLAGS_STATUS; /* AF is undefined, and counts as written */
}

uint32_t flow_peek(const bool *feature, const uint8_t *page, unsigned offset,
                   enum x86_code_size size)
{
    unsigned end = MIN(offset + PEEK_BYTES, MEM_PAGE_SIZE);
    uint32_t live = 0, unknown = X86_FLAGS_STATUS;

    while (unknown && offset < end) {
        struct x86_insn insn;
        struct flow flow;
        int length = x86_decode_for(feature, size, false, page + offset, end - offset, &insn);

        if (length <= 0)
            break;
        flow_of(&insn, &flow);
        live |= flow.flags_in & unknown;
        if (insn.info->class != X86_CLASS_INTEGER && insn.info->class != X86_CLASS_NATIVE &&
            insn.info->class != X86_CLASS_STACK)
            break;
        unknown &= ~flow.flags_out;
        offset += (unsigned)length;
    }
    return live | unknown;
}
