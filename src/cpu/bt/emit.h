/*
 * The emitter: bytes of the few host instructions that translated code is made of (SDM volume 2,
 * chapter 2), and guest instructions with another memory operand.
 */
#ifndef DOPPEL_CPU_BT_EMIT_H
#define DOPPEL_CPU_BT_EMIT_H

#include "x86/cpu.h"
#include "x86/insn.h"

#include <stdbool.h>
#include <stdint.h>

/* Where the bytes go. At END bytes are dropped and FULL is set. */
struct emitter {
    uint8_t *at, *end;
    bool full;
};

/* A memory operand: [base + index * 2^scale + disp]; X86_NONE for no base or index. The host's GS
 * points at the vCPU and FS at the software TLB's present table. */
enum { IN_TABLE = 0x64, IN_VCPU = 0x65 };
struct operand {
    uint8_t base, index, scale;
    uint8_t segment; /* 0, IN_TABLE or IN_VCPU */
    int32_t disp;
};

static inline struct operand at(unsigned base, int32_t disp)
{
    return (struct operand){(uint8_t)base, X86_NONE, 0, 0, disp};
}

static inline struct operand at_index(unsigned base, unsigned index, int32_t disp)
{
    return (struct operand){(uint8_t)base, (uint8_t)index, 0, 0, disp};
}

static inline struct operand vcpu_at(int32_t disp)
{
    return (struct operand){X86_NONE, X86_NONE, 0, IN_VCPU, disp};
}

static inline struct operand vcpu_at_index(unsigned base, int32_t disp)
{
    return (struct operand){(uint8_t)base, X86_NONE, 0, IN_VCPU, disp};
}

static inline struct operand table_at_index(unsigned base, int32_t disp)
{
    return (struct operand){(uint8_t)base, X86_NONE, 0, IN_TABLE, disp};
}

/* Opcodes of the form OP reg, r/m (or r/m, reg). Two-byte opcodes are 0F00h plus the second. */
enum {
    OP_ADD_LOAD = 0x03,
    OP_OR_STORE = 0x09,
    OP_OR_LOAD = 0x0B,
    OP_AND_LOAD = 0x23,
    OP_SUB_LOAD = 0x2B,
    OP_XOR_LOAD = 0x33,
    OP_CMP_LOAD = 0x3B,
    OP_MOVSXD = 0x63,
    OP_IMUL_IMM = 0x69, /* and 32 bits more */
    OP_TEST = 0x85,
    OP_STORE = 0x89,
    OP_LOAD = 0x8B,
    OP_LEA = 0x8D,
    OP_BTS = 0x0FAB,
    OP_CMOV = 0x0F40, /* plus the condition */
    OP_LOAD_ZX8 = 0x0FB6,
    OP_LOAD_ZX16 = 0x0FB7,
    OP_MOVUPS_LOAD = 0x0F10,
    OP_MOVUPS_STORE = 0x0F11,
    OP_GROUP_FILES = 0x0FAE,
    OP_GROUP_UNARY = 0xF7,
    OP_GROUP_X87 = 0xD9,
};
/* Members of OP_GROUP_FILES. */
enum { FXSAVE, FXRSTOR, LDMXCSR, STMXCSR };
/* Member of OP_GROUP_X87. */
enum { FLDCW = 5 };
/* Members of OP_GROUP_UNARY. */
enum { UNARY_N_NOT = 2, UNARY_N_NEG = 3, UNARY_N_DIV = 6, UNARY_N_IDIV = 7 };
/* Prefixes: 16-bit operands; 32-bit addresses. */
enum { PREFIX_16 = 0x66, PREFIX_ADDRESS_32 = 0x67 };
/* Conditions of Jcc. */
enum { CC_B = 2, CC_AE = 3, CC_E = 4, CC_NE = 5, CC_BE = 6, CC_A = 7, CC_G = 15 };

void emit_byte(struct emitter *e, uint8_t byte);
void emit_u32(struct emitter *e, uint32_t value);
void emit_u64(struct emitter *e, uint64_t value);
void emit_bytes(struct emitter *e, const void *bytes, unsigned count);

/* OP REG, MEM or OP MEM, REG. WIDE: 64 bits, else 32. */
void emit_mem(struct emitter *e, bool wide, unsigned opcode, unsigned reg, struct operand m);
/* OP REG, RM between registers. */
void emit_reg(struct emitter *e, bool wide, unsigned opcode, unsigned reg, unsigned rm);
/* Group instructions with an immediate: opcode 81h /N. */
void emit_alu_imm(struct emitter *e, bool wide, unsigned n, unsigned reg, int32_t imm);
enum { ALU_N_ADD = 0, ALU_N_OR = 1, ALU_N_AND = 4, ALU_N_SUB = 5, ALU_N_XOR = 6, ALU_N_CMP = 7 };
void emit_alu_mem_imm(struct emitter *e, bool wide, unsigned n, struct operand m, int32_t imm);
/* TEST of 32 bits of memory, and of a register. */
void emit_test_imm(struct emitter *e, unsigned reg, uint32_t imm);
void emit_test_mem_imm(struct emitter *e, struct operand m, uint32_t imm);
/* TEST and CMP of a byte. */
void emit_test_mem8(struct emitter *e, struct operand m, uint8_t imm);
void emit_cmp_mem8(struct emitter *e, struct operand m, uint8_t imm);
void emit_store_imm(struct emitter *e, bool wide, struct operand m, int32_t imm);
void emit_load_imm(struct emitter *e, unsigned reg, uint64_t imm);
/* REG = RM rotated right by COUNT, 32 bits; no flags. */
void emit_rorx32(struct emitter *e, unsigned reg, unsigned rm, unsigned count);
/* WRFSBASE REG. */
void emit_write_fs(struct emitter *e, unsigned reg);
/* Shifts by an immediate: opcode C1h /N. */
enum { SHIFT_N_SHL = 4, SHIFT_N_SHR = 5, SHIFT_N_SAR = 7 };
void emit_shift_imm(struct emitter *e, bool wide, unsigned n, unsigned reg, unsigned count);

/* Branches with 32-bit displacements; return where the displacement is, for emit_patch. */
uint8_t *emit_jmp(struct emitter *e);
uint8_t *emit_jcc(struct emitter *e, unsigned condition);
/* A jump that emit_patch_running may change. */
uint8_t *emit_jmp_aligned(struct emitter *e);
void emit_jmp_to(struct emitter *e, const uint8_t *target);
void emit_jmp_mem(struct emitter *e, struct operand m);
/* Makes the branch whose displacement is at BRANCH go to TARGET. */
void emit_patch(uint8_t *branch, const uint8_t *target);
/* Does the same while other vCPUs may be executing the branch: they go where it led before, or to
 * TARGET. */
void emit_patch_running(uint8_t *branch, const uint8_t *target);

/* Emits a guest instruction of 64- or 32-bit code; what 64-bit code encodes in another way is
 * encoded so. REPLACE: its memory operand is replaced by M. Returns false if the encoding does not
 * allow that. Of 32-bit code only instructions that 64-bit code has, too. */
bool emit_insn(struct emitter *e, const struct x86_insn *insn, bool replace, struct operand m);

#endif
