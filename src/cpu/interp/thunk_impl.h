/*
 * What the files of the thunk module share: the plan for one thunk, and the memory it is put in.
 */
#ifndef DOPPEL_CPU_INTERP_THUNK_IMPL_H
#define DOPPEL_CPU_INTERP_THUNK_IMPL_H

#include "base/signals.h"
#include "cpu/interp/thunk.h"
#include "x86/cpu.h"

#include <stdbool.h>
#include <stddef.h>

/* What a thunk must do before and behind its instruction (thunk_plan.c). Registers are bits, or
 * numbers in encoding order. */
struct thunk_plan {
    uint16_t gpr, gpr_store;      /* the guest's registers that it touches, and writes */
    uint16_t vector, vector_high; /* XMM registers, and which of them with their upper half */
    uint16_t vector_store;
    uint16_t clear_high, clear_low; /* VZEROUPPER, VZEROALL: halves that end up zero */
    uint32_t flags_store;           /* status flags that the instruction may change */
    bool flags_load;
    bool x87;     /* x87, MMX and XMM registers as one image */
    bool mxcsr;   /* it reads MXCSR or raises SIMD floating-point exceptions */
    bool vex;     /* the upper halves of vector registers matter */
    bool memory;  /* it has a memory operand, re-encoded to [base] */
    uint8_t base; /* a register that it does not use, encodable without REX */
    uint8_t rsp;  /* the host register that stands for the guest's RSP */
    uint8_t code[16];
    uint8_t length;
};

/* Whether INSN can be a thunk, and how. */
bool thunk_plan_make(struct thunk_plan *plan, const struct x86_insn *insn);

/* A thunk's code, and the places in it that a fault needs. */
struct thunk_code {
    uint8_t bytes[1024];
    uint32_t size;
    uint32_t insn;  /* the guest's instruction */
    uint32_t tail;  /* where the thunk goes on after a fault of INSN, with the result in EAX */
    uint32_t leave; /* where it goes on after any other fault: stores nothing of the guest's */
};

void thunk_emit(struct thunk_code *code, const struct thunk_plan *plan);

/* The memory that holds thunks (core/code_memory.h), and where each of them lies. */
struct thunk_memory;
struct thunk_memory *thunk_memory_create(struct error *err);
void thunk_memory_destroy(struct thunk_memory *memory);
/* Copies CODE and returns where it can be run, or NULL when there is no room left, or when the host
 * has no memory for more now. */
thunk_fn *thunk_memory_add(struct thunk_memory *memory, const struct thunk_code *code);
/* Forgets all thunks. */
void thunk_memory_clear(struct thunk_memory *memory);
/* Stores where thunks can lie: from START up to END. */
void thunk_memory_range(const struct thunk_memory *memory, uintptr_t *start, uintptr_t *end);
/* Returns where the thread goes on after a fault at RIP, or 0 if RIP is not in a thunk. Safe in a
 * signal handler. */
uintptr_t thunk_memory_landing(const struct thunk_memory *memory, uintptr_t rip);

/* Has faults in MEMORY's thunks turned into their results, until signals_unwatch. */
struct signals_watch *thunk_fault_watch(const struct thunk_memory *memory, struct error *err);

#endif
