/*
 * The state of a local APIC as KVM has it: the page of its registers (struct kvm_lapic_state).
 */
#ifndef DOPPEL_CPU_KVM_LAPIC_PAGE_H
#define DOPPEL_CPU_KVM_LAPIC_PAGE_H

#include "bus/local_apic.h"

#include <linux/kvm.h>

/* IA32_APIC_BASE (SDM volume 3, figure 11-5). */
#define APIC_BASE_BSP    (1u << 8)
#define APIC_BASE_X2APIC (1u << 10)
#define APIC_BASE_ENABLE (1u << 11)
#define APIC_BASE_USUAL  0xFEE00000u

/* Offsets in the page (SDM volume 3, table 11-1). */
enum apic_register {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_EOI = 0xB0,
    APIC_LDR = 0xD0,
    APIC_DFR = 0xE0,
    APIC_SVR = 0xF0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT = 0x320, /* the first of LAPIC_LVTS */
    APIC_LVT_LINT0 = 0x350,
    APIC_INITIAL = 0x380,
    APIC_CURRENT = 0x390,
    APIC_DIVIDE = 0x3E0,
    APIC_END = 0x400,
};

#define APIC_SVR_ENABLE       (1u << 8)
#define APIC_SVR_NO_BROADCAST (1u << 12)

#define APIC_LVT_VECTOR         0xFFu
#define APIC_LVT_MODE           (7u << 8)
#define APIC_LVT_STATUS         (1u << 12)
#define APIC_LVT_REMOTE_IRR     (1u << 14)
#define APIC_LVT_MASKED         (1u << 16)
#define APIC_LVT_TIMER_MODE     (3u << 17)
#define APIC_LVT_TIMER_PERIODIC (1u << 17)
#define APIC_LVT_TIMER_DEADLINE (2u << 17)

/* Delivery modes. */
enum { APIC_FIXED, APIC_NMI = 4, APIC_INIT = 5, APIC_START_UP = 6, APIC_EXTINT = 7 };

uint32_t apic_page_read(const struct kvm_lapic_state *page, unsigned offset);
void apic_page_write(struct kvm_lapic_state *page, unsigned offset, uint32_t value);
/* The highest vector of 256 bits that begin at OFFSET, or -1. */
int apic_page_highest(const struct kvm_lapic_state *page, unsigned offset);
bool apic_page_bit(const struct kvm_lapic_state *page, unsigned offset, unsigned vector);
void apic_page_clear_bit(struct kvm_lapic_state *page, unsigned offset, unsigned vector);

/* The timer, in one-shot and periodic mode: whether it counts, when the period began if it is NOW,
 * and what it counts. */
bool apic_page_counts(const struct kvm_lapic_state *page);
uint64_t apic_page_timer_start(const struct kvm_lapic_state *page, uint64_t now);
/* Has the timer count from START on. If it has come to its end by NOW, KVM ends it at once. */
void apic_page_set_timer_start(struct kvm_lapic_state *page, uint64_t start, uint64_t now);

/* The two forms of a state. What a page does not have is left alone in STATE: base, errors, pins,
 * and when the timer began or ends. PAGE has a timer that counts from its beginning, if it counts.
 */
void apic_page_of(struct kvm_lapic_state *page, const struct lapic_state *state, unsigned id);
void apic_page_out(const struct kvm_lapic_state *page, struct lapic_state *state);

/* What RESET leaves in the local APIC of processor ID, and then firmware, which has the bootstrap
 * processor's in virtual-wire mode. */
void apic_after_firmware(struct lapic_state *state, unsigned id);

/* Whether a guest may write VALUE to IA32_APIC_BASE, which is BASE (SDM volume 3, 11.12.5). */
bool apic_base_allowed(uint64_t base, uint64_t value, unsigned physical_bits);

#endif
