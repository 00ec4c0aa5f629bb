/*
 * CPUID under KVM: what the host's KVM supports, and telling KVM the machine's model.
 */
#ifndef DOPPEL_CPU_KVM_CPUID_H
#define DOPPEL_CPU_KVM_CPUID_H

#include "cpu/kvm/system.h"

/* Takes out of MODEL what the KVM behind SYSTEM (the descriptor of /dev/kvm) does not support. */
int kvm_cpuid_restrict(const struct kvm_calls *calls, int system, struct x86_model *model,
                       struct error *err);

/* Has the vCPU FD, whose number is ID, answer CPUID as MODEL does. */
int kvm_cpuid_set(const struct kvm_calls *calls, int fd, const struct x86_model *model, unsigned id,
                  struct error *err);

#endif
