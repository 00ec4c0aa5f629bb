/*
 * Sequences: instructions that feed each other, in straight lines, skipped by conditional jumps,
 * in loops, in tangles of jumps and calls, and changing their own code. What an instruction needs
 * in registers is loaded by MOVs in front of it; where it leaves flags undefined, a comparison
 * defines them again before anything can look.
 */
#include "generate.h"

#include <string.h>

#define SEQUENCE_MAX 800 /* bytes of code */

struct sequence {
    struct rng rng;
    struct diff_case *c;
    const struct generator *g;
    enum x86_code_size code_size;
    uint64_t base; /* address of code[0] */
    unsigned size;
    uint32_t keep; /* registers that are not to be written */
    uint8_t code[SEQUENCE_MAX + 16];
};

static void emit(struct sequence *s, const void *bytes, unsigned size)
{
    if (s->size + size <= SEQUENCE_MAX) {
        memcpy(s->code + s->size, bytes, size);
        s->size += size;
    }
}

/* MOV REG, VALUE: how long it is, and where in it the value stands. */
static const struct {
    uint8_t size, immediate;
} load_shape[] = {[X86_CODE16] = {6, 2}, [X86_CODE32] = {5, 1}, [X86_CODE64] = {10, 2}};

static void emit_load(struct sequence *s, unsigned reg, uint64_t value)
{
    unsigned at = load_shape[s->code_size].immediate;
    uint8_t bytes[10];

    bytes[0] = s->code_size == X86_CODE16 ? 0x66 : (uint8_t)(0x48 | reg >> 3);
    bytes[at - 1] = (uint8_t)(0xB8 | (reg & 7));
    memcpy(bytes + at, &value, sizeof(value));
    emit(s, bytes, load_shape[s->code_size].size);
}

/* CMP AL, imm8 defines all six status flags. */
static void emit_compare(struct sequence *s)
{
    uint8_t bytes[2] = {0x3C, (uint8_t)rng_next(&s->rng)};

    emit(s, bytes, 2);
}

static bool fits_sequence(const struct sequence *s, const struct form *f)
{
    if (f->code_size != s->code_size || f->vsib)
        return false;
    switch (f->mnemonic) {
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ: return true;
    case ZYDIS_MNEMONIC_FNSAVE: /* here nothing could mask the pointers they store */
    case ZYDIS_MNEMONIC_FNSTENV: return false;
    default: break;
    }
    switch (f->info->class) {
    case X86_CLASS_INTEGER:
    case X86_CLASS_STRING:
    case X86_CLASS_STACK:
    case X86_CLASS_NATIVE:
    case X86_CLASS_X87: return f->info->privilege == X86_PRIV_USER && !f->info->sensitive;
    default: return false;
    }
}

/* What is done before a fault of these is nowhere said (see mask.c), and a single step from POPF
 * might show undefined flags. */
static bool must_be_tame(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FST:
    case ZYDIS_MNEMONIC_FSTP:
    case ZYDIS_MNEMONIC_FIST:
    case ZYDIS_MNEMONIC_FISTP:
    case ZYDIS_MNEMONIC_FISTTP:
    case ZYDIS_MNEMONIC_FBSTP:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU: return true;
    default: return false;
    }
}

static bool writes_kept(const struct sequence *s, const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &insn->op[i];
        ZydisRegister whole;

        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER ||
            !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op->reg.value);
        if (ZydisRegisterGetClass(whole) == ZYDIS_REGCLASS_GPR64 &&
            s->keep >> ZydisRegisterGetId(whole) & 1)
            return true;
    }
    return false;
}

/* One random instruction with what it needs in front of it. */
static void emit_random(struct sequence *s)
{
    for (unsigned attempt = 0; attempt < 50; attempt++) {
        const struct form *f = &s->g->forms->form[rng_below(&s->rng, s->g->forms->count)];
        struct plan plan = {.rng = &s->rng, .c = s->c};
        struct x86_insn insn;
        uint8_t bytes[15];
        unsigned loads = 0;

        if (!fits_sequence(s, f) || !generate_insn(&s->rng, f, bytes, &insn) ||
            writes_kept(s, &insn))
            continue;
        plan.tame = must_be_tame(f->mnemonic) || rng_percent(&s->rng, 97);
        plan.bytes = bytes;
        plan.address = s->base + s->size;
        if (!steer(&plan, &insn) || plan.set & s->keep)
            continue;
        for (unsigned i = 0; i < X86_GPRS; i++)
            if (plan.set >> i & 1)
                loads += load_shape[s->code_size].size;
        if (s->size + loads + 20 > SEQUENCE_MAX)
            return;
        if (s->c->in.rflags & X86_FLAG_AC)
            s->c->in.rflags &= ~(uint64_t)X86_FLAG_AC;
        for (unsigned i = 0; i < X86_GPRS; i++)
            if (plan.set >> i & 1)
                emit_load(s, i, plan.value[i]);
        /* A displacement from RIP was chosen for the address before the loads. */
        for (unsigned i = 0; loads && i < insn.z.operand_count_visible; i++)
            if (insn.op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                (insn.op[i].mem.base == ZYDIS_REGISTER_RIP ||
                 insn.op[i].mem.base == ZYDIS_REGISTER_EIP)) {
                int32_t disp;

                memcpy(&disp, bytes + insn.z.raw.disp.offset, 4);
                disp -= (int32_t)loads;
                memcpy(bytes + insn.z.raw.disp.offset, &disp, 4);
            }
        emit(s, bytes, insn.z.length);
        if (insn.info->undefined)
            emit_compare(s);
        return;
    }
}

/* Jcc over one instruction. */
static void emit_skip(struct sequence *s)
{
    uint8_t bytes[2] = {(uint8_t)(0x70 | (rng_next(&s->rng) & 15)), 0};
    unsigned at = s->size;

    emit(s, bytes, 2);
    emit_random(s);
    if (s->size - at - 2 < 128)
        s->code[at + 1] = (uint8_t)(s->size - at - 2);
}

/* RCX counts a few rounds of some instructions. */
static void emit_loop(struct sequence *s)
{
    unsigned start, body = 1 + (unsigned)rng_below(&s->rng, 5);
    unsigned jump = s->code_size == X86_CODE16 ? 4 : 6;
    uint8_t bytes[6] = {0x0F, 0x85};
    int32_t back;

    emit_load(s, X86_RCX, 2 + rng_below(&s->rng, 5));
    start = s->size;
    s->keep |= 1u << X86_RCX;
    for (unsigned i = 0; i < body; i++)
        emit_random(s);
    s->keep &= ~(1u << X86_RCX);
    emit(s, "\xFF\xC9", 2); /* DEC ECX */
    back = (int32_t)start - (int32_t)(s->size + jump);
    memcpy(bytes + 2, &back, 4);
    emit(s, bytes, jump); /* JNZ */
}

/* A loop that changes the immediate of an instruction in it, before or after its own place:
 * ADD [RDI], reg with RDI at the immediate of MOV or ADD EDX, imm32. */
static void emit_self_modifying(struct sequence *s)
{
    static const uint8_t store[][3] = {
        {2, 0x01, 0x07}, /* ADD [RDI], EAX */
        {2, 0x00, 0x07}, /* ADD [RDI], AL */
        {2, 0x89, 0x07}, /* MOV [RDI], EAX */
        {1, 0xAA, 0},    /* STOSB */
    };
    const uint8_t *how = store[rng_below(&s->rng, 4)];
    bool before = rng_percent(&s->rng, 50), wide = s->code_size == X86_CODE64;
    unsigned start, load, victim;
    uint8_t add[6] = {0x81, 0xC2}, bytes[2] = {0xE2, 0};
    uint32_t value = (uint32_t)rng_next(&s->rng);
    uint64_t address;

    memcpy(add + 2, &value, 4);
    emit_load(s, X86_RAX, rng_next(&s->rng));
    emit_load(s, X86_RCX, 2 + rng_below(&s->rng, 4));
    start = s->size;
    victim = s->size + 2;
    if (before)
        emit(s, add, 6);
    load = s->size;
    emit_load(s, X86_RDI, 0);
    emit(s, how + 1, how[0]);
    if (!before) {
        victim = s->size + 2;
        emit(s, add, 6);
    }
    address = s->base + diff_segment_base(s->c, X86_CS) + victim -
              diff_segment_base(s->c, how[1] == 0xAA ? X86_ES : X86_DS);
    memcpy(s->code + load + load_shape[s->code_size].immediate, &address, wide ? 8 : 4);
    bytes[1] = (uint8_t)(start - s->size - 2);
    emit(s, bytes, 2); /* LOOP */
}

/* OPCODE and a displacement of 32 bits, whose place is returned. */
static unsigned emit_jump(struct sequence *s, const void *opcode, unsigned size, unsigned target)
{
    int32_t distance = (int32_t)target - (int32_t)(s->size + size + 4);

    emit(s, opcode, size);
    emit(s, &distance, 4);
    return s->size - 4;
}

static void patch_jump(struct sequence *s, unsigned at, unsigned target)
{
    int32_t distance = (int32_t)target - (int32_t)(at + 4);

    memcpy(s->code + at, &distance, 4);
}

/* JMP or CALL of a register that holds where TARGET is. */
static void emit_jump_by_register(struct sequence *s, bool call, unsigned target)
{
    uint8_t bytes[2] = {0xFF, (uint8_t)((call ? 0xD0 : 0xE0) | X86_RDI)};

    emit_load(s, X86_RDI, s->base + target);
    emit(s, bytes, 2);
}

/* A subroutine, called from behind it; RSP is in the stack's pages. */
static void emit_call(struct sequence *s)
{
    unsigned around = emit_jump(s, "\xE9", 1, 0), start = s->size;

    emit_random(s);
    emit_random(s);
    emit(s, "\xC3", 1); /* RET */
    patch_jump(s, around, s->size);
    if (rng_percent(&s->rng, 60))
        emit_jump(s, "\xE8", 1, start);
    else
        emit_jump_by_register(s, true, start);
}

/* RCX less one; out of the tangle when it is 0. Returns where the way out is to be put in. */
static unsigned emit_count(struct sequence *s)
{
    if (rng_percent(&s->rng, 50)) {
        emit(s, "\x48\x8D\x49\xFF", 4); /* LEA RCX, [RCX-1]: flags live on */
        emit(s, "\xE3\x02", 2);         /* JRCXZ */
    } else {
        emit(s, "\x48\xFF\xC9", 3); /* DEC RCX */
        emit(s, "\x74\x02", 2);     /* JZ */
    }
    emit(s, "\xEB\x05", 2); /* around the long jump */
    return emit_jump(s, "\xE9", 1, 0);
}

/* Places with an instruction or a call each, from any of which it goes on at any other. */
static void emit_tangle(struct sequence *s)
{
    enum { PLACES = 8, PLACE_ROOM = 230 };
    unsigned place[PLACES], out[PLACES], jump[PLACES][2], places = 0;

    emit_load(s, X86_RSP, DIFF_LOW + DIFF_STACK + 0x800 + rng_below(&s->rng, 0x800));
    emit_load(s, X86_RCX, 2 + rng_below(&s->rng, 30));
    emit_compare(s);
    s->keep |= 1u << X86_RCX | 1u << X86_RSP;
    for (; places < PLACES && s->size + PLACE_ROOM < SEQUENCE_MAX; places++) {
        place[places] = s->size;
        out[places] = emit_count(s);
        if (rng_percent(&s->rng, 20))
            emit_call(s);
        else
            emit_random(s);
        if (places && rng_percent(&s->rng, 10))
            emit_jump_by_register(s, false, place[rng_below(&s->rng, places)]);
        for (unsigned i = 0; i < 2; i++) {
            uint8_t condition[2] = {0x0F, (uint8_t)(0x80 | (rng_next(&s->rng) & 15))};

            jump[places][i] = emit_jump(s, condition, 2, 0);
        }
    }
    for (unsigned i = 0; i < places; i++) {
        patch_jump(s, out[i], s->size);
        for (unsigned n = 0; n < 2; n++)
            patch_jump(s, jump[i][n], place[rng_below(&s->rng, places)]);
    }
    s->keep &= ~(1u << X86_RCX | 1u << X86_RSP);
}

bool generate_sequence(const struct generator *g, uint64_t number, struct diff_case *c)
{
    struct sequence s = {.c = c, .g = g};
    bool modify;
    unsigned length;

    s.code_size = number / 8 % 8 == 0 ? X86_CODE16 : number / 8 % 4 == 1 ? X86_CODE32 : X86_CODE64;
    generate_empty(g, number, s.code_size, c, &s.rng);
    generate_segments(&s.rng, c);
    modify = s.code_size != X86_CODE16 && rng_percent(&s.rng, 25);
    s.base = (s.code_size == X86_CODE64 && rng_percent(&s.rng, 40) ? DIFF_HIGH : DIFF_LOW) +
             (modify ? DIFF_CODE_RWX : DIFF_CODE) + rng_below(&s.rng, 0x2000 - SEQUENCE_MAX - 16);
    if (s.code_size != X86_CODE64)
        s.base -= diff_segment_base(c, X86_CS);
    c->in.rflags &= ~(uint64_t)X86_FLAG_AC;
    length = 5 + (unsigned)rng_below(&s.rng, 26);
    for (unsigned i = 0; i < length && s.size + 80 < SEQUENCE_MAX; i++) {
        uint64_t kind = rng_below(&s.rng, 100);

        if (kind < 8)
            emit_skip(&s);
        else if (kind < 13 && s.size + 200 < SEQUENCE_MAX)
            emit_loop(&s);
        else if (s.code_size == X86_CODE64 && kind < 18)
            emit_tangle(&s);
        else if (modify && kind < 25)
            emit_self_modifying(&s);
        else
            emit_random(&s);
    }
    c->in.rip = s.base;
    c->size = s.size;
    case_poke(c, s.base + diff_segment_base(c, X86_CS), s.code, s.size);
    return true;
}
