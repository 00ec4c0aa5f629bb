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

static int check(const struct kvm_faults *faults, int fd, struct error *err)
{
    int version = kvm_call(faults, fd, KVM_GET_API_VERSION, 0);

    if (version < 0)
        return error_set(err, -version, "/dev/kvm does not answer: %s", strerror(-version));
    if (version != KVM_API_VERSION)
        return error_set(err, ENOTSUP, "/dev/kvm has version %d of its interface, and not %d",
                         version, KVM_API_VERSION);
    for (const struct kvm_capability *c = kvm_capabilities; c->name; c++)
        if (c->needed && kvm_call(faults, fd, KVM_CHECK_EXTENSION, c->number) <= 0)
            return error_set(err, ENOTSUP,
                             "this host's KVM lacks KVM_CAP_%s; use the engine bt or interp",
                             c->name);
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
