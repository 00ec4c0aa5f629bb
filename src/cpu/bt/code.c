/*
 * The code that is made once: the way in and the ways out; lookup.c and second.c have the rest.
 */
#include "cpu/bt/bt.h"

#include <stddef.h>
#include <string.h>

#define VCPU(field) vcpu_at((int32_t)offsetof(struct bt, field))
#define REGISTER(n) vcpu_at((int32_t)(offsetof(struct bt, c.x.reg) + 8 * (n)))
#define GUEST_MXCSR vcpu_at((int32_t)(offsetof(struct bt, c.x.xsave) + X86_XSAVE_MXCSR))

static const uint8_t callee_saved[] = {X86_RBX, X86_RBP, X86_R12, X86_R13, X86_R14, X86_R15};

static void emit_push(struct emitter *e, unsigned reg)
{
    if (reg > 7)
        emit_byte(e, 0x41);
    emit_byte(e, (uint8_t)(0x50 | (reg & 7)));
}

static void emit_pop(struct emitter *e, unsigned reg)
{
    if (reg > 7)
        emit_byte(e, 0x41);
    emit_byte(e, (uint8_t)(0x58 | (reg & 7)));
}

static bool is_scratch(unsigned reg)
{
    return reg == SCRATCH0 || reg == SCRATCH1;
}

/* Loads or stores all registers but the scratch registers; while 32-bit code runs, the upper ones
 * are not the guest's. */
static void emit_registers(struct emitter *e, unsigned opcode)
{
    uint8_t *code32, *all;

    for (unsigned n = 0; n < X86_R8; n++)
        emit_mem(e, true, opcode, n, REGISTER(n));
    emit_test_mem8(e, vcpu_at((int32_t)offsetof(struct bt, jump_view) + 1), JUMP_VIEW_CODE32 >> 8);
    code32 = emit_jcc(e, CC_NE);
    for (unsigned n = X86_R8; n < X86_GPRS; n++)
        if (!is_scratch(n))
            emit_mem(e, true, opcode, n, REGISTER(n));
    all = emit_jmp(e);
    emit_patch(code32, e->at);
    for (unsigned i = 0; i < RANGE_REGISTERS; i++)
        emit_mem(e, true, opcode, range_registers[i],
                 vcpu_at((int32_t)(offsetof(struct bt, addend) + i * 8)));
    emit_patch(all, e->at);
}

/* Emits a load or store of a vector register's lower half. */
static void emit_low_half(struct emitter *e, bool load, unsigned n)
{
    emit_mem(e, false, load ? OP_MOVUPS_LOAD : OP_MOVUPS_STORE, n,
             vcpu_at((int32_t)(offsetof(struct bt, c.x.xsave) + X86_XSAVE_XMM + n * 16)));
}

/* Emits a load or store of its upper half: VINSERTF128 or VEXTRACTF128, 1. */
static void emit_high_half(struct emitter *e, bool load, unsigned n)
{
    const uint8_t vex[] = {IN_VCPU, 0xC4, (uint8_t)((n & 8 ? 0 : 0x80) | 0x63),
                           (uint8_t)((load ? ~n & 15 : 15) << 3 | 5), load ? 0x18 : 0x19};
    const uint8_t modrm_sib[] = {(uint8_t)((n & 7) << 3 | 4), 0x25};

    emit_bytes(e, vex, sizeof(vex));
    emit_bytes(e, modrm_sib, sizeof(modrm_sib));
    emit_u32(e, (uint32_t)(offsetof(struct bt, c.x.xsave) + X86_XSAVE_YMMH + n * 16));
    emit_byte(e, 1);
}

/* The addresses of the last x87 instruction and its operand are the host's, or nothing;
 * save_x87_pointers replaces them. MXCSR_MASK is the model's. The host's own code wants the x87
 * stack empty. */
static void emit_save_x87(struct emitter *e)
{
    static const uint8_t fninit[] = {0xDB, 0xE3};
    int32_t area = (int32_t)offsetof(struct bt, c.x.xsave);

    emit_mem(e, true, OP_GROUP_FILES, FXSAVE, vcpu_at(area));
    emit_store_imm(e, false, vcpu_at(area + X86_XSAVE_MXCSR + 4), X86_MXCSR_MASK);
    emit_bytes(e, fninit, sizeof(fninit));
}

static const uint8_t vzeroupper[] = {0xC5, 0xF8, 0x77};

/* EAX = whether any upper half is to be loaded: not where AVX is absent, nor where all are 0. The
 * processor knows that they are until one is loaded; after that, instructions that write only lower
 * halves depend on the whole of what was there before. Leaves the upper halves 0. */
static void emit_has_high_halves(struct emitter *e)
{
    const uint32_t high = (uint32_t)(offsetof(struct bt, c.x.xsave) + X86_XSAVE_YMMH);
    uint8_t *absent;

    emit_bytes(e, (uint8_t[]){0x31, 0xC0}, 2); /* xor eax, eax */
    emit_test_mem8(e, VCPU(absent), BT_AVX);
    absent = emit_jcc(e, CC_NE);
    for (unsigned i = 0; i < 8; i++) { /* vmovups ymm0, and vorps ymm0, ymm0 */
        emit_bytes(e, (uint8_t[]){IN_VCPU, 0xC5, 0xFC, i ? 0x56 : 0x10, 0x04, 0x25}, 6);
        emit_u32(e, high + 32 * i);
    }
    emit_bytes(e, (uint8_t[]){0xC4, 0xE2, 0x7D, 0x17, 0xC0}, 5); /* vptest ymm0, ymm0 */
    emit_bytes(e, (uint8_t[]){0x0F, 0x95, 0xC0}, 3);             /* setnz al */
    emit_bytes(e, vzeroupper, sizeof(vzeroupper));
    emit_patch(absent, e->at);
}

/* Loads or saves the register files that are not absent. FXRSTOR and FXSAVE are about the lower
 * halves and MXCSR, too, whoever they belong to. */
static void emit_move_files(struct emitter *e, bool load)
{
    uint8_t *no_x87, *all, *no_avx;

    if (load) {
        emit_mem(e, false, OP_GROUP_FILES, STMXCSR, VCPU(host_mxcsr));
        emit_has_high_halves(e);
    }
    emit_test_mem8(e, VCPU(absent), BT_X87);
    no_x87 = emit_jcc(e, CC_NE);
    if (load)
        emit_mem(e, true, OP_GROUP_FILES, FXRSTOR, VCPU(c.x.xsave));
    else
        emit_save_x87(e);
    all = emit_jmp(e);
    emit_patch(no_x87, e->at);
    emit_mem(e, false, OP_GROUP_FILES, load ? LDMXCSR : STMXCSR, GUEST_MXCSR);
    for (unsigned n = 0; n < 16; n++)
        emit_low_half(e, load, n);
    emit_patch(all, e->at);
    if (load)
        emit_bytes(e, (uint8_t[]){0x3C, 0x01}, 2); /* cmp al, 1 */
    else
        emit_test_mem8(e, VCPU(absent), BT_AVX);
    no_avx = emit_jcc(e, CC_NE);
    for (unsigned n = 0; n < 16; n++)
        emit_high_half(e, load, n);
    if (!load)
        emit_bytes(e, vzeroupper, sizeof(vzeroupper));
    emit_patch(no_avx, e->at);
    if (!load)
        emit_mem(e, false, OP_GROUP_FILES, LDMXCSR, VCPU(host_mxcsr));
}

/* Emits that out of line, because most often there is nothing to do. Returns the branch to it. */
static uint8_t *emit_unless_absent(struct emitter *e)
{
    emit_cmp_mem8(e, VCPU(absent), BT_FILES);
    return emit_jcc(e, CC_NE);
}

/* Emits the code out of line to which BRANCH (emit_unless_absent) leads. */
static void emit_files_aside(struct emitter *e, uint8_t *branch, bool load)
{
    emit_patch(branch, e->at);
    emit_move_files(e, load);
    emit_jmp_to(e, branch + 4);
}

/* void enter(bt in RDI, code in RSI) */
static void emit_enter(struct emitter *e)
{
    uint8_t *files;

    for (unsigned i = 0; i < sizeof(callee_saved); i++)
        emit_push(e, callee_saved[i]);
    emit_mem(e, true, OP_STORE, X86_RSP, VCPU(host_rsp));
    emit_mem(e, true, OP_STORE, X86_RSI, VCPU(address));
    emit_mem(e, true, OP_LOAD, SCRATCH0, VCPU(c.tlb));
    emit_write_fs(e, SCRATCH0);
    files = emit_unless_absent(e);
    emit_registers(e, OP_LOAD);
    emit_jmp_mem(e, VCPU(address));
    emit_files_aside(e, files, true);
}

/* Emits the code that all ways out end with. */
static void emit_leave(struct emitter *e)
{
    uint8_t *files;

    emit_registers(e, OP_STORE);
    files = emit_unless_absent(e);
    emit_mem(e, true, OP_LOAD, X86_RSP, VCPU(host_rsp));
    emit_mem(e, true, OP_LOAD, SCRATCH0, VCPU(host_fs));
    emit_write_fs(e, SCRATCH0);
    for (unsigned i = sizeof(callee_saved); i-- > 0;)
        emit_pop(e, callee_saved[i]);
    emit_byte(e, 0xC3);
    emit_files_aside(e, files, false);
}

void bt_emit_common(struct bt_cache *cache)
{
    struct emitter e = {.at = cache->write, .end = cache->write + cache->memory.provided};
    const void *enter = cache->run;
    const uint8_t *leave;

    memcpy(&cache->enter, &enter,
           sizeof(enter)); /* C has no cast from object to function pointers */
    emit_enter(&e);
    leave = e.at;
    emit_leave(&e);
    for (unsigned why = 0; why < BT_EXITS; why++) {
        cache->leave[why] = (uint32_t)(e.at - cache->write);
        emit_store_imm(&e, false, VCPU(exit), (int32_t)why);
        emit_jmp_to(&e, leave);
    }
    for (unsigned write = 0; write < 2; write++) {
        cache->fill[write] = (uint32_t)(e.at - cache->write);
        bt_emit_second(cache, &e, write);
    }
    cache->lookup = (uint32_t)(e.at - cache->write);
    bt_emit_lookup(cache, &e, BT_NEXT);
    cache->lookup_branch = (uint32_t)(e.at - cache->write);
    bt_emit_lookup(cache, &e, BT_BRANCH);
    cache->first = cache->used = (uint32_t)ALIGN_UP(e.at - cache->write, 64);
}
