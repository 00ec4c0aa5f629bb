/*
 * What is not compared, by name, each with the reference that leaves it open. Everything else must
 * be the same.
 */
#include "compare.h"

#include "base/util.h"

#include <string.h>

struct rule {
    const char *name, *reference;
    void (*apply)(const struct diff_case *c, const struct diff_result *native, struct mask *mask);
};

static int gpr_of(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetId(op->reg.value) : -1;
}

/* The count of a shift or rotate, masked as the processor masks it. */
static unsigned shift_count(const struct diff_case *c)
{
    const ZydisDecodedOperand *op = &c->insn.op[c->insn.z.operand_count_visible - 1];
    uint64_t count = c->insn.z.operand_count_visible == 1       ? 1
                     : op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? op->imm.value.u
                                                                : c->in.gpr[gpr_of(op) & 15];

    return (unsigned)(count & (c->insn.z.operand_width == 64 ? 63 : 31));
}

/* The table says which flags a mnemonic can leave undefined; for shifts it depends on the count. */
static uint64_t undefined_flags(const struct diff_case *c, const struct x86_insn *insn)
{
    uint64_t flags = insn->info->undefined;
    unsigned count;

    if (!c->single)
        return flags;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR: break;
    default: return flags;
    }
    count = shift_count(c);
    if (count == 0)
        return 0;
    if (count == 1)
        flags &= ~(uint64_t)X86_FLAG_OF;
    if (count <= insn->op[0].size)
        flags &= X86_FLAG_OF | X86_FLAG_AF | (count < insn->op[0].size ? 0 : X86_FLAG_CF);
    return flags;
}

static void mask_undefined_flags(const struct diff_case *c, const struct diff_result *native,
                                 struct mask *mask)
{
    struct x86_insn insn;
    uint64_t offset = diff_code_offset(c, native->out.rip);

    if (c->single) {
        mask->flags |= undefined_flags(c, &c->insn);
    } else if (offset < DIFF_SIZE - 15 &&
               x86_decode(c->code_size, false, native->image + offset, 15, &insn) > 0) {
        mask->flags |= undefined_flags(c, &insn); /* a sequence ended in this one's fault */
    }
}

/* No engine that executes x87 instructions elsewhere than where the guest has them can keep the
 * pointers for free, and no known guest reads them but to save them. */
static void mask_x87_pointers(const struct diff_case *c, const struct diff_result *native,
                              struct mask *mask)
{
    (void)c;
    (void)native;
    mask->x87_pointers = true;
}

static void add_range(struct mask *mask, uint64_t address, unsigned size)
{
    uint64_t offset = address - (address >= DIFF_HIGH ? DIFF_HIGH : DIFF_LOW);

    if (offset < DIFF_SIZE && mask->ranges < MASK_RANGES) {
        mask->range[mask->ranges].start = (unsigned)offset;
        mask->range[mask->ranges++].size = size;
    }
}

/* The address of the memory operand of a single instruction. */
static uint64_t operand_address(const struct diff_case *c, const struct x86_insn *insn)
{
    const ZydisDecodedOperandMem *mem = &insn->op[0].mem;
    uint64_t address = mem->disp.has_displacement ? (uint64_t)mem->disp.value : 0;

    if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP)
        address += c->in.rip + insn->z.length;
    else if (mem->base != ZYDIS_REGISTER_NONE)
        address += c->in.gpr[ZydisRegisterGetId(mem->base) & 15];
    if (mem->index != ZYDIS_REGISTER_NONE)
        address += c->in.gpr[ZydisRegisterGetId(mem->index) & 15] * mem->scale;
    if (insn->z.address_width < 64)
        address &= (1ULL << insn->z.address_width) - 1;
    address += mem->segment == ZYDIS_REGISTER_FS   ? c->in.fs_base
               : mem->segment == ZYDIS_REGISTER_GS ? c->in.gs_base
                                                   : diff_segment_base(c);
    return c->code_size == X86_CODE64 ? address : (uint32_t)address;
}

static void mask_saved_pointers(const struct diff_case *c, const struct diff_result *native,
                                struct mask *mask)
{
    uint64_t address;

    (void)native;
    if (!c->single || c->insn.op[0].type != ZYDIS_OPERAND_TYPE_MEMORY)
        return;
    address = operand_address(c, &c->insn);
    switch (c->insn.z.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
        if (c->insn.z.operand_width == 16)
            add_range(mask, address + 6, 8);
        else
            add_range(mask, address + 12, 16);
        break;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64: add_range(mask, address + 6, 18); break;
    default: break;
    }
}

static void mask_kernel_half(const struct diff_case *c, const struct diff_result *native,
                             struct mask *mask)
{
    (void)c;
    if (native->vector == X86_PF && native->cr2 >> 47)
        mask->error |= X86_PF_P;
}

static const struct rule rules[] = {
    {"undefined-flags", "SDM volume 2, Flags Affected of each instruction; volume 1, appendix A",
     mask_undefined_flags},
    {"x87-pointers",
     "SDM volume 1, 8.1.8: FOP, FIP and FDP, which the engines do not keep (a known deviation)",
     mask_x87_pointers},
    {"x87-pointers-saved", "SDM volume 1, 8.1.10, 10.5.1: the same, in memory",
     mask_saved_pointers},
    {"kernel-half",
     "none: Linux reports every user access to its half as to a present page, to hide which are",
     mask_kernel_half},
};

void mask_find(const struct diff_case *c, const struct diff_result *native, struct mask *mask)
{
    memset(mask, 0, sizeof(*mask));
    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++)
        rules[i].apply(c, native, mask);
}

void mask_list(FILE *out)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++)
        fprintf(out, "%-20s %s\n", rules[i].name, rules[i].reference);
}
