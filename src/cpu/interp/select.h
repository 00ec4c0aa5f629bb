/*
 * Instruction selection: which handler executes an instruction, and with what.
 */
#ifndef DOPPEL_CPU_INTERP_SELECT_H
#define DOPPEL_CPU_INTERP_SELECT_H

#include "cpu/interp/handlers.h"

/* --- select_operand.c ------------------------------------------------------------------------- */

/* The byte offset of a general-purpose register in x86_cpu.reg. */
uint8_t register_offset(ZydisRegister r);
unsigned segment_number(ZydisRegister r); /* DS for what is not a segment register */
bool is_memory(const struct x86_insn *insn, unsigned i);
bool is_register(const struct x86_insn *insn, unsigned i);
bool is_immediate(const struct x86_insn *insn, unsigned i);
bool has_lock(const struct x86_insn *insn);
uint64_t immediate(const struct x86_insn *insn, unsigned i);
/* Fills in OP's memory operand from operand I; OP's off and len are set already. */
void set_memory(const struct x86_insn *insn, unsigned i, unsigned mode, struct uop *op);
/* Does the same for an operand that the instruction does not name (of XLAT, strings, MASKMOV): the
 * one whose base register is BASE. */
void set_implicit_memory(const struct x86_insn *insn, unsigned mode, enum x86_gpr base,
                         struct uop *op);
unsigned set_rm(const struct x86_insn *insn, unsigned i, unsigned mode, struct uop *op,
                uint8_t *byte);
void select_undefined(struct uop *op, int vector);

/* --- select_system.c -------------------------------------------------------------------------- */

/* Chooses the handler of a stack, far, system or XSAVE-like instruction. Returns whether OP ends a
 * block. */
bool select_system(const struct x86_insn *insn, unsigned mode, struct uop *op);

/* --- select.c --------------------------------------------------------------------------------- */

/* Chooses the handler and fills in the rest of OP, whose off and len are set. Returns true when the
 * instruction ends a block. */
bool select_uop(struct vcpu *c, const struct x86_insn *insn, unsigned mode, struct uop *op);

#endif
