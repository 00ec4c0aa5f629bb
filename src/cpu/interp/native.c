/*
 * Instructions that the host executes through a thunk, and the few vector instructions whose
 * memory accesses depend on a mask and so are done element by element.
 */
#include "cpu/interp/operand.h"
#include "cpu/interp/handlers.h"
#include "x86/x87.h"

#include <string.h>

/* Raises what an instruction of these register FILES raises while they cannot be used (SDM volume
 * 3, 2.5 and table 13-1). */
_Noreturn static void raise_fp(struct vcpu *c, const struct uop *op, unsigned files)
{
    uint64_t cr0 = c->x.cr0, cr4 = c->x.cr4;
    uint64_t need = X86_XCR0_SSE | X86_XCR0_AVX;

    if ((files & FP_AVX) && (!(cr4 & X86_CR4_OSXSAVE) || (c->x.xcr0 & need) != need))
        raise_fault(c, op, X86_UD);
    if ((files & FP_SSE) && ((cr0 & X86_CR0_EM) || !(cr4 & X86_CR4_OSFXSR)))
        raise_fault(c, op, X86_UD);
    if ((files & FP_MMX) && (cr0 & X86_CR0_EM))
        raise_fault(c, op, X86_UD);
    raise_fault(c, op, X86_NM);
}

void fp_check(struct vcpu *c, const struct uop *op, unsigned files)
{
    if (unlikely(c->fp_trap & files))
        raise_fp(c, op, files);
}

/* An unmasked SIMD exception is #UD where the OS has not said that it handles #XM. */
_Noreturn static void raise_native(struct vcpu *c, const struct uop *op, int vector)
{
    c->bounced_spans = 0;
    if (vector == X86_XM && !(c->x.cr4 & X86_CR4_OSXMMEXCPT))
        vector = X86_UD;
    if (vector == X86_GP || vector == X86_AC)
        raise_error(c, op, vector, 0);
    raise_fault(c, op, vector);
}

/* Whether an x87 exception is pending (FSW.ES). */
static bool x87_pending(const struct vcpu *c)
{
    return c->x.xsave[2] & 0x80;
}

void x87_check(struct vcpu *c, const struct uop *op)
{
    if (x87_pending(c))
        raise_fault(c, op, X86_MF);
}

/* Stores the pointers to the x87's last instruction after OP, in place of those that the thunk has
 * left. The operand and opcode are those of the last instruction that has raised an unmasked
 * exception, as CPUID announces (SDM volume 1, 8.1.8, 8.1.9). P: the pointers before OP. */
static void note_pointers(struct vcpu *c, const struct uop *op, struct x87_pointers p, int status)
{
    if (op->mnemonic == ZYDIS_MNEMONIC_FNINIT) {
        p = (struct x87_pointers){0};
    } else if (!status && (op->aux & NATIVE_NOTED)) {
        p.ip = c->x.reg[X86_RIP] + op->off;
        if (!in_64(c))
            p.ip = (uint32_t)p.ip;
    }
    if (!status && (op->aux & NATIVE_NOTED) && x87_pending(c)) {
        p.opcode = (uint16_t)(op->src >> SRC_OPCODE << 8 | op->dst);
        if (op->aux & (NATIVE_READ | NATIVE_WRITE)) {
            p.data = ea_offset(c, op);
            if (op->asize < 8)
                p.data &= (1ULL << op->asize * 8) - 1;
        }
    }
    x87_pointers_set(c->x.xsave, &p);
}

/* Raises #GP if the operand is not aligned; this comes before the checks of the segment. */
static void check_aligned(struct vcpu *c, const struct uop *op)
{
    uint64_t offset = ea_offset(c, op);

    if (op->asize < 8)
        offset &= (1ULL << op->asize * 8) - 1;
    if ((offset + c->base[op->seg]) & (op->osize - 1u))
        raise_error(c, op, X86_GP, 0);
}

const struct uop *op_native(struct vcpu *c, const struct uop *op)
{
    thunk_fn *thunk = (thunk_fn *)(uintptr_t)op->imm;
    struct thunk_state state = {.gpr = c->x.reg, .flags = &c->x.rflags, .xsave = c->x.xsave};
    struct x87_pointers pointers;
    unsigned how = op->aux;
    void *memory = NULL;
    int status;

    fp_check(c, op, op->src);
    if (how & NATIVE_FLAGS)
        c->x.rflags = flags_get(c);
    if ((how & NATIVE_WAITS) && x87_pending(c))
        raise_fault(c, op, X86_MF);
    if (how & (NATIVE_READ | NATIVE_WRITE)) {
        uint64_t linear;

        if (how & NATIVE_ALIGNED)
            check_aligned(c, op);
        linear = ea_linear(c, op, op->osize, how & NATIVE_WRITE ? MMU_WRITE : MMU_READ);
        if (!(how & NATIVE_WRITE))
            memory = read_ptr(c, op, linear, op->osize);
        else if (how & NATIVE_READ)
            memory = rmw_ptr(c, op, linear, op->osize);
        else
            memory = write_ptr(c, op, linear, op->osize);
    }
    if (op->src & (FP_X87 | FP_MMX))
        pointers = x87_pointers_get(c->x.xsave);
    status = thunk(&state, memory);
    if (op->src & (FP_X87 | FP_MMX))
        note_pointers(c, op, pointers, status);
    if (unlikely(status))
        raise_native(c, op, status - 1);
    commit_ptr(c, op);
    if (how & NATIVE_FLAGS)
        flags_set_status(c, c->x.rflags);
    return op + 1;
}

/* --- Masked and gathering memory operands ----------------------------------------------------- */

/* A vector register as bytes: the low half is in the legacy area, the high half of its own. */
struct vector {
    _Alignas(32) uint8_t byte[32];
};

static struct vector vector_get(const struct vcpu *c, unsigned n)
{
    struct vector v;

    memcpy(v.byte, c->x.xsave + X86_XSAVE_XMM + n * 16, 16);
    memcpy(v.byte + 16, c->x.xsave + X86_XSAVE_YMMH + n * 16, 16);
    return v;
}

static void vector_set(struct vcpu *c, unsigned n, const struct vector *v)
{
    memcpy(c->x.xsave + X86_XSAVE_XMM + n * 16, v->byte, 16);
    memcpy(c->x.xsave + X86_XSAVE_YMMH + n * 16, v->byte + 16, 16);
}

/* Whether element I of SIZE bytes is selected: its sign bit. */
static bool selected(const struct vector *mask, unsigned i, unsigned size)
{
    return mask->byte[i * size + size - 1] & 0x80;
}

/* Returns the linear address of the element that is OFFSET bytes into the operand. */
static uint64_t element_linear(struct vcpu *c, const struct uop *op, unsigned offset, unsigned size,
                               enum mmu_access access)
{
    uint64_t start = ea_offset(c, op);

    if (op->asize < 8) /* the operand's address wraps, not its elements' */
        start &= (1ULL << op->asize * 8) - 1;
    return seg_linear(c, op, op->seg, start + offset, size, access);
}

/* VMASKMOVPS/PD, VPMASKMOVD/Q. imm: mask register; osize: of the vector; dst or src: the data
 * register. */
const struct uop *op_vmaskmov(struct vcpu *c, const struct uop *op)
{
    bool store = op->aux & VMASKMOV_STORE;
    unsigned size = op->aux & 15, count = op->osize / size;
    struct vector mask, data = {0};

    fp_check(c, op, FP_AVX);
    mask = vector_get(c, (unsigned)op->imm);
    if (store)
        data = vector_get(c, op->src);
    for (unsigned i = 0; store && i < count; i++)
        if (selected(&mask, i, size))
            probe_write(c, op, element_linear(c, op, i * size, size, MMU_WRITE), size);
    for (unsigned i = 0; i < count; i++) {
        uint64_t value = 0;

        if (!selected(&mask, i, size))
            continue;
        memcpy(&value, data.byte + i * size, size);
        if (store) {
            store_sized(c, op, element_linear(c, op, i * size, size, MMU_WRITE), size, value);
        } else {
            value = load_sized(c, op, element_linear(c, op, i * size, size, MMU_READ), size);
            memcpy(data.byte + i * size, &value, size);
        }
    }
    if (!store)
        vector_set(c, op->dst, &data);
    return op + 1;
}

/* VGATHER*, VPGATHER*. dst: destination; src: mask; index: the vector of indices; osize: bytes of
 * the destination vector. When an element faults, the elements before it stay loaded (SDM volume
 * 2). */
const struct uop *op_gather(struct vcpu *c, const struct uop *op)
{
    unsigned size = op->aux & 15, index_size = op->aux & GATHER_INDEX_64 ? 8 : 4;
    unsigned count = MIN((unsigned)op->osize / size, (unsigned)op->imm / index_size);
    struct vector index = vector_get(c, op->index), mask, data;
    struct uop element = *op;

    fp_check(c, op, FP_AVX);
    mask = vector_get(c, op->src);
    data = vector_get(c, op->dst);
    /* The mask elements become all sign before any access. */
    for (unsigned i = 0; i < op->osize; i += size)
        memset(mask.byte + i, i / size < count && selected(&mask, i / size, size) ? 0xFF : 0, size);
    element.index = X86_NONE;
    for (unsigned i = 0; i < count; i++) {
        int64_t offset = 0;
        uint64_t value;

        if (!selected(&mask, i, size))
            continue;
        memcpy(&offset, index.byte + i * index_size, index_size);
        if (index_size == 4)
            offset = (int32_t)offset;
        element.disp = op->disp + (int64_t)((uint64_t)offset << op->scale);
        vector_set(c, op->src, &mask);
        vector_set(c, op->dst, &data);
        value = load_sized(c, op, ea_linear(c, &element, size, MMU_READ), size);
        memcpy(data.byte + i * size, &value, size);
        memset(mask.byte + i * size, 0, size);
    }
    memset(mask.byte + count * size, 0, 32 - count * size);
    memset(data.byte + count * size, 0, 32 - count * size);
    vector_set(c, op->src, &mask);
    vector_set(c, op->dst, &data);
    return op + 1;
}

/* Changes the x87 as every MMX instruction does: TOP becomes 0 and all tags valid (SDM volume 1,
 * 9.5.1). The image holds the registers from the top of the stack on, so they move in it. */
static void enter_mmx(struct vcpu *c)
{
    uint8_t *x = c->x.xsave, stack[8][16];
    unsigned top = x[3] >> 3 & 7;

    memcpy(stack, x + 32, sizeof(stack));
    for (unsigned i = 0; i < 8; i++)
        memcpy(x + 32 + i * 16, stack[(i - top) & 7], 16);
    x[3] &= 0xC7;
    x[4] = 0xFF;
}

/* MASKMOVDQU and MASKMOVQ; osize: 16 or 8; dst: data register; src: mask register. The whole
 * operand must be writable, as it must on processors that look at the mask later. */
const struct uop *op_maskmovdqu(struct vcpu *c, const struct uop *op)
{
    unsigned registers = op->osize == 8 ? 32 : X86_XSAVE_XMM;
    const uint8_t *data = c->x.xsave + registers + op->dst * 16;
    const uint8_t *mask = c->x.xsave + registers + op->src * 16;
    uint64_t linear;

    fp_check(c, op, op->osize == 8 ? FP_MMX : op->aux);
    if (op->osize == 8 && x87_pending(c))
        raise_fault(c, op, X86_MF);
    if (op->osize == 8) /* before any fault of the store, as on silicon */
        enter_mmx(c);
    linear = ea_linear(c, op, op->osize, MMU_WRITE);
    probe_write(c, op, linear, op->osize);
    for (unsigned i = 0; i < op->osize; i++)
        if (mask[i] & 0x80)
            store8(c, op, linear + i, data[i]);
    return op + 1;
}
