/*
 * Finds the instruction forms: walks the one-byte, 0F, 0F38 and 0F3A opcode maps with every
 * mandatory prefix, REX.W, and the VEX maps with W and L, and keeps what x86_decode accepts (SDM
 * volume 2, appendix A). Encodings that differ only in prefixes without effect are one form.
 */
#include "forms.h"

#include "base/util.h"

#include <stdlib.h>
#include <string.h>

/* What cannot be compared, and why. */
static const struct {
    uint16_t mnemonic;
    const char *reason;
} excluded[] = {
    {ZYDIS_MNEMONIC_RDTSC, "reads the time"},
    {ZYDIS_MNEMONIC_RDTSCP, "reads the time"},
    {ZYDIS_MNEMONIC_RDRAND, "random"},
    {ZYDIS_MNEMONIC_RDSEED, "random"},
    {ZYDIS_MNEMONIC_CPUID, "the guest's processor model is not the host's"},
    {ZYDIS_MNEMONIC_RDPID, "the host's scheduler decides"},
    {ZYDIS_MNEMONIC_XGETBV, "the host's operating system has enabled other features"},
    {ZYDIS_MNEMONIC_SGDT, "the host's kernel emulates it (UMIP)"},
    {ZYDIS_MNEMONIC_SIDT, "the host's kernel emulates it (UMIP)"},
    {ZYDIS_MNEMONIC_SLDT, "the host's kernel emulates it (UMIP)"},
    {ZYDIS_MNEMONIC_STR, "the host's kernel emulates it (UMIP)"},
    {ZYDIS_MNEMONIC_SMSW, "the host's kernel emulates it (UMIP)"},
    {ZYDIS_MNEMONIC_SYSCALL, "enters the host's kernel"},
    {ZYDIS_MNEMONIC_SYSENTER, "enters the host's kernel"},
    {ZYDIS_MNEMONIC_INT, "the host's kernel decides which gates are open; see cases-system.S"},
    {ZYDIS_MNEMONIC_INT1, "a hypervisor that intercepts #DB reports another address"},
    {ZYDIS_MNEMONIC_VMCALL, "reaches the host's hypervisor"},
    {ZYDIS_MNEMONIC_VMMCALL, "reaches the host's hypervisor"},
};

const char *forms_excluded(ZydisMnemonic mnemonic)
{
    for (unsigned i = 0; i < ARRAY_SIZE(excluded); i++)
        if (excluded[i].mnemonic == mnemonic)
            return excluded[i].reason;
    return NULL;
}

/* Opcodes that AMD's processors, of which the host may be one, have as something else; so are near
 * branches with prefix 66 in 64-bit code, but the prefix makes no form of its own. And what has no
 * defined result. */
static const struct {
    uint16_t mnemonic;
    uint8_t opcode, operand_width; /* 0: any */
    const char *reason;
} by_vendor[] = {
    {ZYDIS_MNEMONIC_NOP, 0x0D, 0, "AMD: PREFETCH, no register (SDM volume 2, table A-3: NOP)"},
    {ZYDIS_MNEMONIC_JMP, 0xFF, 64, "AMD: m16:32 (SDM volume 2, JMP: m16:64; APM volume 3)"},
    {ZYDIS_MNEMONIC_CALL, 0xFF, 64, "AMD: m16:32 (SDM volume 2, CALL: m16:64; APM volume 3)"},
    {ZYDIS_MNEMONIC_LSS, 0, 64, "AMD: m16:32 (SDM volume 2, LSS: m16:64; APM volume 3)"},
    {ZYDIS_MNEMONIC_LFS, 0, 64, "AMD: m16:32 (SDM volume 2, LFS: m16:64; APM volume 3)"},
    {ZYDIS_MNEMONIC_LGS, 0, 64, "AMD: m16:32 (SDM volume 2, LGS: m16:64; APM volume 3)"},
    {ZYDIS_MNEMONIC_MOVSXD, 0, 16, "AMD: m32 (SDM volume 2, MOVSXD: m16; APM volume 3)"},
    {ZYDIS_MNEMONIC_BSWAP, 0, 16, "SDM volume 2, BSWAP: of 16 bits, the result is undefined"},
};

static bool differs_by_vendor(const struct x86_insn *insn)
{
    if (insn->info->class == X86_CLASS_BRANCH)
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(by_vendor); i++)
        if (by_vendor[i].mnemonic == insn->z.mnemonic &&
            (!by_vendor[i].opcode || by_vendor[i].opcode == insn->z.opcode) &&
            (!by_vendor[i].operand_width || by_vendor[i].operand_width == insn->z.operand_width))
            return true;
    return false;
}

void forms_list_excluded(FILE *out)
{
    for (unsigned i = 0; i < ARRAY_SIZE(excluded); i++)
        fprintf(out, "%-10s left out: %s\n", ZydisMnemonicGetString(excluded[i].mnemonic),
                excluded[i].reason);
    for (unsigned i = 0; i < ARRAY_SIZE(by_vendor); i++)
        fprintf(out, "%-10s one form left out: %s\n", ZydisMnemonicGetString(by_vendor[i].mnemonic),
                by_vendor[i].reason);
}

/* What makes a form: two encodings with the same signature are tested as one. */
struct signature {
    uint16_t mnemonic;
    uint8_t code_size, vex, map, opcode, operand_width, vector_length, memory, repeat;
    struct {
        uint8_t type, encoding, size, register_class;
    } operand[ZYDIS_MAX_OPERAND_COUNT]; /* those in sight */
};

struct collector {
    struct forms *forms;
    const struct x86_model *model;
    struct signature *signature; /* one for each form */
    uint32_t *bucket;            /* form number + 1, open addressing */
    bool failed;
};
#define BUCKETS 65536u

static void sign(const struct form *f, const struct x86_insn *insn, struct signature *s)
{
    const ZydisDecodedInstruction *z = &insn->z;

    memset(s, 0, sizeof(*s));
    s->mnemonic = (uint16_t)z->mnemonic;
    s->code_size = f->code_size;
    s->vex = f->vex;
    s->map = f->map;
    s->opcode = f->opcode;
    s->operand_width = z->operand_width;
    s->vector_length = (uint8_t)z->avx.vector_length;
    s->memory = f->memory;
    s->repeat = z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE) ? 1
                : z->attributes & ZYDIS_ATTRIB_HAS_REPNE                       ? 2
                                                                               : 0;
    for (unsigned i = 0; i < z->operand_count_visible; i++) {
        s->operand[i].type = (uint8_t)insn->op[i].type;
        s->operand[i].encoding = (uint8_t)insn->op[i].encoding;
        s->operand[i].size = (uint8_t)(insn->op[i].size / 8);
        if (insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
            s->operand[i].register_class = (uint8_t)ZydisRegisterGetClass(insn->op[i].reg.value);
    }
}

static uint32_t *find_bucket(struct collector *c, const struct signature *s)
{
    const uint8_t *bytes = (const uint8_t *)s;
    uint32_t hash = 2166136261u;

    for (unsigned i = 0; i < sizeof(*s); i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    for (;; hash++) {
        uint32_t *b = &c->bucket[hash % BUCKETS];

        if (!*b || !memcmp(&c->signature[*b - 1], s, sizeof(*s)))
            return b;
    }
}

static bool same_encoding(const struct form *a, const struct form *b)
{
    return a->prefix[0] == b->prefix[0] && a->prefix[1] == b->prefix[1] && a->w == b->w &&
           a->l == b->l;
}

static void add_form(struct collector *c, const struct form *f, const struct x86_insn *insn)
{
    struct forms *forms = c->forms;
    struct signature s;
    uint32_t *bucket;

    sign(f, insn, &s);
    bucket = find_bucket(c, &s);
    if (*bucket) {
        struct form *known = &forms->form[*bucket - 1];

        if (same_encoding(known, f)) {
            known->reg_set |= f->reg_set;
            known->modrm_set |= f->modrm_set;
        }
        return;
    }
    if (forms->count == forms->room) {
        unsigned room = forms->room ? forms->room * 2 : 1024;
        struct form *form = realloc(forms->form, room * sizeof(*form));
        struct signature *signature;

        if (form)
            forms->form = form;
        signature = realloc(c->signature, room * sizeof(*signature));
        if (signature)
            c->signature = signature;
        if (!form || !signature || room > BUCKETS / 2) {
            c->failed = true;
            return;
        }
        forms->room = room;
    }
    c->signature[forms->count] = s;
    forms->form[forms->count] = *f;
    *bucket = ++forms->count;
}

/* The encoding up to ModRM; the rest is zeros (a SIB byte of 0x08: base 0, index 1). */
static void encode_probe(const struct form *f, uint8_t modrm, uint8_t vvvv, uint8_t *bytes)
{
    unsigned n = 0;

    memset(bytes, 0, 15);
    if (f->vex) {
        bytes[n++] = 0xC4;
        bytes[n++] = 0xE0 | f->map;
        bytes[n++] = (uint8_t)(f->w << 7 | vvvv << 3 | f->l << 2 | f->prefix[0]);
    } else {
        for (unsigned i = 0; i < 2; i++)
            if (f->prefix[i])
                bytes[n++] = f->prefix[i];
        if (f->w)
            bytes[n++] = 0x48;
        if (f->map)
            bytes[n++] = 0x0F;
        if (f->map >= 2)
            bytes[n++] = f->map == 2 ? 0x38 : 0x3A;
    }
    bytes[n++] = f->opcode;
    bytes[n++] = modrm;
    if (f->memory && (modrm & 7) == 4)
        bytes[n] = 0x08;
}

/* Tries one ModRM; says whether the instruction has one at all. */
static bool probe(struct collector *c, struct form *f, uint8_t modrm, bool any_rm)
{
    static const uint8_t vvvv[] = {15, 5};
    struct x86_insn insn;
    uint8_t bytes[15];
    int length = -1;

    f->memory = modrm < 0xC0;
    for (unsigned i = 0; i < (f->vex ? 2u : 1u) && length <= 0; i++) {
        encode_probe(f, modrm, vvvv[i], bytes);
        length = x86_decode(f->code_size, false, bytes, sizeof(bytes), &insn);
    }
    if (length <= 0)
        return true;
    /* With the prefixes used up as part of another instruction, or opcode bytes that are prefixes,
     * this would be some other form. */
    if (insn.z.opcode != f->opcode || (insn.z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) != f->vex)
        return false;
    f->modrm = insn.z.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    if (!f->modrm)
        f->memory = false;
    f->mnemonic = insn.z.mnemonic;
    f->info = insn.info;
    f->vsib = false;
    for (unsigned i = 0; i < insn.z.operand_count; i++)
        f->vsib |= insn.op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                   insn.op[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB;
    f->reg_set = f->memory ? (uint8_t)(1 << (modrm >> 3 & 7)) : 0;
    f->modrm_set = f->memory ? 0 : any_rm ? 0xFFULL << (modrm & 0x38) : 1ULL << (modrm & 0x3F);
    if (c->model->feature[insn.feature] && !forms_excluded(f->mnemonic) &&
        !differs_by_vendor(&insn))
        add_form(c, f, &insn);
    return f->modrm;
}

/* Whether the low three bits of a register ModRM select the instruction. */
static bool rm_is_opcode(const struct form *f)
{
    if (f->vex)
        return false;
    return (f->map == 0 && f->opcode >= 0xD8 && f->opcode <= 0xDF) ||
           (f->map == 1 && (f->opcode == 0x01 || f->opcode == 0xAE || f->opcode == 0x1E));
}

static void walk_modrm(struct collector *c, struct form *f)
{
    bool every = rm_is_opcode(f);

    if (!probe(c, f, 0xC0, !every))
        return;
    for (unsigned reg = 0; reg < 8; reg++) {
        probe(c, f, (uint8_t)(reg << 3), false);
        probe(c, f, (uint8_t)(reg << 3 | 4), false);
        for (unsigned rm = 0; rm < (every ? 8u : 1u); rm++)
            probe(c, f, (uint8_t)(0xC0 | reg << 3 | rm), !every);
    }
}

static bool is_prefix(const struct form *f)
{
    static const uint8_t prefixes[] = {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65,
                                       0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x0F};

    if (f->map)
        return f->map == 1 && (f->opcode == 0x38 || f->opcode == 0x3A);
    if (f->code_size == X86_CODE64 && (f->opcode & 0xF0) == 0x40)
        return true;
    return memchr(prefixes, f->opcode, sizeof(prefixes));
}

static void walk_legacy(struct collector *c, enum x86_code_size size)
{
    static const uint8_t prefix[][2] = {{0, 0},       {0x66, 0},    {0, 0xF3}, {0, 0xF2},
                                        {0x66, 0xF3}, {0x66, 0xF2}, {0x67, 0}};

    for (unsigned w = 0; w < (size == X86_CODE64 ? 2u : 1u); w++)
        for (unsigned p = 0; p < ARRAY_SIZE(prefix); p++)
            for (unsigned map = 0; map < 4; map++)
                for (unsigned opcode = 0; opcode < 256; opcode++) {
                    struct form f = {.code_size = (uint8_t)size,
                                     .prefix = {prefix[p][0], prefix[p][1]},
                                     .map = (uint8_t)map,
                                     .opcode = (uint8_t)opcode,
                                     .w = w};

                    if (!is_prefix(&f))
                        walk_modrm(c, &f);
                }
}

static void walk_vex(struct collector *c, enum x86_code_size size)
{
    for (unsigned wl = 0; wl < 4; wl++)
        for (unsigned pp = 0; pp < 4; pp++)
            for (unsigned map = 1; map < 4; map++)
                for (unsigned opcode = 0; opcode < 256; opcode++) {
                    struct form f = {.code_size = (uint8_t)size,
                                     .vex = true,
                                     .prefix = {(uint8_t)pp, 0},
                                     .map = (uint8_t)map,
                                     .opcode = (uint8_t)opcode,
                                     .w = wl & 1,
                                     .l = wl >> 1};

                    walk_modrm(c, &f);
                }
}

bool forms_collect(struct forms *forms, const struct x86_model *model)
{
    struct collector c = {.forms = forms, .model = model};

    memset(forms, 0, sizeof(*forms));
    c.bucket = calloc(BUCKETS, sizeof(*c.bucket));
    if (!c.bucket)
        return false;
    walk_legacy(&c, X86_CODE64);
    walk_vex(&c, X86_CODE64);
    walk_legacy(&c, X86_CODE32);
    walk_vex(&c, X86_CODE32);
    walk_legacy(&c, X86_CODE16);
    free(c.bucket);
    free(c.signature);
    if (c.failed)
        forms_free(forms);
    return !c.failed;
}

void forms_free(struct forms *forms)
{
    free(forms->form);
    memset(forms, 0, sizeof(*forms));
}
