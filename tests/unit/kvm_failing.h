/*
 * The host's KVM, of which one call fails.
 */
#ifndef DOPPEL_TESTS_KVM_FAILING_H
#define DOPPEL_TESTS_KVM_FAILING_H

#include "cpu/kvm/calls.h"

#include <stdbool.h>
#include <stddef.h>

/* How many calls there have been, which is to fail, counted from 1, and with what errno. */
static struct {
    unsigned calls, fail_at;
    int code;
} fault;

static bool fails(void)
{
    return ++fault.calls == fault.fail_at;
}

static int failing_open(void *opaque)
{
    return fails() ? -fault.code : kvm_host_calls.open(NULL);
}

static int failing_ioctl(void *opaque, int fd, unsigned long request, void *argument)
{
    return fails() ? -fault.code : kvm_host_calls.ioctl(NULL, fd, request, argument);
}

static const struct kvm_calls kvm_failing_calls = {.open = failing_open, .ioctl = failing_ioctl};

#endif
