/*
 * Thunks: instructions that are neither control flow nor sensitive, executed by the host's own
 * processor. A thunk loads the guest registers that its instruction touches, executes the very
 * instruction with its memory operand pointed at a buffer, and stores the registers back.
 *
 * Generated code is written through one mapping and run through another (W^X). Thunks depend on
 * nothing but the instruction's bytes and are shared by all vCPUs of an engine.
 */
#ifndef DOPPEL_CPU_INTERP_THUNK_H
#define DOPPEL_CPU_INTERP_THUNK_H

#include "base/error.h"
#include "x86/insn.h"

#include <stdbool.h>
#include <stdint.h>

struct thunk_cache;

/* The guest's registers as a thunk sees them. */
struct thunk_state {
    uint64_t *gpr;   /* 16, in encoding order */
    uint64_t *flags; /* status flags (X86_FLAGS_STATUS) in RFLAGS positions; other bits are kept */
    /* X86_XSAVE_SIZE bytes, 64-byte aligned, standard form; XSTATE_BV ignored. For class X87, FOP,
     * FIP and FDP are the host's afterwards, and are for the caller to replace. */
    uint8_t *xsave;
};

/* Executes. MEMORY stands for the memory operand (NULL if none): a host pointer with the operand's
 * size accessible and the guest address's alignment. A buffer for an x87 store must hold what the
 * guest's memory holds, because an unmasked exception leaves the operand as it was. Returns 0, or 1
 * + vector where the processor raised an exception: #DE, #UD, #GP (alignment), #MF, #XM, #AC; the
 * guest's registers are then as hardware leaves them (unchanged but for MXCSR or x87 status). */
typedef int thunk_fn(const struct thunk_state *state, void *memory);

/* Exceptions arrive as signals (base/signals.h): threads that run thunks must not block SIGFPE,
 * SIGILL, SIGSEGV and SIGBUS. */
struct thunk_cache *thunk_cache_create(struct error *err);
void thunk_cache_destroy(struct thunk_cache *cache);

/* Returns the thunk for INSN (class NATIVE, X87, or INTEGER with register and memory operands),
 * which is made on first use. In 16- and 32-bit code it does the same with the registers that exist
 * there. Returns NULL if INSN cannot be a thunk, or if there is no room (thunk_cache_full).
 * Thread-safe. Not thunks: gathers, VMASKMOV and VPMASKMOV, parts of whose operands must not be
 * touched; BT with a register and memory; instructions without a ModRM byte for their memory
 * operand; and those that write flags other than the status flags. */
thunk_fn *thunk_get(struct thunk_cache *cache, const struct x86_insn *insn);

/* Whether there was no room for a thunk. Then thunk_cache_clear makes room: it removes all thunks,
 * so none may be running or be used again. */
bool thunk_cache_full(struct thunk_cache *cache);
void thunk_cache_clear(struct thunk_cache *cache);

#endif
