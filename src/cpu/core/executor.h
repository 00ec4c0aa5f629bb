/*
 * How a faster way to execute blocks plugs into the interpreter, which keeps everything else:
 * events, faults, decoding, and every instruction that the faster way leaves to it.
 */
#ifndef DOPPEL_CPU_CORE_EXECUTOR_H
#define DOPPEL_CPU_CORE_EXECUTOR_H

#include "cpu/core/vcpu.h"

struct accelerator {
    size_t vcpu_size; /* of a struct whose first member is struct vcpu */
    /* For the engine: makes and destroys accelerator_shared. */
    int (*start)(struct core *e, struct error *err);
    void (*stop)(struct core *e);
    void (*create)(struct vcpu *c);
    /* Executes some guest code from X86_RIP on; called when no event is due. It may raise. */
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
    void (*stats)(const struct vcpu *c, struct engine_stats *stats);
};

/* OPTIONS are the accelerator's own; they must outlive the engine. */
struct engine *interp_create_accelerated(const struct machine *machine,
                                         const struct accelerator *accelerator, const void *options,
                                         struct error *err);

/* Executes block B. */
void interp_execute(struct vcpu *c, struct block *b);
/* Executes the one instruction at X86_RIP. */
void interp_execute_one(struct vcpu *c);
/* Translates an access in the present context and enters it into the software TLB. Returns whether
 * it can now be made directly; raises what the access raises. */
bool interp_fill(struct vcpu *c, uint64_t linear, unsigned size, bool write);
/* The guest physical address of the instruction at X86_RIP. Raises what fetching it raises. */
uint64_t interp_code_gpa(struct vcpu *c);
/* How often decoded code of PAGE has been written to lately. */
unsigned interp_rewrites(const struct code_page *page);
/* Where code at LINEAR is, if the software TLB knows. */
bool interp_code_peek(const struct vcpu *c, uint64_t linear, uint64_t *gpa);
/* Puts all that any vCPU has decoded or translated of the page at GPA out of date. */
void interp_discard_code(struct vcpu *c, uint64_t gpa);
/* Whether the code at GPA has been executed here in the present mode, and has not changed since. */
bool interp_has_run(const struct vcpu *c, uint64_t gpa);
/* From now on writes to [GPA, GPA + SIZE), which lies in one page of RAM, move the page's
 * generation on. May let other vCPUs run, and so have everything decoded forgotten. */
void interp_watch_code(struct vcpu *c, uint64_t gpa, uint64_t size);

#endif
