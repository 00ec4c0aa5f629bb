/*
 * The local APIC's registers: the xAPIC page (SDM volume 3, 11.4), the x2APIC MSRs (11.12),
 * IA32_APIC_BASE with its mode changes, and IA32_TSC_DEADLINE.
 */
#include "dev/pc/lapic_private.h"

#include "base/util.h"

#define MSR_APIC_BASE    0x1Bu
#define MSR_TSC_DEADLINE 0x6E0u
#define MSR_X2APIC       0x800u

/* Register numbers: the offset in the page / 16, and the MSR less 800h. */
enum reg {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0A,
    REG_EOI = 0x0B,
    REG_RRD = 0x0C,
    REG_LDR = 0x0D,
    REG_DFR = 0x0E,
    REG_SVR = 0x0F,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_ICR_HIGH = 0x31,
    REG_LVT = 0x32,
    REG_INITIAL = 0x38,
    REG_CURRENT = 0x39,
    REG_DIVIDE = 0x3E,
    REG_SELF_IPI = 0x3F,
    REG_COUNT = 0x40,
};

/* Integrated APIC, highest LVT entry 5 (no CMCI), EOI broadcasts can be suppressed. */
#define VERSION (LAPIC_VERSION | (LVT_COUNT - 1) << 16 | 1u << 24)

/* Who may access a register: reads (R) and writes (W), through the page and as an MSR (2). */
enum { R = 1, W = 2, R2 = 4, W2 = 8, RW = R | W, RW2 = R2 | W2, ALL = RW | RW2 };

#define LVT_RO (LVT_STATUS | LVT_REMOTE_IRR)

static const struct {
    uint8_t access;
    uint64_t bits; /* that may be written; others are ignored in the page and #GP in the MSR */
} regs[REG_COUNT] = {
    [REG_ID] = {R | R2, 0},
    [REG_VERSION] = {R | R2, 0},
    [REG_TPR] = {ALL, 0xFF},
    [REG_APR] = {R, 0},
    [REG_PPR] = {R | R2, 0},
    [REG_EOI] = {W | W2, 0},
    [REG_RRD] = {R, 0},
    [REG_LDR] = {RW | R2, 0xFF000000},
    [REG_DFR] = {RW, 0xF0000000},
    [REG_SVR] = {ALL, 0x13FF},
    [REG_ISR... REG_ISR + 7] = {R | R2, 0},
    [REG_TMR... REG_TMR + 7] = {R | R2, 0},
    [REG_IRR... REG_IRR + 7] = {R | R2, 0},
    [REG_ESR] = {ALL, 0},
    /* Bit 12, delivery status, does not exist in x2APIC mode; some processors let it pass. */
    [REG_ICR] = {ALL, 0xFFFFFFFF000CDFFF},
    [REG_ICR_HIGH] = {RW, 0xFF000000},
    [REG_LVT + LVT_TIMER] = {ALL, LVT_VECTOR | LVT_STATUS | LVT_MASKED | LVT_TIMER_MODE},
    [REG_LVT + LVT_THERMAL] = {ALL, LVT_VECTOR | LVT_MODE | LVT_STATUS | LVT_MASKED},
    [REG_LVT + LVT_PERF] = {ALL, LVT_VECTOR | LVT_MODE | LVT_STATUS | LVT_MASKED},
    [REG_LVT + LVT_LINT0] = {ALL, 0x1F7FF},
    [REG_LVT + LVT_LINT1] = {ALL, 0x1F7FF},
    [REG_LVT + LVT_ERROR] = {ALL, LVT_VECTOR | LVT_STATUS | LVT_MASKED},
    [REG_INITIAL] = {ALL, UINT32_MAX},
    [REG_CURRENT] = {R | R2, 0},
    [REG_DIVIDE] = {ALL, 0xB},
    [REG_SELF_IPI] = {W2, 0xFF},
};

/* --- reading --- */

static uint32_t vectors_word(const struct lapic_vectors *set, unsigned n)
{
    return (uint32_t)(set->word[n / 2] >> 32 * (n % 2));
}

static uint64_t reg_read(struct lapic *apic, unsigned reg)
{
    switch (reg) {
    case REG_ID: return lapic_is_x2apic(apic) ? apic->port->id : apic->port->id << 24;
    case REG_VERSION: return VERSION;
    case REG_TPR: return apic->regs.tpr;
    case REG_PPR: return lapic_priority(apic);
    case REG_LDR: return lapic_logical_id(apic);
    case REG_DFR: return apic->regs.dfr;
    case REG_SVR: return apic->regs.svr;
    case REG_ISR ... REG_ISR + 7: return vectors_word(&apic->regs.isr, reg - REG_ISR);
    case REG_TMR ... REG_TMR + 7: return vectors_word(&apic->regs.tmr, reg - REG_TMR);
    case REG_IRR ... REG_IRR + 7: return vectors_word(&apic->regs.irr, reg - REG_IRR);
    case REG_ESR: return apic->regs.esr;
    case REG_ICR: return lapic_is_x2apic(apic) ? apic->regs.icr : (uint32_t)apic->regs.icr;
    case REG_ICR_HIGH: return apic->regs.icr >> 32;
    case REG_LVT ... REG_LVT + LVT_COUNT - 1: return apic->regs.lvt[reg - REG_LVT];
    case REG_INITIAL: return apic->regs.timer_initial;
    case REG_CURRENT: return lapic_timer_count(apic);
    case REG_DIVIDE: return apic->regs.timer_divide;
    default: return 0; /* APR and RRD, which later processors do not have */
    }
}

/* --- writing --- */

/* Which combinations of shorthand and delivery mode exist (11.6.1, table 11-3). */
static bool icr_valid(enum shorthand shorthand, enum delivery delivery)
{
    switch (delivery) {
    case DELIVER_FIXED: return true;
    case DELIVER_LOWEST:
    case DELIVER_NMI:
    case DELIVER_INIT:
    case DELIVER_SIPI: return shorthand == TO_DESTINATION || shorthand == TO_OTHERS;
    default: return false;
    }
}

/* A write to the ICR sends an interprocessor interrupt. */
static void send_ipi(struct lapic *apic, uint64_t icr)
{
    struct apic_message message = {
        .delivery = (icr & LVT_MODE) >> 8,
        .vector = icr & LVT_VECTOR,
        .shorthand = icr >> 18 & 3,
        .logical = icr >> 11 & 1,
        .destination = (uint32_t)(lapic_is_x2apic(apic) ? icr >> 32 : icr >> 56),
    };
    message.broadcast = message.destination == (lapic_is_x2apic(apic) ? UINT32_MAX : 0xFF);
    bool level_deassert = (icr & LVT_LEVEL) && !(icr & 1u << 14);
    if (!icr_valid(message.shorthand, message.delivery))
        return;
    /* Once synchronized the APICs' arbitration IDs; it has meant nothing since the Pentium 4. */
    if (message.delivery == DELIVER_INIT && level_deassert)
        return;
    if (message.delivery <= DELIVER_LOWEST && message.vector < 16) {
        lapic_log_error(apic, ESR_SEND_ILLEGAL_VECTOR);
        return;
    }
    apic->outbox.message = message;
    apic->outbox.has_message = true;
}

static void write_svr(struct lapic *apic, uint32_t value)
{
    apic->regs.svr = value;
    if (value & SVR_ENABLE)
        return;
    lapic_timer_set_lvt(apic, apic->regs.lvt[LVT_TIMER] | LVT_MASKED);
    for (unsigned i = 0; i < LVT_COUNT; i++)
        apic->regs.lvt[i] |= LVT_MASKED;
}

static void write_lvt(struct lapic *apic, enum lvt entry, uint32_t value)
{
    value = (value & ~LVT_RO) | (apic->regs.lvt[entry] & LVT_RO);
    if (!(apic->regs.svr & SVR_ENABLE))
        value |= LVT_MASKED;
    if (entry == LVT_TIMER) {
        lapic_timer_set_lvt(apic, value);
        return;
    }
    if (!(value & LVT_LEVEL))
        value &= ~LVT_REMOTE_IRR;
    apic->regs.lvt[entry] = value;
    if (entry == LVT_LINT0 || entry == LVT_LINT1)
        lapic_level_lint(apic, entry - LVT_LINT0);
}

/* VALUE has no bits set but those in regs[]. */
static void reg_write(struct lapic *apic, unsigned reg, uint64_t value)
{
    switch (reg) {
    case REG_TPR: apic->regs.tpr = (uint8_t)value; break;
    case REG_EOI: lapic_eoi(apic); break;
    case REG_LDR: apic->regs.ldr = (uint32_t)value; break;
    case REG_DFR: apic->regs.dfr = (uint32_t)value | 0x0FFFFFFF; break;
    case REG_SVR: write_svr(apic, (uint32_t)value); break;
    case REG_ESR:
        apic->regs.esr = apic->regs.errors;
        apic->regs.errors = 0;
        break;
    case REG_ICR:
        value &= ~(uint64_t)LVT_STATUS;
        if (!lapic_is_x2apic(apic))
            value = (apic->regs.icr & ~(uint64_t)UINT32_MAX) | (uint32_t)value;
        apic->regs.icr = value;
        send_ipi(apic, value);
        break;
    case REG_ICR_HIGH: apic->regs.icr = value << 32 | (uint32_t)apic->regs.icr; break;
    case REG_LVT ... REG_LVT + LVT_COUNT - 1:
        write_lvt(apic, (enum lvt)(reg - REG_LVT), (uint32_t)value);
        break;
    case REG_INITIAL: lapic_timer_set_initial(apic, (uint32_t)value); break;
    case REG_DIVIDE: lapic_timer_set_divide(apic, (uint8_t)value); break;
    case REG_SELF_IPI: send_ipi(apic, value | TO_SELF << 18); break;
    }
}

/* --- the page --- */

static bool has(unsigned reg, unsigned access)
{
    return reg < REG_COUNT && (regs[reg].access & access);
}

/* Each register is the first four bytes of its sixteen. Other offsets and unusual sizes, which the
 * manual leaves undefined, read what bytes there are; a write must be of a whole register. */
static uint64_t page_read(void *opaque, uint32_t offset, unsigned size)
{
    struct lapic *apic = opaque;
    unsigned reg = offset / 16, byte = offset % 16;
    uint64_t value = 0;
    lapic_enter(apic);
    if (!has(reg, RW))
        lapic_log_error(apic, ESR_ILLEGAL_REGISTER);
    else if (has(reg, R) && byte < 4)
        value = reg_read(apic, reg) >> 8 * byte;
    lapic_leave(apic);
    return size < 8 ? value & ((1ULL << 8 * size) - 1) : value;
}

static void page_write(void *opaque, uint32_t offset, unsigned size, uint64_t value)
{
    struct lapic *apic = opaque;
    unsigned reg = offset / 16;
    if (offset % 16 || size < 4)
        return;
    lapic_enter(apic);
    if (!has(reg, RW))
        lapic_log_error(apic, ESR_ILLEGAL_REGISTER);
    else if (has(reg, W))
        reg_write(apic, reg, (uint32_t)value & regs[reg].bits);
    lapic_leave(apic);
}

static uint64_t page_base(void *opaque)
{
    struct lapic *apic = opaque;
    return atomic_load(&apic->page);
}

/* --- IA32_APIC_BASE --- */

/* The mode changes that figure 11-27 allows: x2APIC mode is entered from xAPIC mode only, and left
 * by disabling only. */
static int write_base(struct lapic *apic, uint64_t value)
{
    bool was_enabled = apic->regs.base & BASE_ENABLE;
    bool enable = value & BASE_ENABLE, x2apic = value & BASE_X2APIC;
    if ((value & apic->set->base_reserved) || (x2apic && (!enable || !was_enabled)) ||
        (lapic_is_x2apic(apic) && enable && !x2apic))
        return -1;
    if (was_enabled && !enable)
        lapic_clear(apic);
    apic->regs.base = value;
    return 0;
}

/* --- MSRs --- */

static int msr_read(void *opaque, uint32_t msr, uint64_t *value)
{
    struct lapic *apic = opaque;
    int result = 0;
    lapic_enter(apic);
    if (msr == MSR_APIC_BASE)
        *value = apic->regs.base;
    else if (msr == MSR_TSC_DEADLINE)
        *value = lapic_timer_tsc(apic);
    else if (msr >= MSR_X2APIC && has(msr - MSR_X2APIC, R2) && lapic_is_x2apic(apic))
        *value = reg_read(apic, msr - MSR_X2APIC);
    else
        result = -1;
    lapic_leave(apic);
    return result;
}

static int msr_write(void *opaque, uint32_t msr, uint64_t value)
{
    struct lapic *apic = opaque;
    unsigned reg = msr - MSR_X2APIC;
    int result = 0;
    lapic_enter(apic);
    if (msr == MSR_APIC_BASE)
        result = write_base(apic, value);
    else if (msr == MSR_TSC_DEADLINE)
        lapic_timer_set_tsc(apic, value);
    else if (lapic_is_x2apic(apic) && has(reg, W2) && !(value & ~regs[reg].bits))
        reg_write(apic, reg, value);
    else
        result = -1;
    lapic_leave(apic);
    return result;
}

static unsigned get_cr8(void *opaque)
{
    struct lapic *apic = opaque;
    return atomic_load(&apic->task) >> 4;
}

static void set_cr8(void *opaque, unsigned value)
{
    struct lapic *apic = opaque;
    lapic_enter(apic);
    reg_write(apic, REG_TPR, (value & 15) << 4);
    lapic_leave(apic);
}

const struct apic_ops lapic_apic_ops = {
    .pending = lapic_pending,
    .ack = lapic_acknowledge,
    .msr_read = msr_read,
    .msr_write = msr_write,
    .mmio_read = page_read,
    .mmio_write = page_write,
    .base = page_base,
    .get_cr8 = get_cr8,
    .set_cr8 = set_cr8,
};
