/*
 * Makes cases: everything about a case follows from the seed and its number.
 */
#ifndef DOPPEL_TESTS_DIFF_GENERATE_H
#define DOPPEL_TESTS_DIFF_GENERATE_H

#include "diff.h"
#include "forms.h"

struct generator {
    const struct forms *forms;
    uint64_t seed;
    uint8_t pattern[DIFF_SIZE]; /* what memory holds before a case adds to it */
};

void generator_init(struct generator *g, const struct forms *forms, uint64_t seed);

/* Case NUMBER of single instructions is of form NUMBER % count. False when no valid operands were
 * found for it. */
bool generate_single(const struct generator *g, uint64_t number, struct diff_case *c);
/* An opcode that is undefined on every processor. */
bool generate_undefined(const struct generator *g, uint64_t number, struct diff_case *c);
/* sequence.c: up to 30 instructions, some of them in a loop or modifying their own code. */
bool generate_sequence(const struct generator *g, uint64_t number, struct diff_case *c);

/* An empty case: memory and registers random, no code. Starts CASE_RNG for NUMBER. */
void generate_empty(const struct generator *g, uint64_t number, enum x86_code_size code_size,
                    struct diff_case *c, struct rng *case_rng);

/* At times, other segments than the flat ones for code that is not 64-bit. */
void generate_segments(struct rng *rng, struct diff_case *c);

/* Random bytes that decode to FORM; LOCK and other prefixes are put in front at times. */
bool generate_insn(struct rng *rng, const struct form *f, uint8_t bytes[15], struct x86_insn *insn);

/* Bytes into the case's memory at linear ADDRESS of either window; what is outside is dropped. */
void case_poke(struct diff_case *c, uint64_t address, const void *data, unsigned size);
uint64_t rng_value(struct rng *rng); /* likes edges */

/*
 * steer.c: what must hold before an instruction so that its operands make sense: registers, memory,
 * and its own displacement or immediate.
 */
struct plan {
    struct rng *rng;
    struct diff_case *c;
    uint8_t *bytes;   /* of the instruction; displacement and immediates get changed */
    uint64_t address; /* where it will stand: an instruction pointer */
    bool tame;        /* addresses that do not fault */
    uint32_t set;     /* registers that must have a value */
    uint64_t value[X86_GPRS];
};

/* INSN was decoded from plan->bytes. False when it cannot be given sensible operands. Memory and
 * vector state go right into the case. */
bool steer(struct plan *plan, const struct x86_insn *insn);
/* An instruction pointer into a page with code, mostly. */
uint64_t steer_code_target(struct plan *plan);

#endif
