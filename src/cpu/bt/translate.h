/*
 * What the parts of the translation of one region share.
 */
#ifndef DOPPEL_CPU_BT_TRANSLATE_H
#define DOPPEL_CPU_BT_TRANSLATE_H

#include "cpu/bt/bt.h"

/* Bytes that are pushed and popped. */
static inline unsigned slot_size(const struct translation *t)
{
    return t->wide ? 8 : 4;
}

#define VCPU(field) vcpu_at((int32_t)offsetof(struct bt, field))
#define REGISTER(n) vcpu_at((int32_t)(offsetof(struct bt, c.x.reg) + 8 * (n)))

/* Flags wanted before the instruction, by it or later. */
static inline uint32_t live_before(const struct flow *f)
{
    return f->flags_in | (f->live_after & ~f->flags_out);
}

/* Flags wanted of what stands before the instruction: those it reads, and where it writes only
 * some, the others that are wanted after it. */
static inline uint32_t flags_input(const struct flow *f)
{
    return f->flags_in | (f->flags_may ? f->live_after & ~f->flags_out : 0);
}

/* The class of the register that operand I is, or ZYDIS_REGCLASS_INVALID. */
static inline ZydisRegisterClass register_class(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER
               ? ZydisRegisterGetClass(insn->op[i].reg.value)
               : ZYDIS_REGCLASS_INVALID;
}

/* The general-purpose register that operand I is. */
static inline unsigned register_of(const struct x86_insn *insn, unsigned i)
{
    return (unsigned)ZydisRegisterGetId(insn->op[i].reg.value);
}

/*
 * Who calls whom, from the top: translate.c and region.c; copy.c, stack.c, branch.c, system.c and
 * string.c, which translate instructions; pieces.c; edges.c and access.c; group.c, cold.c and
 * flags.c; address.c, scope.c and live.c; emit.c.
 */

/* --- copy.c, stack.c, branch.c: false: leave the instruction to the interpreter --------------- */

bool translate_integer(struct translation *t, const struct x86_insn *insn);
bool translate_native(struct translation *t, const struct x86_insn *insn);
bool translate_x87(struct translation *t, const struct x86_insn *insn);
bool translate_mxcsr(struct translation *t, const struct x86_insn *insn);
bool translate_stack(struct translation *t, const struct x86_insn *insn);
bool translate_branch(struct translation *t, const struct x86_insn *insn);
/* Of BT and its kin: whether a register names a bit in memory. */
bool is_bit_string(const struct x86_insn *insn);

/* --- pieces.c --------------------------------------------------------------------------------- */

bool copy_as_is(struct translation *t, const struct x86_insn *insn);
/* Whether operand I is a register as wide as a stack slot. */
bool is_word_register(const struct translation *t, const struct x86_insn *insn, unsigned i);
/* Whether operand I is memory that an address can be made of; hidden operands are others' business.
 */
bool is_addressed(const struct x86_insn *insn, unsigned i);
/* The top of the stack; where a push goes; REG = what stands at A, a slot of the stack; RSP +=
 * DELTA. */
extern const struct address top_address;
struct operand emit_check_push(struct translation *t);
void emit_load_slot(struct translation *t, const struct address *a, unsigned reg);
void emit_move_sp(struct translation *t, int32_t delta);
/* A target that is not canonical faults at the branch. What gets past this cannot be mistaken for
 * another address space's in the jump table either. Clobbers s1. */
void emit_canonical(struct translation *t, unsigned target);

/* --- scope.c ---------------------------------------------------------------------------------- */

/* What a string instruction does. */
struct string_form {
    unsigned size;
    bool from, to, writes; /* uses RSI; uses RDI; and writes there */
    bool repeats;
};

/* Returns false if INSN is not such an instruction, or one that the interpreter executes. */
bool string_form_of(const struct translation *t, const struct x86_insn *insn,
                    struct string_form *f);
bool string_repeats(const struct x86_insn *insn);
/* Whether INSN is one that translation never takes. */
bool scope_excludes(const struct translation *t, const struct x86_insn *insn);

/* --- system.c, string.c ----------------------------------------------------------------------- */

/* s0 = RFLAGS as PUSHF shows it; the status flags are in memory. */
void emit_flags_image(struct translation *t);
void translate_popf(struct translation *t);
void translate_direction(struct translation *t, const struct x86_insn *insn);
/* False, as with all of these functions: leave it to the interpreter. */
bool translate_far(struct translation *t, const struct x86_insn *insn);
bool translate_system(struct translation *t, const struct x86_insn *insn);
bool translate_string(struct translation *t, const struct x86_insn *insn);

/* --- address.c ------------------------------------------------------------------------------- */

/* The one memory operand in ModRM, or -1; -2 for operands that cannot be re-encoded. */
int memory_operand(const struct translation *t, const struct x86_insn *insn);
/* Describes memory operand I of instruction N. False: an address that is left to others. */
bool address_of(const struct translation *t, unsigned n, unsigned i, struct address *a);
/* REG = the virtual address. Clobbers flags if it has a segment base. */
void emit_address(struct translation *t, const struct address *a, unsigned reg);
/* Makes s0 again after emit_check, when it is the operand's base and something has used it. */
void emit_address_base(struct translation *t, const struct address *a);
/* Where the vCPU has the base of A's segment. */
struct operand address_segment_base(const struct address *a);

/* --- access.c -------------------------------------------------------------------------------- */

/* Looks the address up in the software TLB, unless an earlier check has seen to it; what follows
 * can use the operand returned. Clobbers s0 and s1, and saves live flags from being clobbered; s1,
 * and s0 if it is the operand's base, stay in use. ALIGN: what the address must be a multiple of.
 */
struct operand emit_check(struct translation *t, const struct address *a, unsigned size, bool write,
                          unsigned align);

/* --- group.c --------------------------------------------------------------------------------- */

/* What covers an access, or NULL. */
const struct known *group_find(const struct translation *t, const struct address *a, unsigned size,
                               bool write);
/* What the check of an access is to cover, which others will share; its addend will be in s1. */
struct known *group_start(struct translation *t, const struct address *a, unsigned size,
                          bool write);
/* Instruction I is translated. KEPT: s1 is as its last check left it. */
void group_after(struct translation *t, bool kept);
/* Mappings or tables may be others from here on, or control comes from elsewhere. */
void group_forget(struct translation *t);
/* Whether that will happen at instruction N. */
bool group_breaks(const struct translation *t, unsigned n);

/* --- flags.c --------------------------------------------------------------------------------- */

/* RFLAGS is about to be overwritten by something that is not the guest's. */
void flags_clobber(struct translation *t, uint32_t live);
/* LIVE flags must be in memory from here on; RFLAGS stays as it is. */
void flags_leave(struct translation *t, uint32_t live);
/* The guest's flags must be in RFLAGS. May use s0. */
void flags_need(struct translation *t);

/* --- cold.c ---------------------------------------------------------------------------------- */

/* Instructions of the part not executed before the present one. */
unsigned instructions_left(const struct translation *t);
/* A jump to be taken rarely, to code emitted behind the region. */
void cold_add_fill(struct translation *t, uint8_t *jump, const struct address *a, unsigned size,
                   const struct known *k, const uint8_t *retry);
void cold_add_one(struct translation *t, uint8_t *jump);
void cold_add_target(struct translation *t, uint8_t *jump, enum cold_kind kind, int64_t target);
/* --- edges.c --------------------------------------------------------------------------------- */

/* From outside to the part at OFFSET: is the code still what was translated? Then into the region's
 * own state, with the flags that are LIVE. In front of it is the length of the check, which links
 * skip. */
void emit_entry(struct translation *t, unsigned offset, uint32_t live);
/* Out of the region to the address in s0. */
void emit_exit_indirect(struct translation *t);
/* The same for a RET that has POPPED bytes, or a JMP; the address need not be canonical. */
void emit_exit_branch(struct translation *t, unsigned popped);
/* Out of the region to TARGET, counted from the page's start; it may lie outside the page. */
void emit_exit_direct(struct translation *t, int64_t target);
/* Leaves instruction I to others; LEFT instructions of its part have not been executed. */
void emit_exit_one(struct translation *t, unsigned i, unsigned left);
/* Leaves the present instruction to others and goes on behind it. UNLESS it proves to be frequent:
 * then on with code that has its handler inlined. */
void emit_one(struct translation *t, bool unless);
/* On to TARGET, in the region or not; LIVE: flags wanted there if not. */
void emit_goto(struct translation *t, int64_t target, uint32_t live);

/* In front of an instruction that ends in the next page: is that still mapped where it was, and
 * unchanged? If not, the instruction is left to others. */
void emit_check_beyond(struct translation *t);
/* Emits what the jumps of cold.c lead to. */
void emit_cold(struct translation *t);

#endif
