/*
 * What an engine uses of KVM.
 */
#include "cpu/kvm/capabilities.h"

#include <stddef.h>

#define NEEDED(NAME) {.number = KVM_CAP_##NAME, .name = #NAME, .needed = true}
#define USED(NAME)   {.number = KVM_CAP_##NAME, .name = #NAME}

const struct kvm_capability kvm_capabilities[] = {
    NEEDED(USER_MEMORY),
    NEEDED(READONLY_MEM),
    NEEDED(DESTROY_MEMORY_REGION_WORKS),
    NEEDED(EXT_CPUID),
    NEEDED(VCPU_EVENTS),
    NEEDED(DEBUGREGS),
    NEEDED(XSAVE),
    NEEDED(XCRS),
    NEEDED(SREGS2),
    NEEDED(USER_NMI),
    NEEDED(IMMEDIATE_EXIT),
    NEEDED(X86_USER_SPACE_MSR),
    NEEDED(X86_MSR_FILTER),
    NEEDED(EXIT_ON_EMULATION_FAILURE),
    NEEDED(VCPU_ATTRIBUTES),
    USED(MEMORY_FAULT_INFO),
    USED(DISABLE_QUIRKS2),
    USED(ENFORCE_PV_FEATURE_CPUID),
    USED(SPLIT_IRQCHIP),
    USED(X2APIC_API),
    USED(IOEVENTFD),
    USED(IOEVENTFD_ANY_LENGTH),
    {.name = NULL},
};
