/*
 * What the guest cannot do without has failed.
 */
#include "cpu/core/fault.h"
#include "cpu/kvm/vcpu.h"

#include <string.h>

void kvm_fail(struct kvm_cpu *k, int ret, const char *what)
{
    error_set(&k->failure, -ret, "KVM: %s: %s", what, strerror(-ret));
    raise_failure(&k->c);
}

const struct error *kvm_failure(const struct vcpu *c)
{
    return &kvm_cpu_of(c)->failure;
}
