/*
 * The x87's pointers and control words in an XSAVE image (SDM volume 1, 10.5.1).
 */
#include "x86/x87.h"

struct x87_pointers x87_pointers_get(const uint8_t *xsave)
{
    struct x87_pointers p = {.opcode = x87_word(xsave + X87_FOP)};

    memcpy(&p.ip, xsave + X87_FIP, 8);
    memcpy(&p.data, xsave + X87_FDP, 8);
    return p;
}

void x87_pointers_set(uint8_t *xsave, const struct x87_pointers *pointers)
{
    x87_set_word(xsave + X87_FOP, pointers->opcode);
    memcpy(xsave + X87_FIP, &pointers->ip, 8);
    memcpy(xsave + X87_FDP, &pointers->data, 8);
}

bool x87_is_noted(const struct x86_insn *insn)
{
    if (insn->info->class != X86_CLASS_X87 ||
        insn->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        insn->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_FWAIT:
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR: return false;
    default: return insn->z.opcode >= 0xD8 && insn->z.opcode <= 0xDF;
    }
}

uint16_t x87_opcode(const struct x86_insn *insn)
{
    return (uint16_t)((insn->z.opcode & 7) << 8 | insn->bytes[insn->z.raw.modrm.offset]);
}

/* Reserved bits of X87_FCW are as FLDCW leaves them, and ES and B of X87_FSW follow from the
 * exceptions that are pending (SDM volume 1, 8.1.3). */
void x87_settle(uint8_t *xsave)
{
    uint16_t control = (x87_word(xsave + X87_FCW) & 0x1F3F) | 0x40,
             status = x87_word(xsave + X87_FSW) & 0x7F7F;

    if (status & ~control & 0x3F)
        status |= 0x8080;
    x87_set_word(xsave + X87_FCW, control);
    x87_set_word(xsave + X87_FSW, status);
}
