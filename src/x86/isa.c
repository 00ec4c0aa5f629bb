/*
 * The instruction table in words.
 *
 * G. Popek, R. Goldberg: Formal Requirements for Virtualizable Third Generation Architectures,
 * 1974. J. Robin, C. Irvine: Analysis of the Intel Pentium's Ability to Support a Secure Virtual
 * Machine Monitor, 2000.
 */
#include "x86/isa.h"

#include "base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct isa_reason isa_reason[ISA_REASONS] = {
    {X86_CHANGES_MACHINE, "changes-machine", "changes the machine's registers, tables or devices"},
    {X86_ENTERS_LEVEL, "enters-level", "goes to code of another privilege level"},
    {X86_SHOWS_STATE, "shows-state", "shows state of the machine's"},
    {X86_USES_TABLES, "uses-tables", "goes by the descriptor tables that are loaded"},
    {X86_HEEDS_LEVEL, "heeds-level", "does another thing at another privilege level, untrapped"},
    {X86_SHOWS_HOST, "shows-host", "shows the real processor's kind or time"},
};

const char *isa_privilege(const struct x86_insn_info *info)
{
    switch ((enum x86_privilege)info->privilege) {
    case X86_PRIV_USER: return "any";
    case X86_PRIV_IOPL: return "CPL up to IOPL";
    case X86_PRIV_TSD: return "any; CPL 0 if CR4.TSD";
    case X86_PRIV_PCE: return "CPL 0; any if CR4.PCE";
    case X86_PRIV_UMIP: return "any; CPL 0 if CR4.UMIP";
    case X86_PRIV_OPT: return "any, once it is enabled";
    case X86_PRIV_GATE: return "those that the gate admits";
    case X86_PRIV_V86: return "any; IOPL 3 in v86 mode";
    case X86_PRIV_CPL0: return "CPL 0";
    case X86_PRIV_COUNT: break;
    }
    return "?";
}

bool isa_is_privileged(const struct x86_insn_info *info)
{
    return info->privilege == X86_PRIV_CPL0 || info->privilege == X86_PRIV_IOPL ||
           info->privilege == X86_PRIV_PCE;
}

bool isa_escapes(const struct x86_insn_info *info)
{
    return info->sensitive && !isa_is_privileged(info);
}

/* The form that an entry stands for, where its mnemonic has several; "": all the others. */
static const char *form_of(const struct x86_insn_info *info)
{
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_RET: return info->class == X86_CLASS_FAR ? " (far)" : "";
    case ZYDIS_MNEMONIC_MOV:
        if (info->class == X86_CLASS_INTEGER)
            return "";
        return info->privilege == X86_PRIV_CPL0 ? " (control)" : " (segment)";
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP: return info->sensitive ? " (segment)" : "";
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_CMPSD: return info->class == X86_CLASS_NATIVE ? " (vector)" : "";
    default: return "";
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct isa_entry *)a)->name, ((const struct isa_entry *)b)->name);
}

struct isa_entry *isa_entries(unsigned *count)
{
    const struct x86_insn_info *table = x86_insn_table(count);
    struct isa_entry *entries = calloc(*count, sizeof(*entries));

    for (unsigned i = 0; entries && i < *count; i++) {
        entries[i].info = &table[i];
        snprintf(entries[i].name, sizeof(entries[i].name), "%s%s",
                 ZydisMnemonicGetString(table[i].mnemonic), form_of(&table[i]));
    }
    if (entries)
        qsort(entries, *count, sizeof(*entries), by_name);
    return entries;
}

bool isa_is_pentium(const struct x86_insn_info *info)
{
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_STR: return true;
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_MOV: return isa_escapes(info); /* the forms with segments */
    default: return false;
    }
}
