/*
 * What manuals leave open about faults. Exceptions of one priority class come in an order that "may
 * vary from processor to processor" (SDM volume 3, 6.9; APM volume 2, 8.5): an instruction that has
 * more than one reason to fault may report any of them. And some instructions have done a part of
 * their work when they fault.
 */
#include "mask.h"

#include "base/util.h"

#include <string.h>

#define KERNEL_HALF 0x7FFFFFFFF000ULL /* user code has nothing from here on */

static bool is_class(const struct ending *e, enum x86_class class)
{
    return e->insn && e->insn->info->class == class;
}

/* --- Which of several faults ------------------------------------------------------------------ */

/* Two operands in memory: strings, PUSH and POP of memory, calls and returns by memory, frames. */
static void mask_two_operands(const struct ending *e, struct mask *mask)
{
    unsigned operands = 0;

    for (unsigned i = 0; e->faulted && i < e->insn->z.operand_count; i++)
        operands += ending_accesses(e, i);
    mask->which_fault |= operands > 1;
}

/* A misaligned operand may be at fault for something else, too. Which instructions demand
 * alignment without RFLAGS.AC is not asked: those of 16 bytes and more may. */
static void mask_misaligned(const struct ending *e, struct mask *mask)
{
    for (unsigned i = 0; e->faulted && i < e->insn->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &e->insn->op[i];
        unsigned size = op->size / 8;

        if (ending_accesses(e, i) && ((e->state->rflags & X86_FLAG_AC) || size >= 16))
            mask->which_fault |= (ending_address(e, op) & (size >= 64 ? 63 : size - 1)) != 0;
    }
}

/* Whether RESULT ended at a SHA instruction with a misaligned operand. */
static bool ends_at_misaligned_sha(const struct ending *e, const struct diff_result *result)
{
    struct ending at;

    ending_find(&at, e->c, result);
    return at.insn && at.insn->z.meta.isa_set == ZYDIS_ISA_SET_SHA && ending_accesses(&at, 1) &&
           (ending_address(&at, &at.insn->op[1]) & 15);
}

/* Some of AMD's processors do not mind. */
static void mask_sha(const struct ending *e, struct mask *mask)
{
    mask->skip |= ends_at_misaligned_sha(e, e->native) || ends_at_misaligned_sha(e, e->engine);
}

/* Far transfers check selectors, offsets and the stack. */
static void mask_far_transfer(const struct ending *e, struct mask *mask)
{
    if (!is_class(e, X86_CLASS_FAR))
        return;
    mask->which_fault |= e->faulted;
    mask->skip |= e->native->vector == X86_PF || e->native->vector == X86_AC;
}

/* The result of an instruction that stores may raise #XM, and its place in memory may be at fault.
 * The sticky flags may have been set by then. */
static void mask_simd_store(const struct ending *e, struct mask *mask)
{
    for (unsigned i = 0; e->faulted && i < e->insn->z.operand_count_visible; i++)
        if (is_class(e, X86_CLASS_NATIVE) && ending_accesses(e, i) &&
            (e->insn->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
            e->insn->z.meta.exception_class == ZYDIS_EXCEPTION_CLASS_AVX11) {
            mask->which_fault = true;
            mask->mxcsr = 0x3F;
        }
}

/* Whether a store of SIZE bytes at ADDRESS may fault. */
static bool may_fault(const struct ending *e, uint64_t address, unsigned size)
{
    uint64_t base = address >= DIFF_HIGH ? DIFF_HIGH : DIFF_LOW;

    if (e->c->code_size != X86_CODE64)
        return true; /* segments may end, or be read-only */
    if ((e->state->rflags & X86_FLAG_AC) && (address & (size - 1)))
        return true;
    for (unsigned i = 0; i < size; i++) {
        uint64_t offset = address + i - base;

        if (offset >= DIFF_SIZE || !(diff_page_access((unsigned)(offset >> 12)) & DIFF_W))
            return true;
    }
    return false;
}

/* Whether an x87 store that stands where RESULT ended, with some exception unmasked, can fault
 * there.
 */
static bool ends_at_x87_store(const struct ending *e, const struct diff_result *result)
{
    struct ending at;
    uint16_t control;

    ending_find(&at, e->c, result);
    if (!is_class(&at, X86_CLASS_X87))
        return false;
    memcpy(&control, at.state->xsave, 2);
    for (unsigned i = 0; (~control & 0x3F) && i < at.insn->z.operand_count_visible; i++) {
        const ZydisDecodedOperand *op = &at.insn->op[i];

        if (ending_accesses(&at, i) && (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
            may_fault(&at, ending_address(&at, op), op->size / 8))
            return true;
    }
    return false;
}

/* Whether an x87 exception waits to be reported (SDM volume 1, 8.1.3: ES). */
static bool x87_pending(const struct diff_result *result)
{
    return result->out.xsave[2] & 0x80;
}

/* An x87 store whose result is an unmasked exception does not store. Whether it looks at the place
 * in memory nevertheless is not said, so one side may end there and the other go on. */
static void mask_x87_store(const struct ending *e, struct mask *mask)
{
    mask->skip |= (ends_at_x87_store(e, e->native) && x87_pending(e->engine)) ||
                  (ends_at_x87_store(e, e->engine) && x87_pending(e->native));
}

/* Whether the bytes where the case ended begin with LOCK, among other prefixes. */
static bool has_lock(const struct ending *e)
{
    uint64_t offset = diff_code_offset(e->c, e->native->out.rip);

    for (unsigned i = 0; i < 14 && offset + i < DIFF_SIZE; i++)
        switch (e->native->image[offset + i]) {
        case 0xF0: return true;
        case 0x26:
        case 0x2E:
        case 0x36:
        case 0x3E:
        case 0x64:
        case 0x65:
        case 0x66:
        case 0x67:
        case 0xF2:
        case 0xF3: break;
        default: return false;
        }
    return false;
}

/* Of the slot that a selector is popped from, processors read two bytes or all; and of BOUND's two
 * limits, the second one only if the first one holds. Either may run into the next page. */
static void mask_read_in_part(const struct ending *e, struct mask *mask)
{
    uint64_t rsp = diff_stack_linear(e->c, e->state->gpr[X86_RSP]);
    unsigned slots = 1;

    if (!e->c->single)
        return;
    switch (e->insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_BOUND:
        rsp = ending_address(e, &e->insn->op[1]);
        slots = 2;
        break;
    case ZYDIS_MNEMONIC_POP:
        if (!e->insn->info->sensitive)
            return;
        break;
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        if (!is_class(e, X86_CLASS_FAR))
            return;
        slots = 5;
        break;
    default: return;
    }
    mask->skip |= (rsp & 4095) + slots * e->insn->z.operand_width / 8u > 4096;
}

/* Some processors read the operand of what may not be locked before they refuse it. */
static void mask_lock(const struct ending *e, struct mask *mask)
{
    mask->skip |= !e->insn && e->native->vector != X86_UD && has_lock(e);
}

/* --- Where a fault is reported ---------------------------------------------------------------- */

/* Operands that are looked at in parts: images of register files and what a mask selects from. */
static bool is_image(const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: return true;
    default:
        return (insn->info->class == X86_CLASS_XSTATE || insn->info->class == X86_CLASS_X87) &&
               insn->op[0].size > 10 * 8;
    }
}

static void mask_image(const struct ending *e, struct mask *mask)
{
    if (!e->insn)
        return;
    /* Misaligned and beyond its segment. */
    mask->skip |= e->native->vector == X86_GP && is_class(e, X86_CLASS_XSTATE) &&
                  e->insn->op[0].mem.segment == ZYDIS_REGISTER_SS;
    if (e->native->vector != X86_PF)
        return;
    /* Another part may be what is not canonical. */
    mask->skip |= e->native->cr2 >= KERNEL_HALF && e->insn->op[0].size >= 80;
    if (!is_image(e->insn))
        return;
    mask->cr2 = UINT64_MAX;
    mask->skip |= is_class(e, X86_CLASS_XSTATE); /* or not be needed at all */
}

/* Registers may be loaded from the parts that did not fault. */
static void mask_loaded_image(const struct ending *e, struct mask *mask)
{
    if (!e->faulted)
        return;
    switch (e->insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: mask->skip = true; break;
    default: break;
    }
}

/* Of an operand whose address wraps, the offsets of all bytes or of the first count. */
static void mask_wrap(const struct ending *e, struct mask *mask)
{
    if (!e->insn || e->c->code_size == X86_CODE64)
        return;
    for (unsigned i = 0; i < e->insn->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &e->insn->op[i];
        bool stack = op->mem.base == ZYDIS_REGISTER_SP || op->mem.base == ZYDIS_REGISTER_ESP;
        uint64_t offset, size = op->size / 8;

        if (!ending_accesses(e, i))
            continue;
        offset = ending_offset(e, op);
        if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && stack) /* it lies below */
            mask->skip |= !diff_small_stack(e->c) && (uint32_t)(offset - size) + size > 1ULL << 32;
        mask->skip |= offset + size > 1ULL << 32;
        mask->skip |=
            e->insn->z.address_width == 16 && is_image(e->insn) && offset + size > 1U << 16;
    }
}

/* --- What has been done before the fault ------------------------------------------------------ */

/* Instructions of many operands stop where one of them faults. */
static void mask_partial(const struct ending *e, struct mask *mask)
{
    uint64_t rsp = diff_stack_linear(e->c, e->state->gpr[X86_RSP]);

    if (!e->faulted)
        return;
    switch (e->insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_ENTER: mask_range(mask, rsp - 32 * 8, 32 * 8); break;
    case ZYDIS_MNEMONIC_CALL: mask_range(mask, rsp - 16, 16); break;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
        for (unsigned i = 0; i < X86_GPRS; i++)
            mask->gpr[i] = i == X86_RSP ? 0 : UINT64_MAX;
        break;
    default: break;
    }
}

/* A store of more than eight bytes may be several, of which the first ones happen. */
static void mask_wide_store(const struct ending *e, struct mask *mask)
{
    for (unsigned i = 0; e->faulted && i < e->insn->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &e->insn->op[i];

        if (ending_accesses(e, i) && (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
            op->size > 64)
            mask_range(mask, ending_address(e, op), op->size / 8);
    }
}

/* Elements of a gather come in any order, and those beyond the one that faults may be there. */
static void mask_gather(const struct ending *e, struct mask *mask)
{
    if (!e->faulted || e->insn->op[1].type != ZYDIS_OPERAND_TYPE_MEMORY ||
        e->insn->op[1].mem.type != ZYDIS_MEMOP_TYPE_VSIB)
        return;
    mask->cr2 = UINT64_MAX;
    mask->vector_registers |= 1u << ZydisRegisterGetId(e->insn->op[0].reg.value) |
                              1u << ZydisRegisterGetId(e->insn->op[2].reg.value);
}

/* Whether an MMX instruction that faults has made the x87's registers MMX's. */
static void mask_mmx(const struct ending *e, struct mask *mask)
{
    for (unsigned i = 0; e->faulted && i < e->insn->z.operand_count; i++)
        mask->mmx |= e->insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                     ZydisRegisterGetClass(e->insn->op[i].reg.value) == ZYDIS_REGCLASS_MMX;
}

/* --- Repeated string instructions ------------------------------------------------------------- */

static bool stopped_repeating(const struct ending *e)
{
    const struct diff_result *native = e->native;

    return is_class(e, X86_CLASS_STRING) &&
           (e->faulted || (native->vector == X86_DB && native->out.rip == e->c->in.rip)) &&
           (e->insn->z.attributes &
            (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));
}

/* Flags are those of the last comparison, or as they were before the first. */
static void mask_repeat_flags(const struct ending *e, struct mask *mask)
{
    if (stopped_repeating(e))
        mask->flags |= e->insn->z.cpu_flags ? e->insn->z.cpu_flags->modified : 0;
}

/* In 64-bit code with 32-bit addresses the counter and pointers may be extended before anything
 * has been done. */
static void mask_repeat_registers(const struct ending *e, struct mask *mask)
{
    if (!stopped_repeating(e) || e->insn->z.address_width != 32)
        return;
    mask->gpr[X86_RCX] |= ~(uint64_t)UINT32_MAX;
    mask->gpr[X86_RSI] |= ~(uint64_t)UINT32_MAX;
    mask->gpr[X86_RDI] |= ~(uint64_t)UINT32_MAX;
}

static void mask_repeat_rf(const struct ending *e, struct mask *mask)
{
    if (e->native->vector == X86_DB && (!e->c->single || is_class(e, X86_CLASS_STRING)))
        mask->flags |= X86_FLAG_RF;
}

const struct rule mask_fault_rules[] = {
    {"two-operands", "SDM volume 3, 6.9; APM volume 2, 8.5: which operand faults first",
     mask_two_operands},
    {"misaligned", "SDM volume 3, 6.9; APM volume 2, 8.5: alignment or another fault first",
     mask_misaligned},
    {"sha", "SDM volume 2, SHA1MSG1, exceptions type 4: misaligned operands; not so on AMD",
     mask_sha},
    {"far-transfer", "SDM volume 2, RET: where several checks fail, the order decides",
     mask_far_transfer},
    {"simd-store",
     "SDM volume 3, 6.9, and volume 1, 11.5.2: #XM or a fault of the store first, and whether "
     "flags "
     "of exceptions are set before that",
     mask_simd_store},
    {"x87-store", "SDM volume 1, 8.5: whether what an exception keeps from storing can fault",
     mask_x87_store},
    {"read-in-part",
     "SDM volume 2, POP, RET, BOUND: how much of a selector's slot is read, and of the limits, is "
     "not said",
     mask_read_in_part},
    {"lock", "SDM volume 2, LOCK: #UD, but before or after the operand is read", mask_lock},
    {"image-fault-address",
     "SDM volume 3, 9.1.1; volume 2, VMASKMOV: operands are accessed in parts, in any order",
     mask_image},
    {"image-loaded", "SDM volume 3, 9.1.1: FLDENV, FRSTOR, XRSTOR load in parts, and one may fault",
     mask_loaded_image},
    {"wrap",
     "SDM volume 3, 5.3, 23.34: an access that wraps at the end of its addresses may fault or not",
     mask_wrap},
    {"partial",
     "none: of PUSHA, POPA, ENTER and CALL the manual gives the order, but not what a fault leaves",
     mask_partial},
    {"wide-store",
     "SDM volume 3, 9.1.1: of a store of more than eight bytes that faults, a part may be done",
     mask_wide_store},
    {"gather-partial",
     "SDM volume 2, VGATHERDPS: elements beyond the one that faults may be there or not",
     mask_gather},
    {"mmx-state",
     "SDM volume 1, 9.5.1: TOP and tags change with each MMX instruction; with one that "
     "faults, this is not said",
     mask_mmx},
    {"repeat-flags",
     "SDM volume 2, REP: a fault restores the flags that were before; APM volume 3, REP: it does "
     "not say so",
     mask_repeat_flags},
    {"repeat-registers",
     "SDM volume 2, REP; APM volume 3, 1.2.6: upper halves before a first round",
     mask_repeat_registers},
    {"repeat-rf",
     "SDM volume 3, 17.3.1.1: RF is set between repetitions; AMD's processors leave it clear",
     mask_repeat_rf},
};
const unsigned mask_fault_rule_count = ARRAY_SIZE(mask_fault_rules);
