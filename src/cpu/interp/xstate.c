/*
 * The register files as images in memory: FXSAVE, XSAVE and their counterparts (SDM volume 1, 10.5
 * and chapter 13), MXCSR, XCR0. The guest's registers are in x.xsave in the standard form, so most
 * of this copies parts of that.
 */
#include "cpu/interp/operand.h"
#include "cpu/interp/handlers.h"
#include "x86/x87.h"

#include <string.h>

#define MXCSR_MASK      0xFFFFu
#define MXCSR_INIT      0x1F80u
#define FCW_INIT        0x037Fu
#define LEGACY_X87      160 /* bytes of the legacy area before the XMM registers */
#define XMM_BYTES       256
#define YMMH_BYTES      256
#define XCOMP_COMPACTED (1ULL << 63)

/* Copies between the guest and an image, 16 bytes at a time: areas are larger than one operand. */
static void copy_bytes_out(struct vcpu *c, const struct uop *op, uint64_t linear,
                           const uint8_t *from, unsigned size)
{
    for (unsigned at = 0; at < size; at += 16)
        store_bytes(c, op, linear + at, from + at, 16);
}

static void copy_out(struct vcpu *c, const struct uop *op, uint64_t linear, unsigned from,
                     unsigned size)
{
    copy_bytes_out(c, op, linear, c->x.xsave + from, size);
}

/* Corrects the upper halves of FIP and FDP in the first 32 bytes of IMAGE. With REX.W they
 * belong to the pointers; else selectors stand there, which are always 0. */
static void clear_selectors(const struct uop *op, uint8_t *image)
{
    if (op->aux & XSTATE_WIDE)
        return;
    memset(image + 12, 0, 4);
    memset(image + 20, 0, 4);
}

static void copy_in(struct vcpu *c, const struct uop *op, uint64_t linear, uint8_t *to,
                    unsigned size)
{
    for (unsigned at = 0; at < size; at += 16)
        load_bytes(c, op, linear + at, to + at, 16);
}

static uint32_t mxcsr(const struct vcpu *c)
{
    uint32_t value;

    memcpy(&value, c->x.xsave + X86_XSAVE_MXCSR, 4);
    return value;
}

static void set_mxcsr(struct vcpu *c, uint32_t value)
{
    memcpy(c->x.xsave + X86_XSAVE_MXCSR, &value, 4);
}

/* Outside 64-bit mode XMM8-15 are neither saved nor restored. */
static unsigned xmm_bytes(const struct vcpu *c)
{
    return in_64(c) ? XMM_BYTES : XMM_BYTES / 2;
}

const struct uop *op_fxsave(struct vcpu *c, const struct uop *op)
{
    uint8_t head[32];
    uint64_t linear;
    uint32_t mask = MXCSR_MASK;

    fp_check(c, op, FP_X87);
    linear = ea_linear(c, op, 512, MMU_WRITE);
    if (linear & 15)
        raise_error(c, op, X86_GP, 0);
    probe_write(c, op, linear + 511, 1);
    memcpy(c->x.xsave + X86_XSAVE_MXCSR + 4, &mask, 4);
    memcpy(head, c->x.xsave, sizeof(head));
    clear_selectors(op, head);
    copy_bytes_out(c, op, linear, head, sizeof(head));
    copy_out(c, op, linear + 32, 32, LEGACY_X87 - 32 + xmm_bytes(c));
    return op + 1;
}

const struct uop *op_fxrstor(struct vcpu *c, const struct uop *op)
{
    uint8_t image[LEGACY_X87 + XMM_BYTES];
    uint64_t linear;
    uint32_t control;

    fp_check(c, op, FP_X87);
    linear = ea_linear(c, op, 512, MMU_READ);
    if (linear & 15)
        raise_error(c, op, X86_GP, 0);
    load8(c, op, linear + 511); /* all of the area must be there */
    copy_in(c, op, linear, image, LEGACY_X87 + xmm_bytes(c));
    memcpy(&control, image + X86_XSAVE_MXCSR, 4);
    if (control & ~MXCSR_MASK)
        raise_error(c, op, X86_GP, 0);
    clear_selectors(op, image);
    memcpy(c->x.xsave, image, LEGACY_X87 + xmm_bytes(c));
    x87_settle(c->x.xsave);
    return op + 1;
}

/* --- XSAVE ------------------------------------------------------------------------------------ */

/* Which components are not in their initial state (XINUSE). */
static uint64_t in_use(const struct vcpu *c)
{
    static const uint8_t zero[YMMH_BYTES];
    const uint8_t *x = c->x.xsave;
    uint64_t used = 0;
    uint16_t fcw;

    memcpy(&fcw, x, 2);
    if (fcw != FCW_INIT || memcmp(x + 2, zero, 22) != 0 || memcmp(x + 32, zero, 128) != 0)
        used |= X86_XCR0_X87;
    if (memcmp(x + X86_XSAVE_XMM, zero, XMM_BYTES) != 0 || mxcsr(c) != MXCSR_INIT)
        used |= X86_XCR0_SSE;
    if (memcmp(x + X86_XSAVE_YMMH, zero, YMMH_BYTES) != 0)
        used |= X86_XCR0_AVX;
    return used;
}

/* Raises what an instruction of the XSAVE family raises now. */
static void check_xsave(struct vcpu *c, const struct uop *op)
{
    if (!(c->x.cr4 & X86_CR4_OSXSAVE))
        raise_fault(c, op, X86_UD);
    if (c->x.cr0 & X86_CR0_TS)
        raise_fault(c, op, X86_NM);
}

/* Returns the components that an instruction of the XSAVE family is about (RFBM). */
static uint64_t requested(const struct vcpu *c)
{
    return (c->x.reg[X86_RDX] << 32 | (uint32_t)c->x.reg[X86_RAX]) & c->x.xcr0;
}

/* XSAVE, XSAVEOPT and XSAVEC. XSAVEC leaves out components in their initial state, and XSAVEOPT may
 * (here it does); the AVX component has the same offset in both forms. */
const struct uop *op_xsave(struct vcpu *c, const struct uop *op)
{
    uint64_t rfbm, save, linear, used, header[2] = {0};
    uint32_t mask = MXCSR_MASK;
    unsigned how = op->aux & XSTATE_FORM;
    uint8_t head[32];

    check_xsave(c, op);
    linear = ea_linear(c, op, 576, MMU_WRITE);
    if (linear & 63)
        raise_error(c, op, X86_GP, 0);
    rfbm = requested(c);
    used = in_use(c);
    save = how ? rfbm & used : rfbm;
    probe_write(c, op, linear + (save & X86_XCR0_AVX ? X86_XSAVE_SIZE : 576) - 1, 1);
    if (how == XSTATE_XSAVEC) {
        header[0] = save;
        header[1] = rfbm | XCOMP_COMPACTED;
    } else {
        header[0] = load64(c, op, linear + X86_XSAVE_HEADER);
        header[0] = (header[0] & ~rfbm) | (used & rfbm);
    }
    memcpy(c->x.xsave + X86_XSAVE_MXCSR + 4, &mask, 4);
    if (save & X86_XCR0_X87) {
        memcpy(head, c->x.xsave, sizeof(head));
        clear_selectors(op, head);
        store64(c, op, linear, *(uint64_t *)c->x.xsave);
        copy_bytes_out(c, op, linear + 8, head + 8, 16);
        copy_out(c, op, linear + 32, 32, LEGACY_X87 - 32);
    }
    if (how == XSTATE_XSAVEC ? save & X86_XCR0_SSE : rfbm & (X86_XCR0_SSE | X86_XCR0_AVX)) {
        store32(c, op, linear + X86_XSAVE_MXCSR, mxcsr(c));
        store32(c, op, linear + X86_XSAVE_MXCSR + 4, MXCSR_MASK);
    }
    if (save & X86_XCR0_SSE)
        copy_out(c, op, linear + X86_XSAVE_XMM, X86_XSAVE_XMM, xmm_bytes(c));
    if (save & X86_XCR0_AVX)
        copy_out(c, op, linear + X86_XSAVE_YMMH, X86_XSAVE_YMMH,
                 in_64(c) ? YMMH_BYTES : YMMH_BYTES / 2);
    store64(c, op, linear + X86_XSAVE_HEADER, header[0]);
    if (how == XSTATE_XSAVEC)
        store64(c, op, linear + X86_XSAVE_HEADER + 8, header[1]);
    return op + 1;
}

/* Checks the header and says which form the image has (SDM volume 1, 13.8). */
static void read_header(struct vcpu *c, const struct uop *op, uint64_t linear, uint64_t *bv,
                        bool *compacted)
{
    uint64_t header[8];

    for (unsigned i = 0; i < 8; i++)
        header[i] = load64(c, op, linear + X86_XSAVE_HEADER + i * 8);
    *bv = header[0];
    *compacted = header[1] & XCOMP_COMPACTED;
    if (*compacted) {
        uint64_t components = header[1] & ~XCOMP_COMPACTED;

        if ((components & ~c->x.xcr0) || (header[0] & ~components))
            raise_error(c, op, X86_GP, 0);
    } else if ((header[0] & ~c->x.xcr0) || header[1]) {
        raise_error(c, op, X86_GP, 0);
    }
    for (unsigned i = 2; i < (*compacted ? 8 : 3); i++)
        if (header[i])
            raise_error(c, op, X86_GP, 0);
}

const struct uop *op_xrstor(struct vcpu *c, const struct uop *op)
{
    _Alignas(64) uint8_t image[X86_XSAVE_SIZE] = {0};
    uint64_t rfbm, linear, bv;
    uint32_t control = MXCSR_INIT;
    uint16_t fcw = FCW_INIT;
    bool compacted, loads_mxcsr;

    check_xsave(c, op);
    linear = ea_linear(c, op, 576, MMU_READ);
    if (linear & 63)
        raise_error(c, op, X86_GP, 0);
    rfbm = requested(c);
    read_header(c, op, linear, &bv, &compacted);
    memcpy(image, &fcw, 2);
    if (rfbm & bv & X86_XCR0_X87) {
        copy_in(c, op, linear, image, 32);
        clear_selectors(op, image);
        copy_in(c, op, linear + 32, image + 32, LEGACY_X87 - 32);
    }
    /* The standard form loads MXCSR with SSE or AVX whatever XSTATE_BV says. */
    loads_mxcsr = rfbm & (compacted ? X86_XCR0_SSE : X86_XCR0_SSE | X86_XCR0_AVX);
    if (loads_mxcsr && (!compacted || (bv & X86_XCR0_SSE)))
        control = load32(c, op, linear + X86_XSAVE_MXCSR);
    if (control & ~MXCSR_MASK)
        raise_error(c, op, X86_GP, 0);
    if (rfbm & bv & X86_XCR0_SSE)
        copy_in(c, op, linear + X86_XSAVE_XMM, image + X86_XSAVE_XMM, xmm_bytes(c));
    if (rfbm & bv & X86_XCR0_AVX)
        copy_in(c, op, linear + X86_XSAVE_YMMH, image + X86_XSAVE_YMMH,
                in_64(c) ? YMMH_BYTES : YMMH_BYTES / 2);
    if (rfbm & X86_XCR0_X87) {
        x87_settle(image);
        memcpy(c->x.xsave, image, X86_XSAVE_MXCSR);
        memcpy(c->x.xsave + 32, image + 32, LEGACY_X87 - 32);
    }
    if (loads_mxcsr)
        set_mxcsr(c, control);
    if (rfbm & X86_XCR0_SSE)
        memcpy(c->x.xsave + X86_XSAVE_XMM, image + X86_XSAVE_XMM, xmm_bytes(c));
    if (rfbm & X86_XCR0_AVX)
        memcpy(c->x.xsave + X86_XSAVE_YMMH, image + X86_XSAVE_YMMH,
               in_64(c) ? YMMH_BYTES : YMMH_BYTES / 2);
    return op + 1;
}

/* --- Control registers of the register files -------------------------------------------------- */

/* aux: which register file's rules apply (VLDMXCSR: AVX). */
const struct uop *op_ldmxcsr(struct vcpu *c, const struct uop *op)
{
    uint32_t value;

    fp_check(c, op, op->aux);
    value = load32(c, op, ea_linear(c, op, 4, MMU_READ));
    if (value & ~MXCSR_MASK)
        raise_error(c, op, X86_GP, 0);
    set_mxcsr(c, value);
    return op + 1;
}

const struct uop *op_stmxcsr(struct vcpu *c, const struct uop *op)
{
    fp_check(c, op, op->aux);
    store32(c, op, ea_linear(c, op, 4, MMU_WRITE), mxcsr(c));
    return op + 1;
}

const struct uop *op_xgetbv(struct vcpu *c, const struct uop *op)
{
    uint32_t index = (uint32_t)c->x.reg[X86_RCX];
    uint64_t value;

    if (!(c->x.cr4 & X86_CR4_OSXSAVE))
        raise_fault(c, op, X86_UD);
    if (index > 1)
        raise_error(c, op, X86_GP, 0);
    value = index == 0 ? c->x.xcr0 : c->x.xcr0 & in_use(c);
    c->x.reg[X86_RAX] = (uint32_t)value;
    c->x.reg[X86_RDX] = value >> 32;
    return op + 1;
}

const struct uop *op_xsetbv(struct vcpu *c, const struct uop *op)
{
    uint64_t value = c->x.reg[X86_RDX] << 32 | (uint32_t)c->x.reg[X86_RAX];
    uint64_t allowed = x86_xcr0_bits(&c->core->machine.model);

    if (!(c->x.cr4 & X86_CR4_OSXSAVE))
        raise_fault(c, op, X86_UD);
    if (cpl(c) != 0 || (uint32_t)c->x.reg[X86_RCX] != 0 || (value & ~allowed) ||
        !(value & X86_XCR0_X87) || ((value & X86_XCR0_AVX) && !(value & X86_XCR0_SSE)))
        raise_error(c, op, X86_GP, 0);
    c->x.xcr0 = value;
    update_fp_trap(c);
    return end_block(c, op);
}
