/*
 * Local APICs in the form of KVM and in that of all engines (SDM volume 3, 11.4 to 11.12).
 */
#include "cpu/kvm/lapic_page.h"

#include "base/util.h"

#include <string.h>

#define WORDS 8u /* of 32 bits, in registers with a bit for each vector */

uint32_t apic_page_read(const struct kvm_lapic_state *page, unsigned offset)
{
    uint32_t value;

    memcpy(&value, page->regs + offset, sizeof(value));
    return value;
}

void apic_page_write(struct kvm_lapic_state *page, unsigned offset, uint32_t value)
{
    memcpy(page->regs + offset, &value, sizeof(value));
}

/* --- Bits for vectors ------------------------------------------------------------------------- */

static unsigned word_of(unsigned offset, unsigned vector)
{
    return offset + 16 * (vector / 32);
}

int apic_page_highest(const struct kvm_lapic_state *page, unsigned offset)
{
    for (int i = WORDS - 1; i >= 0; i--) {
        uint32_t word = apic_page_read(page, offset + 16 * (unsigned)i);

        if (word)
            return 32 * i + 31 - __builtin_clz(word);
    }
    return -1;
}

bool apic_page_bit(const struct kvm_lapic_state *page, unsigned offset, unsigned vector)
{
    return apic_page_read(page, word_of(offset, vector)) >> vector % 32 & 1;
}

void apic_page_clear_bit(struct kvm_lapic_state *page, unsigned offset, unsigned vector)
{
    unsigned at = word_of(offset, vector);

    apic_page_write(page, at, apic_page_read(page, at) & ~(1u << vector % 32));
}

static void put_vectors(struct kvm_lapic_state *page, unsigned offset,
                        const struct lapic_vectors *set)
{
    for (unsigned i = 0; i < WORDS; i++)
        apic_page_write(page, offset + 16 * i, (uint32_t)(set->word[i / 2] >> 32 * (i % 2)));
}

static void take_vectors(const struct kvm_lapic_state *page, unsigned offset,
                         struct lapic_vectors *set)
{
    memset(set, 0, sizeof(*set));
    for (unsigned i = 0; i < WORDS; i++)
        set->word[i / 2] |= (uint64_t)apic_page_read(page, offset + 16 * i) << 32 * (i % 2);
}

/* --- The timer -------------------------------------------------------------------------------- */

static uint64_t divisor(const struct kvm_lapic_state *page)
{
    uint32_t divide = apic_page_read(page, APIC_DIVIDE);

    return 1u << (((divide & 3) | (divide >> 1 & 4)) + 1) % 8;
}

static uint32_t timer_mode(const struct kvm_lapic_state *page)
{
    return apic_page_read(page, APIC_LVT) & APIC_LVT_TIMER_MODE;
}

bool apic_page_counts(const struct kvm_lapic_state *page)
{
    if (timer_mode(page) == APIC_LVT_TIMER_DEADLINE || !apic_page_read(page, APIC_INITIAL))
        return false;
    return timer_mode(page) == APIC_LVT_TIMER_PERIODIC || apic_page_read(page, APIC_CURRENT);
}

/* KVM lengthens short periods, so the current count may be above the initial one. */
uint64_t apic_page_timer_start(const struct kvm_lapic_state *page, uint64_t now)
{
    uint32_t initial = apic_page_read(page, APIC_INITIAL);
    uint64_t counted = initial - MIN(initial, apic_page_read(page, APIC_CURRENT));

    return now - counted * divisor(page);
}

void apic_page_set_timer_start(struct kvm_lapic_state *page, uint64_t start, uint64_t now)
{
    uint32_t initial = apic_page_read(page, APIC_INITIAL);
    uint64_t passed = now > start ? (now - start) / divisor(page) : 0;

    if (timer_mode(page) == APIC_LVT_TIMER_PERIODIC && initial)
        passed %= initial;
    apic_page_write(page, APIC_CURRENT, passed < initial ? (uint32_t)(initial - passed) : 0);
}

/* --- All of it -------------------------------------------------------------------------------- */

void apic_page_of(struct kvm_lapic_state *page, const struct lapic_state *state, unsigned id)
{
    const bool x2apic = state->base & APIC_BASE_X2APIC;
    const bool counts = state->timer_running && state->timer_initial;

    memset(page, 0, sizeof(*page));
    apic_page_write(page, APIC_ID, x2apic ? id : id << 24);
    apic_page_write(page, APIC_TPR, state->tpr);
    apic_page_write(page, APIC_LDR, state->ldr);
    apic_page_write(page, APIC_DFR, state->dfr);
    apic_page_write(page, APIC_SVR, state->svr);
    put_vectors(page, APIC_ISR, &state->isr);
    put_vectors(page, APIC_TMR, &state->tmr);
    put_vectors(page, APIC_IRR, &state->irr);
    apic_page_write(page, APIC_ESR, state->esr);
    apic_page_write(page, APIC_ICR, (uint32_t)state->icr);
    apic_page_write(page, APIC_ICR_HIGH, (uint32_t)(state->icr >> 32));
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        apic_page_write(page, APIC_LVT + 16 * i, state->lvt[i]);
    apic_page_write(page, APIC_DIVIDE, state->timer_divide);
    /* KVM would start one that has come to its end. */
    apic_page_write(page, APIC_INITIAL, counts ? state->timer_initial : 0);
    apic_page_write(page, APIC_CURRENT, counts ? state->timer_initial : 0);
}

void apic_page_out(const struct kvm_lapic_state *page, struct lapic_state *state)
{
    state->tpr = (uint8_t)apic_page_read(page, APIC_TPR);
    state->ldr = apic_page_read(page, APIC_LDR);
    state->dfr = apic_page_read(page, APIC_DFR);
    state->svr = apic_page_read(page, APIC_SVR);
    take_vectors(page, APIC_ISR, &state->isr);
    take_vectors(page, APIC_TMR, &state->tmr);
    take_vectors(page, APIC_IRR, &state->irr);
    state->esr = (uint8_t)apic_page_read(page, APIC_ESR);
    state->icr = apic_page_read(page, APIC_ICR) & ~(uint64_t)APIC_LVT_STATUS;
    state->icr |= (uint64_t)apic_page_read(page, APIC_ICR_HIGH) << 32;
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        state->lvt[i] = apic_page_read(page, APIC_LVT + 16 * i) & ~APIC_LVT_STATUS;
    state->timer_divide = (uint8_t)(apic_page_read(page, APIC_DIVIDE) & 0xB);
    state->timer_initial = apic_page_read(page, APIC_INITIAL);
    if (state->base & APIC_BASE_X2APIC) /* it follows from the ID */
        state->ldr = 0;
}

void apic_after_firmware(struct lapic_state *state, unsigned id)
{
    *state = (struct lapic_state){
        .base = APIC_BASE_USUAL | APIC_BASE_ENABLE | (id ? 0 : APIC_BASE_BSP),
        .dfr = UINT32_MAX,
        .svr = 0xFF,
    };
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        state->lvt[i] = APIC_LVT_MASKED;
    if (id)
        return;
    state->svr |= APIC_SVR_ENABLE;
    state->lvt[3] = APIC_EXTINT << 8;
    state->lvt[4] = APIC_NMI << 8;
}

bool apic_base_allowed(uint64_t base, uint64_t value, unsigned physical_bits)
{
    const uint64_t reserved = ~((1ULL << physical_bits) - 1) | 0x2FF;
    const bool enable = value & APIC_BASE_ENABLE, x2apic = value & APIC_BASE_X2APIC;

    if (value & reserved || (x2apic && (!enable || !(base & APIC_BASE_ENABLE))))
        return false;
    return !((base & APIC_BASE_X2APIC) && enable && !x2apic);
}
