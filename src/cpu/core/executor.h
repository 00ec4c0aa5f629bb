/*
 * Where those that execute guest code meet: the interpreter, which every engine of this process
 * has, because it executes any instruction in any mode; and what executes some code faster (an
 * accelerator, as the binary translator is) and leaves the rest to the interpreter. They know these
 * tables and not each other; cpu/engines.c puts them together.
 */
#ifndef DOPPEL_CPU_CORE_EXECUTOR_H
#define DOPPEL_CPU_CORE_EXECUTOR_H

#include "cpu/core/vcpu.h"

/* A block: guest code in one page up to its first branch, as the interpreter has decoded it. An
 * accelerator reads the first fields, and HEAT is its own; the other fields are the interpreter's.
 */
struct block {
    struct code_page *page;
    uint64_t gpa;
    struct block *hash_next;
    struct block *link[2]; /* successors within the page, once known */
    uint32_t heat;         /* 0 in a new block */
    uint32_t generation;   /* of the page when decoded */
    uint16_t count;        /* instructions */
    uint16_t uops;         /* and one to go on with, where no branch ends the block */
    uint16_t bytes;
    uint8_t mode; /* MODE_* */
    bool cached;  /* its bytes lie in one page of RAM, and CODE may be used again */
    _Alignas(8) unsigned char code[]; /* UOPS uops */
};

#define BLOCK_MAX 64 /* uops in a block */

struct interpreter {
    /* Makes and destroys core.interpreter_shared; core.accelerator is known already. */
    int (*start)(struct core *e, struct error *err);
    void (*stop)(struct core *e);
    /* Makes and destroys vcpu.blocks; that may be NULL still. */
    int (*create)(struct vcpu *c, struct error *err);
    void (*destroy)(struct vcpu *c);
    void (*counters)(const struct vcpu *c, engine_counter_fn *each, void *opaque); /* its own */

    /* --- For the run loop; these raise what the guest's code raises ------------------------- */

    /* Executes blocks from X86_RIP on until something else is due (vcpu_is_due). */
    void (*run)(struct vcpu *c);
    /* Executes one block. */
    void (*run_block)(struct vcpu *c);
    /* Executes one instruction. */
    void (*step)(struct vcpu *c);

    /* --- For the core's other files ---------------------------------------------------------- */

    /* The instruction OP of the block under way, and those after it, are not executed after all:
     * makes X86_RIP point at OP and takes them off vcpu.instructions. */
    void (*retract)(struct vcpu *c, const struct uop *op);
    /* The offset in CS of OP, which is of the block under way. */
    uint64_t (*address)(const struct vcpu *c, const struct uop *op);
    /* The segment of OP's memory operand. *WRAPS: the linear address has been cut to 32 bits,
     * without a look at the segment's limit. */
    unsigned (*segment)(const struct uop *op, bool *wraps);
    /* Code has been written to by this vCPU: ends the block under way after the present instruction
     * if it is out of date. */
    void (*code_written)(struct vcpu *c);
    /* Where code is mapped has changed for the page at LINEAR, or, if LARGE, for any page: forgets
     * which block stands at which linear address. */
    void (*unmapped)(struct vcpu *c, uint64_t linear, bool large);

    /* --- For an accelerator ------------------------------------------------------------------- */

    /* Executes the one instruction at X86_RIP. May raise. */
    void (*execute_one)(struct vcpu *c);
    /* Executes B. May raise. */
    void (*execute)(struct vcpu *c, struct block *b);
    /* The block to execute next, decoded if need be. Raises what fetching it raises. */
    struct block *(*next)(struct vcpu *c);
    /* The same if a link from the block just executed leads to it, else NULL. */
    struct block *(*linked)(const struct vcpu *c);
    /* Whether the code at GPA has been executed here in the present mode, and has not changed
     * since. */
    bool (*has_run)(const struct vcpu *c, uint64_t gpa);
};

struct accelerator {
    size_t vcpu_size; /* of a struct whose first member is struct vcpu */
    /* Makes and destroys core.accelerator_shared. */
    int (*start)(struct core *e, struct error *err);
    void (*stop)(struct core *e);
    void (*create)(struct vcpu *c);
    void (*counters)(const struct vcpu *c, engine_counter_fn *each, void *opaque); /* its own */

    /* Executes some guest code from X86_RIP on; called when nothing else is due. It may raise. */
    void (*run)(struct vcpu *c);
    /* The vCPU's thread is about to run. */
    void (*prepare)(struct vcpu *c);
    /* It is about to do other things. */
    void (*finish)(struct vcpu *c);
    /* All decoded blocks are gone. */
    void (*forget)(struct vcpu *c);
    /* Where code is mapped has changed for the page at LINEAR (INVLPG). LARGE: for any page, or
     * which address space an identifier stands for (mmu.clears). */
    void (*unmapped)(struct vcpu *c, uint64_t linear, bool large);
    /* Host addresses that code under way has found may be out of date. */
    void (*pages_moved)(struct vcpu *c);
};

/* Whether the vCPU must leave guest code now: another thread or an interrupt may want something of
 * it, its next instruction is a step of its own, or it is not running. */
static inline bool vcpu_is_due(const struct vcpu *c)
{
    return atomic_load_explicit(&c->port->requests, memory_order_relaxed) | c->check_interrupt |
           c->stepping | (c->x.activity != X86_RUNNING);
}

/* The address of OP, or of what X86_RIP names already. */
static inline uint64_t instruction_address(const struct vcpu *c, const struct uop *op)
{
    return op && c->block ? c->core->interpreter->address(c, op) : c->x.reg[X86_RIP];
}

/* Tells the accelerator if identifiers of address spaces have begun anew: what it knows by them is
 * out of date. */
static inline void vcpu_check_spaces(struct vcpu *c)
{
    if (likely(c->clears == c->mmu.clears))
        return;
    c->clears = c->mmu.clears;
    c->core->accelerator->unmapped(c, 0, true);
}

#endif
