/*
 * Instruction forms: what there is to test, found by decoding everything.
 */
#ifndef DOPPEL_TESTS_DIFF_FORMS_H
#define DOPPEL_TESTS_DIFF_FORMS_H

#include "diff.h"

#include <stdio.h>

/* One way to encode one kind of operands for one instruction. */
struct form {
    ZydisMnemonic mnemonic;
    const struct x86_insn_info *info;
    uint8_t code_size; /* enum x86_code_size */
    bool vex;
    uint8_t prefix[2]; /* legacy: 66 or 67, then F2 or F3; 0 where there is none. VEX: [0] is pp */
    uint8_t map;       /* 0 one-byte, 1 0F, 2 0F38, 3 0F3A */
    uint8_t opcode;
    bool w, l;
    bool modrm;
    bool memory;        /* ModRM names memory; REG_SET says which reg fields */
    bool vsib;          /* its SIB byte holds a vector of indices */
    uint8_t reg_set;    /* memory: bit per reg field */
    uint64_t modrm_set; /* registers: bit per low six bits of ModRM */
};

struct forms {
    struct form *form;
    unsigned count, room;
};

/* All forms that MODEL announces and a program can execute, or be refused, without the outcome
 * depending on anything but its registers and memory. */
bool forms_collect(struct forms *forms, const struct x86_model *model);
void forms_free(struct forms *forms);

/* Why MNEMONIC is left out, or NULL. */
const char *forms_excluded(ZydisMnemonic mnemonic);
void forms_list_excluded(FILE *out);

#endif
