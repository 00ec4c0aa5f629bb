/*
 * The accelerator: creating a virtual machine and its vCPUs in KVM.
 *
 * A vCPU's thread leaves KVM_RUN when a signal is pending. KVM_SIGNAL is blocked in that thread but
 * in KVM_RUN (KVM_SET_SIGNAL_MASK), so no handler is needed: KVM_RUN returns with EINTR, also if
 * the signal comes before it is called, and the thread takes the signal away. SIGURG is ignored by
 * default, so it does no harm where it is not expected.
 */
#include "cpu/kvm/vcpu.h"

#include "base/util.h"
#include "cpu/kvm/cpuid.h"
#include "cpu/kvm/lapic.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

const struct kvm_options kvm_usual = {.calls = &kvm_host_calls};

/* --- The virtual machine ---------------------------------------------------------------------- */

/* Guest physical pages that KVM uses itself on old processors of Intel's; nothing else is there. */
#define IDENTITY_MAP 0xFEFFC000ULL
#define TSS          0xFEFFD000ULL

/* Has these exits made instead of what KVM would do by itself. */
static int enable_exits(const struct kvm_machine *m, struct error *err)
{
    const struct {
        struct kvm_enable_cap cap;
        const char *name;
    } wanted[] = {
        {{.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args = {1}}, "EXIT_ON_EMULATION_FAILURE"},
        {{.cap = KVM_CAP_X86_USER_SPACE_MSR,
          .args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
                   KVM_MSR_EXIT_REASON_FILTER}},
         "X86_USER_SPACE_MSR"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
        int ret = kvm_call(m->calls, m->vm, KVM_ENABLE_CAP, (uintptr_t)&wanted[i].cap);

        if (ret < 0)
            return error_set(err, -ret, "KVM: cannot enable KVM_CAP_%s: %s", wanted[i].name,
                             strerror(-ret));
    }
    return 0;
}

static int create_vm(struct kvm_machine *m, struct error *err)
{
    const uint64_t identity_map = IDENTITY_MAP;
    int ret;

    m->vm = kvm_call(m->calls, m->system, KVM_CREATE_VM, 0);
    if (m->vm < 0)
        return error_set(err, -m->vm, "KVM cannot make a virtual machine: %s", strerror(-m->vm));
    ret = kvm_call(m->calls, m->vm, KVM_SET_IDENTITY_MAP_ADDR, (uintptr_t)&identity_map);
    if (ret == 0)
        ret = kvm_call(m->calls, m->vm, KVM_SET_TSS_ADDR, TSS);
    if (ret < 0)
        return error_set(err, -ret, "KVM: cannot place its own pages: %s", strerror(-ret));
    ret = enable_exits(m, err);
    if (ret == 0)
        ret = kvm_guard_machine(m, err);
    if (ret < 0)
        return ret;
    ret = kvm_filter_msrs(m);
    if (ret < 0)
        return error_set(err, -ret, "KVM: cannot set the filter of registers: %s", strerror(-ret));
    return 0;
}

/* Whether KVM can give all that the machine's model has. */
static int check_model(const struct kvm_machine *m, const struct machine *machine,
                       struct error *err)
{
    struct x86_model fitted = machine->model;
    int ret = kvm_cpuid_restrict(m->calls, m->system, &fitted, err);

    if (ret < 0)
        return ret;
    if (!x86_model_within(&machine->model, &fitted))
        return error_set(err, ENOTSUP,
                         "the machine's processor has features that this host's KVM does not "
                         "offer; use the engine bt");
    if (!clock_tsc_is_hosts(machine->clock))
        return error_set(err, ENOTSUP, "KVM's guests have the host's TSC, and no other");
    return 0;
}

/* Whether the host's processor walks the guest's page tables, as the modules of KVM say. Where KVM
 * does it instead, it takes a page table that is not in the mirror for an entry that is not
 * present, and the guest gets a page fault. */
static bool processor_walks(void)
{
    static const char *const parameters[] = {"/sys/module/kvm_intel/parameters/ept",
                                             "/sys/module/kvm_amd/parameters/npt"};

    for (unsigned i = 0; i < ARRAY_SIZE(parameters); i++) {
        int fd = open(parameters[i], O_RDONLY | O_CLOEXEC);
        char value = 0;

        if (fd < 0)
            continue;
        if (read(fd, &value, 1) < 1)
            value = 0;
        close(fd);
        if (value == 'Y' || value == '1')
            return true;
    }
    return false;
}

/* Has guest memory stay present if KVM needs it so. */
static int keep_pages(struct kvm_machine *m, struct mem *mem, struct error *err)
{
    int ret = processor_walks() ? 1 : mem_keep_present(mem);

    if (ret < 0)
        return error_set(err, -ret, "KVM: guest memory cannot be brought back: %s", strerror(-ret));
    m->keeps_pages = ret == 0;
    return 0;
}

static int open_machine(struct kvm_machine *m, struct core *e, struct error *err)
{
    int ret;

    m->system = kvm_open(m->calls, err);
    if (m->system < 0)
        return m->system;
    ret = check_model(m, &e->machine, err);
    if (ret < 0)
        return ret;
    ret = kvm_call(m->calls, m->system, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (ret < 0)
        return error_set(err, -ret, "KVM: no size of a vCPU: %s", strerror(-ret));
    m->run_size = (size_t)ret;
    m->xcr0 = x86_xcr0_bits(&e->machine.model);
    ret = create_vm(m, err);
    if (ret == 0)
        ret = keep_pages(m, e->machine.mem, err);
    return ret < 0
               ? ret
               : kvm_slots_create(&m->slots, m->calls, m->vm, e->machine.mem, &e->safepoint, err);
}

static int start(struct core *e, struct error *err)
{
    const struct kvm_options *options = e->accelerator_options;
    struct kvm_machine *m = calloc(1, sizeof(*m));
    int ret;

    if (!m)
        return error_set(err, ENOMEM, "out of memory for KVM's virtual machine");
    m->calls = options->calls;
    m->system = m->vm = -1;
    e->accelerator_shared = m;
    e->writes_unseen = true;
    ret = open_machine(m, e, err);
    if (ret == 0)
        kvm_doorbells_create(&m->doorbells, m->calls, m->system, m->vm, e->machine.bus);
    return ret;
}

static void stop(struct core *e)
{
    struct kvm_machine *m = e->accelerator_shared;

    kvm_doorbells_destroy(&m->doorbells);
    kvm_slots_destroy(&m->slots);
    if (m->keeps_pages)
        mem_end_keeping(e->machine.mem);
    if (m->vm >= 0)
        close(m->vm);
    if (m->system >= 0)
        close(m->system);
    kvm_lapics_destroy(m->lapics);
    free(m);
    e->accelerator_shared = NULL;
}

int kvm_restrict_model(struct x86_model *model, struct error *err)
{
    int system = kvm_open(&kvm_host_calls, err), ret;

    if (system < 0)
        return system;
    ret = kvm_cpuid_restrict(&kvm_host_calls, system, model, err);
    close(system);
    return ret;
}

/* --- Its processors --------------------------------------------------------------------------- */

/* Has the vCPU's thread leave KVM_RUN. Any thread. */
static void leave(void *opaque)
{
    struct kvm_cpu *k = opaque;
    int inside = KVM_INSIDE;

    if (atomic_compare_exchange_strong(&k->place, &inside, KVM_CALLED))
        syscall(SYS_tgkill, getpid(), atomic_load(&k->thread), KVM_SIGNAL);
}

static int create(struct vcpu *c, struct error *err)
{
    struct kvm_cpu *k = kvm_cpu_of(c);
    const struct kvm_machine *m = kvm_machine_of(c);
    void *run;
    int ret;

    k->fd = kvm_call(m->calls, m->vm, KVM_CREATE_VCPU, c->port->id);
    if (k->fd < 0) {
        ret = k->fd;
        k->fd = -1;
        return error_set(err, -ret, "KVM cannot make vCPU %u: %s", c->port->id, strerror(-ret));
    }
    run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
    if (run == MAP_FAILED)
        return error_set(err, errno, "KVM: cannot map vCPU %u: %s", c->port->id, strerror(errno));
    k->run = run;
    if (c->core->machine.tracer)
        k->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
    ret = kvm_guard_cpu(k, err);
    if (ret == 0)
        ret = kvm_cpuid_set(m->calls, k->fd, &c->core->machine.model, c->port->id, err);
    if (ret == 0)
        ret = kvm_state_create(k, err);
    if (ret < 0)
        return ret;
    kvm_lapic_attach(k);
    c->port->leave = leave;
    c->port->leave_opaque = k;
    return 0;
}

static void destroy(struct vcpu *c)
{
    struct kvm_cpu *k = kvm_cpu_of(c);

    kvm_slots_collect(&kvm_machine_of(c)->slots);
    if (c->port->leave_opaque == k) /* the machine's next engine may have its own by now */
        c->port->leave = NULL;
    kvm_lapic_detach(k);
    if (k->run)
        munmap(k->run, kvm_machine_of(c)->run_size);
    if (k->fd >= 0)
        close(k->fd);
}

/* Has KVM_RUN end for KVM_SIGNAL in the calling thread, and for what it takes otherwise. */
static void set_signals(struct kvm_cpu *k)
{
    struct { /* a struct kvm_signal_mask, whose set is not aligned */
        uint32_t len;
        uint8_t blocked[sizeof(uint64_t)];
    } mask = {.len = sizeof(mask.blocked)};
    uint64_t blocked;
    sigset_t set;
    int ret;

    sigemptyset(&set);
    sigaddset(&set, KVM_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &blocked, sizeof(blocked));
    blocked &= ~(1ULL << (KVM_SIGNAL - 1));
    memcpy(mask.blocked, &blocked, sizeof(blocked));
    ret = kvm_cpu_call(k, KVM_SET_SIGNAL_MASK, &mask);
    if (ret < 0)
        error_set(&k->failure, -ret, "KVM: cannot set the signal mask: %s", strerror(-ret));
}

/* On the thread that is about to run the vCPU. */
static void prepare(struct vcpu *c)
{
    struct kvm_cpu *k = kvm_cpu_of(c);
    pid_t thread = gettid();

    if (atomic_load(&k->thread) == thread)
        return;
    atomic_store(&k->thread, thread);
    set_signals(k);
}

static void counters(const struct vcpu *c, engine_counter_fn *each, void *opaque)
{
    const struct kvm_cpu *k = kvm_cpu_of(c);

    each(opaque, &(struct engine_counter){"work", "kvm-entries", counter_read(&k->entries), 0});
    each(opaque,
         &(struct engine_counter){"work", "kvm-state-refused", counter_read(&k->refused), 0});
}

/* KVM knows where guest memory is from the slots, and its processor where code is. */
static void nothing(struct vcpu *c)
{
}

static void unmapped(struct vcpu *c, uint64_t linear, bool large)
{
}

const struct accelerator kvm_accelerator = {
    .vcpu_size = sizeof(struct kvm_cpu),
    .start = start,
    .stop = stop,
    .create = create,
    .destroy = destroy,
    .counters = counters,
    .run = kvm_run_guest,
    .prepare = prepare,
    .finish = nothing,
    .forget = nothing,
    .unmapped = unmapped,
    .pages_moved = nothing,
    .local_apics = kvm_lapics_create,
    .plug = kvm_lapic_plug,
    .take_interrupt = kvm_lapic_take_interrupt,
    .settle = kvm_lapic_settle,
};
