/*
 * Opening /dev/kvm (Documentation/virt/kvm/api.rst).
 */
#include "cpu/kvm/system.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static int check(const struct kvm_calls *calls, int fd, struct error *err)
{
    int version = kvm_call(calls, fd, KVM_GET_API_VERSION, 0);

    if (version < 0)
        return error_set(err, -version, "/dev/kvm does not answer: %s", strerror(-version));
    if (version != KVM_API_VERSION)
        return error_set(err, ENOTSUP, "/dev/kvm has version %d of its interface, and not %d",
                         version, KVM_API_VERSION);
    for (const struct kvm_capability *c = kvm_capabilities; c->name; c++)
        if (c->needed && kvm_call(calls, fd, KVM_CHECK_EXTENSION, c->number) <= 0)
            return error_set(err, ENOTSUP,
                             "this host's KVM lacks KVM_CAP_%s; use the engine bt or interp",
                             c->name);
    return 0;
}

int kvm_open(const struct kvm_calls *calls, struct error *err)
{
    int fd = calls->open(calls->opaque), ret;

    if (fd == -EACCES || fd == -EPERM)
        return error_set(err, -fd,
                         "cannot open /dev/kvm: %s; on most systems members of the group kvm can, "
                         "or use the engine bt",
                         strerror(-fd));
    if (fd < 0)
        return error_set(err, -fd, "cannot open /dev/kvm: %s; use the engine bt", strerror(-fd));
    ret = check(calls, fd, err);
    if (ret < 0)
        close(fd);
    return ret < 0 ? ret : fd;
}
