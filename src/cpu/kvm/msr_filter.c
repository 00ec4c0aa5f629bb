/*
 * Which model-specific registers the guest uses without an exit (Documentation/virt/kvm/api.rst,
 * KVM_X86_SET_MSR_FILTER).
 */
#include "cpu/kvm/vcpu.h"

#include "base/util.h"

/* KVM has these, or they hold no state. All others are the core's (core/msr.c). Those of the local
 * APIC are KVM's if that has it; of 800h to 8FFh, KVM then asks no filter. */
static const struct {
    uint32_t first, count;
    bool of_apic;
} passed[] = {
    {X86_MSR_SPEC_CTRL, 2, false},                             /* and PRED_CMD */
    {X86_MSR_SYSENTER_CS, 3, false}, {X86_MSR_EFER, 5, false}, /* up to SFMASK */
    {X86_MSR_FS_BASE, 4, false},                               /* up to TSC_AUX */
    {X86_MSR_APIC_BASE, 1, true},    {X86_MSR_TSC_DEADLINE, 1, true},
};

int kvm_filter_msrs(const struct kvm_machine *m)
{
    static const uint64_t all = UINT64_MAX; /* KVM reads whole words */
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
    unsigned count = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(passed); i++)
        if (m->lapics || !passed[i].of_apic)
            filter.ranges[count++] = (struct kvm_msr_filter_range){
                .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                .nmsrs = passed[i].count,
                .base = passed[i].first,
                .bitmap = (uint8_t *)(uintptr_t)&all,
            };
    return kvm_call(m->calls, m->vm, KVM_X86_SET_MSR_FILTER, (uintptr_t)&filter);
}
