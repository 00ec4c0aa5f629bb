/*
 * Translation of one block: which instructions are copied, which are changed, and how a block
 * begins and ends. Memory operands are in access.c.
 */
#include "cpu/bt/translate.h"

#include <string.h>

/* --- Status flags
 * ---------------------------------------------------------------------------------- */

static void flags_save(struct translation *t)
{
    static const uint8_t lahf_seto[] = {0x9F, 0x0F, 0x90, 0xC0};

    emit_reg(&t->e, true, OP_LOAD, t->s0, X86_RAX);
    emit_bytes(&t->e, lahf_seto, sizeof(lahf_seto));
    emit_byte(&t->e, 0x66);
    emit_mem(&t->e, false, OP_STORE, X86_RAX, VCPU(c.cc));
    emit_reg(&t->e, true, OP_LOAD, X86_RAX, t->s0);
    t->flags = FLAGS_BOTH;
}

static void flags_load(struct translation *t)
{
    static const uint8_t add_sahf[] = {0x04, 0x7F, 0x9E}; /* 1 + 127 overflows: OF */

    emit_reg(&t->e, true, OP_LOAD, t->s0, X86_RAX);
    emit_mem(&t->e, false, OP_LOAD_ZX16, X86_RAX, VCPU(c.cc));
    emit_bytes(&t->e, add_sahf, sizeof(add_sahf));
    emit_reg(&t->e, true, OP_LOAD, X86_RAX, t->s0);
    t->flags = FLAGS_BOTH;
}

/* RFLAGS is about to be overwritten by something that is not the guest's. */
static void flags_clobber(struct translation *t, uint32_t live)
{
    if (t->flags == FLAGS_HOST && live)
        flags_save(t);
    t->flags = FLAGS_MEMORY;
}

static void flags_need(struct translation *t)
{
    if (t->flags == FLAGS_MEMORY)
        flags_load(t);
}

/* What the present instruction wants of the flags before it. */
static uint32_t flags_input(const struct flow *f)
{
    return f->flags_in | (f->flags_may ? f->live_after & ~f->flags_out : 0);
}

static uint32_t live_before(const struct flow *f)
{
    return f->flags_in | (f->live_after & ~f->flags_out);
}

/* --- Blocks' edges
 * ------------------------------------------------------------------------------------ */

static void emit_vector(struct translation *t, bool load, unsigned n)
{
    int32_t low = (int32_t)offsetof(struct bt, c.x.xsave) + X86_XSAVE_XMM + (int32_t)n * 16;
    int32_t high = (int32_t)offsetof(struct bt, c.x.xsave) + X86_XSAVE_YMMH + (int32_t)n * 16;
    uint8_t r = n & 8 ? 0 : 0x80, sib[2] = {(uint8_t)((n & 7) << 3 | 4), 0x25};

    if (!t->ymm) {
        emit_mem(&t->e, false, load ? OP_MOVUPS_LOAD : OP_MOVUPS_STORE, n, vcpu_at(low));
        return;
    }
    /* vmovups xmm, then vinsertf128 or vextractf128 1, all on GS:[disp32]. */
    emit_bytes(&t->e, (uint8_t[]){0x65, 0xC4, r | 0x61, 0x78, load ? 0x10 : 0x11}, 5);
    emit_bytes(&t->e, sib, 2);
    emit_u32(&t->e, (uint32_t)low);
    emit_bytes(&t->e,
               (uint8_t[]){0x65, 0xC4, r | 0x63, load ? (uint8_t)((~n & 15) << 3 | 5) : 0x7D,
                           load ? 0x18 : 0x19},
               5);
    emit_bytes(&t->e, sib, 2);
    emit_u32(&t->e, (uint32_t)high);
    emit_byte(&t->e, 1);
}

static void emit_vectors(struct translation *t, bool load)
{
    uint16_t set = load ? t->vectors : t->vectors_written;

    for (unsigned n = 0; n < 16; n++)
        if (set >> n & 1)
            emit_vector(t, load, n);
}

/* From the state between blocks to the block's own, and back. */
static void emit_prologue(struct translation *t)
{
    if (t->s0 != SCRATCH0) {
        emit_mem(&t->e, true, OP_STORE, t->s0, REGISTER(t->s0));
        emit_mem(&t->e, true, OP_STORE, t->s1, REGISTER(t->s1));
        emit_mem(&t->e, true, OP_LOAD, SCRATCH0, REGISTER(SCRATCH0));
        emit_mem(&t->e, true, OP_LOAD, SCRATCH1, REGISTER(SCRATCH1));
    }
    emit_vectors(t, true);
}

static void emit_epilogue(struct translation *t)
{
    emit_vectors(t, false);
    if (t->s0 != SCRATCH0) {
        emit_mem(&t->e, true, OP_STORE, SCRATCH0, REGISTER(SCRATCH0));
        emit_mem(&t->e, true, OP_STORE, SCRATCH1, REGISTER(SCRATCH1));
        emit_mem(&t->e, true, OP_LOAD, t->s0, REGISTER(t->s0));
        emit_mem(&t->e, true, OP_LOAD, t->s1, REGISTER(t->s1));
    }
}

static void emit_leave_at(struct translation *t, enum bt_exit why, unsigned offset, uint32_t site)
{
    emit_store_imm(&t->e, false, VCPU(offset), (int32_t)offset);
    if (why != BT_ONE)
        emit_store_imm(&t->e, false, VCPU(site), (int32_t)site);
    emit_jmp_to(&t->e, t->bt->write + t->bt->leave[why]);
}

/* The target address is in s0: on through the jump table. */
static void emit_exit_indirect(struct translation *t)
{
    if (t->s0 != SCRATCH0) {
        /* SCRATCH0 is in use as a guest register until the epilogue. */
        emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(address));
        emit_epilogue(t);
        emit_mem(&t->e, true, OP_LOAD, SCRATCH0, VCPU(address));
    } else {
        emit_epilogue(t);
    }
    emit_jmp_to(&t->e, t->bt->write + t->bt->lookup);
}

/* On to TARGET, counted from the page's start; it may lie outside. BACK: this may close a loop, so
 * requests are looked at. */
static void emit_exit_direct(struct translation *t, int64_t target, bool back)
{
    uint8_t *request = NULL, *link;

    if (target < 0 || target >= (int64_t)MEM_PAGE_SIZE) {
        emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(page));
        emit_mem(&t->e, true, OP_LEA, t->s0, at(t->s0, (int32_t)target));
        emit_exit_indirect(t);
        return;
    }
    emit_epilogue(t);
    if (back) {
        emit_mem(&t->e, true, OP_LOAD, SCRATCH0, VCPU(requests));
        emit_alu_mem_imm(&t->e, false, ALU_N_CMP, at(SCRATCH0, 0), 0);
        request = emit_jcc(&t->e, CC_NE);
    }
    /* At first to what follows; patched once the target has code. */
    link = emit_jmp(&t->e);
    if (t->e.full)
        return;
    emit_leave_at(t, BT_LINK, (unsigned)target, (uint32_t)(link - t->bt->write));
    if (request) {
        emit_patch(request, t->e.at);
        emit_leave_at(t, BT_LINK, (unsigned)target, 0);
    }
}

/* Leaves the present instruction, and all after it, to others. */
static void emit_exit_one(struct translation *t)
{
    emit_epilogue(t);
    emit_alu_mem_imm(&t->e, true, ALU_N_SUB, VCPU(c.instructions), (int32_t)(t->count - t->i));
    emit_leave_at(t, BT_ONE, t->offset[t->i], 0);
}

/* --- Cold code
 * ------------------------------------------------------------------------------------------ */

void cold_add(struct translation *t, uint8_t *jump, enum cold_kind kind, const struct address *a,
              unsigned size, bool write, const uint8_t *retry)
{
    if (t->colds == COLDS) {
        t->e.full = true;
        return;
    }
    t->cold[t->colds++] =
        (struct cold){jump, kind, a ? *a : (struct address){0}, t->i, size, write, retry, 0};
}

static void emit_cold_fill(struct translation *t, const struct cold *c)
{
    struct bt *bt = t->bt;
    uint32_t site = bt->site_count;
    const uint8_t *retry = c->retry;

    if (site == BT_SITES) {
        t->e.full = true;
        return;
    }
    emit_address(t, &c->address, t->s0);
    emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(address));
    emit_epilogue(t);
    emit_store_imm(&t->e, false, VCPU(site), (int32_t)site);
    emit_jmp_to(&t->e, bt->write + bt->leave[BT_FILL]);
    if (t->s0 != SCRATCH0 || t->vectors) { /* back in, by way of the prologue */
        retry = t->e.at;
        emit_prologue(t);
        emit_jmp_to(&t->e, c->retry);
    }
    bt->sites[bt->site_count++] = (struct bt_site){
        .retry = (uint32_t)(retry - bt->write),
        .offset = (uint16_t)t->offset[c->index],
        .size = (uint8_t)c->size,
        .write = c->write,
        .left = (uint8_t)(t->count - c->index),
    };
}

static void emit_cold(struct translation *t)
{
    for (unsigned i = 0; i < t->colds && !t->e.full; i++) {
        const struct cold *c = &t->cold[i];

        emit_patch(c->jump, t->e.at);
        t->i = c->index;
        switch (c->kind) {
        case COLD_FILL: emit_cold_fill(t, c); break;
        case COLD_ONE: emit_exit_one(t); break;
        case COLD_BRANCH:
            emit_exit_direct(t, c->target, c->target <= (int64_t)t->offset[c->index]);
            break;
        case COLD_STALE:
            emit_store_imm(&t->e, false, VCPU(offset), (int32_t)t->offset[0]);
            emit_store_imm(&t->e, false, VCPU(site), 0);
            emit_jmp_to(&t->e, t->bt->write + t->bt->leave[BT_LINK]);
            break;
        }
    }
}

/* --- Instructions
 * --------------------------------------------------------------------------------------- */

/* The one memory operand in ModRM, or -1; -2 for operands that cannot be re-encoded. */
static int memory_operand(const struct x86_insn *insn)
{
    int found = -1;

    for (unsigned i = 0; i < insn->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &insn->op[i];

        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (found >= 0 || op->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
            op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM || insn->z.address_width != 64)
            return -2;
        found = (int)i;
    }
    return found;
}

/* Whether a misaligned operand raises #GP (SDM volume 2, 2.4: types 1, 2 and 4). */
static bool must_align(const struct x86_insn *insn, unsigned size)
{
    if (size < 16)
        return false;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM: return false;
    default: break;
    }
    switch (insn->z.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE1:
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE4:
    case ZYDIS_EXCEPTION_CLASS_AVX1: return true;
    default:
        return insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
               insn->z.mnemonic != ZYDIS_MNEMONIC_FXSAVE && size == 16;
    }
}

/* Copies an instruction, its memory operand checked and replaced. False: leave it to others. */
static bool translate_copy(struct translation *t, const struct x86_insn *insn)
{
    const struct flow *f = &t->flow[t->i];
    int memory = memory_operand(insn);
    struct operand place = {0};

    if (memory == -2)
        return false;
    if (memory >= 0) {
        const ZydisDecodedOperand *op = &insn->op[memory];
        unsigned size = op->size / 8;
        struct address a;

        if (size > 64 || !address_of(t, insn, (unsigned)memory, &a))
            return false;
        flags_clobber(t, live_before(f));
        place = emit_check(t, &a, size, op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE,
                           must_align(insn, size) ? size : 1);
    }
    if (flags_input(f)) {
        if (memory >= 0 && t->flags == FLAGS_MEMORY && place.base == t->s0)
            return false; /* loading the flags needs s0 */
        flags_need(t);
    }
    if (!emit_insn(&t->e, insn, memory >= 0, place))
        return false;
    if (f->flags_may)
        t->flags = FLAGS_HOST;
    return true;
}

static bool translate_lea(struct translation *t, const struct x86_insn *insn)
{
    const ZydisDecodedOperandMem *m = &insn->op[1].mem;

    if (insn->z.address_width != 64)
        return false;
    if (m->base == ZYDIS_REGISTER_RIP) {
        struct operand place;
        struct address a;

        if (!address_of(t, insn, 1, &a))
            return false;
        emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(page));
        place = at(t->s0, a.disp);
        return emit_insn(&t->e, insn, true, place);
    }
    return emit_insn_as_is(t, insn);
}

/* DIV and IDIV: #DE is never raised by the host; what might raise it is left to others. */
static bool translate_divide(struct translation *t, const struct x86_insn *insn, bool is_signed)
{
    unsigned size = insn->op[0].size, divisor;
    bool wide = size == 64;
    const struct flow *f = &t->flow[t->i];

    /* Loading the flags, which the processor keeps, would take s0 from a divisor in memory. */
    if (size < 32 || (f->live_after && insn->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY))
        return false;
    flags_clobber(t, live_before(f));
    if (is_signed) { /* only dividends that are sign extensions */
        emit_reg(&t->e, wide, OP_LOAD, t->s0, X86_RAX);
        emit_shift_imm(&t->e, wide, 7, t->s0, size - 1);
        emit_reg(&t->e, wide, OP_CMP_LOAD, t->s0, X86_RDX);
        cold_add(t, emit_jcc(&t->e, CC_NE), COLD_ONE, NULL, 0, false, NULL);
    }
    if (insn->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
        struct operand place;
        struct address a;

        if (memory_operand(insn) != 0 || !address_of(t, insn, 0, &a))
            return false;
        place = emit_check(t, &a, size / 8, false, 1);
        emit_mem(&t->e, wide, OP_LOAD, t->s0, place);
        divisor = t->s0;
    } else {
        divisor = (unsigned)(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
                                                              insn->op[0].reg.value) -
                             ZYDIS_REGISTER_RAX);
    }
    if (is_signed) { /* by neither 0 nor -1 */
        emit_mem(&t->e, wide, OP_LEA, t->s1, at(divisor, 1));
        emit_alu_imm(&t->e, wide, ALU_N_CMP, t->s1, 1);
        cold_add(t, emit_jcc(&t->e, CC_BE), COLD_ONE, NULL, 0, false, NULL);
    } else {
        emit_reg(&t->e, wide, OP_CMP_LOAD, X86_RDX, divisor);
        cold_add(t, emit_jcc(&t->e, CC_AE), COLD_ONE, NULL, 0, false, NULL);
    }
    if (f->flags_may & f->live_after) /* undefined, but what this processor does with them */
        flags_need(t);
    emit_reg(&t->e, wide, 0xF7, is_signed ? 7 : 6, divisor);
    t->flags = f->live_after ? FLAGS_HOST : FLAGS_MEMORY;
    return true;
}

/* VZEROUPPER: of all registers, those that this block holds and those in memory. */
static bool translate_vzeroupper(struct translation *t, const struct x86_insn *insn)
{
    int32_t high = (int32_t)offsetof(struct bt, c.x.xsave) + X86_XSAVE_YMMH;
    unsigned zero = 0;

    while (zero < 16 && (t->vectors >> zero & 1))
        zero++;
    if (zero == 16)
        return false;
    emit_insn_as_is(t, insn);
    /* vxorps xmm_zero, then 8 stores of 32 bytes */
    emit_bytes(&t->e,
               (uint8_t[]){0xC4, (uint8_t)((zero & 8 ? 0x41 : 0xE1)), (uint8_t)((~zero & 15) << 3),
                           0x57, (uint8_t)(0xC0 | (zero & 7) << 3 | (zero & 7))},
               5);
    for (int i = 0; i < 8; i++) {
        emit_bytes(&t->e,
                   (uint8_t[]){0x65, 0xC4, (uint8_t)((zero & 8 ? 0 : 0x80) | 0x61), 0x7C, 0x11,
                               (uint8_t)((zero & 7) << 3 | 4), 0x25},
                   7);
        emit_u32(&t->e, (uint32_t)(high + i * 32));
    }
    return true;
}

/* --- Stack
 * ------------------------------------------------------------------------------------------------
 */

static const struct address push_address = {X86_RSP, X86_NONE, 0, ADDRESS_PLAIN, -8};
static const struct address top_address = {X86_RSP, X86_NONE, 0, ADDRESS_PLAIN, 0};

static void emit_move_sp(struct translation *t, int32_t delta)
{
    emit_mem(&t->e, true, OP_LEA, X86_RSP, at(X86_RSP, delta));
}

static unsigned register_of(const struct x86_insn *insn, unsigned i)
{
    return (unsigned)(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
                                                       insn->op[i].reg.value) -
                      ZYDIS_REGISTER_RAX);
}

static bool is_gpr(const struct x86_insn *insn, unsigned i)
{
    return insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(insn->op[i].reg.value) == ZYDIS_REGCLASS_GPR64;
}

static bool translate_stack(struct translation *t, const struct x86_insn *insn)
{
    uint32_t live = live_before(&t->flow[t->i]);
    struct operand place;

    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        if (!is_gpr(insn, 0) && insn->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return false;
        if (insn->z.operand_width == 16)
            return false;
        flags_clobber(t, live);
        place = emit_check(t, &push_address, 8, true, 1);
        if (is_gpr(insn, 0))
            emit_mem(&t->e, true, OP_STORE, register_of(insn, 0), place);
        else
            emit_store_imm(&t->e, true, place, (int32_t)insn->op[0].imm.value.s);
        emit_move_sp(t, -8);
        return true;
    case ZYDIS_MNEMONIC_POP:
        if (!is_gpr(insn, 0) || register_of(insn, 0) == X86_RSP)
            return false;
        flags_clobber(t, live);
        place = emit_check(t, &top_address, 8, false, 1);
        emit_mem(&t->e, true, OP_LOAD, register_of(insn, 0), place);
        emit_move_sp(t, 8);
        return true;
    case ZYDIS_MNEMONIC_LEAVE:
        if (insn->z.operand_width == 16)
            return false;
        flags_clobber(t, live);
        place =
            emit_check(t, &(struct address){X86_RBP, X86_NONE, 0, ADDRESS_PLAIN, 0}, 8, false, 1);
        emit_mem(&t->e, true, OP_LOAD, t->s0, place);
        emit_mem(&t->e, true, OP_LEA, X86_RSP, at(X86_RBP, 8));
        emit_reg(&t->e, true, OP_LOAD, X86_RBP, t->s0);
        return true;
    default: return false;
    }
}

/* --- Branches
 * ------------------------------------------------------------------------------------------------
 */

/* Live flags must be in memory at a block's end. */
static void flags_leave(struct translation *t, uint32_t live)
{
    if (t->flags == FLAGS_HOST && live)
        flags_save(t);
}

/* Pushes the return address; the target stays wherever it is but not in s0 or s1. */
static void emit_push_return(struct translation *t, const struct x86_insn *insn)
{
    struct operand place = emit_check(t, &push_address, 8, true, 1);

    emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(page));
    emit_mem(&t->e, true, OP_LEA, t->s0, at(t->s0, (int32_t)(t->offset[t->i] + insn->z.length)));
    emit_mem(&t->e, true, OP_STORE, t->s0, place);
    emit_move_sp(t, -8);
}

/* A target that is not canonical faults at the branch. What gets past this cannot be mistaken for
 * another address space's in the jump table either. */
static void emit_canonical(struct translation *t, unsigned target)
{
    emit_reg(&t->e, true, OP_LOAD, t->s1, target);
    emit_shift_imm(&t->e, true, 4, t->s1, 16); /* shl */
    emit_shift_imm(&t->e, true, 7, t->s1, 16); /* sar */
    emit_reg(&t->e, true, OP_CMP_LOAD, t->s1, target);
    cold_add(t, emit_jcc(&t->e, CC_NE), COLD_ONE, NULL, 0, false, NULL);
}

/* The target of an indirect branch into s0. CALL: the return address is pushed on the way. */
static bool translate_indirect(struct translation *t, const struct x86_insn *insn, bool call)
{
    flags_clobber(t, X86_FLAGS_STATUS);
    if (is_gpr(insn, 0)) {
        unsigned target = register_of(insn, 0);

        if (target == X86_RSP)
            return false;
        emit_canonical(t, target);
        if (call)
            emit_push_return(t, insn);
        emit_reg(&t->e, true, OP_LOAD, t->s0, target);
    } else {
        struct operand place;
        struct address a;

        if (memory_operand(insn) != 0 || insn->op[0].size != 64 || !address_of(t, insn, 0, &a))
            return false;
        place = emit_check(t, &a, 8, false, 1);
        emit_mem(&t->e, true, OP_LOAD, t->s0, place);
        emit_canonical(t, t->s0);
        if (call) {
            emit_mem(&t->e, true, OP_STORE, t->s0, VCPU(target));
            emit_push_return(t, insn);
            emit_mem(&t->e, true, OP_LOAD, t->s0, VCPU(target));
        }
    }
    emit_exit_indirect(t);
    return true;
}

static int64_t direct_target(struct translation *t, const struct x86_insn *insn)
{
    return (int64_t)t->offset[t->i] + insn->z.length + insn->op[0].imm.value.s;
}

static bool translate_branch(struct translation *t, const struct x86_insn *insn)
{
    bool direct = insn->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    int64_t target = direct ? direct_target(t, insn) : 0;
    uint32_t live = t->flow[t->i].live_after;

    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        if (!direct)
            return translate_indirect(t, insn, false);
        flags_leave(t, live);
        emit_exit_direct(t, target, target <= (int64_t)t->offset[t->i]);
        return true;
    case ZYDIS_MNEMONIC_CALL:
        if (!direct)
            return translate_indirect(t, insn, true);
        flags_clobber(t, live);
        emit_push_return(t, insn);
        emit_exit_direct(t, target, true);
        return true;
    case ZYDIS_MNEMONIC_RET: {
        struct operand place;

        flags_clobber(t, X86_FLAGS_STATUS);
        place = emit_check(t, &top_address, 8, false, 1);
        emit_mem(&t->e, true, OP_LOAD, t->s0, place);
        emit_canonical(t, t->s0);
        emit_move_sp(t, 8 + (insn->z.operand_count_visible ? (int32_t)insn->op[0].imm.value.u : 0));
        emit_exit_indirect(t);
        return true;
    }
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: return false;
    default:
        flags_need(t);
        flags_leave(t, live);
        cold_add(t, emit_jcc(&t->e, insn->z.opcode & 15), COLD_BRANCH, NULL, 0, false, NULL);
        if (t->colds)
            t->cold[t->colds - 1].target = target;
        emit_exit_direct(t, (int64_t)t->offset[t->i] + insn->z.length, false);
        return true;
    }
}

/* --- The block
 * ------------------------------------------------------------------------------------------------
 */

static bool translate_insn(struct translation *t, const struct x86_insn *insn)
{
    switch ((enum x86_class)insn->info->class) {
    case X86_CLASS_INTEGER:
        switch (insn->z.mnemonic) {
        case ZYDIS_MNEMONIC_LEA: return translate_lea(t, insn);
        case ZYDIS_MNEMONIC_DIV: return translate_divide(t, insn, false);
        case ZYDIS_MNEMONIC_IDIV: return translate_divide(t, insn, true);
        case ZYDIS_MNEMONIC_BT:
        case ZYDIS_MNEMONIC_BTS:
        case ZYDIS_MNEMONIC_BTR:
        case ZYDIS_MNEMONIC_BTC: /* with a register, the bit may lie outside the operand */
            if (insn->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                insn->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
                return false;
            return translate_copy(t, insn);
        case ZYDIS_MNEMONIC_NOP:
        case ZYDIS_MNEMONIC_PREFETCH:
        case ZYDIS_MNEMONIC_PREFETCHW:
        case ZYDIS_MNEMONIC_PREFETCHWT1:
        case ZYDIS_MNEMONIC_PREFETCHNTA:
        case ZYDIS_MNEMONIC_PREFETCHT0:
        case ZYDIS_MNEMONIC_PREFETCHT1:
        case ZYDIS_MNEMONIC_PREFETCHT2: return true;
        case ZYDIS_MNEMONIC_PAUSE: /* the interpreter gives the core away */
        case ZYDIS_MNEMONIC_CMPXCHG16B:
        case ZYDIS_MNEMONIC_CLD:
        case ZYDIS_MNEMONIC_STD:
        case ZYDIS_MNEMONIC_CLFLUSH:
        case ZYDIS_MNEMONIC_CLFLUSHOPT:
        case ZYDIS_MNEMONIC_CLWB:
        case ZYDIS_MNEMONIC_XLAT: return false;
        default: return translate_copy(t, insn);
        }
    case X86_CLASS_STACK: return translate_stack(t, insn);
    case X86_CLASS_BRANCH: return translate_branch(t, insn);
    case X86_CLASS_NATIVE:
        switch (insn->z.mnemonic) {
        case ZYDIS_MNEMONIC_VZEROUPPER: return translate_vzeroupper(t, insn);
        case ZYDIS_MNEMONIC_VZEROALL:
        case ZYDIS_MNEMONIC_VMASKMOVPS:
        case ZYDIS_MNEMONIC_VMASKMOVPD:
        case ZYDIS_MNEMONIC_VPMASKMOVD:
        case ZYDIS_MNEMONIC_VPMASKMOVQ:
        case ZYDIS_MNEMONIC_MASKMOVDQU:
        case ZYDIS_MNEMONIC_VMASKMOVDQU: return false;
        default: return translate_copy(t, insn);
        }
    default: return false;
    }
}

/* Chooses the scratch registers: two that no instruction names, the usual ones if possible. Cuts
 * the block short where none are left. */
static void choose_scratch(struct translation *t)
{
    static const uint8_t order[] = {X86_R9,  X86_R8,  X86_R15, X86_R14, X86_R13,
                                    X86_R12, X86_RBX, X86_RDI, X86_RSI, X86_RBP};
    uint16_t used = 1u << X86_RAX | 1u << X86_RCX | 1u << X86_RDX | 1u << X86_RSP;
    const uint16_t usual = 1u << SCRATCH0 | 1u << SCRATCH1;
    unsigned i, found = 0;

    for (i = 0; i < t->count; i++) {
        uint16_t with = used | t->flow[i].registers;
        unsigned free = 0;

        for (unsigned k = 0; k < sizeof(order); k++)
            free += !(with >> order[k] & 1);
        if (free < 2 && (with & usual))
            break;
        used = with;
    }
    t->count = i;
    t->s0 = SCRATCH0;
    t->s1 = SCRATCH1;
    if (!(used & usual))
        return;
    for (unsigned k = 0; k < sizeof(order) && found < 2; k++) {
        if (used >> order[k] & 1)
            continue;
        if (found++ == 0)
            t->s0 = order[k];
        else
            t->s1 = order[k];
    }
}

static void note_vectors(struct translation *t, const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &insn->op[i];
        ZydisRegisterClass class;
        unsigned n;

        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        class = ZydisRegisterGetClass(op->reg.value);
        if (class != ZYDIS_REGCLASS_XMM && class != ZYDIS_REGCLASS_YMM)
            continue;
        n = (unsigned)ZydisRegisterGetId(op->reg.value);
        t->vectors |= (uint16_t)(1u << n);
        if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            t->vectors_written |= (uint16_t)(1u << n);
        t->ymm |= insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    }
    if (insn->z.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER) {
        t->ymm = true;
        t->zeroes_upper = true;
    }
}

/* Decodes the block's instructions again, from memory. */
static bool decode(struct translation *t, const struct block *b)
{
    const uint8_t *page = mem_page(t->bt->c.mem, b->gpa >> MEM_PAGE_SHIFT);
    unsigned at = b->gpa & (MEM_PAGE_SIZE - 1);

    if (!page)
        return false;
    t->page = page;
    for (t->count = 0; t->count < b->count; t->count++) {
        int length =
            x86_decode(X86_CODE64, false, page + at, MEM_PAGE_SIZE - at, &t->insn[t->count]);

        if (length <= 0)
            break;
        if (!t->bt->c.engine->machine.model.feature[t->insn[t->count].feature])
            break;
        flow_of(&t->insn[t->count], &t->flow[t->count]);
        t->offset[t->count] = (uint16_t)at;
        at += (unsigned)length;
    }
    t->end = at;
    return t->count > 0;
}

/* What is live behind the block's last instruction. */
static uint32_t live_at_end(const struct translation *t)
{
    const struct x86_insn *last = &t->insn[t->count - 1];
    unsigned next = t->offset[t->count - 1] + last->z.length;
    int64_t target;

    if (last->info->class != X86_CLASS_BRANCH)
        return flow_peek(t->page, next);
    if (last->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || last->z.mnemonic == ZYDIS_MNEMONIC_RET)
        return X86_FLAGS_STATUS;
    target = (int64_t)next + last->op[0].imm.value.s;
    if (target < 0 || target >= (int64_t)MEM_PAGE_SIZE)
        return X86_FLAGS_STATUS;
    if (last->z.mnemonic == ZYDIS_MNEMONIC_JMP || last->z.mnemonic == ZYDIS_MNEMONIC_CALL)
        return flow_peek(t->page, (unsigned)target);
    return flow_peek(t->page, (unsigned)target) | flow_peek(t->page, next);
}

/* Whether INSN is one that translate_insn may leave to others: then all flags are wanted. */
static void mark_flows(struct translation *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        enum x86_class class = t->insn[i].info->class;

        if (class != X86_CLASS_INTEGER && class != X86_CLASS_NATIVE && class != X86_CLASS_STACK &&
            class != X86_CLASS_BRANCH)
            t->flow[i].flags_in = X86_FLAGS_STATUS;
    }
}

static void emit_entry(struct translation *t, const struct block *b)
{
    emit_load_imm(&t->e, SCRATCH0, (uintptr_t)&b->page->generation);
    emit_alu_mem_imm(&t->e, false, ALU_N_CMP, at(SCRATCH0, 0), (int32_t)b->generation);
    cold_add(t, emit_jcc(&t->e, CC_NE), COLD_STALE, NULL, 0, false, NULL);
    emit_alu_mem_imm(&t->e, true, ALU_N_ADD, VCPU(c.instructions), (int32_t)t->count);
    emit_prologue(t);
}

static void emit_body(struct translation *t)
{
    for (t->i = 0; t->i < t->count && !t->e.full; t->i++) {
        const struct x86_insn *insn = &t->insn[t->i];
        uint8_t *start = t->e.at;
        unsigned colds = t->colds;

        enum flags_place flags = t->flags;

        if (!translate_insn(t, insn)) {
            t->e.at = start; /* whatever it began */
            t->colds = colds;
            t->flags = flags;
            flags_leave(t, X86_FLAGS_STATUS);
            emit_exit_one(t);
            return;
        }
        if (insn->info->class == X86_CLASS_BRANCH)
            return;
    }
    flags_leave(t, t->flow[t->count - 1].live_after);
    emit_exit_direct(t, (int64_t)t->end, false);
}

const void *bt_translate(struct bt *bt, const struct block *b, bool *full)
{
    static const unsigned room = 16384; /* more than a block can need */
    struct translation *t = &bt->work;

    *full = BT_CODE_SIZE - bt->used < room || BT_SITES - bt->site_count < 2 * COLDS;
    if (*full)
        return NULL;
    memset(t, 0, offsetof(struct translation, insn));
    t->bt = bt;
    if (!decode(t, b))
        return NULL;
    choose_scratch(t);
    if (!t->count)
        return NULL;
    t->end = t->offset[t->count - 1] + t->insn[t->count - 1].z.length;
    mark_flows(t);
    flow_liveness(t->flow, t->count, live_at_end(t));
    for (unsigned i = 0; i < t->count; i++)
        note_vectors(t, &t->insn[i]);
    if (t->zeroes_upper)
        t->vectors_written = t->vectors;
    t->e = (struct emitter){.at = bt->write + bt->used, .end = bt->write + bt->used + room};
    emit_entry(t, b);
    emit_body(t);
    emit_cold(t);
    if (t->e.full)
        return NULL;
    bt->translations++;
    bt->translated_instructions += t->count;
    {
        const void *code = bt->run + bt->used;

        bt->used = (uint32_t)ALIGN_UP(t->e.at - bt->write, 32);
        return code;
    }
}
