/*
 * What the parts of the translation of one block share.
 */
#ifndef DOPPEL_CPU_BT_TRANSLATE_H
#define DOPPEL_CPU_BT_TRANSLATE_H

#include "cpu/bt/bt.h"

#define VCPU(field) vcpu_at((int32_t)offsetof(struct bt, field))
#define REGISTER(n) vcpu_at((int32_t)(offsetof(struct bt, c.x.reg) + (n)*8))

/* Describes INSN's memory operand I. False: an address that is left to others. */
bool address_of(const struct translation *t, const struct x86_insn *insn, unsigned i,
                struct address *a);
/* REG = the virtual address. Clobbers flags if it has a segment base. */
void emit_address(struct translation *t, const struct address *a, unsigned reg);
/* Looks the address up in the software TLB; what follows can use the operand returned. Clobbers
 * flags, s0 and s1; s1, and s0 if it is the operand's base, stay in use. ALIGN: what the address
 * must be a multiple of. */
struct operand emit_check(struct translation *t, const struct address *a, unsigned size, bool write,
                          unsigned align);
bool emit_insn_as_is(struct translation *t, const struct x86_insn *insn);

/* A jump to be taken rarely, to code emitted after the block. */
void cold_add(struct translation *t, uint8_t *jump, enum cold_kind kind, const struct address *a,
              unsigned size, bool write, const uint8_t *retry);

#endif
