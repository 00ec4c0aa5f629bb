/*
 * The instruction that a case ended at: the one of a single case, or the one of a sequence that
 * faulted. A fault leaves registers as they were, so that addresses can be told from the result.
 */
#include "mask.h"

/* Whether an exception is reported behind the instruction that it belongs to. */
static bool is_trap(int vector)
{
    return vector == X86_DB || vector == X86_BP || vector == X86_OF;
}

void ending_find(struct ending *e, const struct diff_case *c, const struct diff_result *native)
{
    uint64_t offset = diff_code_offset(c, native->out.rip);

    e->c = c;
    e->native = native;
    e->state = c->single ? &c->in : &native->out;
    e->faulted = !is_trap(native->vector) && (!c->single || native->out.rip == c->in.rip);
    e->insn = c->single ? &c->insn : NULL;
    if (!c->single && e->faulted && offset < DIFF_SIZE - 15 &&
        x86_decode(c->code_size, false, native->image + offset, 15, &e->decoded) > 0)
        e->insn = &e->decoded;
    e->faulted &= e->insn != NULL;
}

bool ending_accesses(const struct ending *e, unsigned i)
{
    const ZydisDecodedOperand *op = &e->insn->op[i];

    return op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->actions &&
           op->mem.type != ZYDIS_MEMOP_TYPE_AGEN;
}

uint64_t ending_offset(const struct ending *e, const ZydisDecodedOperand *op)
{
    const ZydisDecodedOperandMem *mem = &op->mem;
    uint64_t offset = mem->disp.has_displacement ? (uint64_t)mem->disp.value : 0;

    if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP)
        offset += e->state->rip + e->insn->z.length;
    else if (mem->base != ZYDIS_REGISTER_NONE)
        offset += e->state->gpr[ZydisRegisterGetId(mem->base) & 15];
    if (mem->index != ZYDIS_REGISTER_NONE)
        offset += e->state->gpr[ZydisRegisterGetId(mem->index) & 15] * mem->scale;
    if (e->insn->z.address_width < 64)
        offset &= (1ULL << e->insn->z.address_width) - 1;
    return offset;
}

uint64_t ending_address(const struct ending *e, const ZydisDecodedOperand *op)
{
    uint64_t address = ending_offset(e, op);

    if (e->c->code_size != X86_CODE64 || op->mem.segment >= ZYDIS_REGISTER_FS)
        address += diff_segment_base(e->c, (enum x86_segment)(op->mem.segment - ZYDIS_REGISTER_ES));
    return e->c->code_size == X86_CODE64 ? address : (uint32_t)address;
}

void mask_range(struct mask *mask, uint64_t address, unsigned size)
{
    uint64_t offset = address - (address >= DIFF_HIGH ? DIFF_HIGH : DIFF_LOW);

    /* What begins below the window may reach into it. */
    if (address < DIFF_LOW && address + size > DIFF_LOW) {
        size -= (unsigned)(DIFF_LOW - address);
        offset = 0;
    }
    if (offset < DIFF_SIZE && mask->ranges < MASK_RANGES) {
        mask->range[mask->ranges].start = (unsigned)offset;
        mask->range[mask->ranges++].size = size;
    }
}
