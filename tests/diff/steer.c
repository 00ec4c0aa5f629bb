/*
 * Steering: given a random instruction, chooses register values, memory contents and the fields of
 * the instruction itself such that its operands mean something: addresses in the window (inside
 * pages, across their edges, in read-only and absent ones, and a few that are not canonical), jump
 * targets in code, counts that end, selectors that exist, images that can be loaded.
 */
#include "generate.h"

#include "base/util.h"

#include <string.h>

static bool plan_set(struct plan *p, unsigned reg, uint64_t value)
{
    p->set |= 1u << reg;
    p->value[reg] = value;
    return true;
}

/* A value that is good to have, unless REG is needed for something else. */
static void plan_prefer(struct plan *p, unsigned reg, uint64_t value)
{
    if (!(p->set >> reg & 1))
        plan_set(p, reg, value);
}

/* What REG will hold. */
static uint64_t plan_get(const struct plan *p, unsigned reg)
{
    return p->set >> reg & 1 ? p->value[reg] : p->c->in.gpr[reg];
}

static int gpr_of(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR64:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR16: return ZydisRegisterGetId(reg);
    case ZYDIS_REGCLASS_GPR8: return reg <= ZYDIS_REGISTER_BL ? ZydisRegisterGetId(reg) : -1;
    default: return -1;
    }
}

static bool is64(const struct plan *p)
{
    return p->c->code_size == X86_CODE64;
}

static void poke64(struct plan *p, uint64_t address, uint64_t value, unsigned size)
{
    case_poke(p->c, address, &value, size);
}

static uint64_t window(struct plan *p, bool wide)
{
    return wide && is64(p) && rng_percent(p->rng, 40) ? DIFF_HIGH : DIFF_LOW;
}

uint64_t steer_code_target(struct plan *p)
{
    uint64_t base = p->address >= DIFF_HIGH ? DIFF_HIGH : DIFF_LOW;
    uint64_t r = rng_below(p->rng, 100);

    if (!is64(p))
        base -= diff_segment_base(p->c, X86_CS);
    if (r < 85 || p->tame)
        return base + DIFF_CODE + rng_below(p->rng, 0x2000);
    if (r < 90)
        return base + DIFF_CODE_RWX + rng_below(p->rng, 0x2000);
    if (r < 94)
        return base + DIFF_DATA + rng_below(p->rng, 0x2000); /* not executable */
    return base + rng_below(p->rng, DIFF_SIZE);
}

/* An address beside code that can be written, but not in it; 0 when this code is elsewhere. */
static uint64_t beside_code(struct plan *p, uint64_t base)
{
    uint64_t code = diff_code_offset(p->c, p->address);
    uint64_t offset = DIFF_CODE_RWX + rng_below(p->rng, 0x2000 - 64);

    if (code < DIFF_CODE_RWX || code >= DIFF_CODE_RWX + 0x2000)
        return 0;
    return offset + 1024 < code || offset > code + 1024 ? base + (offset & ~15ULL) : 0;
}

/* An address for SIZE bytes of data. WIDE: it may be above 4 GiB. */
static uint64_t data_target(struct plan *p, unsigned size, bool wide)
{
    uint64_t base = window(p, wide);
    uint64_t r = p->tame ? 0 : rng_below(p->rng, 100);
    uint64_t inside = rng_below(p->rng, size > 1 ? size : 2);
    uint64_t beside = rng_percent(p->rng, 15) ? beside_code(p, base) : 0;

    if (beside)
        return beside;
    if (r < 84) {
        uint64_t offset = rng_below(p->rng, 0x2000 - 0x400);

        if ((p->tame && size >= 16) || rng_percent(p->rng, 60))
            offset &= ~63ULL;
        return base + DIFF_DATA + offset;
    }
    if (r < 89)
        return base + DIFF_DATA + 0x1000 - inside; /* across two pages */
    if (r < 91)
        return base + DIFF_READONLY - inside;
    if (r < 93)
        return base + DIFF_DATA2 - inside;
    if (r < 95)
        return base + DIFF_DATA2 + 0x1000 - inside; /* into an absent page */
    if (r < 96)
        return base + DIFF_STACK - inside; /* out of one */
    if (r < 97)
        return base + DIFF_READONLY + rng_below(p->rng, 0xF00);
    if (r < 98)
        return base + DIFF_CODE + rng_below(p->rng, 0x1F00);
    if (r < 99 && wide && is64(p) && size <= 32)
        return rng_percent(p->rng, 50) ? 1ULL << 63 | rng_next(p->rng) >> 2
                                       : 0x800000000000 - inside;
    return base + rng_below(p->rng, DIFF_SIZE);
}

/* A stack pointer. */
static uint64_t stack_target(struct plan *p)
{
    uint64_t base = window(p, true) + DIFF_STACK;

    if (!is64(p))
        base -= diff_segment_base(p->c, X86_SS);
    if (diff_small_stack(p->c))
        base += rng_next(p->rng) << 16;
    if (!p->tame && rng_percent(p->rng, 4))
        return base + rng_below(p->rng, 40);
    if (!p->tame && rng_percent(p->rng, 4))
        return base + 0x2000 - rng_below(p->rng, 40);
    if (!p->tame && rng_percent(p->rng, 4))
        return base + 0x800 + rng_below(p->rng, 0x1000);
    return base + 0x800 + (rng_below(p->rng, 0x1000) & ~15ULL);
}

static uint64_t segment_base(const struct plan *p, ZydisRegister segment)
{
    if (segment == ZYDIS_REGISTER_NONE || (is64(p) && segment < ZYDIS_REGISTER_FS))
        return 0;
    return diff_segment_base(p->c, (enum x86_segment)(segment - ZYDIS_REGISTER_ES));
}

/* The linear address of the stack's top. */
static uint64_t stack_top(const struct plan *p)
{
    return diff_stack_linear(p->c, plan_get(p, X86_RSP));
}

/* Gives the field of SIZE bits at OFFSET of the instruction a value. */
static void patch(struct plan *p, unsigned offset, unsigned size, uint64_t value)
{
    memcpy(p->bytes + offset, &value, size / 8);
}

/* Vector of indices: small, so that the elements stay near the base. */
static void steer_vsib(struct plan *p, const ZydisDecodedOperandMem *mem)
{
    unsigned id = (unsigned)ZydisRegisterGetId(mem->index);

    for (unsigned half = 0; half < 2; half++)
        for (unsigned i = 0; i < 16; i += 4) {
            int32_t index = rng_percent(p->rng, 90) ? (int32_t)rng_below(p->rng, 128) - 64
                                                    : (int32_t)rng_next(p->rng);

            if (i & 4 && rng_percent(p->rng, 50)) /* so that quadword indices are small too */
                index = 0;
            memcpy(p->c->in.xsave + (half ? X86_XSAVE_YMMH : X86_XSAVE_XMM) + id * 16 + i, &index,
                   4);
        }
}

/* Makes operand OP address TARGET. False when it cannot. */
static bool steer_address(struct plan *p, const struct x86_insn *insn,
                          const ZydisDecodedOperand *op, uint64_t target)
{
    const ZydisDecodedOperandMem *mem = &op->mem;
    unsigned disp_size = insn->z.raw.disp.size;
    int base = gpr_of(mem->base), index = -1;
    uint64_t rest = target - segment_base(p, mem->segment), scaled = 0;

    if (insn->z.address_width == 16 && segment_base(p, mem->segment) < DIFF_LOW)
        return true; /* nothing is mapped down there */
    if (mem->type == ZYDIS_MEMOP_TYPE_VSIB)
        steer_vsib(p, mem);
    else
        index = mem->index == ZYDIS_REGISTER_NONE ? -1 : gpr_of(mem->index);
    if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP) {
        uint64_t window_base = p->address >= DIFF_HIGH ? DIFF_HIGH : DIFF_LOW;

        if (insn->z.address_width == 32 && window_base == DIFF_HIGH)
            return false;
        rest = window_base + (target & 0xFFFFF) - segment_base(p, mem->segment);
        patch(p, insn->z.raw.disp.offset, 32, rest - p->address - insn->z.length);
        return true;
    }
    if (index >= 0 && index != base) {
        /* XLAT's index is AL alone */
        uint64_t value = ZydisRegisterGetClass(mem->index) == ZYDIS_REGCLASS_GPR8
                             ? plan_get(p, X86_RAX) & 0xFF
                             : rng_below(p->rng, 4096) - 2048;

        if (ZydisRegisterGetClass(mem->index) != ZYDIS_REGCLASS_GPR8)
            plan_set(p, (unsigned)index, value);
        scaled = value * (mem->scale ? mem->scale : 1);
    }
    if (base < 0) {
        if (disp_size < 16)
            return false;
        if (disp_size <= 32) /* must reach */
            rest = (target & 0xFFFFF) + DIFF_LOW - segment_base(p, mem->segment);
        patch(p, insn->z.raw.disp.offset, disp_size, rest - scaled);
        return true;
    }
    rest -= scaled;
    if (mem->disp.has_displacement)
        rest -= (uint64_t)mem->disp.value;
    if (index == base)
        rest /= (uint64_t)mem->scale + 1;
    return plan_set(p, (unsigned)base, rest);
}

/* A selector to load: of Linux's GDT, null, or beyond what is there. */
static uint16_t random_selector(struct plan *p)
{
    static const uint16_t selector[] = {
        DIFF_DS,   DIFF_DS,     DIFF_DS,      0,
        3,         DIFF_CS64,   DIFF_CS32,    0x10,
        0x18,      0x28,        0x2A,         0x1B,
        0x83,      0x43,        0xFFFB,       DIFF_CS16,
        DIFF_DS16, DIFF_DOWN,   DIFF_DS32,    DIFF_DOWN & ~3,
        0x3F,      DIFF_ABSENT, DIFF_DS_READ, DIFF_CS_EXECUTE,
    };

    if (p->c->code_size == X86_CODE16 && rng_percent(p->rng, 40))
        return DIFF_DS16;
    return p->tame ? DIFF_DS : selector[rng_below(p->rng, ARRAY_SIZE(selector))];
}

static uint16_t code_selector(struct plan *p)
{
    if (p->c->code_size == X86_CODE16 && rng_percent(p->rng, 70))
        return DIFF_CS16;
    return rng_percent(p->rng, 40)   ? DIFF_CS64
           : rng_percent(p->rng, 70) ? DIFF_CS32
                                     : random_selector(p);
}

/* The address that a memory operand was steered to. */
static uint64_t address_of(const struct plan *p, const struct x86_insn *insn,
                           const ZydisDecodedOperand *op)
{
    const ZydisDecodedOperandMem *mem = &op->mem;
    uint64_t address = 0;
    int64_t disp = mem->disp.value;
    int base = gpr_of(mem->base);

    if (insn->z.raw.disp.size == 32) { /* may have been patched */
        int32_t disp32;

        memcpy(&disp32, p->bytes + insn->z.raw.disp.offset, 4);
        disp = disp32;
    } else if (insn->z.raw.disp.size == 16) {
        memcpy(&disp, p->bytes + insn->z.raw.disp.offset, 2);
    }
    if (mem->base == ZYDIS_REGISTER_RIP)
        address = p->address + insn->z.length;
    else if (base >= 0)
        address = plan_get(p, (unsigned)base);
    if (mem->index != ZYDIS_REGISTER_NONE && gpr_of(mem->index) >= 0)
        address += plan_get(p, (unsigned)gpr_of(mem->index)) * mem->scale;
    if (mem->disp.has_displacement)
        address += (uint64_t)disp;
    if (insn->z.address_width < 64)
        address &= (1ULL << insn->z.address_width) - 1;
    return address + segment_base(p, mem->segment);
}

/* A far pointer to TARGET. Whether more than 32 bits of an offset in 32-bit code are looked at is
 * for each vendor to say: AMD's processors raise #GP, Intel's drop them (SDM volume 2, RET). */
static void poke_far(struct plan *p, uint64_t address, uint64_t target, unsigned operand,
                     unsigned selector_size)
{
    uint16_t selector = code_selector(p);

    poke64(p, address, selector == DIFF_CS64 ? target : (uint32_t)target, operand);
    poke64(p, address + operand, selector, selector_size);
}

/* Registers are what near branches, far ones and loads of segment registers make of them. */
static void steer_control(struct plan *p, const struct x86_insn *insn)
{
    const ZydisDecodedOperand *op = &insn->op[0];
    unsigned operand = insn->z.operand_width / 8, width = is64(p) ? 8 : operand;
    uint64_t target = steer_code_target(p), rsp = stack_top(p);

    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_RET:
        if (insn->info->class == X86_CLASS_FAR) {
            /* Which check comes first when more than one fails differs. */
            if (insn->z.raw.imm[0].size)
                patch(p, insn->z.raw.imm[0].offset, 16, rng_below(p->rng, 256));
            poke_far(p, rsp, target, operand, operand);
        } else {
            poke64(p, rsp, target, width);
        }
        return;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        poke_far(p, rsp, target, operand, operand);
        poke64(p, rsp + 2 * operand, (rng_next(p->rng) & (X86_FLAGS_STATUS | X86_FLAG_DF)) | 2,
               operand);
        poke64(p, rsp + 3 * operand, stack_target(p), operand);
        poke64(p, rsp + 4 * operand, random_selector(p), operand);
        return;
    default: break;
    }
    if (insn->z.raw.imm[0].is_relative) {
        if (insn->z.raw.imm[0].size >= 16)
            patch(p, insn->z.raw.imm[0].offset, insn->z.raw.imm[0].size,
                  target - p->address - insn->z.length);
    } else if (op->type == ZYDIS_OPERAND_TYPE_POINTER) {
        patch(p, insn->z.raw.imm[0].offset, insn->z.raw.imm[0].size, target);
        patch(p, insn->z.raw.imm[1].offset, 16, code_selector(p));
    } else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of(op->reg.value) >= 0) {
        plan_set(p, (unsigned)gpr_of(op->reg.value), target);
    } else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        uint64_t address = address_of(p, insn, op);

        if (insn->info->class == X86_CLASS_FAR) {
            poke_far(p, address, target, operand, 2);
        } else {
            poke64(p, address, target, width);
        }
    }
}

/* Selectors, for whatever loads a segment register or looks one up. */
static void steer_selector(struct plan *p, const struct x86_insn *insn)
{
    const ZydisDecodedOperand *op = &insn->op[0];
    uint16_t selector = random_selector(p);

    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_POP: poke64(p, stack_top(p), selector, 2); return;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
        poke64(p, address_of(p, insn, &insn->op[1]) + insn->z.operand_width / 8, selector, 2);
        return;
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL: op = &insn->op[1]; break;
    default: break;
    }
    if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of(op->reg.value) >= 0)
        plan_set(p, (unsigned)gpr_of(op->reg.value),
                 (plan_get(p, (unsigned)gpr_of(op->reg.value)) & ~0xFFFFULL) | selector);
    else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
        poke64(p, address_of(p, insn, op), selector, 2);
}

/* MXCSR and the XSAVE header, for what loads them (SDM volume 1, 10.2.3, 13.4.2). */
static bool steer_image(struct plan *p, const struct x86_insn *insn)
{
    uint64_t address = address_of(p, insn, &insn->op[0]), bv = rng_next(p->rng) & 7, comp = 0;
    uint32_t mxcsr = (uint32_t)rng_next(p->rng) & (rng_percent(p->rng, 95) ? 0xFFFF : 0x1FFFF);

    if (rng_percent(p->rng, 80))
        mxcsr |= 0x1F80;
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR: poke64(p, address, mxcsr, 4); return true;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: poke64(p, address + 24, mxcsr, 4); return true;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        if (rng_percent(p->rng, 20))
            comp = 1ULL << 63 | bv;
        if (rng_percent(p->rng, 5))
            bv |= 1ULL << 62;
        poke64(p, address + 24, mxcsr, 4);
        for (unsigned i = 0; i < 64; i += 8)
            poke64(p, address + 512 + i, i == 0 ? bv : i == 8 ? comp : 0, 8);
        break;
    default: break;
    }
    if (p->set & (1u << X86_RAX | 1u << X86_RDX))
        return false;
    /* The host's XCR0 has components that the guest's lacks. */
    plan_set(p, X86_RAX, rng_next(p->rng) & 7);
    plan_set(p, X86_RDX, 0);
    return true;
}

/* Dividends that do not always overflow. */
static void steer_divide(struct plan *p, const struct x86_insn *insn)
{
    uint64_t rax = rng_value(p->rng);

    if (rng_percent(p->rng, 30))
        return;
    if (insn->z.operand_width == 8)
        rax = rng_percent(p->rng, 50) ? rax & 0xFF : (uint64_t)(int8_t)rax;
    plan_prefer(p, X86_RAX, rax);
    plan_prefer(p, X86_RDX,
                insn->z.mnemonic == ZYDIS_MNEMONIC_IDIV && rax >> (insn->z.operand_width - 1) & 1
                    ? UINT64_MAX
                    : rng_below(p->rng, 3));
}

/* Lets compare-and-exchange find what it expects half of the time. */
static void steer_exchange(struct plan *p, const struct x86_insn *insn)
{
    uint64_t address, half = insn->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ? 8 : 4;

    if (insn->op[0].type != ZYDIS_OPERAND_TYPE_MEMORY || rng_percent(p->rng, 50))
        return;
    address = address_of(p, insn, &insn->op[0]);
    if (insn->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG) {
        poke64(p, address, plan_get(p, X86_RAX), insn->op[0].size / 8);
    } else {
        poke64(p, address, plan_get(p, X86_RAX), (unsigned)half);
        poke64(p, address + half, plan_get(p, X86_RDX), (unsigned)half);
    }
}

/* Whether COUNT elements from RDI on, upwards or downwards, come near the instruction itself, in
 * either window. Whether one that is overwritten while it repeats goes on is not said (SDM volume
 * 3, 9.1.3). */
static bool reaches_itself(const struct plan *p, const struct x86_insn *insn, uint64_t count)
{
    const uint64_t mask = (1u << 20) - 1; /* the windows are aligned by more */
    uint64_t reach = (uint32_t)count * (insn->z.operand_width / 8u) + 64;
    uint64_t code = p->address, to = plan_get(p, X86_RDI);

    if (!is64(p)) {
        code += diff_segment_base(p->c, X86_CS);
        to += diff_segment_base(p->c, X86_ES);
    }
    return ((to - code) & mask) < reach || ((code - to) & mask) < reach;
}

/* Has RDI lead to the same window as RSI if COUNT elements from each overlap: what a fast-string
 * operation makes of an overlap that it cannot see in the addresses is not said (SDM volume 1,
 * 7.3.9.3). */
static void avoid_alias(struct plan *p, const struct x86_insn *insn, uint64_t count)
{
    const uint64_t mask = (1u << 20) - 1;
    uint64_t reach = (uint32_t)count * (insn->z.operand_width / 8u) + 64;
    uint64_t from = plan_get(p, X86_RSI), to = plan_get(p, X86_RDI);

    if (is64(p) && (((to - from) & mask) < reach || ((from - to) & mask) < reach))
        plan_set(p, X86_RDI, (from & ~mask) | (to & mask));
}

static void steer_string(struct plan *p, const struct x86_insn *insn)
{
    bool addresses_32 = insn->z.address_width == 32 && is64(p);
    uint64_t count = 1;

    if (insn->z.attributes &
        (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
        count = rng_below(p->rng, rng_percent(p->rng, 90) ? 40 : 1500);
        if (reaches_itself(p, insn, count))
            count = 1;
        /* Only the counter's part that the address size selects counts. */
        if (count && addresses_32 && rng_percent(p->rng, 50))
            count |= rng_next(p->rng) << 32;
        plan_set(p, X86_RCX, count);
        avoid_alias(p, insn, count);
    }
    if (p->set >> X86_RSI & p->set >> X86_RDI & 1 && rng_percent(p->rng, 25))
        plan_set(p, X86_RDI, plan_get(p, X86_RSI) + rng_below(p->rng, 80) - 40);
    /* What becomes of upper halves if there is nothing to do is not said (SDM volume 2, REP). */
    if (!count && addresses_32) {
        plan_set(p, X86_RSI, (uint32_t)plan_get(p, X86_RSI));
        plan_set(p, X86_RDI, (uint32_t)plan_get(p, X86_RDI));
    }
}

/* What single mnemonics need besides addresses. */
static void steer_special(struct plan *p, const struct x86_insn *insn)
{
    switch (insn->z.mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV: steer_divide(p, insn); break;
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B: steer_exchange(p, insn); break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        /* The offset reaches beyond the operand. */
        if (insn->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            insn->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            !(p->set >> gpr_of(insn->op[1].reg.value) & 1))
            plan_set(p, (unsigned)gpr_of(insn->op[1].reg.value), rng_below(p->rng, 1024) - 512);
        break;
    case ZYDIS_MNEMONIC_ENTER:
        plan_set(p, X86_RBP, stack_target(p));
        if (rng_percent(p->rng, 90))
            patch(p, insn->z.raw.imm[0].offset, 16, rng_below(p->rng, 256));
        if (rng_percent(p->rng, 50))
            patch(p, insn->z.raw.imm[1].offset, 8, rng_below(p->rng, 4));
        break;
    case ZYDIS_MNEMONIC_LEAVE: plan_set(p, X86_RBP, stack_target(p)); break;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        if (rng_percent(p->rng, 70))
            plan_set(p, X86_RCX, rng_next(p->rng) & (is64(p) ? 0x100000003 : 3));
        break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: {
        uint64_t flags = rng_next(p->rng);

        if (p->tame || rng_percent(p->rng, 90))
            flags &= ~(uint64_t)(X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_ID | X86_FLAG_AC);
        poke64(p, stack_top(p), flags, 8);
        break;
    }
    default: break;
    }
}

static bool uses_stack(const struct x86_insn *insn)
{
    for (unsigned i = insn->z.operand_count_visible; i < insn->z.operand_count; i++)
        if (insn->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            gpr_of(insn->op[i].reg.value) == X86_RSP)
            return true;
    return insn->info->class == X86_CLASS_STACK || insn->info->class == X86_CLASS_FAR;
}

/* Immediates like edges too. */
static void steer_immediate(struct plan *p, const struct x86_insn *insn)
{
    if (insn->z.raw.imm[0].size && !insn->z.raw.imm[0].is_relative && rng_percent(p->rng, 50))
        patch(p, insn->z.raw.imm[0].offset, insn->z.raw.imm[0].size, rng_value(p->rng));
}

static bool wants_selector(const struct x86_insn *insn)
{
    if (insn->info->class == X86_CLASS_SYSTEM)
        return insn->info->privilege == X86_PRIV_USER;
    return insn->z.mnemonic == ZYDIS_MNEMONIC_POP && insn->info->sensitive;
}

bool steer(struct plan *p, const struct x86_insn *insn)
{
    bool wide = insn->z.address_width == 64;

    steer_immediate(p, insn);
    for (unsigned i = 0; i < insn->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &insn->op[i];
        uint64_t target;

        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        /* Between the elements of a gather there may be a trap or not. */
        if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            p->c->in.rflags &= ~(uint64_t)(X86_FLAG_AC | X86_FLAG_TF);
        /* Whether vectors are checked is for each vendor to say (SDM volume 2, 2.4; APM volume 2,
         * 8.2.17). */
        if (op->size > 64 || insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
            p->c->in.rflags &= ~(uint64_t)X86_FLAG_AC;
        if (gpr_of(op->mem.base) == X86_RSP)
            continue;
        target = data_target(p, op->size / 8, wide);
        if (insn->info->class == X86_CLASS_XSTATE && insn->op[0].size > 32 * 8 &&
            rng_percent(p->rng, 90))
            target &= ~63ULL;
        if (!steer_address(p, insn, op, target))
            return false;
    }
    for (unsigned i = 0; i < insn->z.operand_count; i++) /* explicit ones based on RSP */
        if (insn->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            gpr_of(insn->op[i].mem.base) == X86_RSP && i < insn->z.operand_count_visible &&
            !steer_address(p, insn, &insn->op[i], stack_target(p)))
            return false;
    if (uses_stack(insn) && !(p->set >> X86_RSP & 1))
        plan_set(p, X86_RSP, stack_target(p));
    steer_special(p, insn);
    if (insn->info->class == X86_CLASS_STRING)
        steer_string(p, insn);
    if (insn->info->class == X86_CLASS_XSTATE && !steer_image(p, insn))
        return false;
    if (wants_selector(insn))
        steer_selector(p, insn);
    if (insn->info->class == X86_CLASS_BRANCH || insn->info->class == X86_CLASS_FAR)
        steer_control(p, insn);
    return true;
}
