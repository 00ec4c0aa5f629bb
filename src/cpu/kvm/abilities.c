/*
 * What the host's KVM is able to do beyond its capabilities, found out by trying.
 */
#include "cpu/kvm/probe.h"
#include "cpu/kvm/vcpu.h"

unsigned kvm_abilities(struct kvm_machine *m)
{
    if (!atomic_load(&m->abilities_known)) {
        atomic_store(&m->abilities, kvm_probe_abilities(m->calls, m->system));
        atomic_store(&m->abilities_known, true);
    }
    return atomic_load(&m->abilities);
}
