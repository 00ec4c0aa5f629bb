/*
 * String instructions. A repeated one goes on until RCX is 0, a fault is raised, or a request is
 * pending. Registers are up to date after every iteration, so it can begin again where it stopped.
 * Elements within a page are moved at once where the result is the same.
 */
#include "cpu/core/access.h"
#include "cpu/core/debug.h"
#include "cpu/interp/handlers.h"

#include <string.h>

static uint64_t address_mask(const struct uop *op)
{
    return op->asize == 8 ? ~0ULL : op->asize == 4 ? 0xFFFFFFFF : 0xFFFF;
}

/* Returns the distance from one element to the next. */
static int64_t element_step(const struct vcpu *c, const struct uop *op)
{
    return c->x.rflags & X86_FLAG_DF ? -(int64_t)op->osize : op->osize;
}

/* Moves the pointer in REG over COUNT elements. */
static void advance(struct vcpu *c, const struct uop *op, unsigned reg, uint64_t count)
{
    set_reg(c, reg * 8, op->asize, c->x.reg[reg] + (uint64_t)element_step(c, op) * count);
}

static uint64_t source(struct vcpu *c, const struct uop *op)
{
    uint64_t offset = c->x.reg[X86_RSI] & address_mask(op);

    return seg_linear(c, op, op->seg, offset, op->osize, MMU_READ);
}

static uint64_t destination(struct vcpu *c, const struct uop *op, enum mmu_access access)
{
    uint64_t offset = c->x.reg[X86_RDI] & address_mask(op);

    return seg_linear(c, op, X86_ES, offset, op->osize, access);
}

/* Returns how many of COUNT elements from LINEAR upwards lie in its page; 0 if it is not aligned.
 */
static uint64_t in_page(const struct uop *op, uint64_t linear, uint64_t count)
{
    uint64_t left = MEM_PAGE_SIZE - (linear & (MEM_PAGE_SIZE - 1));

    return MIN(count, left / op->osize);
}

/* Whether elements within a page may be moved at once: DF is clear, and no limit or wrap of an
 * address can lie between the first element and the last. */
static bool in_one_go(const struct vcpu *c, const struct uop *op, uint64_t run)
{
    bool flat = in_64(c) || (c->mode & MODE_FLAT);

    return run > 1 && element_step(c, op) > 0 && flat && (op->seg < X86_FS || op->asize == 8);
}

/* --- One step of each: returns how many of at most COUNT elements it did ---------------------- */

static uint64_t movs(struct vcpu *c, const struct uop *op, uint64_t count)
{
    uint64_t from = source(c, op), to = destination(c, op, MMU_WRITE);
    uint64_t run = MIN(in_page(op, from, count), in_page(op, to, count));

    if (in_one_go(c, op, run)) {
        uint64_t bytes = run * op->osize;
        const void *s = fast_read(c, from, 1);
        void *d = fast_write(c, to, 1);

        /* If the destination overlaps the source from above, moving the elements one by one repeats
         * a pattern; memmove would not. */
        if (s && d && (uintptr_t)d - (uintptr_t)s >= bytes) {
            memmove(d, s, bytes);
            advance(c, op, X86_RSI, run);
            advance(c, op, X86_RDI, run);
            return run;
        }
    }
    store_sized(c, op, to, op->osize, load_sized(c, op, from, op->osize));
    advance(c, op, X86_RSI, 1);
    advance(c, op, X86_RDI, 1);
    return 1;
}

static void fill(void *to, uint64_t value, unsigned size, uint64_t count)
{
    if (size == 1 || value == 0) {
        memset(to, (int)(value & 0xFF), size * count);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        memcpy((uint8_t *)to + i * size, &value, size);
}

static uint64_t stos(struct vcpu *c, const struct uop *op, uint64_t count)
{
    uint64_t to = destination(c, op, MMU_WRITE), value = get_reg(c, 0, op->osize);
    uint64_t run = in_page(op, to, count);

    if (in_one_go(c, op, run)) {
        void *d = fast_write(c, to, 1);

        if (d) {
            fill(d, value, op->osize, run);
            advance(c, op, X86_RDI, run);
            return run;
        }
    }
    store_sized(c, op, to, op->osize, value);
    advance(c, op, X86_RDI, 1);
    return 1;
}

static uint64_t lods(struct vcpu *c, const struct uop *op, uint64_t count)
{
    set_reg(c, 0, op->osize, load_sized(c, op, source(c, op), op->osize));
    advance(c, op, X86_RSI, 1);
    return 1;
}

/* Sets the status flags as CMP of A and B does. */
static void compare(struct vcpu *c, uint64_t a, uint64_t b, unsigned size)
{
    unsigned shift = 64 - size * 8;
    uint32_t flags;

    /* Shifted up, only AF would be wrong: it is the borrow out of bit 3. */
    __asm__("cmpq %[b], %[a]\n\tlahf\n\tseto %%al"
            : "=&a"(flags)
            : [a] "r"(a << shift), [b] "r"(b << shift)
            : "cc");
    flags &= ~(CC_AF | CC_PF);
    flags |= ((a ^ b ^ (a - b)) & 0x10 ? CC_AF : 0);
    flags |= __builtin_parity((uint8_t)(a - b)) ? 0 : CC_PF;
    c->cc = (uint16_t)flags;
}

static uint64_t cmps(struct vcpu *c, const struct uop *op, uint64_t count)
{
    uint64_t a = load_sized(c, op, source(c, op), op->osize);
    uint64_t b = load_sized(c, op, destination(c, op, MMU_READ), op->osize);

    compare(c, a, b, op->osize);
    advance(c, op, X86_RSI, 1);
    advance(c, op, X86_RDI, 1);
    return 1;
}

static uint64_t scas(struct vcpu *c, const struct uop *op, uint64_t count)
{
    uint64_t b = load_sized(c, op, destination(c, op, MMU_READ), op->osize);

    compare(c, get_reg(c, 0, op->osize), b, op->osize);
    advance(c, op, X86_RDI, 1);
    return 1;
}

static uint64_t ins(struct vcpu *c, const struct uop *op, uint64_t count)
{
    unsigned port = REG16(c, X86_RDX * 8);
    uint64_t to = destination(c, op, MMU_WRITE);

    probe_write(c, op, to, op->osize); /* reading the port may have effects */
    store_sized(c, op, to, op->osize, port_in(c, op, port, op->osize));
    advance(c, op, X86_RDI, 1);
    return 1;
}

static uint64_t outs(struct vcpu *c, const struct uop *op, uint64_t count)
{
    unsigned port = REG16(c, X86_RDX * 8);
    uint64_t value = load_sized(c, op, source(c, op), op->osize);

    port_out(c, op, port, op->osize, value);
    advance(c, op, X86_RSI, 1);
    return 1;
}

/* --- Repetition ---------------------------------------------------------------------------------
 */

typedef uint64_t step_fn(struct vcpu *c, const struct uop *op, uint64_t count);

/* Whether a repetition must pause after the present element. */
static bool interrupted(const struct vcpu *c)
{
    return c->stepping || c->x.trap_pending ||
           atomic_load_explicit(&c->port->requests, memory_order_relaxed);
}

/* Executes ONE as often as the prefix says. COMPARES: ZF ends the repetition, too. */
static inline const struct uop *repeat(struct vcpu *c, const struct uop *op, step_fn *one,
                                       bool compares)
{
    uint64_t mask = address_mask(op), left;

    if (op->aux == STRING_ONCE) {
        one(c, op, 1);
        return op + 1;
    }
    for (;;) {
        uint64_t did;

        left = c->x.reg[X86_RCX] & mask;
        if (left == 0)
            return op + 1;
        did = one(c, op, c->stepping ? 1 : left);
        left -= did;
        set_reg(c, X86_RCX * 8, op->asize, left);
        if (left == 0)
            return op + 1;
        if (compares && !(c->cc & CC_ZF) == (op->aux == STRING_REP))
            return op + 1;
        if (unlikely(interrupted(c))) {
            /* The instruction is executed again; with RF its breakpoint does not fire again. */
            c->x.reg[X86_RIP] += op->off;
            if (!in_64(c))
                c->x.reg[X86_RIP] = (uint32_t)c->x.reg[X86_RIP];
            c->link = NO_LINK;
            c->repeating = true;
            counter_sub(&c->instructions, 1); /* it is counted when its last element is executed */
            return NULL;
        }
    }
}

const struct uop *op_movs(struct vcpu *c, const struct uop *op)
{
    return repeat(c, op, movs, false);
}

const struct uop *op_stos(struct vcpu *c, const struct uop *op)
{
    return repeat(c, op, stos, false);
}

const struct uop *op_lods(struct vcpu *c, const struct uop *op)
{
    return repeat(c, op, lods, false);
}

const struct uop *op_cmps(struct vcpu *c, const struct uop *op)
{
    return repeat(c, op, cmps, true);
}

const struct uop *op_scas(struct vcpu *c, const struct uop *op)
{
    return repeat(c, op, scas, true);
}

/* INS and OUTS. The right to the port is checked even if nothing is repeated. The block ends,
 * because a device may have changed anything. */
static const struct uop *repeat_port(struct vcpu *c, const struct uop *op, step_fn *one)
{
    check_port(c, op, REG16(c, X86_RDX * 8), op->osize);
    return repeat(c, op, one, false) ? end_block(c, op) : NULL;
}

const struct uop *op_ins(struct vcpu *c, const struct uop *op)
{
    return repeat_port(c, op, ins);
}

const struct uop *op_outs(struct vcpu *c, const struct uop *op)
{
    return repeat_port(c, op, outs);
}
