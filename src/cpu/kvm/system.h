/*
 * The host's KVM as a whole: opening it, and what it must offer.
 */
#ifndef DOPPEL_CPU_KVM_SYSTEM_H
#define DOPPEL_CPU_KVM_SYSTEM_H

#include "cpu/kvm/calls.h"
#include "cpu/kvm/capabilities.h"
#include "cpu/kvm/kvm.h"

#include <linux/kvm.h>

/* Opens /dev/kvm and checks that it offers all that the engine needs. Returns a descriptor, or a
 * negative errno. */
int kvm_open(const struct kvm_calls *calls, struct error *err);

#endif
