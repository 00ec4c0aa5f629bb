/*
 * Opening /dev/kvm (Documentation/virt/kvm/api.rst).
 */
#include "cpu/kvm/system.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int injected(const struct kvm_faults *faults, unsigned long request)
{
    return faults ? -faults->fails(faults->opaque, request) : 0;
}

int kvm_call(const struct kvm_faults *faults, int fd, unsigned long request, uintptr_t argument)
{
    int ret = injected(faults, request);

    if (ret < 0)
        return ret;
    do
        ret = ioctl(fd, request, argument);
    while (ret < 0 && errno == EINTR && request != KVM_RUN);
    return ret < 0 ? -errno : ret;
}

/* What the engine cannot do without. Linux 5.17 and newer have all of it on every processor. */
static const struct {
    unsigned number;
    const char *name;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "USER_MEMORY"},
    {KVM_CAP_READONLY_MEM, "READONLY_MEM"},
    {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "DESTROY_MEMORY_REGION_WORKS"},
    {KVM_CAP_EXT_CPUID, "EXT_CPUID"},
    {KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "DEBUGREGS"},
    {KVM_CAP_XSAVE, "XSAVE"},
    {KVM_CAP_XCRS, "XCRS"},
    {KVM_CAP_SREGS2, "SREGS2"},
    {KVM_CAP_USER_NMI, "USER_NMI"},
    {KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT"},
    {KVM_CAP_X86_USER_SPACE_MSR, "X86_USER_SPACE_MSR"},
    {KVM_CAP_X86_MSR_FILTER, "X86_MSR_FILTER"},
    {KVM_CAP_EXIT_ON_EMULATION_FAILURE, "EXIT_ON_EMULATION_FAILURE"},
    {KVM_CAP_VCPU_ATTRIBUTES, "VCPU_ATTRIBUTES"},
};

static int check(const struct kvm_faults *faults, int fd, struct error *err)
{
    int version = kvm_call(faults, fd, KVM_GET_API_VERSION, 0);

    if (version < 0)
        return error_set(err, -version, "/dev/kvm does not answer: %s", strerror(-version));
    if (version != KVM_API_VERSION)
        return error_set(err, ENOTSUP, "/dev/kvm has version %d of its interface, and not %d",
                         version, KVM_API_VERSION);
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++)
        if (kvm_call(faults, fd, KVM_CHECK_EXTENSION, needed[i].number) <= 0)
            return error_set(err, ENOTSUP,
                             "this host's KVM lacks KVM_CAP_%s; use the engine bt or interp",
                             needed[i].name);
    return 0;
}

int kvm_open(const struct kvm_faults *faults, struct error *err)
{
    int fd = injected(faults, 0), ret;

    if (fd == 0) {
        fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (fd < 0)
            fd = -errno;
    }
    if (fd == -EACCES || fd == -EPERM)
        return error_set(err, -fd,
                         "cannot open /dev/kvm: %s; on most systems members of the group kvm can, "
                         "or use the engine bt",
                         strerror(-fd));
    if (fd < 0)
        return error_set(err, -fd, "cannot open /dev/kvm: %s; use the engine bt", strerror(-fd));
    ret = check(faults, fd, err);
    if (ret < 0)
        close(fd);
    return ret < 0 ? ret : fd;
}
