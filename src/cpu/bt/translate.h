/*
 * Translating one region: what the files that do it share.
 */
#ifndef DOPPEL_CPU_BT_TRANSLATE_H
#define DOPPEL_CPU_BT_TRANSLATE_H

#include "cpu/bt/bt.h"

/* Returns how many bytes PUSH and POP move. */
static inline unsigned slot_size(const struct translation *t)
{
    return t->code64 ? 8 : 4;
}

#define VCPU(field) vcpu_at((int32_t)offsetof(struct bt, field))
#define REGISTER(n) vcpu_at((int32_t)(offsetof(struct bt, c.x.reg) + 8 * (n)))

/* Flags that are live before the instruction: it or a later one reads them. */
static inline uint32_t live_before(const struct flow *f)
{
    return f->flags_in | (f->live_after & ~f->flags_out);
}

/* Flags that must be in RFLAGS before the instruction is executed: those that it reads, and, where
 * it writes only some, the others that are live after it. */
static inline uint32_t flags_input(const struct flow *f)
{
    return f->flags_in | (f->flags_may ? f->live_after & ~f->flags_out : 0);
}

/* Returns the class of the register that operand I is, or ZYDIS_REGCLASS_INVALID if it is none. */
static inline ZydisRegisterClass register_class(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER
               ? ZydisRegisterGetClass(insn->op[i].reg.value)
               : ZYDIS_REGCLASS_INVALID;
}

/* Returns the number of the general-purpose register that operand I is. */
static inline unsigned register_of(const struct x86_insn *insn, unsigned i)
{
    return (unsigned)ZydisRegisterGetId(insn->op[i].reg.value);
}

/* Files call only files behind them in this list: translate.c and region.c; copy.c, stack.c,
 * branch.c, system.c and string.c, which translate instructions; pieces.c; edges.c and access.c;
 * group.c, cold.c and flags.c; address.c, scope.c and live.c; emit.c. */

/* --- copy.c, stack.c, branch.c: return false to leave the instruction to the interpreter -------
 */

bool translate_integer(struct translation *t, const struct x86_insn *insn);
bool translate_native(struct translation *t, const struct x86_insn *insn);
bool translate_x87(struct translation *t, const struct x86_insn *insn);
bool translate_mxcsr(struct translation *t, const struct x86_insn *insn);
bool translate_stack(struct translation *t, const struct x86_insn *insn);
bool translate_branch(struct translation *t, const struct x86_insn *insn);
/* Whether INSN is BT, BTS, BTR or BTC with a bit in memory that a register names. */
bool is_bit_string(const struct x86_insn *insn);

/* --- pieces.c --------------------------------------------------------------------------------- */

/* Emits INSN as it stands. */
bool copy_as_is(struct translation *t, const struct x86_insn *insn);
/* Whether operand I is a register as wide as a stack slot. */
bool is_word_register(const struct translation *t, const struct x86_insn *insn, unsigned i);
/* Whether operand I is memory that ModRM names. Implicit operands (of string instructions, PUSH and
 * so on) are handled in string.c and stack.c. */
bool is_addressed(const struct x86_insn *insn, unsigned i);
/* The top of the stack. */
extern const struct address top_address;
/* Checks the slot that a push writes to; the operand that it returns is that slot. */
struct operand emit_check_push(struct translation *t);
/* Checks the slot of the stack at A and loads it into REG. */
void emit_load_slot(struct translation *t, const struct address *a, unsigned reg);
/* Adds DELTA to RSP. */
void emit_move_sp(struct translation *t, int32_t delta);
/* Leaves the branch to the interpreter, which raises #GP, if the address in register TARGET is not
 * canonical. Canonical addresses of different address spaces also stay apart in the jump table.
 * Clobbers s1. */
void emit_canonical(struct translation *t, unsigned target);

/* --- scope.c ---------------------------------------------------------------------------------- */

/* What a string instruction does. */
struct string_form {
    unsigned size;
    bool from, to, writes; /* uses RSI; uses RDI; writes at RDI */
    bool repeats;
};

/* Sets *F to what INSN does. Returns false if the interpreter executes INSN. */
bool string_form_of(const struct translation *t, const struct x86_insn *insn,
                    struct string_form *f);
/* Whether INSN has a REP prefix. */
bool string_repeats(const struct x86_insn *insn);
/* Whether the translator never translates INSN. */
bool scope_excludes(const struct translation *t, const struct x86_insn *insn);

/* --- system.c, string.c ----------------------------------------------------------------------- */

/* Loads s0 with RFLAGS as PUSHF stores them. The status flags must be in memory. */
void emit_flags_image(struct translation *t);
void translate_popf(struct translation *t);
void translate_direction(struct translation *t, const struct x86_insn *insn);
/* These three return false to leave the instruction to the interpreter. */
bool translate_far(struct translation *t, const struct x86_insn *insn);
bool translate_system(struct translation *t, const struct x86_insn *insn);
bool translate_string(struct translation *t, const struct x86_insn *insn);

/* --- address.c ------------------------------------------------------------------------------- */

/* Returns the number of INSN's one memory operand in ModRM; -1 if it has none, -2 if it has one
 * that cannot be encoded anew. */
int memory_operand(const struct translation *t, const struct x86_insn *insn);
/* Describes memory operand I of instruction N. Returns false if the interpreter must compute the
 * address. */
bool address_of(const struct translation *t, unsigned n, unsigned i, struct address *a);
/* Loads REG with the linear address. Clobbers flags if it has a segment base. */
void emit_address(struct translation *t, const struct address *a, unsigned reg);
/* Loads s0 again after emit_check, where s0 is the operand's base and has been overwritten. */
void emit_address_base(struct translation *t, const struct address *a);
/* Returns the place of the base of A's segment in the vCPU. */
struct operand address_segment_base(const struct address *a);

/* --- access.c -------------------------------------------------------------------------------- */

/* Emits a search of the software TLB for the address, unless an earlier check covers it. Returns
 * the operand in the host's memory, for the code that follows. Saves live flags, then clobbers
 * flags, s0 and s1; s1, and s0 if it is the operand's base, stay in use. ALIGN: the address must be
 * a multiple of it. */
struct operand emit_check(struct translation *t, const struct address *a, unsigned size, bool write,
                          unsigned align);

/* --- group.c --------------------------------------------------------------------------------- */

/* Returns a range that covers the access, or NULL. */
const struct range *group_find(const struct translation *t, const struct address *a, unsigned size,
                               bool write);
/* Returns the range that a check of the access is to cover, for later accesses to share; its addend
 * will be in s1. */
struct range *group_start(struct translation *t, const struct address *a, unsigned size,
                          bool write);
/* Called behind each instruction: moves the ranges whose registers the instruction has changed by a
 * constant, and drops those whose registers it has changed otherwise. S1_INTACT: s1 is as its last
 * check left it. */
void group_after(struct translation *t, bool s1_intact);
/* Drops all ranges: from here on mappings may have changed, or control comes from elsewhere, too.
 */
void group_forget(struct translation *t);
/* Whether instruction N makes all ranges invalid. */
bool group_breaks(const struct translation *t, unsigned n);

/* --- flags.c --------------------------------------------------------------------------------- */

/* Saves LIVE flags, because the translator's own code is about to overwrite RFLAGS. */
void flags_clobber(struct translation *t, uint32_t live);
/* Stores LIVE flags in vcpu.cc if they are not there; RFLAGS stays as it is. */
void flags_leave(struct translation *t, uint32_t live);
/* Loads the guest's flags into RFLAGS if they are not there. May use s0. */
void flags_need(struct translation *t);

/* --- cold.c ---------------------------------------------------------------------------------- */

/* Returns how many of the part's instructions have not been executed before the present one. */
unsigned instructions_left(const struct translation *t);
/* Each of these notes a JUMP that is rarely taken, to code that emit_cold emits behind the region.
 * cold_add_fill: the check of range K has failed. cold_add_one: the interpreter executes the
 * present instruction. cold_add_target: an exit of any other KIND, for TARGET. */
void cold_add_fill(struct translation *t, uint8_t *jump, const struct address *a, unsigned size,
                   const struct range *k, const uint8_t *retry);
void cold_add_one(struct translation *t, uint8_t *jump);
void cold_add_target(struct translation *t, uint8_t *jump, enum cold_kind kind, int64_t target);
/* --- edges.c --------------------------------------------------------------------------------- */

/* Emits an entrance to the part at OFFSET: checks whether the code is still what was translated,
 * and goes from the state between regions to the region's own, with LIVE flags in RFLAGS. In front
 * of it stands struct bt_front. */
void emit_entry(struct translation *t, unsigned offset, uint32_t live);
/* Leaves the region for the address in s0. */
void emit_exit_indirect(struct translation *t);
/* Does the same after a RET that has POPPED bytes, or a JMP. The address need not be canonical. */
void emit_exit_branch(struct translation *t, unsigned popped);
/* Leaves the region for TARGET, an offset from the page's start that may lie outside of the page.
 * */
void emit_exit_direct(struct translation *t, int64_t target);
/* Leaves the region so that the interpreter executes instruction I; LEFT instructions of its part
 * have not been executed. */
void emit_exit_one(struct translation *t, unsigned i, unsigned left);
/* Has the interpreter execute the present instruction and goes on behind it. UNLESS: only until the
 * instruction proves to be frequent; then control goes on with code that has its handler inlined.
 */
void emit_one(struct translation *t, bool unless);
/* Goes on at TARGET, in the region or not; LIVE: flags that are live there if it is not. */
void emit_goto(struct translation *t, int64_t target, uint32_t live);

/* Emits a check in front of an instruction that ends in the next page: has the interpreter execute
 * it unless that page is still mapped where it was, and unchanged. */
void emit_check_beyond(struct translation *t);
/* Emits what the jumps of cold.c lead to. */
void emit_cold(struct translation *t);

#endif
