/*
 * What the rules about differences share: the instruction that a case ended at, and its operands.
 *
 *   mask.c         the rules by name, and those about results
 *   mask_faults.c  those about faults: which comes first, and what has been done before it
 *   mask_emulated.c  those about a KVM that emulates
 *   ending.c       the instruction, and where its memory operands lie
 */
#ifndef DOPPEL_TESTS_DIFF_MASK_H
#define DOPPEL_TESTS_DIFF_MASK_H

#include "compare.h"

/* The instruction that a case ended at. */
struct ending {
    const struct diff_case *c;
    const struct diff_result *native, *engine;
    const struct x86_insn *insn;    /* of a sequence: only if it faulted; NULL: not known */
    const struct diff_state *state; /* before it */
    bool faulted;                   /* it did, so that the state is what it was before */
    struct x86_insn decoded;
};

struct rule {
    const char *name, *reference;
    void (*apply)(const struct ending *e, struct mask *mask);
};

/* mask_faults.c */
extern const struct rule mask_fault_rules[];
extern const unsigned mask_fault_rule_count;

/* mask_emulated.c */
extern const struct rule mask_emulated_rules[];
extern const unsigned mask_emulated_rule_count;

/* ending.c */
void ending_find(struct ending *e, const struct diff_case *c, const struct diff_result *native);
/* Whether operand I is in memory and read or written. */
bool ending_accesses(const struct ending *e, unsigned i);
/* The offset of memory operand OP in its segment, and its linear address. */
uint64_t ending_offset(const struct ending *e, const ZydisDecodedOperand *op);
uint64_t ending_address(const struct ending *e, const ZydisDecodedOperand *op);
/* Leaves SIZE bytes of memory at the linear ADDRESS out of the comparison. */
void mask_range(struct mask *mask, uint64_t address, unsigned size);

static inline int ending_gpr(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetId(op->reg.value) : -1;
}

#endif
