/*
 * The interpreter's own structures: the decoded instruction (uop), and where blocks of them are
 * kept.
 *
 * Guest code is decoded into blocks: runs of instructions within one guest page that end at the
 * first branch. A block is an array of uops, each with the function that executes it, its handler:
 *
 *     do
 *         op = op->fn(c, op);
 *     while (op);
 *
 * A handler returns the next uop; or, at the end of the block, sets X86_RIP and returns NULL. While
 * a block runs, X86_RIP holds the address of its first instruction. So an operand relative to RIP
 * has X86_RIP as an ordinary base register, and one block serves every address where its page is
 * mapped.
 */
#ifndef DOPPEL_CPU_INTERP_INTERP_H
#define DOPPEL_CPU_INTERP_INTERP_H

#include "cpu/core/access.h"
#include "cpu/core/executor.h"
#include "cpu/core/mode.h"
#include "cpu/interp/thunk.h"
#include "x86/insn.h"

/* What the interpreter has for all vCPUs of a machine. */
struct interp {
    struct thunk_cache *thunks;
    size_t arena_size; /* of each vCPU's decoded blocks, in bytes */
};

static inline struct interp *interp_of(const struct core *e)
{
    return e->interpreter_shared;
}

extern const struct interpreter interp_executor;

typedef const struct uop *uop_fn(struct vcpu *c, const struct uop *op);

/* How an effective address is formed. */
enum ea_kind {
    EA_64,   /* 64-bit mode and address size */
    EA_FLAT, /* 32-bit address size, flat segment: only the wrap at 4 GiB counts */
    EA_SLOW, /* everything else: ea_slow */
    EA_NONE, /* the operand is a register */
};

struct uop {
    uop_fn *fn;
    int64_t disp;
    uint64_t imm;        /* immediate; branch: target relative to the block; thunk: the function */
    uint8_t dst, src;    /* byte offsets into x86_cpu.reg, so that AH is 1 */
    uint8_t base, index; /* register numbers, or X86_NONE or X86_RIP */
    uint8_t scale;       /* as a shift */
    uint8_t seg;         /* enum x86_segment of the memory operand */
    uint8_t ea;          /* enum ea_kind */
    uint8_t asize;       /* address size in bytes: 2, 4, 8 */
    uint8_t osize;       /* operand size in bytes */
    uint8_t len;         /* of the instruction */
    uint8_t aux;         /* the handler's own: condition, segment number, REP prefix, ... */
    uint8_t number; /* of the instruction in its block; also in a copy of the uop that a handler
                       makes */
    uint16_t off;   /* of the instruction from the block's start */
    uint16_t mnemonic;
};

static inline struct uop *block_uops(struct block *b)
{
    return (struct uop *)b->code;
}

/* --- uop.c ------------------------------------------------------------------------------------ */

/* Ends the block behind OP; the next instruction follows. */
const struct uop *end_block(struct vcpu *c, const struct uop *op);
/* Ends the block and goes on at RIP, to which no link leads. */
const struct uop *go_far(struct vcpu *c, uint64_t rip);

/* Returns the address of the instruction behind OP (an offset in CS). */
static inline uint64_t next_rip(const struct vcpu *c, const struct uop *op)
{
    return c->x.reg[X86_RIP] + op->off + op->len;
}

/* Returns the address of OP, or X86_RIP if that points at the instruction already. */
static inline uint64_t rip_of(const struct vcpu *c, const struct uop *op)
{
    return c->x.reg[X86_RIP] + (op && c->block ? op->off : 0);
}

/* The functions of struct interpreter that are about a uop. */
void uop_retract(struct vcpu *c, const struct uop *op);
uint64_t uop_address(const struct vcpu *c, const struct uop *op);
unsigned uop_segment(const struct uop *op, bool *wraps);

#endif
