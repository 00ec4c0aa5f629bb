/*
 * What is not compared, by name, each with the reference that leaves it open. Everything else must
 * be the same.
 */
#include "mask.h"

#include "base/util.h"

#include <string.h>

#define KERNEL_HALF 0x7FFFFFFFF000ULL /* user code has nothing from here on */

/* The count of a shift or rotate, masked as the processor masks it. */
static unsigned shift_count(const struct diff_case *c)
{
    const ZydisDecodedOperand *op = &c->insn.op[c->insn.z.operand_count_visible - 1];
    uint64_t count = c->insn.z.operand_count_visible == 1       ? 1
                     : op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? op->imm.value.u
                                                                : c->in.gpr[ending_gpr(op) & 15];

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

static void mask_undefined_flags(const struct ending *e, struct mask *mask)
{
    if (e->insn)
        mask->flags |= undefined_flags(e->c, e->insn);
}

/* Results that are undefined as a whole: the destination of a bit scan of 0, and of a double shift
 * by more than its 16 bits. */
static void mask_undefined_results(const struct ending *e, struct mask *mask)
{
    const ZydisDecodedOperand *op;

    if (!e->c->single || e->faulted)
        return;
    op = &e->insn->op[0];
    switch (e->insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
        if (e->native->out.rflags & X86_FLAG_ZF)
            mask->gpr[ending_gpr(op) & 15] = UINT64_MAX;
        break;
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        if (op->size != 16 || shift_count(e->c) <= 16)
            break;
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
            mask_range(mask, ending_address(e, op), 2);
        else
            mask->gpr[ending_gpr(op) & 15] |= 0xFFFF;
        mask->flags |= X86_FLAGS_STATUS;
        break;
    default: break;
    }
}

/* Which instructions the pointers are kept for: all, or those that raise exceptions (SDM volume 1,
 * 8.1.8, 8.1.9; APM volume 2, 11.4.4.3). What the engines do is tested by tests/asm/fpu.c. */
static void mask_x87_pointers(const struct ending *e, struct mask *mask)
{
    (void)e;
    mask->x87_pointers = true;
}

static void mask_saved_pointers(const struct ending *e, struct mask *mask)
{
    uint64_t address;

    if (!e->c->single || e->insn->op[0].type != ZYDIS_OPERAND_TYPE_MEMORY)
        return;
    address = ending_address(e, &e->insn->op[0]);
    switch (e->insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
        if (e->insn->z.operand_width == 16)
            mask_range(mask, address + 6, 8);
        else
            mask_range(mask, address + 12, 16);
        break;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64: mask_range(mask, address + 6, 18); break;
    default: break;
    }
}

static void mask_pushed_segment(const struct ending *e, struct mask *mask)
{
    if (!e->c->single || e->insn->z.mnemonic != ZYDIS_MNEMONIC_PUSH || !e->insn->info->sensitive)
        return;
    mask_range(mask, diff_stack_linear(e->c, e->native->out.gpr[X86_RSP]) + 2,
               e->insn->z.operand_width / 8u - 2);
    mask->skip |= e->native->vector == X86_AC; /* the size decides about the alignment */
}

static void mask_mxcsr_mask(const struct ending *e, struct mask *mask)
{
    if (e->c->single && e->insn->info->class == X86_CLASS_XSTATE && e->insn->op[0].size > 32 * 8)
        mask_range(mask, ending_address(e, &e->insn->op[0]) + 28, 4);
}

static void mask_lar(const struct ending *e, struct mask *mask)
{
    if (e->c->single && e->insn->z.mnemonic == ZYDIS_MNEMONIC_LAR)
        mask->gpr[ending_gpr(&e->insn->op[0]) & 15] |= 0xF0000;
}

static void mask_upper_halves(const struct ending *e, struct mask *mask)
{
    mask->narrow = e->c->code_size != X86_CODE64 || e->native->out.selector[X86_CS] != DIFF_CS64;
}

static void mask_null_selectors(const struct ending *e, struct mask *mask)
{
    const uint16_t *before = e->c->in.selector, *after = e->native->out.selector;

    mask->null_rpl = 3;
    mask->fs_base = after[X86_FS] < 4 && after[X86_FS] != before[X86_FS];
    mask->gs_base = after[X86_GS] < 4 && after[X86_GS] != before[X86_GS];
}

static void mask_kernel_half(const struct ending *e, struct mask *mask)
{
    if (e->native->vector == X86_PF && e->native->cr2 >= KERNEL_HALF)
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

static void mask_dead_flags(const struct ending *e, struct mask *mask)
{
    struct flow flow = {.c = e->c, .image = e->native->image};

    if (!e->c->single)
        mask->flags |= X86_FLAGS_STATUS & ~flags_read(&flow, e->native->out.rip, X86_FLAGS_STATUS);
}

static const struct rule rules[] = {
    {"undefined-flags", "SDM volume 2, Flags Affected of each instruction; volume 1, appendix A",
     mask_undefined_flags},
    {"undefined-results", "SDM volume 2, BSF, BSR, SHLD, SHRD: the destination is undefined",
     mask_undefined_results},
    {"x87-pointers",
     "SDM volume 1, 8.1.8, 8.1.9; APM volume 2, 11.4.4.3: for which instructions FOP, FIP and FDP "
     "are kept differs",
     mask_x87_pointers},
    {"x87-pointers-saved", "SDM volume 1, 8.1.10, 10.5.1: the same, in memory",
     mask_saved_pointers},
    {"pushed-segment",
     "SDM volume 2, PUSH: of a segment register, the upper bytes are written or left alone",
     mask_pushed_segment},
    {"mxcsr-mask", "SDM volume 1, 11.6.6: MXCSR_MASK says what the processor has", mask_mxcsr_mask},
    {"lar-limit", "SDM volume 2, LAR: bits 19:16 are undefined", mask_lar},
    {"upper-halves",
     "SDM volume 1, 3.4.1.1: outside 64-bit mode they are undefined, and R8 to R15 too",
     mask_upper_halves},
    {"null-selector",
     "SDM volume 2, IRET: on the native side the kernel's IRET clears the RPL of null selectors; "
     "APM "
     "volume 3, appendix E, Fn8000_0021_EAX: loading one may keep the base of FS and GS",
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

static void apply(const struct rule *rule, unsigned count, const struct ending *e,
                  struct mask *mask)
{
    for (unsigned i = 0; i < count; i++)
        rule[i].apply(e, mask);
}

void mask_find(const struct diff_case *c, const struct diff_result *native,
               const struct diff_result *engine, struct mask *mask)
{
    struct ending e;

    memset(mask, 0, sizeof(*mask));
    ending_find(&e, c, native);
    e.engine = engine;
    apply(rules, ARRAY_SIZE(rules), &e, mask);
    apply(mask_fault_rules, mask_fault_rule_count, &e, mask);
    if (engine->translated)
        apply(translator_rules, ARRAY_SIZE(translator_rules), &e, mask);
    if (engine->emulated)
        apply(mask_emulated_rules, mask_emulated_rule_count, &e, mask);
}

static void list(const struct rule *rule, unsigned count, FILE *out)
{
    for (unsigned i = 0; i < count; i++)
        fprintf(out, "%-20s %s\n", rule[i].name, rule[i].reference);
}

void mask_list(FILE *out)
{
    list(rules, ARRAY_SIZE(rules), out);
    list(mask_fault_rules, mask_fault_rule_count, out);
    list(translator_rules, ARRAY_SIZE(translator_rules), out);
    list(mask_emulated_rules, mask_emulated_rule_count, out);
}
