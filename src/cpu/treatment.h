/*
 * How the engines execute an instruction of the table (x86/insn.h), for `doppel isa` and for tests
 * that keep table and engines in agreement.
 */
#ifndef DOPPEL_CPU_TREATMENT_H
#define DOPPEL_CPU_TREATMENT_H

#include "x86/insn.h"

#include <stdbool.h>

enum treatment {
    TREATMENT_HOST,       /* the host's processor, the very instruction, in a thunk */
    TREATMENT_TRANSLATED, /* the host's processor, the very instruction, with checked memory */
    TREATMENT_INLINED,    /* code of the translator's, which works on the vCPU */
    TREATMENT_EMULATED,   /* the interpreter's C, which works on the vCPU */
    TREATMENTS
};
extern const char *const treatment_name[TREATMENTS], *const treatment_text[TREATMENTS];

enum treatment interp_treatment(const struct x86_insn_info *info);
/* In 64-bit code, for a program or for the kernel. Where operands or the machine's state are
 * unusual the translator leaves an instruction to the interpreter whatever this says. */
enum treatment bt_treatment(const struct x86_insn_info *info, bool user);

#endif
