/*
 * The architectural state of one x86-64 processor (SDM volume 1 chapter 3, volume 3 chapter 2).
 *
 * This is the common form of the state: engines give it out and take it in (cpu/engine.h), a
 * snapshot holds it, and engines are compared by it. Pure data: no memory, no time, no OS.
 */
#ifndef DOPPEL_X86_CPU_H
#define DOPPEL_X86_CPU_H

#include <stdbool.h>
#include <stdint.h>

enum x86_gpr {
    X86_RAX,
    X86_RCX,
    X86_RDX,
    X86_RBX,
    X86_RSP,
    X86_RBP,
    X86_RSI,
    X86_RDI,
    X86_R8,
    X86_R9,
    X86_R10,
    X86_R11,
    X86_R12,
    X86_R13,
    X86_R14,
    X86_R15,
    X86_GPRS,
};

enum x86_segment { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SEGMENTS };

/* RFLAGS (SDM volume 1, 3.4.3). */
#define X86_FLAG_CF   (1u << 0)
#define X86_FLAG_ONE  (1u << 1)
#define X86_FLAG_PF   (1u << 2)
#define X86_FLAG_AF   (1u << 4)
#define X86_FLAG_ZF   (1u << 6)
#define X86_FLAG_SF   (1u << 7)
#define X86_FLAG_TF   (1u << 8)
#define X86_FLAG_IF   (1u << 9)
#define X86_FLAG_DF   (1u << 10)
#define X86_FLAG_OF   (1u << 11)
#define X86_FLAG_IOPL (3u << 12)
#define X86_FLAG_NT   (1u << 14)
#define X86_FLAG_RF   (1u << 16)
#define X86_FLAG_VM   (1u << 17)
#define X86_FLAG_AC   (1u << 18)
#define X86_FLAG_VIF  (1u << 19)
#define X86_FLAG_VIP  (1u << 20)
#define X86_FLAG_ID   (1u << 21)
/* CF PF AF ZF SF OF: what arithmetic writes. */
#define X86_FLAGS_STATUS 0x8D5u

/* CR0 (SDM volume 3, 2.5). */
#define X86_CR0_PE (1u << 0)
#define X86_CR0_MP (1u << 1)
#define X86_CR0_EM (1u << 2)
#define X86_CR0_TS (1u << 3)
#define X86_CR0_ET (1u << 4)
#define X86_CR0_NE (1u << 5)
#define X86_CR0_WP (1u << 16)
#define X86_CR0_AM (1u << 18)
#define X86_CR0_NW (1u << 29)
#define X86_CR0_CD (1u << 30)
#define X86_CR0_PG (1u << 31)

/* All of them; the others are ignored or, in the upper half, reserved. */
#define X86_CR0_DEFINED                                                                            \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP |    \
     X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)

/* CR4 (SDM volume 3, 2.5). */
#define X86_CR4_VME        (1u << 0)
#define X86_CR4_PVI        (1u << 1)
#define X86_CR4_TSD        (1u << 2)
#define X86_CR4_DE         (1u << 3)
#define X86_CR4_PSE        (1u << 4)
#define X86_CR4_PAE        (1u << 5)
#define X86_CR4_MCE        (1u << 6)
#define X86_CR4_PGE        (1u << 7)
#define X86_CR4_PCE        (1u << 8)
#define X86_CR4_OSFXSR     (1u << 9)
#define X86_CR4_OSXMMEXCPT (1u << 10)
#define X86_CR4_UMIP       (1u << 11)
#define X86_CR4_FSGSBASE   (1u << 16)
#define X86_CR4_PCIDE      (1u << 17)
#define X86_CR4_OSXSAVE    (1u << 18)
#define X86_CR4_SMEP       (1u << 20)
#define X86_CR4_SMAP       (1u << 21)

/* IA32_EFER (SDM volume 3, 2.2.1). */
#define X86_EFER_SCE (1u << 0)
#define X86_EFER_LME (1u << 8)
#define X86_EFER_LMA (1u << 10)
#define X86_EFER_NXE (1u << 11)

/* Debug registers (SDM volume 3, 17.2): bits that always read as 1. */
#define X86_DR6_RESET 0xFFFF0FF0u
#define X86_DR7_RESET 0x400u

#define X86_MISC_ENABLE_FAST_STRINGS 1u /* IA32_MISC_ENABLE (SDM volume 4) */

/* Type, family, model and stepping, as CPUID leaf 1 and RDX after RESET give them: family 6, model
 * 3Ch (Haswell), stepping 3. */
#define X86_CPU_SIGNATURE 0x000306C3u

/* A segment register with its hidden part. ATTR holds bits 40-55 of the descriptor (SDM volume 3,
 * 3.4.5): type, S, DPL, P in the low byte, AVL, L, D/B, G in bits 12-15; bits 8-11 are 0. LIMIT is
 * in bytes, already scaled by G. */
struct x86_seg {
    uint64_t base;
    uint32_t limit;
    uint16_t attr;
    uint16_t selector;
};
#define X86_ATTR_TYPE      0x000Fu
#define X86_ATTR_ACCESSED  0x0001u
#define X86_ATTR_WRITE     0x0002u /* data: writable; code: readable */
#define X86_ATTR_DOWN      0x0004u /* data: expand-down; code: conforming */
#define X86_ATTR_CODE      0x0008u
#define X86_ATTR_S         0x0010u /* code or data, not system */
#define X86_ATTR_DPL       0x0060u
#define X86_ATTR_DPL_SHIFT 5
#define X86_ATTR_P         0x0080u
#define X86_ATTR_AVL       0x1000u
#define X86_ATTR_L         0x2000u
#define X86_ATTR_DB        0x4000u
#define X86_ATTR_G         0x8000u
/* Not a descriptor bit: the register holds a null selector and cannot be used. */
#define X86_ATTR_UNUSABLE 0x0100u

struct x86_dtr { /* GDTR, IDTR */
    uint64_t base;
    uint16_t limit;
};

/* The standard-form XSAVE area for x87, SSE and AVX (SDM volume 1, 13.4). Its bytes are the
 * registers, whatever the header says: nobody keeps that. */
#define X86_XSAVE_SIZE   832
#define X86_XSAVE_MXCSR  24
#define X86_MXCSR_MASK   0xFFFFu /* the bits that MXCSR has */
#define X86_XSAVE_XMM    160
#define X86_XSAVE_HEADER 512
#define X86_XSAVE_YMMH   576
#define X86_XCR0_X87     1u
#define X86_XCR0_SSE     2u
#define X86_XCR0_AVX     4u
#define X86_XCR0_ALL     7u

/* An exception on its way to its handler. */
struct x86_exception {
    uint32_t error;
    uint16_t vector;
    bool has_error, pending;
};

enum x86_activity { X86_RUNNING, X86_HALTED, X86_WAIT_SIPI, X86_SHUTDOWN };

struct x86_cpu {
    /* The sixteen registers; then two slots that make operand addresses uniform: X86_NONE always
     * reads 0 and X86_RIP is the instruction pointer. */
    uint64_t reg[18];
    uint64_t rflags; /* complete when given out by an engine */
    struct x86_seg seg[X86_SEGMENTS], ldtr, tr;
    struct x86_dtr gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
    uint64_t pdpte[4];      /* PAE paging's PDPTE registers (SDM volume 3, 4.4.1) */
    unsigned physical_bits; /* MAXPHYADDR, set by the engine from its CPU model */
    uint64_t dr[4], dr6, dr7;

    /* MSRs that the processor itself keeps (SDM volume 4). The local APIC keeps its own. */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_aux, tsc_adjust; /* guest TSC = clock_tsc() + tsc_adjust */
    uint64_t pat, misc_enable, spec_ctrl, mcg_status;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    uint64_t kvm_system_time, kvm_wall_clock, kvm_pv_eoi; /* KVM's paravirtual MSRs */

    enum x86_activity activity;
    bool interrupt_shadow; /* the last instruction was STI, MOV SS or POP SS */
    bool ss_shadow;        /* it was MOV SS or POP SS: debug exceptions wait, too */
    bool nmi_blocked;      /* an NMI handler runs */
    uint8_t nmis_pending;  /* at most 2; at most 1 while one is in service */
    /* A #DB trap follows the last instruction, or comes behind the next if that loaded SS; it adds
     * pending_dr6 to DR6. (In VMX: pending debug exceptions, SDM volume 3, 25.4.2.) */
    bool trap_pending;
    uint64_t pending_dr6; /* also of breakpoints that were met and are not enabled */
    /* Raised and not yet delivered. It comes before all else that the processor does. (In VMX, the
     * IDT-vectoring information says the same: SDM volume 3, 27.2.4.) */
    struct x86_exception exception;

    _Alignas(64) uint8_t xsave[X86_XSAVE_SIZE];
};
#define X86_NONE 16
#define X86_RIP  17

/* The state after power-on or RESET (SDM volume 3, table 10-1); INIT keeps what INIT keeps. */
void x86_cpu_reset(struct x86_cpu *cpu);
void x86_cpu_init(struct x86_cpu *cpu);

/* Exception vectors (SDM volume 3, table 6-1). */
enum x86_vector {
    X86_DE = 0,
    X86_DB = 1,
    X86_NMI = 2,
    X86_BP = 3,
    X86_OF = 4,
    X86_BR = 5,
    X86_UD = 6,
    X86_NM = 7,
    X86_DF = 8,
    X86_TS = 10,
    X86_NP = 11,
    X86_SS_FAULT = 12,
    X86_GP = 13,
    X86_PF = 14,
    X86_MF = 16,
    X86_AC = 17,
    X86_MC = 18,
    X86_XM = 19,
};
/* Page-fault error code (SDM volume 3, 4.7). */
#define X86_PF_P    1u
#define X86_PF_W    2u
#define X86_PF_U    4u
#define X86_PF_RSVD 8u
#define X86_PF_I    16u

/* Whether VECTOR pushes an error code. */
bool x86_vector_has_error(unsigned vector);
/* What a second exception during delivery of the first becomes (SDM volume 3, table 6-5): SECOND
 * itself (serially), X86_DF, or -1 for shutdown. */
int x86_vector_combine(int first, int second);

static inline bool x86_is_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

static inline unsigned x86_cpl(const struct x86_cpu *cpu)
{
    return (cpu->seg[X86_SS].attr & X86_ATTR_DPL) >> X86_ATTR_DPL_SHIFT;
}

#endif
