/*
 * The way to the host's KVM, all of it: tests put themselves in between.
 */
#ifndef DOPPEL_CPU_KVM_CALLS_H
#define DOPPEL_CPU_KVM_CALLS_H

#include <stdint.h>

struct kvm_calls {
    int (*open)(void *opaque); /* /dev/kvm; a descriptor, or a negative errno */
    /* As ioctl(2), but returns a negative errno, and is called again if a signal interrupts it
     * (but KVM_RUN). */
    int (*ioctl)(void *opaque, int fd, unsigned long request, void *argument);
    void *opaque;
};
extern const struct kvm_calls kvm_host_calls;

/* Calls ioctl. ARGUMENT: a number, or an address. */
int kvm_call(const struct kvm_calls *calls, int fd, unsigned long request, uintptr_t argument);

#endif
