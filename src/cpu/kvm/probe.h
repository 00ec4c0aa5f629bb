/*
 * What KVM is worth on this host: a virtual machine that is thrown away, with one processor, in
 * which small programs are timed. /dev/kvm may be there and yet emulate each instruction of the
 * guest's kernel (where the host is a virtual machine itself and its hypervisor has no nested
 * paging for it), which is a hundred times slower than translated code.
 */
#ifndef DOPPEL_CPU_KVM_PROBE_H
#define DOPPEL_CPU_KVM_PROBE_H

#include "base/error.h"
#include "cpu/kvm/calls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kvm_figures {
    uint64_t kernel_ips, user_ips; /* instructions per second of a loop at CPL 0, and at CPL 3 */
    uint64_t fault_ns; /* a page fault of a program, its handler in the kernel, and the return */
    uint64_t cpuid_ns; /* CPUID, with which a processor leaves the guest and comes back */
    uint64_t exit_ns;  /* a write to a port, with which the guest is left for this process */
};

/* Opens /dev/kvm and looks at its version. A descriptor, or a negative errno. */
int kvm_probe_open(const struct kvm_calls *calls, struct error *err);

/* Stores in TEXT the names of the capabilities that an engine can use and that KVM lacks, with
 * spaces between them; what does not fit is left out. Returns whether it has all that an engine
 * needs. */
bool kvm_probe_lacks(const struct kvm_calls *calls, int kvm, char *text, size_t size);

/* Measures, for about 20 ms, and at most a second if a guest does not end. Blocks SIGURG in the
 * calling thread meanwhile. 0, or a negative errno. */
int kvm_probe_measure(const struct kvm_calls *calls, int kvm, struct kvm_figures *figures,
                      struct error *err);

/* What KVM may do or not, both in the guest's kernel and in its programs. */
enum kvm_ability {
    KVM_BREAKS_ON_CODE = 1, /* leaves the guest for breakpoints (KVM_SET_GUEST_DEBUG) */
    KVM_BREAKS_ON_DATA = 2,
    KVM_OPENS_WINDOWS = 4, /* leaves it as soon as it takes interrupts (request_interrupt_window) */
};
/* Finds out, with guests of a few instructions, which of these KVM does. Takes a millisecond. Any
 * thread; not while it runs a vCPU. */
unsigned kvm_probe_abilities(const struct kvm_calls *calls, int kvm);

/* Whether these FIGURES are those of hardware that executes the guest's kernel. TEXT says why, in
 * one line. */
bool kvm_probe_is_native(const struct kvm_figures *figures, char *text, size_t size);

#endif
