/*
 * The choice of an engine.
 */
#include "ctl/choice.h"

#include "cpu/engines.h"

#include <stdio.h>

const struct engine_ops *choose_engine(const struct kvm_worth *kvm, bool translates, char *reason,
                                       size_t size)
{
    if (!translates) {
        snprintf(reason, size, "%s",
                 "translated code needs BMI2, AVX and FSGSBASE (Linux 5.9), not all of which this "
                 "host has; the interpreter works on every x86-64 host");
        return &interp_engine;
    }
    if (kvm->native)
        snprintf(reason, size, "%s",
                 "translated guest code is fast, and no engine of this version uses KVM");
    else if (kvm->present)
        snprintf(reason, size, "%s; translated code is faster", kvm->detail);
    else
        snprintf(reason, size, "%s",
                 "translated guest code runs several times faster than interpreted");
    return &bt_engine;
}
