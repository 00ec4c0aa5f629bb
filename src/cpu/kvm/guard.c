/*
 * What KVM would do for guests beyond what the machine's model says
 * (Documentation/virt/kvm/api.rst, KVM_CAP_DISABLE_QUIRKS2 and KVM_CAP_ENFORCE_PV_FEATURE_CPUID).
 * It is turned off where the host's KVM can be told so: such guests see what they see under the
 * other engines, and reach less of the host's kernel.
 */
#include "cpu/kvm/vcpu.h"

#include <string.h>

/* KVM writes VMCALL over VMMCALL in the guest's code, or the reverse; it executes MONITOR and MWAIT
 * as NOPs where the model has none; and OUT to one port moves RIP before it exits. */
#define QUIRKS                                                                                     \
    (KVM_X86_QUIRK_FIX_HYPERCALL_INSN | KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS |                      \
     KVM_X86_QUIRK_OUT_7E_INC_RIP)

int kvm_guard_machine(const struct kvm_machine *m, struct error *err)
{
    int known = kvm_call(m->calls, m->system, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2), ret;
    struct kvm_enable_cap cap = {.cap = KVM_CAP_DISABLE_QUIRKS2};

    if (known <= 0 || !(known & QUIRKS))
        return 0;
    cap.args[0] = (unsigned)known & QUIRKS;
    ret = kvm_call(m->calls, m->vm, KVM_ENABLE_CAP, (uintptr_t)&cap);
    if (ret < 0)
        return error_set(err, -ret, "KVM: cannot disable quirks: %s", strerror(-ret));
    return 0;
}

int kvm_guard_cpu(const struct kvm_cpu *k, struct error *err)
{
    const struct kvm_machine *m = kvm_machine_of(&k->c);
    struct kvm_enable_cap cap = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = {1}};
    int ret;

    if (kvm_call(m->calls, m->system, KVM_CHECK_EXTENSION, KVM_CAP_ENFORCE_PV_FEATURE_CPUID) <= 0)
        return 0;
    ret = kvm_cpu_call(k, KVM_ENABLE_CAP, &cap);
    if (ret < 0)
        return error_set(err, -ret, "KVM: cannot limit hypercalls to those announced: %s",
                         strerror(-ret));
    return 0;
}
