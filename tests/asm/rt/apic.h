/*
 * The local APIC, as tests use it, and starting other processors (SDM volume 3, chapters 8.4, 10).
 */
#ifndef RT_APIC_H
#define RT_APIC_H

#include "x86.h"

enum apic_register {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xA0,
    APIC_EOI = 0xB0,
    APIC_LDR = 0xD0,
    APIC_DFR = 0xE0,
    APIC_SVR = 0xF0,
    APIC_ISR = 0x100,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3E0,
};

#define APIC_BASE      0xFEE00000ul
#define APIC_X2_ENABLE 0x400u /* IA32_APIC_BASE */

#define LVT_MASKED   0x10000u
#define LVT_PERIODIC 0x20000u
#define LVT_DEADLINE 0x40000u

#define ICR_NMI     0x400u
#define ICR_INIT    0x4500u /* with level assert */
#define ICR_SIPI    0x4600u
#define ICR_ASSERT  0x4000u
#define ICR_LOGICAL 0x800u
#define ICR_SELF    0x40000u
#define ICR_ALL     0x80000u
#define ICR_OTHERS  0xC0000u

static inline u32 apic_read(enum apic_register r)
{
    return *(volatile u32 *)(APIC_BASE + r);
}

static inline void apic_write(enum apic_register r, u32 v)
{
    *(volatile u32 *)(APIC_BASE + r) = v;
}

static inline void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

/* Enables the local APIC with spurious vector FFh. */
void apic_enable(void);
void apic_send(u32 icr, u32 destination);

/* Starts processor ID at FN with a stack of its own, the runtime's tables and interrupts off;
 * false when it does not come up within PATIENCE_MS. FN may not return a trap to TRAP(). */
bool ap_start(u32 id, void (*fn)(void));

/* How long a test waits for what must happen: the host may be busy, and may run none of its vCPUs
 * or timers for seconds. */
#define PATIENCE_MS 20000

/* Spins for at least N microseconds, by the PIT's third counter. */
void delay_us(u32 n);

#endif
