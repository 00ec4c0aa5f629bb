/*
 * What translated code does when an access misses the first level of the software TLB: it looks
 * into the second level, enters what it finds into the present table, and tries again, without
 * going to C.
 *
 * The page of a write must be asked for code here, as it is when a page is entered from C: the
 * second level does not hear of pages that code is found in.
 */
#include "cpu/bt/bt.h"

#include <stddef.h>

#define VCPU(field)  vcpu_at((int32_t)offsetof(struct bt, field))
#define TABLE(field) table_at((int32_t)offsetof(struct mmu_table, field))

/* The registers that this code uses. The exit point's address replaces its index in the end. */
#define VA    SCRATCH0
#define POINT SCRATCH1
#define PLACE X86_RCX
#define FOUND X86_RAX

static struct operand table_at(int32_t disp)
{
    return (struct operand){X86_NONE, X86_NONE, 0, IN_TABLE, disp};
}

/* Emits loads or stores of the two registers that this code borrows. */
static void emit_spilled(struct emitter *e, unsigned opcode)
{
    emit_mem(e, true, opcode, FOUND, VCPU(spilled[0]));
    emit_mem(e, true, opcode, PLACE, VCPU(spilled[1]));
}

/* Loads VA and POINT. Returns the branches for accesses that no page serves: those that cross into
 * another page, and addresses that are not canonical, which must not match a key. */
static void emit_begin(struct emitter *e, uint8_t *miss[2])
{
    _Static_assert(sizeof(struct bt_exit_point) == 32, "an index is shifted by 5");
    emit_mem(e, true, OP_LOAD, VA, VCPU(address));
    emit_mem(e, false, OP_LOAD, POINT, VCPU(exit_point));
    emit_shift_imm(e, true, SHIFT_N_SHL, POINT, 5);
    emit_mem(e, true, OP_ADD_LOAD, POINT, VCPU(exit_points));
    emit_mem(e, false, OP_LOAD_ZX8, FOUND, at(POINT, offsetof(struct bt_exit_point, size)));
    emit_reg(e, false, OP_LOAD, PLACE, VA);
    emit_alu_imm(e, false, ALU_N_AND, PLACE, MEM_PAGE_SIZE - 1);
    emit_reg(e, false, OP_ADD_LOAD, FOUND, PLACE);
    emit_alu_imm(e, false, ALU_N_CMP, FOUND, MEM_PAGE_SIZE);
    miss[0] = emit_jcc(e, CC_A);
    emit_reg(e, true, OP_LOAD, FOUND, VA);
    emit_shift_imm(e, true, SHIFT_N_SHL, FOUND, 16);
    emit_shift_imm(e, true, SHIFT_N_SAR, FOUND, 16);
    emit_reg(e, true, OP_CMP_LOAD, FOUND, VA);
    miss[1] = emit_jcc(e, CC_NE);
}

/* PLACE = where VA's entry would be in the array at ARRAY of the vCPU. Returns the branch that is
 * taken if another one is there. */
static uint8_t *emit_find(struct emitter *e, size_t array, unsigned shift, size_t mask)
{
    _Static_assert(sizeof(struct mmu_second_entry) == 16, "a place is shifted by 4");
    emit_reg(e, true, OP_LOAD, PLACE, VA);
    emit_shift_imm(e, true, SHIFT_N_SHR, PLACE, shift);
    emit_mem(e, false, OP_ADD_LOAD, PLACE, TABLE(bias));
    emit_mem(e, false, OP_AND_LOAD, PLACE, vcpu_at((int32_t)mask));
    emit_shift_imm(e, false, SHIFT_N_SHL, PLACE, 4);
    emit_reg(e, true, OP_LOAD, FOUND, VA);
    emit_alu_imm(e, true, ALU_N_AND, FOUND, -(int32_t)(1u << shift));
    emit_mem(e, true, OP_XOR_LOAD, FOUND, TABLE(second_id));
    emit_mem(e, true, OP_CMP_LOAD, FOUND,
             vcpu_at_index(PLACE, (int32_t)(array + offsetof(struct mmu_second_entry, key))));
    return emit_jcc(e, CC_NE);
}

/* FOUND = the addend of the entry at PLACE. */
static void emit_load_addend(struct emitter *e, size_t array)
{
    emit_mem(e, true, OP_LOAD, FOUND,
             vcpu_at_index(PLACE, (int32_t)(array + offsetof(struct mmu_second_entry, addend))));
}

/* FOUND must have been entered for writing, and the page must not hold code. */
static void emit_check_write(struct emitter *e, uint8_t *miss[2])
{
    _Static_assert(sizeof(struct code_page) == 16 && offsetof(struct code_page, lines) == 0,
                   "a page's number is shifted by 4");
    emit_bytes(e, (uint8_t[]){0xA8, MMU_WRITABLE}, 2); /* test al, 1 */
    miss[0] = emit_jcc(e, CC_E);
    emit_alu_imm(e, true, ALU_N_AND, FOUND, -(int32_t)MMU_WRITABLE - 1);
    emit_mem(e, true, OP_LEA, PLACE, at_index(VA, FOUND, 0));
    emit_shift_imm(e, true, SHIFT_N_SHR, PLACE, MEM_PAGE_SHIFT);
    emit_shift_imm(e, true, SHIFT_N_SHL, PLACE, 4);
    emit_mem(e, true, OP_ADD_LOAD, PLACE, VCPU(lines));
    emit_alu_mem_imm(e, true, ALU_N_CMP, at(PLACE, 0), 0);
    miss[1] = emit_jcc(e, CC_NE);
}

/* Enters FOUND as VA's page into the present table. Changes all but POINT. */
static void emit_enter(struct emitter *e, enum mmu_access access)
{
    const int32_t entries = (int32_t)offsetof(struct mmu_table, entry[access]);

    emit_rorx32(e, PLACE, VA, MEM_PAGE_SHIFT - 4);
    emit_alu_imm(e, false, ALU_N_AND, PLACE, (MMU_TLB_SIZE - 1) << 4);
    emit_mem(e, true, OP_STORE, FOUND,
             table_at_index(PLACE, entries + (int32_t)offsetof(struct mmu_entry, addend)));
    emit_alu_imm(e, true, ALU_N_AND, VA, -(int32_t)MEM_PAGE_SIZE);
    emit_bytes(e, (uint8_t[]){0x49, 0xF7, 0xDA}, 3); /* neg r10 */
    emit_mem(e, true, OP_STORE, VA,
             table_at_index(PLACE, entries + (int32_t)offsetof(struct mmu_entry, tag)));
    emit_shift_imm(e, false, SHIFT_N_SHR, PLACE, 4 + MMU_TLB_BITS - 6);
    emit_load_imm(e, FOUND, 1);
    emit_bytes(e, (uint8_t[]){0xC4, 0xE2, 0xF1, 0xF7, 0xC0}, 5); /* shlx rax, rax, rcx */
    emit_mem(e, true, OP_OR_STORE, FOUND,
             table_at((int32_t)offsetof(struct mmu_table, touched[access])));
}

/* Emits a jump back to the access, which now finds its page. */
static void emit_retry(struct bt_cache *cache, struct emitter *e)
{
    if (cache->measure)
        emit_alu_mem_imm(e, true, ALU_N_ADD, VCPU(fills), 1);
    emit_mem(e, false, OP_LOAD, POINT, at(POINT, offsetof(struct bt_exit_point, retry)));
    emit_mem(e, true, OP_ADD_LOAD, POINT, VCPU(run));
    emit_spilled(e, OP_LOAD);
    emit_bytes(e, (uint8_t[]){0x41, 0xFF, 0xE3}, 3); /* jmp r11 */
}

void bt_emit_second(struct bt_cache *cache, struct emitter *e, bool write)
{
    const size_t large = offsetof(struct bt, c.mmu.second.large);
    const size_t page = offsetof(struct bt, c.mmu.second.page);
    uint8_t *miss[5], *other, *found;
    unsigned misses = 0;

    if (cache->switches.forgetful) {
        emit_jmp_to(e, cache->write + cache->leave[BT_FILL]);
        return;
    }
    emit_spilled(e, OP_STORE);
    emit_begin(e, miss);
    misses = 2;
    other = emit_find(e, large, MMU_LARGE_SHIFT, offsetof(struct bt, c.mmu.second.large_mask));
    emit_load_addend(e, large);
    found = emit_jmp(e);
    emit_patch(other, e->at);
    miss[misses++] =
        emit_find(e, page, MEM_PAGE_SHIFT, offsetof(struct bt, c.mmu.second.page_mask));
    emit_load_addend(e, page);
    emit_patch(found, e->at);
    if (write) {
        emit_check_write(e, miss + misses);
        misses += 2;
    } else {
        emit_alu_imm(e, true, ALU_N_AND, FOUND, -(int32_t)MMU_WRITABLE - 1);
    }
    emit_enter(e, write ? MMU_WRITE : MMU_READ);
    emit_retry(cache, e);
    for (unsigned i = 0; i < misses; i++)
        emit_patch(miss[i], e->at);
    emit_spilled(e, OP_LOAD);
    emit_jmp_to(e, cache->write + cache->leave[BT_FILL]);
}
