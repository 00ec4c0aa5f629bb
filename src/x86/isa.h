/*
 * The instruction table in words, as Popek and Goldberg (1974) look at it.
 */
#ifndef DOPPEL_X86_ISA_H
#define DOPPEL_X86_ISA_H

#include "x86/insn.h"

/* An entry of the table and what it is called: "popfq", "mov (segment)". */
struct isa_entry {
    const struct x86_insn_info *info;
    char name[32];
};

/* All entries, sorted by name. To be freed; NULL: no memory. */
struct isa_entry *isa_entries(unsigned *count);

/* "CPL 0", "any, CPL 0 if CR4.TSD": who may execute it without a trap. */
const char *isa_privilege(const struct x86_insn_info *info);
/* Whether it traps at CPL 3 whatever the kernel has set up, or with the usual settings: IOPL 0, and
 * CR4.TSD, CR4.PCE and CR4.UMIP clear. */
bool isa_is_privileged(const struct x86_insn_info *info);
/* Sensitive, but a program can execute it without a trap: the guest's kernel, too, when it is
 * deprivileged. Then trap and emulate is not enough. */
bool isa_escapes(const struct x86_insn_info *info);

/* Why an instruction is sensitive, for each bit of enum x86_sensitivity in turn. */
#define ISA_REASONS 6
extern const struct isa_reason {
    uint8_t bit;
    const char *name; /* one word */
    const char *text;
} isa_reason[ISA_REASONS];

/* Whether it is one of the 17 that Robin and Irvine (2000) found on the Pentium. */
bool isa_is_pentium(const struct x86_insn_info *info);

#endif
