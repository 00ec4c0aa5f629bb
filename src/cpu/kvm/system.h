/*
 * The host's KVM as a whole: opening it, what it must offer, and the one function that calls it.
 */
#ifndef DOPPEL_CPU_KVM_SYSTEM_H
#define DOPPEL_CPU_KVM_SYSTEM_H

#include "cpu/kvm/capabilities.h"
#include "cpu/kvm/kvm.h"

#include <linux/kvm.h>

/* Calls ioctl, again if a signal interrupts it (but KVM_RUN). Returns what it returns, or a
 * negative errno. */
int kvm_call(const struct kvm_faults *faults, int fd, unsigned long request, uintptr_t argument);

/* Opens /dev/kvm and checks that it offers all that the engine needs. Returns a descriptor, or a
 * negative errno. */
int kvm_open(const struct kvm_faults *faults, struct error *err);

#endif
