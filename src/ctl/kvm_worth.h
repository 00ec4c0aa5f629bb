/*
 * What KVM is worth on this host (cpu/kvm/probe.h), measured once between two starts of it: the
 * figures are kept in a file of HOME_CACHE. The file is used only if it is of this start, processor
 * and kernel and has nothing else in it; otherwise it counts for nothing and is replaced.
 */
#ifndef DOPPEL_CTL_KVM_WORTH_H
#define DOPPEL_CTL_KVM_WORTH_H

#include "cpu/kvm/probe.h"

struct kvm_worth {
    bool present;  /* /dev/kvm can be opened and has the version that we know */
    bool able;     /* it has all that an engine needs */
    bool measured; /* there are FIGURES */
    bool native;   /* they are those of hardware */
    struct kvm_figures figures;
    char missing[160]; /* capabilities that an engine could use, with spaces between them */
    char detail[160];  /* one line: why it is worth using, or not */
};

/* CALLS is the way to KVM; CACHE a path, or NULL: nothing is kept. Measures if need be, for about
 * 20 ms. */
void kvm_worth_find(const struct kvm_calls *calls, const char *cache, struct kvm_worth *worth);

/* The same on this host, with the usual cache. */
void kvm_worth_here(struct kvm_worth *worth);

#endif
