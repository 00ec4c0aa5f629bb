/*
 * What translated code does at an indirect branch or one to another page: it looks for the target's
 * code in both levels of the jump table (jumps.c), without going to C.
 */
#include "cpu/bt/bt.h"

#include <stddef.h>

#define VCPU(field) vcpu_at((int32_t)offsetof(struct bt, field))
#define VCPU_RIP    VCPU(c.x.reg[X86_RIP])
#define JUMP(field) ((int32_t)(offsetof(struct bt, jump) + offsetof(struct bt_jump, field)))
#define SECOND(field)                                                                              \
    ((int32_t)(offsetof(struct bt, second_jump) + offsetof(struct bt_second_jump, field)))

enum { SIZE = sizeof(struct bt_jump), PLACE = SIZE * BT_JUMP_WAYS };

/* The registers that are borrowed to enter what the second level has found into the first. */
#define RIP  X86_RAX
#define CODE X86_RCX

static void emit_jump_to_scratch0(struct emitter *e)
{
    emit_bytes(e, (uint8_t[]){0x41, 0xFF, 0xE2}, 3); /* jmp r10 */
}

/* PLACE_AT = the offset of the first level's place for the address in RIP_IN. */
static void emit_place(struct emitter *e, unsigned place_at, unsigned rip_in)
{
    _Static_assert(BT_JUMP_GRAIN * 4 == PLACE && BT_JUMP_WAYS == 2,
                   "four times an address makes an index");
    emit_mem(e, false, OP_LEA, place_at, (struct operand){X86_NONE, (uint8_t)rip_in, 2, 0, 0});
    emit_alu_imm(e, false, ALU_N_AND, place_at, (BT_JUMP_PLACES - 1) * PLACE);
}

/* Emits the search of the first level for the address in SCRATCH0, which stays there on a miss.
 * Returns the branch that is taken then. */
static uint8_t *emit_first(struct emitter *e)
{
    uint8_t *second, *hit, *miss, *other_view, *other;

    emit_place(e, SCRATCH1, SCRATCH0);
    emit_mem(e, true, OP_CMP_LOAD, SCRATCH0, vcpu_at_index(SCRATCH1, JUMP(rip)));
    second = emit_jcc(e, CC_NE);
    hit = e->at;
    emit_alu_imm(e, true, ALU_N_AND, SCRATCH0, -(int32_t)MEM_PAGE_SIZE);
    emit_mem(e, true, OP_STORE, SCRATCH0, VCPU(page));
    emit_mem(e, false, OP_LOAD, SCRATCH0, VCPU(jump_view));
    emit_mem(e, false, OP_CMP_LOAD, SCRATCH0, vcpu_at_index(SCRATCH1, JUMP(view)));
    other_view = emit_jcc(e, CC_NE);
    emit_mem(e, false, OP_LOAD, SCRATCH0, vcpu_at_index(SCRATCH1, JUMP(code)));
    emit_mem(e, true, OP_ADD_LOAD, SCRATCH0, VCPU(run));
    emit_jump_to_scratch0(e);

    emit_patch(other_view, e->at);
    emit_mem(e, true, OP_LOAD, SCRATCH0, vcpu_at_index(SCRATCH1, JUMP(rip)));
    emit_patch(second, e->at);
    emit_bytes(e, (uint8_t[]){0x41, 0xF6, 0xC3, SIZE}, 4); /* test r11b: was it the second? */
    miss = emit_jcc(e, CC_NE);
    emit_alu_imm(e, false, ALU_N_ADD, SCRATCH1, SIZE);
    emit_mem(e, true, OP_CMP_LOAD, SCRATCH0, vcpu_at_index(SCRATCH1, JUMP(rip)));
    emit_patch(emit_jcc(e, CC_E), hit);
    other = emit_jmp(e);
    emit_patch(miss, e->at);
    return other;
}

/* Returns the place, in the table that translates code at a user's or at a supervisor's level, of
 * the member at OFFSET of the entry for execution that SCRATCH1 is the offset of. A supervisor's
 * table may not be the present one, which is for data. */
static struct operand code_entry(bool user, size_t offset)
{
    const size_t entry = offsetof(struct mmu_table, entry[MMU_EXEC]) + offset;

    return user ? table_at_index(SCRATCH1, (int32_t)entry)
                : vcpu_at_index(SCRATCH1, (int32_t)(offsetof(struct bt, c.mmu.super) + entry));
}

/* SCRATCH0, an address, becomes what has to be added to it for the guest physical address. Returns
 * the branch that is taken if the software TLB does not have the page. */
static uint8_t *emit_find_addend(struct emitter *e, bool user)
{
    uint8_t *miss;

    emit_mem(e, true, OP_ADD_LOAD, SCRATCH0, code_entry(user, offsetof(struct mmu_entry, tag)));
    emit_alu_imm(e, true, ALU_N_CMP, SCRATCH0, MEM_PAGE_SIZE);
    miss = emit_jcc(e, CC_AE);
    emit_mem(e, true, OP_LOAD, SCRATCH0, code_entry(user, offsetof(struct mmu_entry, addend)));
    return miss;
}

/* SCRATCH0 = the guest physical address of the code at SCRATCH0 and in the vCPU's RIP. Returns the
 * branches that are taken if the software TLB does not have its page. */
static void emit_translate(struct emitter *e, uint8_t *miss[2])
{
    uint8_t *user, *found;

    emit_rorx32(e, SCRATCH1, SCRATCH0, MEM_PAGE_SHIFT - 4);
    emit_alu_imm(e, false, ALU_N_AND, SCRATCH1, (MMU_TLB_SIZE - 1) << 4);
    emit_test_mem8(e, vcpu_at((int32_t)offsetof(struct bt, jump_view) + 1), JUMP_VIEW_USER >> 8);
    user = emit_jcc(e, CC_NE);
    miss[0] = emit_find_addend(e, false);
    found = emit_jmp(e);
    emit_patch(user, e->at);
    miss[1] = emit_find_addend(e, true);
    emit_patch(found, e->at);
    emit_mem(e, true, OP_ADD_LOAD, SCRATCH0, VCPU_RIP);
}

/* SCRATCH1 = the offset of the second level's place for the guest physical address in SCRATCH0.
 * Returns the branch that is taken if other code is there. */
static uint8_t *emit_find_second(struct emitter *e)
{
    enum { SHIFT = 4 };

    _Static_assert(sizeof(struct bt_second_jump) == 1 << SHIFT, "a place is shifted");
    emit_mem(e, true, OP_LOAD, SCRATCH1, VCPU(jump_view)); /* as bt_second_jump_id */
    emit_shift_imm(e, true, SHIFT_N_SHR, SCRATCH1, 12);
    emit_shift_imm(e, true, SHIFT_N_SHL, SCRATCH1, 60);
    emit_reg(e, true, OP_OR_LOAD, SCRATCH0, SCRATCH1);
    emit_reg(e, false, OP_IMUL_IMM, SCRATCH1, SCRATCH0);
    emit_u32(e, BT_SECOND_JUMP_FACTOR);
    emit_shift_imm(e, false, SHIFT_N_SHR, SCRATCH1, 32 - BT_SECOND_JUMP_BITS);
    emit_shift_imm(e, false, SHIFT_N_SHL, SCRATCH1, SHIFT);
    emit_mem(e, true, OP_CMP_LOAD, SCRATCH0, vcpu_at_index(SCRATCH1, SECOND(id)));
    return emit_jcc(e, CC_NE);
}

/* Notes in jump_pages that the first level has an address of RIP's page. */
static void emit_note_page(struct emitter *e)
{
    emit_reg(e, true, OP_LOAD, SCRATCH0, RIP);
    emit_shift_imm(e, true, SHIFT_N_SHR, SCRATCH0, MEM_PAGE_SHIFT);
    emit_reg(e, false, OP_LOAD, SCRATCH1, SCRATCH0);
    emit_shift_imm(e, false, SHIFT_N_SHR, SCRATCH1, 12);
    emit_reg(e, false, OP_XOR_LOAD, SCRATCH0, SCRATCH1);
    emit_alu_imm(e, false, ALU_N_AND, SCRATCH0, BT_JUMP_PAGES - 1);
    emit_mem(e, false, OP_BTS, SCRATCH0, VCPU(jump_pages));
}

/* Enters CODE for RIP into the first level, as bt_jump_add does. */
static void emit_enter_first(struct emitter *e)
{
    _Static_assert(offsetof(struct bt_jump, view) == 8 && offsetof(struct bt_jump, code) == 12,
                   "they are moved together");
    emit_note_page(e);
    emit_place(e, SCRATCH1, RIP);
    emit_mem(e, true, OP_LOAD, SCRATCH0, vcpu_at_index(SCRATCH1, JUMP(rip)));
    emit_mem(e, true, OP_STORE, SCRATCH0, vcpu_at_index(SCRATCH1, SIZE + JUMP(rip)));
    emit_mem(e, true, OP_LOAD, SCRATCH0, vcpu_at_index(SCRATCH1, JUMP(view)));
    emit_mem(e, true, OP_STORE, SCRATCH0, vcpu_at_index(SCRATCH1, SIZE + JUMP(view)));
    emit_mem(e, true, OP_STORE, RIP, vcpu_at_index(SCRATCH1, JUMP(rip)));
    emit_reg(e, true, OP_LOAD, SCRATCH0, CODE);
    emit_shift_imm(e, true, SHIFT_N_SHL, SCRATCH0, 32);
    emit_mem(e, true, OP_OR_LOAD, SCRATCH0, VCPU(jump_view));
    emit_mem(e, true, OP_STORE, SCRATCH0, vcpu_at_index(SCRATCH1, JUMP(view)));
}

/* Emits loads or stores of the two registers that are borrowed. */
static void emit_spilled(struct emitter *e, unsigned opcode)
{
    emit_mem(e, true, opcode, RIP, VCPU(spilled[0]));
    emit_mem(e, true, opcode, CODE, VCPU(spilled[1]));
}

enum { MISSES = 4 };

/* Emits the search of the second level for the address in SCRATCH0 and in the vCPU's RIP. Returns
 * the branches that are taken on a miss. */
static void emit_second(struct emitter *e, uint8_t *miss[MISSES])
{
    emit_cmp_mem8(e, VCPU(c.watches_code), 0);
    miss[0] = emit_jcc(e, CC_NE);
    emit_translate(e, miss + 1);
    miss[3] = emit_find_second(e);
    emit_spilled(e, OP_STORE);
    emit_mem(e, false, OP_LOAD, CODE, vcpu_at_index(SCRATCH1, SECOND(code)));
    emit_mem(e, true, OP_LOAD, RIP, VCPU_RIP);
    emit_enter_first(e);
    emit_alu_imm(e, true, ALU_N_AND, RIP, -(int32_t)MEM_PAGE_SIZE);
    emit_mem(e, true, OP_STORE, RIP, VCPU(page));
    emit_reg(e, true, OP_LOAD, SCRATCH0, CODE);
    emit_mem(e, true, OP_ADD_LOAD, SCRATCH0, VCPU(run));
    emit_spilled(e, OP_LOAD);
    emit_jump_to_scratch0(e);
}

void bt_emit_lookup(struct bt_cache *cache, struct emitter *e, enum bt_exit why)
{
    uint8_t *request, *first = NULL, *miss[MISSES];

    emit_mem(e, true, OP_LOAD, SCRATCH1, VCPU(requests));
    emit_alu_mem_imm(e, false, ALU_N_CMP, at(SCRATCH1, 0), 0);
    request = emit_jcc(e, CC_NE);
    if (!cache->switches.refills)
        first = emit_first(e);
    if (first)
        emit_patch(first, e->at);
    emit_mem(e, true, OP_STORE, SCRATCH0, VCPU_RIP);
    emit_second(e, miss);
    emit_patch(request, e->at);
    emit_mem(e, true, OP_STORE, SCRATCH0, VCPU_RIP);
    for (unsigned i = 0; i < ARRAY_SIZE(miss); i++)
        emit_patch(miss[i], e->at);
    emit_jmp_to(e, cache->write + cache->leave[why]);
}
