/*
 * What the interpreter asks of a local APIC in KVM (bus/cpu_port.h), for an instruction that KVM
 * cannot execute, or that is executed as a single step.
 *
 * KVM itself carries out what concerns IA32_TSC_DEADLINE and, in x2APIC mode, registers. In xAPIC
 * mode there is no such way, so the registers are changed here, with nothing else at them.
 */
#include "cpu/kvm/lapic.h"
#include "cpu/kvm/lapic_page.h"

#include "base/util.h"

#include <errno.h>

/* --- Interrupts: KVM delivers them ------------------------------------------------------------ */

static int no_vector(void *apic)
{
    return -1;
}

/* --- Registers by number ---------------------------------------------------------------------- */

struct one_msr {
    uint32_t nmsrs, padding;
    struct kvm_msr_entry entry;
};

static int access_msr(struct kvm_lapic *lapic, unsigned long request, struct one_msr *msr)
{
    int ret = kvm_cpu_call(lapic->cpu, request, msr);

    if (ret < 0)
        kvm_fail(lapic->cpu, ret, "cannot access a register of the local APIC");
    return ret == 1 ? 0 : -1;
}

static int msr_read(void *opaque, uint32_t msr, uint64_t *value)
{
    struct kvm_lapic *lapic = opaque;
    struct one_msr one = {.nmsrs = 1, .entry.index = msr};

    if (msr == X86_MSR_APIC_BASE) {
        *value = lapic->base;
        return 0;
    }
    if (access_msr(lapic, KVM_GET_MSRS, &one) < 0)
        return -1;
    *value = one.entry.data;
    if (msr == X86_MSR_TSC_DEADLINE && *value)
        *value -= lapic->cpu->c.x.tsc_adjust;
    return 0;
}

/* IA32_APIC_BASE goes to KVM with the system registers, too. */
static int msr_write(void *opaque, uint32_t msr, uint64_t value)
{
    struct kvm_lapic *lapic = opaque;
    struct one_msr one = {.nmsrs = 1, .entry = {.index = msr, .data = value}};

    if (msr == X86_MSR_APIC_BASE &&
        !apic_base_allowed(lapic->base, value, lapic->all->physical_bits))
        return -1;
    if (msr == X86_MSR_TSC_DEADLINE && value)
        one.entry.data += lapic->cpu->c.x.tsc_adjust;
    if (access_msr(lapic, KVM_SET_MSRS, &one) < 0)
        return -1;
    if (msr == X86_MSR_APIC_BASE)
        lapic->base = value;
    return 0;
}

static unsigned get_cr8(void *opaque)
{
    const struct kvm_lapic *lapic = opaque;

    return lapic->cr8;
}

static void set_cr8(void *opaque, unsigned value)
{
    struct kvm_lapic *lapic = opaque;

    lapic->cr8 = value & 15;
    lapic->cr8_waits = true;
    lapic->cpu->is_known = false;
}

/* --- The page --------------------------------------------------------------------------------- */

static uint64_t page_base(void *opaque)
{
    const struct kvm_lapic *lapic = opaque;

    if (!(lapic->base & APIC_BASE_ENABLE) || (lapic->base & APIC_BASE_X2APIC))
        return UINT64_MAX;
    return ALIGN_DOWN(lapic->base, MEM_PAGE_SIZE);
}

static uint64_t mmio_read(void *opaque, uint32_t offset, unsigned size)
{
    struct kvm_lapic *lapic = opaque;
    const unsigned byte = offset % 16;
    struct kvm_lapic_state page;
    uint64_t value = 0;

    kvm_lapic_read(lapic->cpu, &page);
    if (byte < 4 && offset < APIC_END)
        value = apic_page_read(&page, offset - byte) >> 8 * byte;
    return size < 8 ? value & ((1ULL << 8 * size) - 1) : value;
}

/* What a write has to do with others, once nothing is held. */
struct after_write {
    int ended;     /* the vector of a level-triggered interrupt, or -1 */
    uint32_t sent; /* the low half of the interrupt command register, if SENDS */
    bool sends;
};

static void end_interrupt(struct kvm_lapic_state *page, struct after_write *after)
{
    int vector = apic_page_highest(page, APIC_ISR);

    if (vector < 0)
        return;
    apic_page_clear_bit(page, APIC_ISR, (unsigned)vector);
    if (apic_page_bit(page, APIC_TMR, (unsigned)vector) &&
        !(apic_page_read(page, APIC_SVR) & APIC_SVR_NO_BROADCAST))
        after->ended = vector;
}

static void write_svr(struct kvm_lapic_state *page, uint32_t value)
{
    apic_page_write(page, APIC_SVR, value & 0x13FF);
    for (unsigned i = 0; i < LAPIC_LVTS && !(value & APIC_SVR_ENABLE); i++) {
        unsigned at = APIC_LVT + 16 * i;

        apic_page_write(page, at, apic_page_read(page, at) | APIC_LVT_MASKED);
    }
}

/* A change of the timer's mode stops it. */
static void write_lvt(struct kvm_lapic_state *page, unsigned offset, uint32_t value)
{
    static const uint32_t writable[LAPIC_LVTS] = {0x700FF, 0x107FF, 0x107FF,
                                                  0x1A7FF, 0x1A7FF, 0x100FF};
    const uint32_t before = apic_page_read(page, offset);

    value &= writable[(offset - APIC_LVT) / 16];
    if (!(apic_page_read(page, APIC_SVR) & APIC_SVR_ENABLE))
        value |= APIC_LVT_MASKED;
    apic_page_write(page, offset, value | (before & APIC_LVT_REMOTE_IRR));
    if (offset == APIC_LVT && ((before ^ value) & APIC_LVT_TIMER_DEADLINE))
        apic_page_write(page, APIC_INITIAL, 0);
}

static void change(struct kvm_lapic_state *page, unsigned offset, uint32_t value,
                   struct after_write *after)
{
    switch (offset) {
    case APIC_TPR: apic_page_write(page, offset, value & 0xFF); break;
    case APIC_EOI: end_interrupt(page, after); break;
    case APIC_LDR: apic_page_write(page, offset, value & 0xFF000000); break;
    case APIC_DFR: apic_page_write(page, offset, value | 0x0FFFFFFF); break;
    case APIC_SVR: write_svr(page, value); break;
    case APIC_ESR: apic_page_write(page, offset, 0); break;
    case APIC_ICR_HIGH: apic_page_write(page, offset, value & 0xFF000000); break;
    case APIC_DIVIDE: apic_page_write(page, offset, value & 0xB); break;
    case APIC_ICR:
        apic_page_write(page, offset, value & 0xCCFFF);
        after->sends = true;
        after->sent = value;
        break;
    case APIC_INITIAL:
        apic_page_write(page, APIC_INITIAL, value);
        apic_page_write(page, APIC_CURRENT, value);
        break;
    default:
        if (offset >= APIC_LVT && offset < APIC_LVT + 16 * LAPIC_LVTS)
            write_lvt(page, offset, value);
    }
}

/* Sends what was written to the interrupt command register as messages: to one processor, or as the
 * destination says. */
static void send(struct kvm_lapic *lapic, const struct kvm_lapic_state *page, uint32_t low)
{
    enum { DESTINATION, SELF, ALL, OTHERS } shorthand = low >> 18 & 3;
    const uint32_t data = low & (APIC_LVT_MODE | APIC_LVT_VECTOR);
    const uint32_t to = apic_page_read(page, APIC_ICR_HIGH) >> 24;

    if ((low & APIC_LVT_MODE) == APIC_INIT << 8 && (low & 0xC000) == 0x8000)
        return; /* the level is deasserted: nothing to do since the Pentium 4 */
    if (shorthand == DESTINATION)
        kvm_lapics_send(lapic->all, APIC_BASE_USUAL | to << 12 | (low >> 11 & 1) << 2, data);
    for (unsigned i = 0; shorthand != DESTINATION && i < lapic->all->count; i++)
        if (shorthand == ALL || (i == lapic->id) == (shorthand == SELF))
            kvm_lapics_send(lapic->all, APIC_BASE_USUAL | i << 12, data);
}

/* KVM would start a timer anew that has come to its end. */
static int write_page(struct kvm_lapic *lapic, unsigned offset, uint32_t value,
                      struct kvm_lapic_state *page, struct after_write *after)
{
    int ret = kvm_lapic_get(lapic, page);

    if (ret < 0)
        return ret;
    if (!apic_page_counts(page))
        apic_page_write(page, APIC_INITIAL, 0);
    change(page, offset, value, after);
    ret = kvm_cpu_call(lapic->cpu, KVM_SET_LAPIC, page);
    lapic->cr8 = apic_page_read(page, APIC_TPR) >> 4;
    lapic->cr8_waits = false;
    return ret;
}

static void mmio_write(void *opaque, uint32_t offset, unsigned size, uint64_t value)
{
    struct kvm_lapic *lapic = opaque;
    const struct lapic_board *board = &lapic->all->board;
    struct after_write after = {.ended = -1};
    struct kvm_lapic_state page;
    int ret;

    if (offset % 16 || size < 4 || offset >= APIC_END)
        return;
    kvm_lapic_begin_change(lapic->cpu);
    ret = write_page(lapic, offset, (uint32_t)value, &page, &after);
    kvm_lapic_end_change(lapic->cpu);
    if (ret < 0)
        kvm_fail(lapic->cpu, ret, "cannot write to the local APIC");
    if (after.sends)
        send(lapic, &page, after.sent);
    if (after.ended >= 0)
        board->eoi(board->opaque, (unsigned)after.ended);
}

const struct apic_ops kvm_apic_ops = {
    .pending = no_vector,
    .ack = no_vector,
    .msr_read = msr_read,
    .msr_write = msr_write,
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .base = page_base,
    .get_cr8 = get_cr8,
    .set_cr8 = set_cr8,
};
