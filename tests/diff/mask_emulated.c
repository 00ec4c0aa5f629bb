/*
 * What a KVM leaves out that emulates (engine.c finds that out): user code is executed by the
 * host's processor, with its segments and by its GDT; but what faults there, and code that is not
 * 64-bit, by an emulator that knows few instructions.
 */
#include "mask.h"

#include "base/util.h"

/* An instruction that faults is executed by the emulator, which raises #UD if it does not know it.
 */
static void mask_unknown(const struct ending *e, struct mask *mask)
{
    mask->skip |= e->engine->vector == X86_UD && e->native->vector != X86_BP &&
                  e->engine->out.rip == e->native->out.rip;
}

/* Addresses of 57 bits are canonical where the host has LA57, and page faults then. */
static void mask_canonical(const struct ending *e, struct mask *mask)
{
    mask->skip |= e->engine->vector == X86_PF && !x86_is_canonical(e->engine->cr2) &&
                  (e->native->vector == X86_GP || e->native->vector == X86_SS_FAULT);
}

/* Whether a case's code has an instruction that depends on segment registers or descriptors. */
static bool uses_segments(const struct diff_case *c)
{
    for (unsigned at = 0; at < c->size;) {
        struct x86_insn insn;
        uint64_t offset = diff_code_offset(c, c->in.rip + at);

        if (offset >= DIFF_SIZE - X86_LENGTH_MAX ||
            x86_decode(c->code_size, false, c->image + offset, X86_LENGTH_MAX, &insn) <= 0)
            return false;
        if (insn.info->sensitive || insn.info->class == X86_CLASS_FAR)
            return true;
        at += insn.z.length;
    }
    return false;
}

static void mask_segments(const struct ending *e, struct mask *mask)
{
    mask->skip |= uses_segments(e->c);
}

/* Which of two faults comes first, the emulator decides by itself; and a write across two pages has
 * been made to the first. */
static void mask_emulated_fault(const struct ending *e, struct mask *mask)
{
    mask->which_fault |= e->native->vector != X86_BP && e->engine->vector != X86_BP;
}

/* A write across two pages, of which the second one cannot be written, is tried again for ever. */
static void mask_stuck(const struct ending *e, struct mask *mask)
{
    mask->skip |= e->engine->timeout && e->native->vector == X86_PF;
}

/* A control register that is none. */
static void mask_undefined(const struct ending *e, struct mask *mask)
{
    mask->skip |= e->native->vector == X86_UD && e->engine->vector == X86_GP;
}

/* The emulator does not check that the operand of FXSAVE is aligned. */
static void mask_alignment(const struct ending *e, struct mask *mask)
{
    mask->skip |= e->native->vector == X86_GP && e->insn && e->engine->vector != X86_GP &&
                  e->insn->info->class == X86_CLASS_XSTATE;
}

const struct rule mask_emulated_rules[] = {
    {"emulated-unknown", "none: the emulator knows few instructions", mask_unknown},
    {"emulated-canonical", "SDM volume 1, 3.3.7.1: canonical is what the processor holds to be it",
     mask_canonical},
    {"emulated-segments", "none: the processor has the host's segments", mask_segments},
    {"emulated-stuck", "none: the emulator does not come to an end", mask_stuck},
    {"emulated-undefined", "none: the emulator has another fault", mask_undefined},
    {"emulated-alignment", "none: the emulator does not check", mask_alignment},
    {"emulated-fault", "none: the emulator has an order of its own", mask_emulated_fault},
};
const unsigned mask_emulated_rule_count = ARRAY_SIZE(mask_emulated_rules);
