/*
 * What the figures of the probe mean.
 */
#include "cpu/kvm/probe.h"

#include <stdio.h>

/* Processors execute more than 1000 million simple instructions per second; what emulates them does
 * some million, and an emulator whose guest this host is some 100 million in kernel and program
 * alike. */
#define SLOWEST_IPS    300000000u
#define SLOWEST_FACTOR 4u
/* A page fault that leaves the guest for the hypervisor's hypervisor takes longer than one that
 * translated code raises. */
#define LONGEST_FAULT_NS 20000u

bool kvm_probe_is_native(const struct kvm_figures *f, char *text, size_t size)
{
    double kernel = (double)f->kernel_ips / 1e6, user = (double)f->user_ips / 1e6;

    if (f->kernel_ips < f->user_ips / SLOWEST_FACTOR)
        snprintf(text, size,
                 "KVM emulates the guest's kernel here: %.1f million instructions/s, and %.0f in "
                 "programs",
                 kernel, user);
    else if (f->kernel_ips < SLOWEST_IPS)
        snprintf(text, size,
                 "KVM's guests run at %.0f million instructions/s only: they are emulated", kernel);
    else if (f->fault_ns > LONGEST_FAULT_NS)
        snprintf(text, size, "page faults of KVM's guests take %.0f us each",
                 (double)f->fault_ns / 1e3);
    else {
        snprintf(text, size,
                 "KVM executes the guest's kernel natively: %.0f million instructions/s", kernel);
        return true;
    }
    return false;
}
