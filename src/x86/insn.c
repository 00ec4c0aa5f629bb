/*
 * Decoding and the instruction table (SDM volume 2; insn_table.def, insn_vector.def).
 */
#include "x86/insn.h"

#include "base/util.h"
#include "x86/cpu.h"

#include <string.h>

#define O X86_FLAG_OF
#define S X86_FLAG_SF
#define Z X86_FLAG_ZF
#define A X86_FLAG_AF
#define P X86_FLAG_PF
#define C X86_FLAG_CF
enum undefined_flags {
    UNDEFINED_none = 0,
    UNDEFINED_O = O,
    UNDEFINED_A = A,
    UNDEFINED_AP = A | P,
    UNDEFINED_SAP = S | A | P,
    UNDEFINED_SZAP = S | Z | A | P,
    UNDEFINED_OA = O | A,
    UNDEFINED_OAC = O | A | C,
    UNDEFINED_OSAP = O | S | A | P,
    UNDEFINED_OSAPC = O | S | A | P | C,
    UNDEFINED_OSZP = O | S | Z | P,
    UNDEFINED_OSZAPC = X86_FLAGS_STATUS,
};
#undef O
#undef S
#undef Z
#undef A
#undef P
#undef C

#define C X86_CHANGES_MACHINE
#define E X86_ENTERS_LEVEL
#define s X86_SHOWS_STATE
#define t X86_USES_TABLES
#define l X86_HEEDS_LEVEL
#define h X86_SHOWS_HOST
enum sensitivity_letters {
    SENSITIVE__ = 0,
    SENSITIVE_C = C,
    SENSITIVE_CEl = C | E | l,
    SENSITIVE_Cl = C | l,
    SENSITIVE_Cs = C | s,
    SENSITIVE_Cst = C | s | t,
    SENSITIVE_Ct = C | t,
    SENSITIVE_E = E,
    SENSITIVE_Et = E | t,
    SENSITIVE_h = h,
    SENSITIVE_s = s,
    SENSITIVE_tl = t | l,
};
#undef C
#undef E
#undef s
#undef t
#undef l
#undef h

#define ENTRY(name, cls, priv, sens, feat, undef)                                                  \
    {ZYDIS_MNEMONIC_##name, X86_CLASS_##cls, X86_PRIV_##priv,                                      \
     SENSITIVE_##sens,      X86_FEAT_##feat, UNDEFINED_##undef},

/* The table: first what belongs to a mnemonic, then the forms that differ. */
static const struct x86_insn_info table[] = {
#define X(name, cls, priv, sens, feat, undef)       ENTRY(name, cls, priv, sens, feat, undef)
#define F(name, form, cls, priv, sens, feat, undef) ENTRY(name, cls, priv, sens, feat, undef)
#include "x86/insn_vector.def"
#include "x86/insn_table.def"
#undef X
#undef F
};

/* Where in the table things are. */
enum {
#define X(name, ...)       ROW_##name,
#define F(name, form, ...) ROW_##name##_##form,
#include "x86/insn_vector.def"
#include "x86/insn_table.def"
#undef X
#undef F
};

/* The forms on MMX registers, which are part of the x87's state, by the same rows. */
static const struct x86_insn_info mmx_table[] = {
#define X(name, cls, priv, sens, feat, undef) ENTRY(name, X87, priv, sens, feat, undef)
#define F(name, form, cls, priv, sens, feat, undef)
#include "x86/insn_vector.def"
#undef X
#undef F
};

/* One more than the row of a mnemonic; 0: not in the table. */
static const uint16_t row_of[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
#define X(name, ...) [ZYDIS_MNEMONIC_##name] = ROW_##name + 1,
#define F(name, form, ...)
#include "x86/insn_vector.def"
#include "x86/insn_table.def"
#undef X
#undef F
};

static const struct x86_insn_info no_entry;

const struct x86_insn_info *x86_insn_info(ZydisMnemonic mnemonic)
{
    unsigned row = mnemonic <= ZYDIS_MNEMONIC_MAX_VALUE ? row_of[mnemonic] : 0;

    return row ? &table[row - 1] : &no_entry;
}

const struct x86_insn_info *x86_insn_table(unsigned *count)
{
    *count = ARRAY_SIZE(table);
    return table;
}

static ZydisRegisterClass operand_class(const struct x86_insn *insn, unsigned n)
{
    if (n >= insn->z.operand_count || insn->op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
        return ZYDIS_REGCLASS_INVALID;
    return ZydisRegisterGetClass(insn->op[n].reg.value);
}

/* The entry for this very form of the instruction. */
static const struct x86_insn_info *form_info(const struct x86_insn *insn)
{
    unsigned row = row_of[insn->z.mnemonic];
    bool far = insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    ZydisRegisterClass first = operand_class(insn, 0), second = operand_class(insn, 1);

    if (!row)
        return &no_entry;
    row--;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_CALL: return &table[far ? ROW_CALL_far : row];
    case ZYDIS_MNEMONIC_JMP: return &table[far ? ROW_JMP_far : row];
    case ZYDIS_MNEMONIC_RET: return &table[far ? ROW_RET_far : row];
    case ZYDIS_MNEMONIC_PUSH:
        return &table[first == ZYDIS_REGCLASS_SEGMENT ? ROW_PUSH_segment : row];
    case ZYDIS_MNEMONIC_POP: return &table[first == ZYDIS_REGCLASS_SEGMENT ? ROW_POP_segment : row];
    case ZYDIS_MNEMONIC_MOV:
        if (first == ZYDIS_REGCLASS_SEGMENT || second == ZYDIS_REGCLASS_SEGMENT)
            return &table[ROW_MOV_segment];
        if (first == ZYDIS_REGCLASS_CONTROL || second == ZYDIS_REGCLASS_CONTROL ||
            first == ZYDIS_REGCLASS_DEBUG || second == ZYDIS_REGCLASS_DEBUG)
            return &table[ROW_MOV_control];
        return &table[row];
    case ZYDIS_MNEMONIC_MOVSD:
        return &table[insn->z.opcode_map == ZYDIS_OPCODE_MAP_0F ? ROW_MOVSD_vector : row];
    case ZYDIS_MNEMONIC_CMPSD:
        return &table[insn->z.opcode_map == ZYDIS_OPCODE_MAP_0F ? ROW_CMPSD_vector : row];
    default:
        if (table[row].class == X86_CLASS_NATIVE && row < ARRAY_SIZE(mmx_table) &&
            (first == ZYDIS_REGCLASS_MMX || second == ZYDIS_REGCLASS_MMX))
            return &mmx_table[row];
        return &table[row];
    }
}

/* Features that a form needs beyond what its mnemonic says. */
static enum x86_feature form_feature(const struct x86_insn *insn)
{
    switch (insn->z.meta.isa_set) {
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX: return X86_FEAT_SSE2;
    case ZYDIS_ISA_SET_SSE4: return X86_FEAT_SSE41;
    case ZYDIS_ISA_SET_AVX2: return X86_FEAT_AVX2;
    case ZYDIS_ISA_SET_VAES: return X86_FEAT_VAES;
    case ZYDIS_ISA_SET_VPCLMULQDQ: return X86_FEAT_VPCLMUL;
    case ZYDIS_ISA_SET_LAHF:
        if (insn->z.machine_mode != ZYDIS_MACHINE_MODE_LONG_64)
            return X86_FEAT_BASE;
        break;
    default: break;
    }
    return insn->info->feature;
}

/* VPTEST and VTESTPx set ZF and CF and clear the others, which Zydis does not know of the latter.
 */
static const ZydisAccessedFlags test_flags = {
    .modified = X86_FLAG_ZF | X86_FLAG_CF,
    .set_0 = X86_FLAG_OF | X86_FLAG_SF | X86_FLAG_AF | X86_FLAG_PF,
};

static void correct_flags(ZydisDecodedInstruction *z)
{
    if (z->mnemonic == ZYDIS_MNEMONIC_VPTEST || z->mnemonic == ZYDIS_MNEMONIC_VTESTPS ||
        z->mnemonic == ZYDIS_MNEMONIC_VTESTPD)
        z->cpu_flags = &test_flags;
}

/* Real and virtual-8086 mode have no descriptor tables to look at, and no VEX prefix (SDM volume 2,
 * 2.3.1 and the instructions' "Real-Address Mode Exceptions"). */
static bool exists_in_real_mode(const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_ARPL:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW: return false;
    default: return z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    }
}

static bool exists(enum x86_code_size size, bool real, const ZydisDecodedInstruction *z)
{
    /* EVEX, XOP and so on share mnemonics with what the models have. */
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
        z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return false;
    if (z->meta.isa_set == ZYDIS_ISA_SET_KNCV) /* VEX forms of POPCNT, LZCNT, TZCNT: Xeon Phi's */
        return false;
    /* As Intel's processors do, and the models are Intel's. */
    if (size != X86_CODE64 &&
        (z->mnemonic == ZYDIS_MNEMONIC_SYSCALL || z->mnemonic == ZYDIS_MNEMONIC_SYSRET))
        return false;
    return !real || exists_in_real_mode(z);
}

static bool has(const bool *feature, enum x86_feature f)
{
    return !feature || feature[f];
}

/* Costs about 15 cycles of the 250 that decoding takes, so nothing needs to keep a decoder. */
static void decoder_init(ZydisDecoder *decoder, const bool *feature, enum x86_code_size size)
{
    switch (size) {
    case X86_CODE16:
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
        break;
    case X86_CODE32:
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
        break;
    case X86_CODE64:
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
        break;
    }
    /* Without the features behind them these opcodes are NOPs that take a ModRM byte. */
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    /* And these are the older instructions without F3: WBINVD, BSF, BSR. */
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
    if (!has(feature, X86_FEAT_BMI1))
        ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_TZCNT, ZYAN_FALSE);
    if (!has(feature, X86_FEAT_LZCNT))
        ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_LZCNT, ZYAN_FALSE);
}

/* Zydis 4.0 takes R13D for the base where the SIB byte means none (SDM volume 2, table 2-3: base 5
 * with mod 0, whatever REX.B is), and does not see the displacement. */
static void correct_base(struct x86_insn *insn)
{
    if (!(insn->z.attributes & ZYDIS_ATTRIB_HAS_SIB) || insn->z.raw.modrm.mod != 0 ||
        insn->z.raw.sib.base != 5)
        return;
    for (unsigned i = 0; i < insn->z.operand_count_visible; i++) {
        ZydisDecodedOperandMem *mem = &insn->op[i].mem;

        if (insn->op[i].type != ZYDIS_OPERAND_TYPE_MEMORY || mem->base != ZYDIS_REGISTER_R13D)
            continue;
        mem->base = ZYDIS_REGISTER_NONE;
        mem->disp.has_displacement = ZYAN_TRUE;
        mem->disp.value = insn->z.raw.disp.value;
    }
}

/* BSF and BSR with an F3 that means nothing: what is made of the bytes may run on a processor to
 * which it means TZCNT or LZCNT, so a prefix that means nothing there stands in its place. */
static void drop_repeat_prefix(struct x86_insn *insn)
{
    if (insn->z.mnemonic != ZYDIS_MNEMONIC_BSF && insn->z.mnemonic != ZYDIS_MNEMONIC_BSR)
        return;
    for (unsigned i = 0; i < insn->z.raw.prefix_count; i++) {
        if (insn->bytes[i] != 0xF3)
            continue;
        insn->bytes[i] = insn->z.raw.prefixes[i].value = 0x3E;
        insn->z.raw.prefixes[i].type = ZYDIS_PREFIX_TYPE_IGNORED;
    }
}

/* Opcodes that Intel's 64-bit processors take for NOPs without the feature (SDM volume 2, table
 * 0F 0D). */
static bool is_nop_without(const struct x86_insn *insn)
{
    return insn->feature == X86_FEAT_PREFETCHW;
}

int x86_decode(enum x86_code_size size, bool real, const uint8_t *bytes, unsigned available,
               struct x86_insn *insn)
{
    return x86_decode_for(NULL, size, real, bytes, available, insn);
}

int x86_decode_for(const bool *feature, enum x86_code_size size, bool real, const uint8_t *bytes,
                   unsigned available, struct x86_insn *insn)
{
    uint8_t copy[sizeof(insn->bytes)] = {0};
    ZydisDecoder decoder;
    ZyanStatus status;

    /* BYTES may be guest memory that another vCPU is writing to: what is copied into translations
     * must be what was decoded. */
    available = MIN(available, sizeof(copy));
    memcpy(copy, bytes, available);
    decoder_init(&decoder, feature, size);
    status = ZydisDecoderDecodeFull(&decoder, copy, available, &insn->z, insn->op);
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return 0;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return -2;
    if (ZYAN_FAILED(status) || !exists(size, real, &insn->z))
        return -1;
    insn->info = form_info(insn);
    if (insn->info->class == X86_CLASS_NONE)
        return -1;
    insn->feature = form_feature(insn);
    if (!has(feature, insn->feature)) {
        if (!is_nop_without(insn))
            return -1;
        insn->feature = X86_FEAT_BASE;
    }
    correct_flags(&insn->z);
    correct_base(insn);
    memset(insn->bytes, 0, sizeof(insn->bytes));
    memcpy(insn->bytes, copy, insn->z.length);
    if (!has(feature, X86_FEAT_BMI1) || !has(feature, X86_FEAT_LZCNT))
        drop_repeat_prefix(insn);
    return insn->z.length;
}

bool x86_uses_vectors(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->z.operand_count; i++) {
        ZydisRegisterClass class;

        if (insn->op[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        class = ZydisRegisterGetClass(insn->op[i].reg.value);
        if (class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM)
            return true;
    }
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL:
    case ZYDIS_MNEMONIC_CVTPD2PI: /* these and the following, from memory */
    case ZYDIS_MNEMONIC_CVTPS2PI:
    case ZYDIS_MNEMONIC_CVTTPD2PI:
    case ZYDIS_MNEMONIC_CVTTPS2PI:
    case ZYDIS_MNEMONIC_CVTSD2SI:
    case ZYDIS_MNEMONIC_CVTSS2SI:
    case ZYDIS_MNEMONIC_CVTTSD2SI:
    case ZYDIS_MNEMONIC_CVTTSS2SI:
    case ZYDIS_MNEMONIC_VCVTSD2SI:
    case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSD2SI:
    case ZYDIS_MNEMONIC_VCVTTSS2SI: return true;
    default: return false;
    }
}

bool x86_needs_alignment(const struct x86_insn *insn, unsigned size)
{
    if (size != 16 && size != 32)
        return false;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA: return true;
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM: return false;
    default: return insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    }
}
