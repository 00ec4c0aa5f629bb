/*
 * Addresses of memory operands: from the guest's instruction to code that computes them.
 */
#include "cpu/bt/translate.h"

static bool is_whole_register(const struct translation *t, ZydisRegister r)
{
    return ZydisRegisterGetClass(r) == (t->code64 ? ZYDIS_REGCLASS_GPR64 : ZYDIS_REGCLASS_GPR32);
}

int memory_operand(const struct translation *t, const struct x86_insn *insn)
{
    int found = -1;

    for (unsigned i = 0; i < insn->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &insn->op[i];

        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (found >= 0 || op->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
            (op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM &&
             (t->code64 || op->encoding != ZYDIS_OPERAND_ENCODING_DISP16_32_64)))
            return -2;
        found = (int)i;
    }
    return found;
}

bool address_of(const struct translation *t, unsigned n, unsigned i, struct address *a)
{
    const struct x86_insn *insn = &t->insn[n];
    const ZydisDecodedOperandMem *m = &insn->op[i].mem;
    int64_t disp = m->disp.has_displacement ? m->disp.value : 0;

    /* What CS may be read through, and never written, is not part of the mode. */
    if (insn->z.address_width != (t->code64 ? 64 : 32) ||
        (!t->code64 && m->segment == ZYDIS_REGISTER_CS))
        return false;
    *a = (struct address){.base = X86_NONE, .index = X86_NONE, .segment = X86_DS};
    if (m->base == ZYDIS_REGISTER_RIP) {
        a->rip = true;
        disp += t->offset[n] + insn->z.length;
    } else if (m->base != ZYDIS_REGISTER_NONE) {
        a->base = (uint8_t)ZydisRegisterGetId(m->base);
    }
    if (m->index != ZYDIS_REGISTER_NONE) {
        if (!is_whole_register(t, m->index))
            return false;
        a->index = (uint8_t)ZydisRegisterGetId(m->index);
        a->scale = (uint8_t)__builtin_ctz(m->scale);
    }
    if (m->segment == ZYDIS_REGISTER_FS)
        a->segment = X86_FS;
    else if (m->segment == ZYDIS_REGISTER_GS)
        a->segment = X86_GS;
    if (t->code64 && disp != (int32_t)disp)
        return false;
    a->disp = (int32_t)disp;
    return true;
}

struct operand address_segment_base(const struct address *a)
{
    return vcpu_at((int32_t)(offsetof(struct bt, c.base) + a->segment * 8));
}

/* Emits the linear address of a 32-bit operand, which wraps at 4 GiB. */
static void emit_address_32(struct translation *t, const struct address *a, unsigned reg)
{
    struct operand sum = {a->base, a->index, a->scale, 0, a->disp};

    if (a->segment != X86_DS) {
        emit_mem(&t->e, false, OP_LOAD, reg, address_segment_base(a));
        if (a->index != X86_NONE && a->base != X86_NONE)
            emit_mem(&t->e, false, OP_LEA, reg, at_index(a->base, reg, 0));
        else if (a->base != X86_NONE)
            sum.index = (uint8_t)reg;
        sum.base = a->index == X86_NONE && a->base != X86_NONE ? a->base : (uint8_t)reg;
    }
    emit_mem(&t->e, false, OP_LEA, reg, sum);
}

void emit_address(struct translation *t, const struct address *a, unsigned reg)
{
    if (a->computed) {
        emit_mem(&t->e, true, OP_LOAD, reg, VCPU(temporary));
        return;
    }
    if (!t->code64) {
        emit_address_32(t, a, reg);
        return;
    }
    if (a->rip) {
        emit_mem(&t->e, true, OP_LOAD, reg, VCPU(page));
        emit_mem(&t->e, true, OP_LEA, reg, at(reg, a->disp));
    } else {
        emit_mem(&t->e, true, OP_LEA, reg,
                 (struct operand){a->base, a->index, a->scale, 0, a->disp});
    }
    if (a->segment != X86_DS)
        emit_mem(&t->e, true, OP_ADD_LOAD, reg, address_segment_base(a));
}

void emit_address_base(struct translation *t, const struct address *a)
{
    if (a->computed)
        emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(temporary));
    else
        emit_mem(&t->e, true, OP_LEA, t->s0, (struct operand){a->base, a->index, a->scale, 0, 0});
}
