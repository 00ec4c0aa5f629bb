/*
 * Exits from KVM_RUN (Documentation/virt/kvm/api.rst, struct kvm_run), while KVM has the state.
 */
#include "cpu/kvm/vcpu.h"

#include "base/util.h"
#include "cpu/core/access.h"
#include "cpu/core/msr.h"
#include "cpu/core/present.h"
#include "cpu/kvm/lapic.h"

#include <errno.h>
#include <string.h>

/* RIP for a trace, which KVM has then put into struct kvm_run. */
static uint64_t traced_rip(const struct kvm_cpu *k)
{
    return k->run->kvm_valid_regs ? k->run->s.regs.regs.rip : 0;
}

/* --- Devices ---------------------------------------------------------------------------------- */

static void write_bus(struct vcpu *c, enum bus_space space, uint64_t address, unsigned size,
                      uint64_t value)
{
    if (bus_write(c->bus, space, address, size, value))
        cpu_port_hold(c->port);
}

/* Serves IN, OUT and their string forms: COUNT values are in the page. */
static enum kvm_next serve_port(struct kvm_cpu *k)
{
    struct kvm_run *run = k->run;
    const unsigned size = run->io.size;
    const bool out = run->io.direction == KVM_EXIT_IO_OUT;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned before = meter_enter(k->c.meter, CAUSE_PORT, traced_rip(k), run->io.port,
                                  size | (out ? TRACE_WRITE : 0));

    counter_add(&k->c.exits[CAUSE_PORT], run->io.count);
    for (unsigned i = 0; i < run->io.count; i++, data += size) {
        uint64_t value = 0;

        if (out) {
            memcpy(&value, data, size);
            write_bus(&k->c, BUS_PORT, run->io.port, size, value);
        } else {
            value = bus_read(k->c.bus, BUS_PORT, run->io.port, size);
            memcpy(data, &value, size);
        }
    }
    meter_leave(k->c.meter, before);
    k->completing = true;
    return KVM_GO_ON;
}

/* Copies between KVM and a page of guest memory that KVM could not reach, waiting for it. Returns
 * false if the address is a device's, or of a write to ROM. */
static bool reach_memory(struct kvm_cpu *k, uint64_t gpa, void *data, unsigned size, bool write)
{
    struct vcpu *c = &k->c;
    void *host;
    int ret;

    if (mem_page(c->mem, gpa >> MEM_PAGE_SHIFT, MEM_READ, &host) == MEM_NOT_RAM)
        return false;
    safepoint_leave(&c->core->safepoint, c->port->id);
    ret = write ? mem_write(c->mem, gpa, data, size) : mem_read(c->mem, gpa, data, size);
    safepoint_enter(&c->core->safepoint, c->port->id);
    present_forget(c);
    k->refresh = true;
    if (ret < 0 && ret != -EFAULT)
        raise_memory(c, ret);
    return ret == 0;
}

/* An access to registers in memory. */
static void access_device(struct kvm_cpu *k, uint64_t gpa, uint64_t *value, unsigned size,
                          bool write)
{
    struct vcpu *c = &k->c;
    const struct apic_ops *apic = c->port->apic_ops;
    const uint32_t offset = gpa & (MEM_PAGE_SIZE - 1);
    const bool is_apic = !k->lapic && ALIGN_DOWN(gpa, MEM_PAGE_SIZE) == c->apic_page;

    if (is_apic && write)
        apic->mmio_write(c->port->apic, offset, size, *value);
    else if (is_apic)
        *value = apic->mmio_read(c->port->apic, offset, size);
    else if (write)
        write_bus(c, BUS_MMIO, gpa, size, *value);
    else
        *value = bus_read(c->bus, BUS_MMIO, gpa, size);
}

static enum kvm_next serve_memory(struct kvm_cpu *k)
{
    struct kvm_run *run = k->run;
    const unsigned size = MIN(run->mmio.len, (uint32_t)sizeof(run->mmio.data));
    const uint64_t gpa = run->mmio.phys_addr;
    unsigned before;

    k->completing = true;
    if (reach_memory(k, gpa, run->mmio.data, size, run->mmio.is_write))
        return KVM_GO_ON;
    before = meter_enter(k->c.meter, CAUSE_MMIO, traced_rip(k), gpa,
                         size | (run->mmio.is_write ? TRACE_WRITE : 0));
    counter_add(&k->c.exits[CAUSE_MMIO], 1);
    for (unsigned at = 0, width; at < size; at += width) {
        uint64_t value = 0;

        width = mmio_width(gpa + at, size - at);
        memcpy(&value, run->mmio.data + at, width);
        access_device(k, gpa + at, &value, width, run->mmio.is_write);
        memcpy(run->mmio.data + at, &value, width);
    }
    meter_leave(k->c.meter, before);
    return KVM_GO_ON;
}

/* --- Registers -------------------------------------------------------------------------------- */

/* RDMSR and WRMSR of registers that are not KVM's. The core's copies of those are up to date at all
 * times. */
static enum kvm_next serve_msr(struct kvm_cpu *k, bool write)
{
    struct kvm_run *run = k->run;
    uint64_t value = write ? run->msr.data : 0, adjust = k->c.x.tsc_adjust;
    unsigned before =
        meter_enter(k->c.meter, CAUSE_MSR, traced_rip(k), run->msr.index, write ? TRACE_WRITE : 0);
    int ret;

    counter_add(&k->c.exits[CAUSE_MSR], 1);
    ret = write ? msr_write(&k->c, run->msr.index, value) : msr_read(&k->c, run->msr.index, &value);
    k->c.check_interrupt = false; /* the local APIC is asked before the guest goes on */
    run->msr.error = ret < 0;
    run->msr.data = value;
    k->completing = true;
    if (k->c.x.tsc_adjust != adjust)
        kvm_push_tsc(k);
    meter_leave(k->c.meter, before);
    /* CPUID, which KVM executes, says whether the local APIC is enabled. */
    return write && run->msr.index == X86_MSR_APIC_BASE ? KVM_LEAVE : KVM_GO_ON;
}

/* --- What ends the guest's turn --------------------------------------------------------------- */

static enum kvm_next serve_internal_error(struct kvm_cpu *k)
{
    switch (k->run->internal.suberror) {
    case KVM_INTERNAL_ERROR_EMULATION: return KVM_INTERPRET;
    case KVM_INTERNAL_ERROR_DELIVERY_EV: return KVM_LEAVE; /* the core delivers the event */
    default:
        error_set(&k->failure, EIO, "KVM: internal error %u", k->run->internal.suberror);
        raise_failure(&k->c);
    }
}

/* The reasons for which a processor does not enter a guest whose state is none (SDM volume 3, 27.7:
 * VM-entry failure, basic reason 33; APM volume 2, 15.5.1: VMEXIT_INVALID). */
#define REASON_VMX 0x80000021u
#define REASON_SVM UINT32_MAX

/* The interpreter can execute what it has brought about. */
static bool is_refused(const struct kvm_run *run)
{
    const uint64_t reason = run->fail_entry.hardware_entry_failure_reason;

    return run->exit_reason == KVM_EXIT_FAIL_ENTRY &&
           (reason == REASON_VMX || (uint32_t)reason == REASON_SVM);
}

_Noreturn static void fail_entry(struct kvm_cpu *k)
{
    if (k->run->exit_reason == KVM_EXIT_FAIL_ENTRY)
        error_set(&k->failure, EIO, "KVM: the processor refuses the guest (reason %#llx)",
                  (unsigned long long)k->run->fail_entry.hardware_entry_failure_reason);
    else
        error_set(&k->failure, EIO, "KVM: exit with the unknown reason %u", k->run->exit_reason);
    raise_failure(&k->c);
}

enum kvm_next kvm_serve_exit(struct kvm_cpu *k)
{
    switch (k->run->exit_reason) {
    case KVM_EXIT_IO: return serve_port(k);
    case KVM_EXIT_MMIO: return serve_memory(k);
    case KVM_EXIT_X86_RDMSR: return serve_msr(k, false);
    case KVM_EXIT_X86_WRMSR: return serve_msr(k, true);
    case KVM_EXIT_IOAPIC_EOI: kvm_lapic_end_of_interrupt(k, k->run->eoi.vector); return KVM_GO_ON;
    case KVM_EXIT_HLT: counter_add(&k->c.exits[CAUSE_HALT], 1); return KVM_HALT;
    case KVM_EXIT_INTR:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_IRQ_WINDOW_OPEN: return KVM_GO_ON;
    case KVM_EXIT_SHUTDOWN: return KVM_SHUTDOWN;
    case KVM_EXIT_DEBUG: k->met = k->run->debug.arch.dr6; return KVM_DEBUG;
    case KVM_EXIT_INTERNAL_ERROR: return serve_internal_error(k);
    default:
        if (!is_refused(k->run))
            fail_entry(k);
        counter_add(&k->refused, 1);
        return KVM_INTERPRET;
    }
}
