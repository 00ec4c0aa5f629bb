/*
 * Which instructions the translator translates; the interpreter executes the others.
 */
#include "cpu/bt/translate.h"

/* MOV from CR0, CR2, CR3 and CR4; CR8 is in the local APIC. */
static bool reads_control_register(const struct x86_insn *insn)
{
    return register_class(insn, 1) == ZYDIS_REGCLASS_CONTROL && (1u << register_of(insn, 1) & 0x1D);
}

/* Privileged instructions are inlined only for CPL 0. At other levels the interpreter executes them
 * and raises the exception. */
static bool system_is_inlined(const struct translation *t, const struct x86_insn *insn)
{
    bool user = t->bt->c.context == MMU_USER, traced = t->bt->c.core->machine.tracer;

    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP: return clock_tsc_is_hosts(t->bt->c.core->machine.clock);
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC: return !user;
    case ZYDIS_MNEMONIC_SWAPGS: return !user && t->code64;
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE: return t->code64;
    case ZYDIS_MNEMONIC_MOV:
        if (register_class(insn, 1) == ZYDIS_REGCLASS_SEGMENT)
            return true;
        return !user && reads_control_register(insn);
    case ZYDIS_MNEMONIC_SYSCALL: return user && t->code64 && !traced;
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_IRETQ: return !user && t->code64 && insn->z.operand_width == 64 && !traced;
    default: return false;
    }
}

/* F2h and F3h both repeat MOVS and STOS, and the decoder tells only of F3h there. */
bool string_repeats(const struct x86_insn *insn)
{
    bool repeats = false;

    for (unsigned i = 0; i < insn->z.raw.prefix_count; i++)
        repeats |= insn->bytes[i] == 0xF2 || insn->bytes[i] == 0xF3;
    return repeats;
}

bool string_form_of(const struct translation *t, const struct x86_insn *insn, struct string_form *f)
{
    *f = (struct string_form){.size = insn->op[0].size / 8u, .repeats = string_repeats(insn)};
    if (insn->z.address_width != (t->code64 ? 64 : 32) ||
        (insn->z.attributes & ZYDIS_ATTRIB_HAS_SEGMENT))
        return false;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ: f->from = f->to = f->writes = true; return true;
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ: f->to = f->writes = true; return true;
    case ZYDIS_MNEMONIC_LODSB:
    case ZYDIS_MNEMONIC_LODSW:
    case ZYDIS_MNEMONIC_LODSD:
    case ZYDIS_MNEMONIC_LODSQ: f->from = true; return !f->repeats;
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ: f->from = f->to = true; return !f->repeats;
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ: f->to = true; return !f->repeats;
    default: return false; /* ports */
    }
}

static bool string_is_inlined(const struct translation *t, const struct x86_insn *insn)
{
    struct string_form f;

    return string_form_of(t, insn, &f);
}

bool scope_excludes(const struct translation *t, const struct x86_insn *insn)
{
    switch ((enum x86_class)insn->info->class) {
    case X86_CLASS_INTEGER:
    case X86_CLASS_NATIVE:
    case X86_CLASS_STACK:
    case X86_CLASS_X87:
    case X86_CLASS_BRANCH: return false;
    case X86_CLASS_XSTATE: return !x86_uses_vectors(insn); /* but for MXCSR */
    case X86_CLASS_STRING: return !string_is_inlined(t, insn);
    case X86_CLASS_SYSTEM:
    case X86_CLASS_FAR: return !system_is_inlined(t, insn);
    default: return true;
    }
}
