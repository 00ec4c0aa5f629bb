/*
 * Calling the host's KVM (Documentation/virt/kvm/api.rst).
 */
#include "cpu/kvm/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

static int host_open(void *opaque)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static int host_ioctl(void *opaque, int fd, unsigned long request, void *argument)
{
    int ret;

    do
        ret = ioctl(fd, request, argument);
    while (ret < 0 && errno == EINTR && request != KVM_RUN);
    return ret < 0 ? -errno : ret;
}

const struct kvm_calls kvm_host_calls = {.open = host_open, .ioctl = host_ioctl};

int kvm_call(const struct kvm_calls *calls, int fd, unsigned long request, uintptr_t argument)
{
    return calls->ioctl(calls->opaque, fd, request, (void *)argument);
}
