/*
 * Where the executors of guest code meet: the interpreter, which every engine of this process has,
 * because it executes any instruction in any mode; and an accelerator (the binary translator),
 * which executes some code faster and leaves the rest to the interpreter. They know these tables
 * and not each other; cpu/engines.c puts them together.
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
    uint16_t uops;         /* those, and one more if no branch ends the block */
    uint16_t bytes;
    uint8_t mode;                     /* MODE_* */
    bool cached;                      /* it lies in one page of RAM, and so may be executed again */
    _Alignas(8) unsigned char code[]; /* UOPS uops */
};

#define BLOCK_MAX 64 /* uops in a block */

struct interpreter {
    /* Create and destroy core.interpreter_shared; core.accelerator is set already. */
    int (*start)(struct core *e, struct error *err);
    void (*stop)(struct core *e);
    /* Create and destroy vcpu.blocks, which may still be NULL. */
    int (*create)(struct vcpu *c, struct error *err);
    void (*destroy)(struct vcpu *c);
    void (*counters)(const struct vcpu *c, engine_counter_fn *each,
                     void *opaque); /* those of its own */

    /* --- For the run loop; these raise what the guest's code raises ------------------------- */

    /* Executes blocks from X86_RIP on until something is due (vcpu_is_due). */
    void (*run)(struct vcpu *c);
    /* Executes one block. */
    void (*run_block)(struct vcpu *c);
    /* Executes one instruction. */
    void (*step)(struct vcpu *c);

    /* --- For the core's other files ---------------------------------------------------------- */

    /* Takes back the instruction OP of the block under way and those behind it, which have been
     * counted but are not executed: makes X86_RIP point at OP and subtracts them from
     * vcpu.instructions. */
    void (*retract)(struct vcpu *c, const struct uop *op);
    /* Returns the offset in CS of OP, which is of the block under way. */
    uint64_t (*address)(const struct vcpu *c, const struct uop *op);
    /* Returns the segment of OP's memory operand. *WRAPS: the linear address was cut to 32 bits
     * without a check of the segment's limit. */
    unsigned (*segment)(const struct uop *op, bool *wraps);
    /* Tells that this vCPU has written to code: if the block under way is out of date, has it end
     * behind the present instruction. */
    void (*code_written)(struct vcpu *c);
    /* Forgets which block is at which linear address: in the page at LINEAR, or, if LARGE, in any
     * page. */
    void (*unmapped)(struct vcpu *c, uint64_t linear, bool large);

    /* --- For an accelerator ------------------------------------------------------------------- */

    /* Executes the one instruction at X86_RIP. May raise. */
    void (*execute_one)(struct vcpu *c);
    /* Executes B. May raise. */
    void (*execute)(struct vcpu *c, struct block *b);
    /* Returns the block to execute next; decodes it if need be. Raises what fetching it raises. */
    struct block *(*next)(struct vcpu *c);
    /* Returns that block if a link of the block just executed leads to it, else NULL. Raises
     * nothing. */
    struct block *(*linked)(const struct vcpu *c);
    /* Whether this vCPU has executed the code at GPA in the present mode, and it has not changed
     * since. */
    bool (*has_run)(const struct vcpu *c, uint64_t gpa);
};

struct accelerator {
    size_t vcpu_size; /* of a struct whose first member is struct vcpu */
    /* Create and destroy core.accelerator_shared. */
    int (*start)(struct core *e, struct error *err);
    void (*stop)(struct core *e);
    /* Create and destroy what it has in the vCPU besides. create fills in ERR and returns a
     * negative errno if it fails; destroy is called then, too. destroy may be NULL. */
    int (*create)(struct vcpu *c, struct error *err);
    void (*destroy)(struct vcpu *c);
    void (*counters)(const struct vcpu *c, engine_counter_fn *each, void *opaque); /* its own */

    /* Executes guest code from X86_RIP on. Nothing else is due when it is called. May raise. */
    void (*run)(struct vcpu *c);
    /* Called on the vCPU's thread before it executes guest code. */
    void (*prepare)(struct vcpu *c);
    /* Called when the thread is about to do other things. */
    void (*finish)(struct vcpu *c);
    /* Told that all decoded blocks are gone. */
    void (*forget)(struct vcpu *c);
    /* Told that the mapping of code has changed for the page at LINEAR (INVLPG). LARGE: for any
     * page; or identifiers of address spaces have begun anew (mmu.clears). */
    void (*unmapped)(struct vcpu *c, uint64_t linear, bool large);
    /* Told that the host addresses of guest memory that it remembers may be out of date. */
    void (*pages_moved)(struct vcpu *c);

    /* As engine_ops.local_apics; NULL: it never brings any. If it does, it sets core.wakes_inside,
     * and then run is called for vCPUs that have halted or wait for start-up, too, and these: */
    int (*local_apics)(struct core *e, const struct lapic_board *board, struct local_apics *apics,
                       struct error *err);
    /* Plugs its local APIC into the port of a vCPU that is about to be created. */
    void (*plug)(struct core *e, struct cpu_port *port);
    /* Called now and then while code is executed in single steps: delivers an interrupt that waits.
     * May raise. */
    void (*take_interrupt)(struct vcpu *c);
    /* Called before the run ends with EXIT_KICK, after which guest time may stand still. May raise.
     */
    void (*settle)(struct vcpu *c);
};

/* Computes anew everything that depends on the architectural state, which has been replaced. Drops
 * what was under way: a delivery, a repeated instruction, a single step. */
void core_state_changed(struct vcpu *c);

/* Whether the vCPU must leave guest code now: another thread or an interrupt may want something of
 * it, its next instruction is a step of its own, or it is not running. */
static inline bool vcpu_is_due(const struct vcpu *c)
{
    return atomic_load_explicit(&c->port->requests, memory_order_relaxed) | c->check_interrupt |
           c->stepping | (c->x.activity != X86_RUNNING);
}

/* Returns the address of OP, or X86_RIP if that points at the instruction already. */
static inline uint64_t instruction_address(const struct vcpu *c, const struct uop *op)
{
    return op && c->block ? c->core->interpreter->address(c, op) : c->x.reg[X86_RIP];
}

/* Tells the accelerator if identifiers of address spaces have begun anew, because what it has noted
 * under one is then out of date. */
static inline void vcpu_check_spaces(struct vcpu *c)
{
    if (likely(c->clears == c->mmu.clears))
        return;
    c->clears = c->mmu.clears;
    c->core->accelerator->unmapped(c, 0, true);
}

#endif
