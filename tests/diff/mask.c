/*
 * What is not compared, by name, each with the reference that leaves it open. Everything else must
 * be the same.
 */
#include "compare.h"

#include "base/util.h"

#include <string.h>

#define KERNEL_HALF 0x7FFFFFFFF000ULL /* user code has nothing from here on */

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

/* An engine that executes x87 instructions elsewhere than where the guest has them, and with other
 * memory operands, gets FIP and FDP right mostly and FOP not at all; no known guest reads them but
 * to save them. */
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

/* The offset in its segment of memory operand OP of a single instruction. */
static uint64_t operand_offset(const struct diff_case *c, const ZydisDecodedOperand *op)
{
    const ZydisDecodedOperandMem *mem = &op->mem;
    uint64_t offset = mem->disp.has_displacement ? (uint64_t)mem->disp.value : 0;

    if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP)
        offset += c->in.rip + c->insn.z.length;
    else if (mem->base != ZYDIS_REGISTER_NONE)
        offset += c->in.gpr[ZydisRegisterGetId(mem->base) & 15];
    if (mem->index != ZYDIS_REGISTER_NONE)
        offset += c->in.gpr[ZydisRegisterGetId(mem->index) & 15] * mem->scale;
    if (c->insn.z.address_width < 64)
        offset &= (1ULL << c->insn.z.address_width) - 1;
    return offset;
}

static uint64_t operand_address(const struct diff_case *c, const ZydisDecodedOperand *op)
{
    uint64_t address = operand_offset(c, op);

    if (c->code_size != X86_CODE64 || op->mem.segment >= ZYDIS_REGISTER_FS)
        address += diff_segment_base(c, (enum x86_segment)(op->mem.segment - ZYDIS_REGISTER_ES));
    return c->code_size == X86_CODE64 ? address : (uint32_t)address;
}

static void mask_saved_pointers(const struct diff_case *c, const struct diff_result *native,
                                struct mask *mask)
{
    uint64_t address;

    (void)native;
    if (!c->single || c->insn.op[0].type != ZYDIS_OPERAND_TYPE_MEMORY)
        return;
    address = operand_address(c, &c->insn.op[0]);
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

/* Where instructions of many operands stop when one of them faults. */
static void mask_partial(const struct diff_case *c, const struct diff_result *native,
                         struct mask *mask)
{
    uint64_t rsp = diff_stack_linear(c, c->in.gpr[X86_RSP]);

    if (!c->single || native->vector == X86_BP || native->vector == X86_DB)
        return;
    switch (c->insn.z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_ENTER: add_range(mask, rsp - 32 * 8, 32 * 8); break;
    case ZYDIS_MNEMONIC_CALL:
        if (c->insn.info->class == X86_CLASS_FAR)
            add_range(mask, rsp - 16, 16);
        break;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
        for (unsigned i = 0; i < X86_GPRS; i++)
            mask->gpr[i] = i == X86_RSP ? 0 : UINT64_MAX;
        break;
    default: break;
    }
}

/* AMD's processors look at what a far return needs on the stack before they look at CS. */
static void mask_far_return(const struct diff_case *c, const struct diff_result *native,
                            struct mask *mask)
{
    mask->skip |= c->single && (native->vector == X86_PF || native->vector == X86_AC) &&
                  c->insn.info->class == X86_CLASS_FAR;
}

static void mask_pushed_segment(const struct diff_case *c, const struct diff_result *native,
                                struct mask *mask)
{
    uint64_t size = c->insn.z.operand_width / 8,
             rsp = diff_stack_linear(c, native->out.gpr[X86_RSP]);

    if (!c->single || c->insn.z.mnemonic != ZYDIS_MNEMONIC_PUSH || !c->insn.info->sensitive)
        return;
    add_range(mask, rsp + 2, (unsigned)size - 2);
    mask->skip |= native->vector == X86_AC; /* the size decides about the alignment */
}

static void mask_mxcsr_mask(const struct diff_case *c, const struct diff_result *native,
                            struct mask *mask)
{
    (void)native;
    if (c->single && c->insn.info->class == X86_CLASS_XSTATE && c->insn.op[0].size > 32 * 8)
        add_range(mask, operand_address(c, &c->insn.op[0]) + 28, 4);
}

static void mask_lar(const struct diff_case *c, const struct diff_result *native, struct mask *mask)
{
    (void)native;
    if (c->single && c->insn.z.mnemonic == ZYDIS_MNEMONIC_LAR)
        mask->gpr[gpr_of(&c->insn.op[0]) & 15] |= 0xF0000;
}

/* Operands that are looked at in parts: images of register files and what a mask selects from. */
static bool is_image(const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU: return true;
    default:
        return (insn->info->class == X86_CLASS_XSTATE || insn->info->class == X86_CLASS_X87) &&
               insn->op[0].size > 10 * 8;
    }
}

static void mask_image_fault(const struct diff_case *c, const struct diff_result *native,
                             struct mask *mask)
{
    if (!c->single)
        return;
    /* Misaligned and beyond its segment. */
    mask->skip |= native->vector == X86_GP && c->insn.info->class == X86_CLASS_XSTATE &&
                  c->insn.op[0].mem.segment == ZYDIS_REGISTER_SS;
    if (native->vector != X86_PF)
        return;
    /* Another part may be what is not canonical. */
    mask->skip |= native->cr2 >= KERNEL_HALF && c->insn.op[0].size >= 80;
    if (!is_image(&c->insn))
        return;
    mask->cr2 = UINT64_MAX;
    mask->skip |= c->insn.info->class == X86_CLASS_XSTATE; /* or not be needed at all */
}

static void mask_gather(const struct diff_case *c, const struct diff_result *native,
                        struct mask *mask)
{
    if (!c->single || c->insn.op[1].type != ZYDIS_OPERAND_TYPE_MEMORY ||
        c->insn.op[1].mem.type != ZYDIS_MEMOP_TYPE_VSIB || native->vector == X86_BP ||
        native->vector == X86_DB)
        return;
    mask->cr2 = UINT64_MAX; /* nor is the order of elements given */
    mask->vector_registers |= 1u << ZydisRegisterGetId(c->insn.op[0].reg.value) |
                              1u << ZydisRegisterGetId(c->insn.op[2].reg.value);
}

static void mask_repeat_rf(const struct diff_case *c, const struct diff_result *native,
                           struct mask *mask)
{
    if (native->vector == X86_DB && (!c->single || c->insn.info->class == X86_CLASS_STRING))
        mask->flags |= X86_FLAG_RF;
}

static void mask_wrap(const struct diff_case *c, const struct diff_result *native,
                      struct mask *mask)
{
    (void)native;
    for (unsigned i = 0; c->single && c->code_size == X86_CODE32 && i < c->insn.z.operand_count;
         i++)
        if (c->insn.op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            mask->skip |= operand_offset(c, &c->insn.op[i]) + c->insn.op[i].size / 8 > 1ULL << 32;
}

static void mask_upper_halves(const struct diff_case *c, const struct diff_result *native,
                              struct mask *mask)
{
    mask->narrow = c->code_size != X86_CODE64 || native->out.selector[X86_CS] != DIFF_CS64;
}

static void mask_null_selectors(const struct diff_case *c, const struct diff_result *native,
                                struct mask *mask)
{
    (void)c;
    (void)native;
    mask->null_rpl = 3;
}

static void mask_kernel_half(const struct diff_case *c, const struct diff_result *native,
                             struct mask *mask)
{
    (void)c;
    if (native->vector == X86_PF && native->cr2 >= KERNEL_HALF)
        mask->error |= X86_PF_P;
}

/* The status flags that INSN overwrites whatever its operands are. */
static uint32_t flags_overwritten(const struct x86_insn *insn)
{
    const ZydisAccessedFlags *flags = insn->z.cpu_flags;
    const ZydisDecodedOperand *count = &insn->op[insn->z.operand_count_visible - 1];

    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
        if (count->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !(count->imm.value.u & 31))
            return 0;
        break;
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR: return 0;
    case ZYDIS_MNEMONIC_AND: /* AF is undefined, but never kept */
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_TEST: return X86_FLAGS_STATUS;
    default: break;
    }
    return flags ? (flags->modified | flags->set_0 | flags->set_1) & X86_FLAGS_STATUS &
                       ~(uint32_t)insn->info->undefined
                 : 0;
}

/* Code as a case left it, and of each place which flags have been followed from there. */
struct flow {
    const struct diff_case *c;
    const uint8_t *image;
    uint16_t followed[DIFF_SIZE];
};

/* Of the flags in WANTED, those that may be read at or behind the instruction at IP before they are
 * overwritten. */
static uint32_t flags_read(struct flow *flow, uint64_t ip, uint32_t wanted)
{
    uint32_t found = 0;

    for (;;) {
        uint64_t offset = diff_code_offset(flow->c, ip);
        struct x86_insn insn;
        uint32_t tested;

        if (offset >= DIFF_SIZE - 15 ||
            x86_decode(flow->c->code_size, false, flow->image + offset, 15, &insn) <= 0)
            return found | wanted;
        wanted &= ~(uint32_t)flow->followed[offset];
        if (!wanted)
            return found;
        flow->followed[offset] |= (uint16_t)wanted;
        tested = insn.z.cpu_flags ? insn.z.cpu_flags->tested : 0;
        found |= tested & wanted;
        wanted &= ~tested & ~flags_overwritten(&insn);
        ip += insn.z.length;
        switch ((enum x86_class)insn.info->class) {
        case X86_CLASS_INTEGER:
        case X86_CLASS_STRING:
        case X86_CLASS_STACK:
        case X86_CLASS_NATIVE:
        case X86_CLASS_X87: break;
        case X86_CLASS_BRANCH:
            if (insn.op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE ||
                insn.z.mnemonic == ZYDIS_MNEMONIC_RET)
                return found | wanted;
            if (insn.z.mnemonic != ZYDIS_MNEMONIC_JMP && insn.z.mnemonic != ZYDIS_MNEMONIC_CALL)
                found |= flags_read(flow, ip, wanted);
            ip += (uint64_t)insn.op[0].imm.value.s;
            break;
        default: return found | wanted;
        }
    }
}

static void mask_dead_flags(const struct diff_case *c, const struct diff_result *native,
                            struct mask *mask)
{
    struct flow flow = {.c = c, .image = native->image};

    if (!c->single)
        mask->flags |= X86_FLAGS_STATUS & ~flags_read(&flow, native->out.rip, X86_FLAGS_STATUS);
}

static const struct rule rules[] = {
    {"undefined-flags", "SDM volume 2, Flags Affected of each instruction; volume 1, appendix A",
     mask_undefined_flags},
    {"x87-pointers",
     "SDM volume 1, 8.1.8: FOP, FIP and FDP are not kept exactly (a known deviation)",
     mask_x87_pointers},
    {"x87-pointers-saved", "SDM volume 1, 8.1.10, 10.5.1: the same, in memory",
     mask_saved_pointers},
    {"partial",
     "none: of PUSHA, POPA, ENTER and far CALL the manual gives the order, but not what a fault "
     "leaves",
     mask_partial},
    {"far-return", "SDM volume 2, RET: where several checks fail, the order decides",
     mask_far_return},
    {"pushed-segment",
     "SDM volume 2, PUSH: of a segment register, the upper bytes are written or left alone",
     mask_pushed_segment},
    {"mxcsr-mask", "SDM volume 1, 11.6.6: MXCSR_MASK says what the processor has", mask_mxcsr_mask},
    {"lar-limit", "SDM volume 2, LAR: bits 19:16 are undefined", mask_lar},
    {"image-fault-address",
     "none: in which order the parts of an image are touched, and whether all are, is nowhere said",
     mask_image_fault},
    {"gather-partial",
     "SDM volume 2, VGATHERDPS: elements beyond the one that faults may be there or not",
     mask_gather},
    {"repeat-rf",
     "SDM volume 3, 17.3.1.1: RF is set between repetitions; AMD's processors leave it clear",
     mask_repeat_rf},
    {"wrap",
     "SDM volume 3, 5.3: where the limit is FFFFFFFF, an access that wraps may fault or not",
     mask_wrap},
    {"upper-halves",
     "SDM volume 1, 3.4.1.1: outside 64-bit mode they are undefined, and R8 to R15 too",
     mask_upper_halves},
    {"null-selector",
     "SDM volume 2, IRET: on the native side the kernel's IRET clears the RPL of null selectors",
     mask_null_selectors},
    {"kernel-half",
     "none: Linux reports every user access to its half as to a present page, to hide which are",
     mask_kernel_half},
};

/* And for engines that translate. */
static const struct rule translator_rules[] = {
    {"dead-flags",
     "none: a translator does not make status flags that are overwritten before anything reads "
     "them, and a fault on the way shows that (a known deviation)",
     mask_dead_flags},
};

void mask_find(const struct diff_case *c, const struct diff_result *native, bool translator,
               struct mask *mask)
{
    memset(mask, 0, sizeof(*mask));
    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++)
        rules[i].apply(c, native, mask);
    for (unsigned i = 0; translator && i < ARRAY_SIZE(translator_rules); i++)
        translator_rules[i].apply(c, native, mask);
}

void mask_list(FILE *out)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++)
        fprintf(out, "%-20s %s\n", rules[i].name, rules[i].reference);
    for (unsigned i = 0; i < ARRAY_SIZE(translator_rules); i++)
        fprintf(out, "%-20s %s\n", translator_rules[i].name, translator_rules[i].reference);
}
