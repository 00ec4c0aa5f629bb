/*
 * Comparing two results of a case, and what is left out of the comparison.
 */
#ifndef DOPPEL_TESTS_DIFF_COMPARE_H
#define DOPPEL_TESTS_DIFF_COMPARE_H

#include "diff.h"

#include <stdio.h>

#define MASK_RANGES 8

/* What of a case is not compared. */
struct mask {
    bool skip;                                 /* nothing is */
    bool narrow;                               /* but for the lower halves of eight registers */
    bool which_fault;                          /* of those that an operand can raise */
    bool mmx;                                  /* x87 registers by number, no TOP and tags */
    bool fs_base, gs_base;                     /* are not */
    uint16_t null_rpl;                         /* bits of null selectors */
    uint32_t mxcsr;                            /* bits */
    uint64_t flags, error, cr2, gpr[X86_GPRS]; /* bits */
    uint32_t vector_registers;                 /* a bit for each */
    bool x87_pointers;                         /* FOP, FIP, FDP */
    unsigned ranges;                           /* of memory, offsets in the window */
    struct {
        unsigned start, size;
    } range[MASK_RANGES];
};

/* mask.c: by name, each with the manual's reference. Of ENGINE counts where it ended, and whether
 * it translates. */
void mask_find(const struct diff_case *c, const struct diff_result *native,
               const struct diff_result *engine, struct mask *mask);
/* Lists the names and references. */
void mask_list(FILE *out);

/* The number of differences; they are written to OUT, one on a line, unless it is NULL. */
unsigned compare_results(const struct diff_case *c, const struct diff_result *native,
                         const struct diff_result *engine, FILE *out);
/* The case and what differs in one line, for sorting. */
void compare_brief(const struct diff_case *c, const struct diff_result *native,
                   const struct diff_result *engine, FILE *out);
/* The case, disassembled, with its initial state; then both final states. */
void compare_print(const struct diff_case *c, const struct diff_result *native,
                   const struct diff_result *engine, const char *engine_name, FILE *out);

#endif
