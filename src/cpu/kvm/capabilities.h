/*
 * What an engine uses of KVM (Documentation/virt/kvm/api.rst).
 */
#ifndef DOPPEL_CPU_KVM_CAPABILITIES_H
#define DOPPEL_CPU_KVM_CAPABILITIES_H

#include <linux/kvm.h>
#include <stdbool.h>

/* What <linux/kvm.h> of Linux 6.1 lacks. */
#ifndef KVM_CAP_MEMORY_FAULT_INFO
#define KVM_CAP_MEMORY_FAULT_INFO 232
#endif

struct kvm_capability {
    unsigned number;
    const char *name; /* without KVM_CAP_ */
    bool needed;      /* there is no engine without it */
};

/* Up to a NULL name. Linux 5.17 and newer have all that are needed on every processor. */
extern const struct kvm_capability kvm_capabilities[];

#endif
