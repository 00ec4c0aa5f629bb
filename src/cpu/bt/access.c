/*
 * Memory operands of translated code: the check of an address against the software TLB.
 */
#include "cpu/bt/translate.h"

/* For FS and GS of 32-bit code: leaves the instruction to the interpreter unless the segment is a
 * writable one of 4 GiB and the operand lies within it. Clobbers flags and s0. */
static void emit_check_segment(struct translation *t, const struct address *a, unsigned size)
{
    emit_byte(&t->e, 0x65); /* cmp byte, 0 */
    emit_byte(&t->e, 0x80);
    emit_bytes(&t->e, (uint8_t[]){0x3C, 0x25}, 2);
    emit_u32(&t->e, (uint32_t)(offsetof(struct bt, c.restricted) + a->segment));
    emit_byte(&t->e, 0);
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
    if (size == 1)
        return;
    emit_mem(&t->e, false, OP_LEA, t->s0,
             (struct operand){a->base, a->index, a->scale, 0, a->disp});
    emit_alu_imm(&t->e, false, ALU_N_CMP, t->s0, -(int32_t)size + 1);
    cold_add_one(t, emit_jcc(&t->e, CC_AE));
}

/* Leaves the instruction to the interpreter unless the address is a multiple of ALIGN, a power of
 * two up to 64. Clobbers flags and s0. */
static void emit_align_check(struct translation *t, const struct address *a, unsigned align)
{
    emit_address(t, a, t->s0);
    emit_byte(&t->e, t->s0 & 8 ? 0x41 : 0x40);
    emit_byte(&t->e, 0xF6);
    emit_byte(&t->e, (uint8_t)(0xC0 | (t->s0 & 7)));
    emit_byte(&t->e, (uint8_t)(align - 1));
    cold_add_one(t, emit_jcc(&t->e, CC_NE));
}

/* Returns the place in the vCPU of range K's addend. */
static struct operand addend_of(const struct translation *t, const struct range *k)
{
    return vcpu_at((int32_t)offsetof(struct bt, addend) + (int32_t)(k - t->range) * 8);
}

/* Returns the register that holds the host's address of range K in 32-bit code. */
static unsigned range_register(const struct translation *t, const struct range *k)
{
    return range_registers[k - t->range];
}

/* Returns the register that holds the address A as it is, or OTHERWISE, into which the address was
 * computed. The place in the software TLB is computed from that register, and what waits for the
 * access waits for that. */
static unsigned address_register(const struct translation *t, const struct address *a,
                                 unsigned otherwise)
{
    bool plain = !a->computed && !a->rip && a->index == X86_NONE && a->disp == 0 &&
                 a->segment == X86_DS && a->base != X86_NONE;

    return plain ? a->base : otherwise;
}

/* Emits a search of the software TLB for A and for later accesses through the same registers.
 * Afterwards s1 is the addend, with the segment's base, and with the page's address if A is
 * relative to RIP. In 32-bit code a register of its own holds the host's address of the range. */
static const struct range *emit_search(struct translation *t, const struct address *a,
                                       unsigned size, bool write)
{
    int32_t entries = (int32_t)offsetof(struct mmu_table, entry[write ? MMU_WRITE : MMU_READ]);
    const struct range *k = group_start(t, a, size, write);
    const uint8_t *retry;
    struct address low = *a;

    if (t->bt->c.core->machine.measure)
        emit_alu_mem_imm(&t->e, true, ALU_N_ADD, VCPU(checks), 1);
    retry = t->e.at;
    low.disp = (int32_t)k->low;
    emit_address(t, &low, t->s0);
    emit_rorx32(&t->e, t->s1, address_register(t, &low, t->s0), MEM_PAGE_SHIFT - 4);
    emit_alu_imm(&t->e, false, ALU_N_AND, t->s1, (MMU_TLB_SIZE - 1) << 4);
    if (!t->code64) {
        emit_reg(&t->e, true, OP_LOAD, range_register(t, k), t->s0);
        emit_mem(&t->e, true, OP_ADD_LOAD, range_register(t, k),
                 table_at_index(t->s1, entries + 8));
    }
    emit_mem(&t->e, true, OP_ADD_LOAD, t->s0, table_at_index(t->s1, entries));
    emit_alu_imm(&t->e, true, ALU_N_CMP, t->s0, MEM_PAGE_SIZE - (int32_t)(k->high - k->low));
    cold_add_fill(t, emit_jcc(&t->e, CC_A), a, size, k, retry);
    if (!t->code64)
        return k;
    emit_mem(&t->e, true, OP_LOAD, t->s1, table_at_index(t->s1, entries + 8));
    if (a->segment != X86_DS)
        emit_mem(&t->e, true, OP_ADD_LOAD, t->s1, address_segment_base(a));
    if (a->rip)
        emit_mem(&t->e, true, OP_ADD_LOAD, t->s1, VCPU(page));
    if (k->saved)
        emit_mem(&t->e, true, OP_STORE, t->s1, addend_of(t, k));
    return k;
}

struct operand emit_check(struct translation *t, const struct address *a, unsigned size, bool write,
                          unsigned align)
{
    const struct range *k;

    if (!t->keeps_s1)
        t->in_s1 = NULL;
    k = group_find(t, a, size, write);
    if (!k || align > 1)
        flags_clobber(t, live_before(&t->flow[t->i]));
    if (!t->code64 && a->segment != X86_DS)
        emit_check_segment(t, a, size);
    if (align > 1)
        emit_align_check(t, a, align);
    if (!k) {
        k = emit_search(t, a, size, write);
    } else if (t->code64 && k != t->in_s1) {
        emit_mem(&t->e, true, OP_LOAD, t->s1, addend_of(t, k));
        t->in_s1 = k;
    }
    if (!t->code64)
        return at(range_register(t, k), (int32_t)(a->disp - k->low));
    if (a->rip)
        return at(t->s1, a->disp);
    if (!a->computed && a->index == X86_NONE)
        return a->base == X86_NONE ? at(t->s1, a->disp) : at_index(a->base, t->s1, a->disp);
    emit_address_base(t, a);
    return at_index(t->s0, t->s1, a->disp);
}
