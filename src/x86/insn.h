/*
 * Decoding: Zydis gives operands and flags, the instruction table gives what a monitor must know
 * besides: class, privilege and sensitivity (Popek and Goldberg), the CPUID feature that announces
 * the instruction, and which flags the manual leaves undefined.
 */
#ifndef DOPPEL_X86_INSN_H
#define DOPPEL_X86_INSN_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdint.h>

/* What kind of work an instruction is; decides who executes it. */
enum x86_class {
    X86_CLASS_NONE,    /* not in the table: #UD */
    X86_CLASS_INTEGER, /* general-purpose data movement and arithmetic */
    X86_CLASS_STRING,  /* MOVS, STOS, INS, ... with or without REP */
    X86_CLASS_BRANCH,  /* near control flow */
    X86_CLASS_FAR,     /* far control flow, INT, IRET, SYSCALL, SYSENTER and their returns */
    X86_CLASS_STACK,   /* PUSH, POP, ENTER, LEAVE, PUSHA, ... */
    X86_CLASS_SYSTEM,  /* sensitive: control and debug registers, tables, MSRs, CPUID, ports, ... */
    X86_CLASS_NATIVE,  /* neither control flow nor sensitive: runs as itself (thunk, translation) */
    X86_CLASS_X87,     /* native, on the x87/MMX register file */
    X86_CLASS_XSTATE,  /* FXSAVE, XSAVE, LDMXCSR, ...: whole-register-file memory images */
};

/* Who may execute it without a trap. What is not CPL0 may be executed by a program in some state of
 * the machine. */
enum x86_privilege {
    X86_PRIV_USER, /* any CPL */
    X86_PRIV_IOPL, /* CPL <= IOPL, or the I/O permission bitmap (INS, OUTS, IN, OUT) */
    X86_PRIV_TSD,  /* any CPL; CPL 0 if CR4.TSD is set */
    X86_PRIV_PCE,  /* CPL 0; any CPL if CR4.PCE is set */
    X86_PRIV_UMIP, /* any CPL; CPL 0 if CR4.UMIP is set */
    X86_PRIV_OPT,  /* any CPL where a control register or MSR enables it; else nobody */
    X86_PRIV_GATE, /* a CPL that the vector's gate admits */
    X86_PRIV_V86,  /* any CPL; in virtual-8086 mode, IOPL must be 3 */
    X86_PRIV_CPL0,
    X86_PRIV_COUNT
};

/* Why an instruction is sensitive (Popek and Goldberg 1974): a monitor must not let a guest execute
 * it on the real machine's state. Control-sensitive is what changes the machine's resources or
 * mode; behaviour-sensitive is what has another effect depending on them. 0: innocuous. */
enum x86_sensitivity {
    X86_CHANGES_MACHINE = 1, /* control: control, debug, segment and table registers, IF, devices */
    X86_ENTERS_LEVEL = 2,    /* control: goes to code of another privilege level */
    X86_SHOWS_STATE = 4,     /* behaviour: what a monitor keeps another value of for itself */
    X86_USES_TABLES = 8,     /* behaviour: goes by the descriptor tables that are loaded */
    X86_HEEDS_LEVEL = 16,    /* behaviour: does another thing at another CPL, without a trap */
    X86_SHOWS_HOST = 32,     /* behaviour: the real processor's kind, or its time */
};
#define X86_CONTROL_SENSITIVE (X86_CHANGES_MACHINE | X86_ENTERS_LEVEL)
#define X86_BEHAVIOUR_SENSITIVE                                                                    \
    (X86_SHOWS_STATE | X86_USES_TABLES | X86_HEEDS_LEVEL | X86_SHOWS_HOST)

/* What a model may lack. X86_FEAT_BASE is what every model has; such a bit needs a row in cpuid.c
 * and no value here. */
enum x86_feature {
    X86_FEAT_BASE,
    X86_FEAT_CMOV,
    X86_FEAT_CX8,
    X86_FEAT_CX16,
    X86_FEAT_FPU,
    X86_FEAT_MMX,
    X86_FEAT_FXSR,
    X86_FEAT_SSE,
    X86_FEAT_SSE2,
    X86_FEAT_SSE3,
    X86_FEAT_SSSE3,
    X86_FEAT_SSE41,
    X86_FEAT_SSE42,
    X86_FEAT_POPCNT,
    X86_FEAT_AES,
    X86_FEAT_PCLMUL,
    X86_FEAT_SHA,
    X86_FEAT_MOVBE,
    X86_FEAT_XSAVE,
    X86_FEAT_XSAVEOPT,
    X86_FEAT_XSAVEC,
    X86_FEAT_AVX,
    X86_FEAT_F16C,
    X86_FEAT_FMA,
    X86_FEAT_AVX2,
    X86_FEAT_BMI1,
    X86_FEAT_BMI2,
    X86_FEAT_LZCNT,
    X86_FEAT_ADX,
    X86_FEAT_RDRAND,
    X86_FEAT_RDSEED,
    X86_FEAT_CLFLUSH,
    X86_FEAT_CLFLUSHOPT,
    X86_FEAT_CLWB,
    X86_FEAT_PREFETCHW,
    X86_FEAT_RDTSCP,
    X86_FEAT_RDPID,
    X86_FEAT_FSGSBASE,
    X86_FEAT_INVPCID,
    X86_FEAT_PCID,
    X86_FEAT_SMEP,
    X86_FEAT_PAGES_1G,
    X86_FEAT_MD_CLEAR,
    X86_FEAT_SMAP,
    X86_FEAT_SYSCALL,
    X86_FEAT_SYSENTER,
    X86_FEAT_LAHF64,
    X86_FEAT_TSC,
    X86_FEAT_MSR,
    X86_FEAT_LM,
    X86_FEAT_VAES,
    X86_FEAT_VPCLMUL,
    X86_FEAT_GFNI,
    X86_FEAT_MONITOR,
    X86_FEAT_COUNT
};

struct x86_insn_info {
    uint16_t mnemonic;  /* ZydisMnemonic */
    uint8_t class;      /* enum x86_class */
    uint8_t privilege;  /* enum x86_privilege */
    uint8_t sensitive;  /* enum x86_sensitivity, several; 0: innocuous */
    uint8_t feature;    /* enum x86_feature */
    uint16_t undefined; /* status flags the manual leaves undefined, X86_FLAG_* */
};

/* The table's entry for a mnemonic; class X86_CLASS_NONE when the CPU models do not have it. What
 * is known once the operands are known (far or near, MMX or XMM) only x86_decode can tell. */
const struct x86_insn_info *x86_insn_info(ZydisMnemonic mnemonic);
/* All entries with a class, for tests and generators. A mnemonic has a second one where a form of
 * it differs in class. */
const struct x86_insn_info *x86_insn_table(unsigned *count);

/* How the bytes are to be read: the code segment's default size. */
enum x86_code_size { X86_CODE16, X86_CODE32, X86_CODE64 };

#define X86_LENGTH_MAX 15 /* bytes of an instruction */

struct x86_insn {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    const struct x86_insn_info *info; /* of this form: a far CALL has another than a near one */
    uint8_t feature;                  /* enum x86_feature: what this form needs */
    uint8_t bytes[X86_LENGTH_MAX];
};

/* Decodes what stands at BYTES (SIZE up to 15 are there). Returns the length; 0 when the bytes end
 * too early; -1 where hardware raises #UD (undefined, in no table, LOCK where it may not stand),
 * and -2 for an instruction longer than 15 bytes (#GP). REAL: real or virtual-8086 mode, where some
 * instructions do not exist. */
int x86_decode(enum x86_code_size size, bool real, const uint8_t *bytes, unsigned available,
               struct x86_insn *insn);

/* The same for a processor with FEATURE, by enum x86_feature: -1 for what it lacks, too, unless the
 * opcode means something else there, as TZCNT's does. NULL: all features. */
int x86_decode_for(const bool *feature, enum x86_code_size size, bool real, const uint8_t *bytes,
                   unsigned available, struct x86_insn *insn);

/* Whether INSN belongs to the vector registers, named or not. */
bool x86_uses_vectors(const struct x86_insn *insn);
/* Whether a misaligned memory operand of SIZE bytes raises #GP (SDM volume 2, 2.4.1, 2.4.2, 2.4.4).
 * That of SHA instructions does so in the guest even where the host's processor accepts it, as some
 * of AMD's do. */
bool x86_needs_alignment(const struct x86_insn *insn, unsigned size);

#endif
