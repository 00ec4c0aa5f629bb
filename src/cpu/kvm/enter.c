/*
 * In and out of KVM_RUN.
 */
#include "cpu/core/fault.h"
#include "cpu/kvm/lapic.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Takes away the signal that has ended KVM_RUN, or will end the next. */
static void take_signal(void)
{
    const struct timespec now = {0, 0};
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, KVM_SIGNAL);
    while (sigtimedwait(&set, NULL, &now) > 0)
        ;
}

int kvm_enter(struct kvm_cpu *k)
{
    const struct cpu_port *port = k->c.port;
    const unsigned cr8 = k->lapic ? 0 : port->apic_ops->get_cr8(port->apic);
    int ret = -EINTR;

    if (!k->lapic)
        k->run->cr8 = cr8;
    atomic_store(&k->place, KVM_INSIDE);
    /* Who makes a request after this looks at the place after that. */
    if (k->run->immediate_exit || !atomic_load(&port->requests)) {
        unsigned before = meter_switch(k->c.meter, METER_GUEST);

        counter_add(&k->entries, 1);
        ret = kvm_cpu_call(k, KVM_RUN, NULL);
        k->completing = false;
        if (!k->lapic && k->run->cr8 != cr8) /* else the lower half of the TPR stays */
            port->apic_ops->set_cr8(port->apic, (unsigned)k->run->cr8);
        meter_switch(k->c.meter, before);
    }
    if (atomic_exchange(&k->place, KVM_OUTSIDE) == KVM_CALLED || ret == -EINTR)
        take_signal();
    return ret;
}

enum kvm_next kvm_complete(struct kvm_cpu *k)
{
    enum kvm_next next = KVM_GO_ON;

    while (k->completing && (next == KVM_GO_ON || next == KVM_LEAVE)) {
        int ret;

        k->run->immediate_exit = 1;
        ret = kvm_enter(k);
        k->run->immediate_exit = 0;
        if (ret == 0)
            next = kvm_serve_exit(k);
        else if (ret != -EINTR)
            kvm_fail(k, ret, "cannot complete an access");
    }
    return next;
}

#define BRIEF_EXITS 8 /* at most: then something is amiss, which the next KVM_RUN shows */

/* A signal that waits ends KVM_RUN before it enters the guest. */
void kvm_run_briefly(struct kvm_cpu *k)
{
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < BRIEF_EXITS; i++) {
        syscall(SYS_tgkill, getpid(), gettid(), KVM_SIGNAL);
        ret = kvm_cpu_call(k, KVM_RUN, NULL);
        take_signal();
        if (ret == 0)
            kvm_serve_exit(k);
        kvm_complete(k);
    }
    if (ret < 0 && ret != -EINTR && ret != -EAGAIN && ret != -EFAULT)
        kvm_fail(k, ret, "the guest cannot run");
}
