/*
 * How the engines execute an instruction, in words. The decisions themselves are where the
 * interpreter selects its functions and where the translator emits code, and depend on operands,
 * too; tests/unit/isa.c compares what is said here with what is done.
 */
#include "cpu/treatment.h"

const char *const treatment_name[TREATMENTS] = {
    [TREATMENT_HOST] = "host",
    [TREATMENT_TRANSLATED] = "translated",
    [TREATMENT_INLINED] = "inlined",
    [TREATMENT_EMULATED] = "emulated",
};

const char *const treatment_text[TREATMENTS] = {
    [TREATMENT_HOST] =
        ("the host's processor executes the very instruction, on the guest's registers and "
         "a checked place in its memory"),
    [TREATMENT_TRANSLATED] =
        "the translation is the instruction itself, with its memory operand checked",
    [TREATMENT_INLINED] =
        "the translation does to the virtual processor what it would do to the real one",
    [TREATMENT_EMULATED] = "a function of the interpreter does that",
};

/* ---- The interpreter ---- */

/* Integer instructions that have no function of their own. */
static bool is_thunk(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_TZCNT: return true;
    default: return false;
    }
}

/* Vector and x87 instructions of which parts of the memory operand must not be touched, or whose
 * image has pointers to instructions and operands. */
static bool is_special(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR: return true;
    default: return false;
    }
}

enum treatment interp_treatment(const struct x86_insn_info *info)
{
    switch ((enum x86_class)info->class) {
    case X86_CLASS_NATIVE:
    case X86_CLASS_X87: return is_special(info->mnemonic) ? TREATMENT_EMULATED : TREATMENT_HOST;
    case X86_CLASS_INTEGER: return is_thunk(info->mnemonic) ? TREATMENT_HOST : TREATMENT_EMULATED;
    default: return TREATMENT_EMULATED;
    }
}

/* ---- The translator ---- */

static bool is_integer_interpreted(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
    case ZYDIS_MNEMONIC_XLAT: return true;
    default: return false;
    }
}

static enum treatment treatment_of_integer(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD: return TREATMENT_INLINED; /* the host's DF stays 0 */
    default: return is_integer_interpreted(mnemonic) ? TREATMENT_EMULATED : TREATMENT_TRANSLATED;
    }
}

static enum treatment treatment_of_stack(const struct x86_insn_info *info)
{
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_POP: return info->sensitive ? TREATMENT_EMULATED : TREATMENT_INLINED;
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_LEAVE: return TREATMENT_INLINED;
    default: return TREATMENT_EMULATED;
    }
}

static enum treatment treatment_of_branch(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JECXZ: return TREATMENT_EMULATED;
    default: return TREATMENT_INLINED;
    }
}

static enum treatment treatment_of_state(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR: return TREATMENT_TRANSLATED;
    default: return TREATMENT_EMULATED;
    }
}

/* Control and segment registers are inlined only where they are read, because loading one depends
 * on the guest's tables. */
static enum treatment treatment_of_system(const struct x86_insn_info *info, bool user)
{
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE: return TREATMENT_INLINED;
    case ZYDIS_MNEMONIC_MOV:
        return user && info->privilege == X86_PRIV_CPL0 ? TREATMENT_EMULATED : TREATMENT_INLINED;
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_SWAPGS: return user ? TREATMENT_EMULATED : TREATMENT_INLINED;
    default: return TREATMENT_EMULATED;
    }
}

static enum treatment treatment_of_far(ZydisMnemonic mnemonic, bool user)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL: return user ? TREATMENT_INLINED : TREATMENT_EMULATED;
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_IRETQ: return user ? TREATMENT_EMULATED : TREATMENT_INLINED;
    default: return TREATMENT_EMULATED;
    }
}

enum treatment bt_treatment(const struct x86_insn_info *info, bool user)
{
    switch ((enum x86_class)info->class) {
    case X86_CLASS_INTEGER: return treatment_of_integer(info->mnemonic);
    case X86_CLASS_NATIVE:
    case X86_CLASS_X87:
        return is_special(info->mnemonic) || info->mnemonic == ZYDIS_MNEMONIC_FNINIT
                   ? TREATMENT_EMULATED
                   : TREATMENT_TRANSLATED;
    case X86_CLASS_XSTATE: return treatment_of_state(info->mnemonic);
    case X86_CLASS_STACK: return treatment_of_stack(info);
    case X86_CLASS_BRANCH: return treatment_of_branch(info->mnemonic);
    case X86_CLASS_STRING: return info->sensitive ? TREATMENT_EMULATED : TREATMENT_INLINED;
    case X86_CLASS_SYSTEM: return treatment_of_system(info, user);
    case X86_CLASS_FAR: return treatment_of_far(info->mnemonic, user);
    case X86_CLASS_NONE: break;
    }
    return TREATMENT_EMULATED;
}
