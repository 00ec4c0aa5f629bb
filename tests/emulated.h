/*
 * Which engine is a KVM that emulates: it looks for interrupts in the guest's code late, and leaves
 * out much of what a processor does.
 */
#ifndef DOPPEL_TESTS_EMULATED_H
#define DOPPEL_TESTS_EMULATED_H

#include "cpu/engines.h"
#include "cpu/kvm/probe.h"

#include <string.h>
#include <unistd.h>

static inline bool engine_is_emulated(const struct engine_ops *ops)
{
    struct error err = {0};
    int kvm = strcmp(ops->name, kvm_engine.name) ? -1 : kvm_probe_open(&kvm_host_calls, &err);
    bool emulated = kvm >= 0 && !(kvm_probe_abilities(&kvm_host_calls, kvm) & KVM_OPENS_WINDOWS);

    if (kvm >= 0)
        close(kvm);
    return emulated;
}

#endif
