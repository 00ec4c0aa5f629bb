/*
 * The choice of an engine.
 */
#include "ctl/choice.h"

#include "cpu/engines.h"

#include <stdio.h>

const struct engine_ops *choose_engine(const struct kvm_worth *kvm, bool translates, char *reason,
                                       size_t size)
{
    if (kvm->native && kvm->able) {
        snprintf(reason, size, "%s", kvm->detail);
        return &kvm_engine;
    }
    if (!translates) {
        snprintf(reason, size, "%s",
                 "translated code needs BMI2, AVX and FSGSBASE (Linux 5.9), not all of which this "
                 "host has; the interpreter works on every x86-64 host");
        return &interp_engine;
    }
    if (kvm->native)
        snprintf(reason, size, "KVM here lacks what the engine kvm needs (%s)", kvm->missing);
    else if (kvm->measured)
        snprintf(reason, size, "%s; translated code is faster", kvm->detail);
    else if (kvm->present)
        snprintf(reason, size, "KVM is of no use here (%s); translated code is next", kvm->detail);
    else
        snprintf(reason, size, "%s",
                 "translated guest code runs several times faster than interpreted");
    return &bt_engine;
}
