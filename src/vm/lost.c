/*
 * A host that cannot provide guest memory (mem/lost.h): the virtual machine ends, and says why. The
 * signal handler that learns of it can do no more than write to an eventfd; the event loop's thread
 * does the rest.
 */
#include "vm/vm_private.h"

#include "base/raw_syscall.h"
#include "base/signals.h"
#include "base/util.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* In a signal handler, on the thread that touched the page. */
SIGNALS_SAFE static void on_lost(void *opaque)
{
    static const uint64_t one = 1;
    const struct vm *vm = opaque;

    raw_syscall(SYS_write, vm->lost_fd, (long)&one, sizeof(one), 0, 0, 0);
}

int vm_lost_check(struct vm *vm, struct error *err)
{
    const struct mem *mem = vm->machine.mem;
    uint64_t gpa;

    if (!mem_lost(mem, &gpa))
        return 0;
    return error_set(err, ENOMEM,
                     "the host cannot provide the guest's memory at %#llx: it is out of memory, or "
                     "a limit is reached (%llu of the guest's %llu MiB are in use)",
                     (unsigned long long)gpa, (unsigned long long)(mem_resident(mem) / MiB),
                     (unsigned long long)(mem_ram_size(mem) / MiB));
}

/* On the event loop's thread. */
static void on_event(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;
    struct error err;
    eventfd_t count;

    eventfd_read(vm->lost_fd, &count);
    if (vm_lost_check(vm, &err) < 0)
        vm->lost(vm, &err);
}

int vm_lost_init(struct vm *vm, void (*lost)(struct vm *vm, const struct error *what),
                 struct error *err)
{
    vm->lost = lost;
    vm->lost_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vm->lost_fd < 0)
        return error_set(err, errno, "cannot create an eventfd: %s", strerror(errno));
    vm->lost_watch = loop_add(vm->loop, vm->lost_fd, EPOLLIN, on_event, vm, err);
    if (!vm->lost_watch)
        return -ENOMEM;
    mem_on_lost(vm->machine.mem, on_lost, vm);
    return 0;
}

void vm_lost_free(struct vm *vm)
{
    loop_remove(vm->lost_watch);
    if (vm->lost_fd >= 0)
        close(vm->lost_fd);
}
