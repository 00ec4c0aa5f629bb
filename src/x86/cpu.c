/*
 * The processor's state after RESET and INIT (SDM volume 3, table 10-1), and how exceptions combine
 * (SDM volume 3, 6.15).
 */
#include "x86/cpu.h"

#include <string.h>

static void set_real_segment(struct x86_seg *seg, uint16_t selector, uint64_t base, uint16_t type)
{
    *seg = (struct x86_seg){
        .base = base,
        .limit = 0xFFFF,
        .attr = X86_ATTR_P | type,
        .selector = selector,
    };
}

/* What RESET and INIT do alike. */
static void reset_common(struct x86_cpu *cpu)
{
    const uint16_t data = X86_ATTR_S | X86_ATTR_WRITE | X86_ATTR_ACCESSED;

    memset(cpu->reg, 0, sizeof(cpu->reg));
    cpu->reg[X86_RIP] = 0xFFF0;
    cpu->reg[X86_RDX] = X86_CPU_SIGNATURE;
    cpu->rflags = X86_FLAG_ONE;
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        set_real_segment(&cpu->seg[i], 0, 0, data);
    set_real_segment(&cpu->seg[X86_CS], 0xF000, 0xFFFF0000, data | X86_ATTR_CODE);
    set_real_segment(&cpu->ldtr, 0, 0, 2);
    set_real_segment(&cpu->tr, 0, 0, 11);
    cpu->gdtr = cpu->idtr = (struct x86_dtr){.limit = 0xFFFF};
    cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->efer = 0;
    memset(cpu->dr, 0, sizeof(cpu->dr));
    cpu->dr6 = X86_DR6_RESET;
    cpu->dr7 = X86_DR7_RESET;
    cpu->activity = X86_RUNNING;
    cpu->interrupt_shadow = cpu->ss_shadow = cpu->trap_pending = false;
    cpu->pending_dr6 = 0;
    cpu->nmi_blocked = false;
    cpu->nmis_pending = 0;
    cpu->exception = (struct x86_exception){0};
}

void x86_cpu_reset(struct x86_cpu *cpu)
{
    const uint16_t fcw = 0x0040; /* unlike after FNINIT */
    const uint16_t ftw = 0x00FF; /* the abridged form: RESET leaves +0.0, valid, everywhere */
    const uint32_t mxcsr = 0x1F80, mask = X86_MXCSR_MASK;

    memset(cpu, 0, sizeof(*cpu));
    reset_common(cpu);
    cpu->cr0 = X86_CR0_CD | X86_CR0_NW | X86_CR0_ET;
    cpu->xcr0 = X86_XCR0_X87;
    cpu->pat = 0x0007040600070406;
    cpu->misc_enable = X86_MISC_ENABLE_FAST_STRINGS;
    memcpy(&cpu->xsave[0], &fcw, sizeof(fcw));
    memcpy(&cpu->xsave[4], &ftw, sizeof(ftw));
    memcpy(&cpu->xsave[X86_XSAVE_MXCSR], &mxcsr, sizeof(mxcsr));
    memcpy(&cpu->xsave[X86_XSAVE_MXCSR + 4], &mask, sizeof(mask));
}

/* INIT keeps the caches' control bits, x87, SSE and AVX state, XCR0 and most MSRs. */
void x86_cpu_init(struct x86_cpu *cpu)
{
    uint64_t cr0 = cpu->cr0;

    reset_common(cpu);
    cpu->cr0 = (cr0 & (X86_CR0_CD | X86_CR0_NW)) | X86_CR0_ET;
}

bool x86_vector_has_error(unsigned vector)
{
    switch (vector) {
    case X86_DF:
    case X86_TS:
    case X86_NP:
    case X86_SS_FAULT:
    case X86_GP:
    case X86_PF:
    case X86_AC: return true;
    default: return false;
    }
}

/* #DE, #TS, #NP, #SS and #GP: a second of them is a double fault. */
static bool is_contributory(int vector)
{
    return vector == X86_DE || (vector >= X86_TS && vector <= X86_GP);
}

int x86_vector_combine(int first, int second)
{
    if (first == X86_DF && (is_contributory(second) || second == X86_PF))
        return -1;
    if (is_contributory(first) && is_contributory(second))
        return X86_DF;
    if (first == X86_PF && (is_contributory(second) || second == X86_PF))
        return X86_DF;
    return second;
}
