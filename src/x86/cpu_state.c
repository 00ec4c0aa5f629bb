/*
 * A processor's state as a saved machine has it, and which states a processor can be in.
 *
 * A state that comes from outside is checked as VMX checks a guest's at VM entry (SDM volume 3,
 * 27.3.1): every value that instructions of the guest's could not have brought about is refused,
 * so that the engines need not expect it.
 */
#include "x86/cpu_state.h"

#include "base/util.h"
#include "x86/msr.h"

#include <errno.h>
#include <string.h>

/* ---- Every field, for both directions ---- */

static void visit_segment(struct x86_seg *seg, struct state *s)
{
    state_field(s, seg->base);
    state_field(s, seg->limit);
    state_field(s, seg->attr);
    state_field(s, seg->selector);
}

static void visit_table(struct x86_dtr *table, struct state *s)
{
    state_field(s, table->base);
    state_field(s, table->limit);
}

static void visit_registers(struct x86_cpu *cpu, struct state *s)
{
    state_bytes(s, cpu->reg, X86_GPRS * sizeof(cpu->reg[0]));
    state_field(s, cpu->reg[X86_RIP]);
    state_field(s, cpu->rflags);
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        visit_segment(&cpu->seg[i], s);
    visit_segment(&cpu->ldtr, s);
    visit_segment(&cpu->tr, s);
    visit_table(&cpu->gdtr, s);
    visit_table(&cpu->idtr, s);
    state_field(s, cpu->cr0);
    state_field(s, cpu->cr2);
    state_field(s, cpu->cr3);
    state_field(s, cpu->cr4);
    state_field(s, cpu->efer);
    state_field(s, cpu->xcr0);
    state_field(s, cpu->pdpte);
    state_field(s, cpu->dr);
    state_field(s, cpu->dr6);
    state_field(s, cpu->dr7);
    state_field(s, cpu->xsave);
}

static void visit_msrs(struct x86_cpu *cpu, struct state *s)
{
    state_field(s, cpu->star);
    state_field(s, cpu->lstar);
    state_field(s, cpu->cstar);
    state_field(s, cpu->sfmask);
    state_field(s, cpu->kernel_gs_base);
    state_field(s, cpu->sysenter_cs);
    state_field(s, cpu->sysenter_esp);
    state_field(s, cpu->sysenter_eip);
    state_field(s, cpu->tsc_aux);
    state_field(s, cpu->tsc_adjust);
    state_field(s, cpu->pat);
    state_field(s, cpu->misc_enable);
    state_field(s, cpu->spec_ctrl);
    state_field(s, cpu->mcg_status);
    state_field(s, cpu->mtrr_def_type);
    state_field(s, cpu->mtrr_fixed);
    state_field(s, cpu->mtrr_base);
    state_field(s, cpu->mtrr_mask);
    state_field(s, cpu->kvm_system_time);
    state_field(s, cpu->kvm_wall_clock);
    state_field(s, cpu->kvm_pv_eoi);
}

/* What the processor is in the middle of. */
static void visit_activity(struct x86_cpu *cpu, struct state *s)
{
    uint32_t activity = cpu->activity;

    state_field(s, activity);
    if (activity > X86_WAIT_SIPI)
        state_fail(s, "activity %u: neither runs, nor is halted, nor waits for a start-up IPI",
                   activity);
    else
        cpu->activity = (enum x86_activity)activity;
    state_bool(s, &cpu->interrupt_shadow);
    state_bool(s, &cpu->ss_shadow);
    state_bool(s, &cpu->nmi_blocked);
    state_field(s, cpu->nmis_pending);
    state_bool(s, &cpu->trap_pending);
    state_field(s, cpu->pending_dr6);
    state_bool(s, &cpu->exception.pending);
    state_field(s, cpu->exception.vector);
    state_bool(s, &cpu->exception.has_error);
    state_field(s, cpu->exception.error);
}

void x86_cpu_state(struct x86_cpu *cpu, struct state *s, uint32_t id)
{
    state_section(s, "cpu", id, 1);
    visit_registers(cpu, s);
    visit_msrs(cpu, s);
    visit_activity(cpu, s);
}

/* ---- Which states can be ---- */

#define RFLAGS_DEFINED 0x3F7FD7u
#define ATTR_DEFINED   0xF1FFu
#define DR6_WRITABLE   0xE00Fu
#define DR7_WRITABLE   0xFFFF23FFu
#define VECTORS_MAX    32     /* of exceptions */
#define PDPTE_RESERVED 0x1E6u /* below MAXPHYADDR, if the entry is present */

#define FCW_FIXED   0xE0C0u /* reserved bits, */
#define FCW_ONES    0x0040u /* and those of them that are 1 */
#define FSW_FLAGS   0x3Fu   /* exceptions, with masks at the same bits of FCW */
#define FSW_SUMMARY 0x8080u /* B and ES: one of them is not masked */

static const char *check_control(const struct x86_cpu *cpu, const struct x86_model *model,
                                 const struct x86_msrs *msrs)
{
    const uint64_t pg = X86_CR0_PG, lma = X86_EFER_LMA;
    bool paging = cpu->cr0 & pg, long_mode = cpu->efer & lma;

    if ((cpu->cr0 & ~(uint64_t)X86_CR0_DEFINED) || !(cpu->cr0 & X86_CR0_ET) ||
        (paging && !(cpu->cr0 & X86_CR0_PE)) ||
        ((cpu->cr0 & X86_CR0_NW) && !(cpu->cr0 & X86_CR0_CD)))
        return "cr0";
    if ((cpu->cr4 & ~x86_cr4_bits(model)) || (long_mode && !(cpu->cr4 & X86_CR4_PAE)) ||
        (!long_mode && (cpu->cr4 & X86_CR4_PCIDE)))
        return "cr4";
    if ((cpu->efer & ~msrs->efer_bits) || long_mode != (paging && (cpu->efer & X86_EFER_LME)))
        return "efer";
    /* Outside of long mode, CR3 still holds what 64-bit code has loaded. */
    if (cpu->cr3 >> model->physical_bits)
        return "cr3";
    for (unsigned i = 0; i < ARRAY_SIZE(cpu->pdpte); i++)
        if ((cpu->pdpte[i] & 1) &&
            ((cpu->pdpte[i] & PDPTE_RESERVED) || cpu->pdpte[i] >> model->physical_bits))
            return "pdpte";
    if ((cpu->xcr0 & ~x86_xcr0_bits(model)) || !(cpu->xcr0 & X86_XCR0_X87) ||
        ((cpu->xcr0 & X86_XCR0_AVX) && !(cpu->xcr0 & X86_XCR0_SSE)))
        return "xcr0";
    if (((cpu->dr6 & DR6_WRITABLE) | X86_DR6_RESET) != cpu->dr6)
        return "dr6";
    if (((cpu->dr7 & DR7_WRITABLE) | X86_DR7_RESET) != cpu->dr7)
        return "dr7";
    return NULL;
}

static bool is_segment(const struct x86_seg *seg, bool wide)
{
    return !(seg->attr & ~ATTR_DEFINED) &&
           (wide ? x86_is_canonical(seg->base) : seg->base <= UINT32_MAX);
}

/* Such a segment is given by its selector alone (SDM volume 3, 21.1.1). */
static bool is_v86_segment(const struct x86_seg *seg)
{
    return seg->base == (uint64_t)seg->selector << 4 && seg->limit == 0xFFFF;
}

static bool is_code64(const struct x86_cpu *cpu)
{
    return (cpu->efer & X86_EFER_LMA) && (cpu->seg[X86_CS].attr & X86_ATTR_L);
}

static const char *check_segments(const struct x86_cpu *cpu)
{
    const struct x86_seg *cs = &cpu->seg[X86_CS];
    bool real = !(cpu->cr0 & X86_CR0_PE), v86 = cpu->rflags & X86_FLAG_VM;

    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        if (!is_segment(&cpu->seg[i], i >= X86_FS))
            return "segment";
    if (!is_segment(&cpu->ldtr, true) || !is_segment(&cpu->tr, true))
        return "system segment";
    if (!x86_is_canonical(cpu->gdtr.base) || !x86_is_canonical(cpu->idtr.base))
        return "descriptor table";
    if ((cs->attr & X86_ATTR_UNUSABLE) || (is_code64(cpu) && (cs->attr & X86_ATTR_DB)))
        return "code segment";
    if ((real && x86_cpl(cpu) != 0) || (v86 && x86_cpl(cpu) != 3))
        return "privilege level";
    for (unsigned i = 0; v86 && i < X86_SEGMENTS; i++)
        if (!is_v86_segment(&cpu->seg[i]))
            return "virtual-8086 segment";
    if (!is_code64(cpu) && cpu->reg[X86_RIP] > UINT32_MAX)
        return "rip";
    return NULL;
}

/* FCW and MXCSR have reserved bits, and a pending x87 exception is one that FCW does not mask. */
static const char *check_floating_point(const struct x86_cpu *cpu)
{
    uint32_t mxcsr;
    uint16_t fcw, fsw;
    bool raised;

    memcpy(&mxcsr, cpu->xsave + X86_XSAVE_MXCSR, sizeof(mxcsr));
    memcpy(&fcw, cpu->xsave, sizeof(fcw));
    memcpy(&fsw, cpu->xsave + sizeof(fcw), sizeof(fsw));
    if (mxcsr & ~X86_MXCSR_MASK)
        return "mxcsr";
    if ((fcw & FCW_FIXED) != FCW_ONES)
        return "x87 control word";
    raised = fsw & ~fcw & FSW_FLAGS;
    return (fsw & FSW_SUMMARY) == (raised ? FSW_SUMMARY : 0) ? NULL : "x87 status word";
}

/* The registers that RDMSR and WRMSR know and that only hold what was last written. */
static const char *check_msrs(const struct x86_cpu *cpu, const struct x86_model *model,
                              const struct x86_msrs *msrs)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {X86_MSR_TSC_ADJUST, X86_MSR_SPEC_CTRL},
        {X86_MSR_SYSENTER_CS, X86_MSR_SYSENTER_EIP},
        {X86_MSR_MCG_STATUS, X86_MSR_MISC_ENABLE},
        {X86_MSR_MTRR_PHYS, X86_MSR_MTRR_DEF_TYPE},
        {X86_MSR_STAR, X86_MSR_SFMASK},
        {X86_MSR_FS_BASE, X86_MSR_TSC_AUX},
    };
    struct x86_cpu copy = *cpu; /* only read */

    for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++)
        for (uint32_t msr = ranges[i].first; msr <= ranges[i].last; msr++) {
            const uint64_t *value = x86_msr_register(&copy, msr);

            if (value && !x86_msr_acceptable(msrs, model->physical_bits, msr, *value))
                return "model-specific register";
        }
    return NULL;
}

static const char *check_activity(const struct x86_cpu *cpu)
{
    if ((cpu->rflags & ~(uint64_t)RFLAGS_DEFINED) || !(cpu->rflags & X86_FLAG_ONE) ||
        ((cpu->rflags & X86_FLAG_VM) && (!(cpu->cr0 & X86_CR0_PE) || (cpu->efer & X86_EFER_LMA))))
        return "rflags";
    if (cpu->nmis_pending > (cpu->nmi_blocked ? 1 : 2))
        return "nmis_pending";
    if (cpu->ss_shadow && !cpu->interrupt_shadow)
        return "ss_shadow";
    if (cpu->pending_dr6 & ~(uint64_t)DR6_WRITABLE)
        return "pending_dr6";
    if (cpu->exception.vector >= VECTORS_MAX)
        return "exception.vector";
    if (cpu->exception.pending && cpu->activity != X86_RUNNING)
        return "exception.pending";
    return NULL;
}

int x86_cpu_check(const struct x86_cpu *cpu, const struct x86_model *model, struct error *err)
{
    struct x86_msrs msrs;
    const char *what;

    x86_msrs_init(&msrs, model);
    what = check_control(cpu, model, &msrs);
    if (!what)
        what = check_segments(cpu);
    if (!what)
        what = check_floating_point(cpu);
    if (!what)
        what = check_msrs(cpu, model, &msrs);
    if (!what)
        what = check_activity(cpu);
    if (what)
        return error_set(err, EINVAL, "%s: no processor of this model can hold this value", what);
    return 0;
}
