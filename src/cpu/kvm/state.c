/*
 * The vCPU's state in and out of KVM (Documentation/virt/kvm/api.rst).
 *
 * What KVM holds is known from the last time that it was taken out, so only what has changed since
 * is given to it. The parts are:
 *
 *     SREGS2       segments, descriptor tables, control registers, EFER, PDPTEs
 *     REGS         general registers, RIP, RFLAGS
 *     XCRS, XSAVE  XCR0; x87, SSE and AVX
 *     MSRS         those in `msrs`; the rest is the core's
 *     DEBUGREGS    DR0 to DR3, DR6, DR7
 *     EVENTS       NMIs and what was on its way
 *     TSC          the offset of the guest's TSC
 *     MP_STATE     whether it runs, has halted or waits for start-up, if KVM has local APICs
 */
#include "cpu/kvm/vcpu.h"

#include "base/util.h"
#include "cpu/core/deliver.h"
#include "cpu/core/fault.h"
#include "cpu/core/mode.h"
#include "cpu/kvm/lapic.h"

#include <errno.h>
#include <string.h>

/* --- Segments --------------------------------------------------------------------------------- */

static struct kvm_segment segment_in(const struct x86_seg *s)
{
    const bool unusable = s->attr & X86_ATTR_UNUSABLE;

    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .type = s->attr & X86_ATTR_TYPE,
        .s = !!(s->attr & X86_ATTR_S),
        .dpl = (s->attr & X86_ATTR_DPL) >> X86_ATTR_DPL_SHIFT,
        .present = !unusable && (s->attr & X86_ATTR_P),
        .avl = !!(s->attr & X86_ATTR_AVL),
        .l = !!(s->attr & X86_ATTR_L),
        .db = !!(s->attr & X86_ATTR_DB),
        .g = !!(s->attr & X86_ATTR_G),
        .unusable = unusable,
    };
}

static struct x86_seg segment_out(const struct kvm_segment *s)
{
    const unsigned attr = s->type | (s->s ? X86_ATTR_S : 0) |
                          (unsigned)s->dpl << X86_ATTR_DPL_SHIFT | (s->present ? X86_ATTR_P : 0) |
                          (s->avl ? X86_ATTR_AVL : 0) | (s->l ? X86_ATTR_L : 0) |
                          (s->db ? X86_ATTR_DB : 0) | (s->g ? X86_ATTR_G : 0);

    /* Of a register that cannot be used, KVM may have kept what was there before. */
    if (s->unusable || !s->present)
        return (struct x86_seg){
            .base = s->base,
            .attr = (uint16_t)(X86_ATTR_UNUSABLE | (unsigned)s->dpl << X86_ATTR_DPL_SHIFT),
            .selector = s->selector,
        };
    return (struct x86_seg){
        .base = s->base, .limit = s->limit, .attr = (uint16_t)attr, .selector = s->selector};
}

static struct kvm_segment *segment_of(struct kvm_sregs2 *s, unsigned segment)
{
    struct kvm_segment *const places[X86_SEGMENTS] = {
        [X86_ES] = &s->es, [X86_CS] = &s->cs, [X86_SS] = &s->ss,
        [X86_DS] = &s->ds, [X86_FS] = &s->fs, [X86_GS] = &s->gs,
    };

    return places[segment];
}

/* --- System registers ------------------------------------------------------------------------- */

static bool uses_pae(const struct x86_cpu *x)
{
    return (x->cr0 & X86_CR0_PG) && (x->cr4 & X86_CR4_PAE) && !(x->efer & X86_EFER_LMA);
}

static bool same_system(const struct x86_cpu *a, const struct x86_cpu *b)
{
    return !memcmp(a->seg, b->seg, sizeof(a->seg)) &&
           !memcmp(&a->ldtr, &b->ldtr, sizeof(a->ldtr)) && !memcmp(&a->tr, &b->tr, sizeof(a->tr)) &&
           a->gdtr.base == b->gdtr.base && a->gdtr.limit == b->gdtr.limit &&
           a->idtr.base == b->idtr.base && a->idtr.limit == b->idtr.limit && a->cr0 == b->cr0 &&
           a->cr2 == b->cr2 && a->cr3 == b->cr3 && a->cr4 == b->cr4 && a->efer == b->efer &&
           !memcmp(a->pdpte, b->pdpte, sizeof(a->pdpte));
}

static uint64_t apic_base(const struct vcpu *c)
{
    uint64_t base = 0;

    c->port->apic_ops->msr_read(c->port->apic, X86_MSR_APIC_BASE, &base);
    return base;
}

static int push_system(struct kvm_cpu *k)
{
    const struct x86_cpu *x = &k->c.x;
    const uint64_t base = apic_base(&k->c);
    struct kvm_sregs2 s = {
        .tr = segment_in(&x->tr),
        .ldt = segment_in(&x->ldtr),
        .gdt = {.base = x->gdtr.base, .limit = x->gdtr.limit},
        .idt = {.base = x->idtr.base, .limit = x->idtr.limit},
        .cr0 = x->cr0,
        .cr2 = x->cr2,
        .cr3 = x->cr3,
        .cr4 = x->cr4,
        .cr8 = k->c.port->apic_ops->get_cr8(k->c.port->apic),
        .efer = x->efer,
        .apic_base = base,
        .flags = uses_pae(x) ? KVM_SREGS2_FLAGS_PDPTRS_VALID : 0,
    };

    if (k->is_known && same_system(x, &k->known) && base == k->apic_base)
        return 0;
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        *segment_of(&s, i) = segment_in(&x->seg[i]);
    if (s.flags)
        memcpy(s.pdptrs, x->pdpte, sizeof(s.pdptrs));
    k->apic_base = base;
    return kvm_cpu_call(k, KVM_SET_SREGS2, &s);
}

static int pull_system(struct kvm_cpu *k)
{
    struct x86_cpu *x = &k->c.x;
    struct kvm_sregs2 s;
    int ret = kvm_cpu_call(k, KVM_GET_SREGS2, &s);

    if (ret < 0)
        return ret;
    for (unsigned i = 0; i < X86_SEGMENTS; i++)
        x->seg[i] = segment_out(segment_of(&s, i));
    x->tr = segment_out(&s.tr);
    x->ldtr = segment_out(&s.ldt);
    x->gdtr = (struct x86_dtr){.base = s.gdt.base, .limit = s.gdt.limit};
    x->idtr = (struct x86_dtr){.base = s.idt.base, .limit = s.idt.limit};
    x->cr0 = s.cr0;
    x->cr2 = s.cr2;
    x->cr3 = s.cr3;
    x->cr4 = s.cr4;
    x->efer = s.efer;
    if (s.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
        memcpy(x->pdpte, s.pdptrs, sizeof(x->pdpte));
    if (k->lapic) {
        k->apic_base = k->lapic->base = s.apic_base;
        k->lapic->cr8 = (unsigned)s.cr8;
    }
    return 0;
}

/* --- General registers ------------------------------------------------------------------------ */

/* Where KVM has the general registers, in the architecture's order. */
static __u64 *register_of(struct kvm_regs *r, unsigned i)
{
    __u64 *const places[X86_GPRS] = {&r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp,
                                     &r->rsi, &r->rdi, &r->r8,  &r->r9,  &r->r10, &r->r11,
                                     &r->r12, &r->r13, &r->r14, &r->r15};

    return places[i];
}

static int push_registers(struct kvm_cpu *k)
{
    const struct x86_cpu *x = &k->c.x;
    struct kvm_regs r = {.rip = x->reg[X86_RIP], .rflags = flags_get(&k->c)};

    if (k->is_known && !memcmp(x->reg, k->known.reg, sizeof(x->reg)) &&
        r.rflags == k->known.rflags && !k->injected)
        return 0;
    for (unsigned i = 0; i < X86_GPRS; i++)
        *register_of(&r, i) = x->reg[i];
    return kvm_cpu_call(k, KVM_SET_REGS, &r);
}

static int pull_registers(struct kvm_cpu *k)
{
    struct kvm_regs r;
    int ret = kvm_cpu_call(k, KVM_GET_REGS, &r);

    if (ret < 0)
        return ret;
    for (unsigned i = 0; i < X86_GPRS; i++)
        k->c.x.reg[i] = *register_of(&r, i);
    k->c.x.reg[X86_RIP] = r.rip;
    k->c.x.rflags = r.rflags;
    return 0;
}

/* --- Extended state --------------------------------------------------------------------------- */

/* Stores X's extended state in TO, with all of MASK's components given. The bytes of x->xsave are
 * the registers; nobody keeps its header. */
static void fill_area(struct kvm_xsave *to, const struct x86_cpu *x, uint64_t mask)
{
    uint8_t *area = (uint8_t *)to->region;

    memset(to, 0, sizeof(*to));
    memcpy(area, x->xsave, X86_XSAVE_HEADER);
    memcpy(area + X86_XSAVE_HEADER, &mask, sizeof(mask));
    if (mask & X86_XCR0_AVX)
        memcpy(area + X86_XSAVE_YMMH, x->xsave + X86_XSAVE_YMMH, X86_XSAVE_SIZE - X86_XSAVE_YMMH);
}

static int push_extended(struct kvm_cpu *k)
{
    const struct x86_cpu *x = &k->c.x;
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = x->xcr0}};
    struct kvm_xsave area;
    int ret = 0;

    if (!k->is_known || x->xcr0 != k->known.xcr0)
        ret = kvm_cpu_call(k, KVM_SET_XCRS, &xcrs);
    if (ret < 0 || (k->is_known && !memcmp(x->xsave, k->known.xsave, sizeof(x->xsave))))
        return ret;
    fill_area(&area, x, kvm_machine_of(&k->c)->xcr0);
    return kvm_cpu_call(k, KVM_SET_XSAVE, &area);
}

static int pull_extended(struct kvm_cpu *k)
{
    struct x86_cpu *x = &k->c.x;
    const uint64_t mask = kvm_machine_of(&k->c)->xcr0;
    struct kvm_xcrs xcrs = {0};
    struct kvm_xsave area;
    int ret = kvm_cpu_call(k, KVM_GET_XCRS, &xcrs);

    if (ret == 0)
        ret = kvm_cpu_call(k, KVM_GET_XSAVE, &area);
    if (ret < 0)
        return ret;
    for (unsigned i = 0; i < MIN(xcrs.nr_xcrs, (uint32_t)KVM_MAX_XCRS); i++)
        if (xcrs.xcrs[i].xcr == 0)
            x->xcr0 = xcrs.xcrs[i].value;
    /* Of a component that is in its initial state, KVM stores that. */
    memcpy(x->xsave, area.region, X86_XSAVE_HEADER);
    if (mask & X86_XCR0_AVX)
        memcpy(x->xsave + X86_XSAVE_YMMH, (uint8_t *)area.region + X86_XSAVE_YMMH,
               X86_XSAVE_SIZE - X86_XSAVE_YMMH);
    return 0;
}

/* --- Model-specific registers ----------------------------------------------------------------- */

/* A struct kvm_msrs with room. */
struct msrs {
    uint32_t nmsrs, padding;
    struct kvm_msr_entry entry[KVM_MSRS_MAX];
};

/* The registers that KVM keeps, where the model and the host have them. docs/engines.md lists them.
 */
static const uint32_t kept[] = {
    X86_MSR_STAR,           X86_MSR_LSTAR,       X86_MSR_CSTAR,        X86_MSR_SFMASK,
    X86_MSR_KERNEL_GS_BASE, X86_MSR_SYSENTER_CS, X86_MSR_SYSENTER_ESP, X86_MSR_SYSENTER_EIP,
    X86_MSR_TSC_AUX,        X86_MSR_SPEC_CTRL,
};
_Static_assert(ARRAY_SIZE(kept) <= KVM_MSRS_MAX, "room for all");

int kvm_state_create(struct kvm_cpu *k, struct error *err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kept); i++) {
        struct msrs msrs = {.nmsrs = 1, .entry[0].index = kept[i]};
        int ret = kvm_cpu_call(k, KVM_GET_MSRS, &msrs);

        if (ret < 0)
            return error_set(err, -ret, "KVM: cannot read register %#x: %s", kept[i],
                             strerror(-ret));
        if (ret == 1 && x86_msr_exists(&k->c.core->msrs, kept[i], X86_MSR_READ))
            k->msrs.msr[k->msrs.count++] = kept[i];
    }
    return 0;
}

static int push_msrs(struct kvm_cpu *k)
{
    struct msrs msrs = {0};
    int ret;

    for (unsigned i = 0; i < k->msrs.count; i++) {
        uint32_t msr = k->msrs.msr[i];
        uint64_t value = *x86_msr_register(&k->c.x, msr);

        if (!k->is_known || value != *x86_msr_register(&k->known, msr))
            msrs.entry[msrs.nmsrs++] = (struct kvm_msr_entry){.index = msr, .data = value};
    }
    if (!msrs.nmsrs)
        return 0;
    ret = kvm_cpu_call(k, KVM_SET_MSRS, &msrs);
    if (ret < 0)
        return ret;
    return (unsigned)ret < msrs.nmsrs ? -EINVAL : 0;
}

static int pull_msrs(struct kvm_cpu *k)
{
    struct msrs msrs = {.nmsrs = k->msrs.count};
    int ret;

    for (unsigned i = 0; i < k->msrs.count; i++)
        msrs.entry[i].index = k->msrs.msr[i];
    ret = kvm_cpu_call(k, KVM_GET_MSRS, &msrs);
    for (int i = 0; i < ret; i++)
        *x86_msr_register(&k->c.x, msrs.entry[i].index) = msrs.entry[i].data;
    return ret < 0 ? ret : 0;
}

/* The guest's TSC is the host's plus an offset. */
static int push_tsc(struct kvm_cpu *k)
{
    const uint64_t offset = clock_tsc_offset(k->c.core->machine.clock) + k->c.x.tsc_adjust;
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};
    int ret;

    if (k->is_known && offset == k->tsc_offset)
        return 0;
    ret = kvm_cpu_call(k, KVM_SET_DEVICE_ATTR, &attr);
    if (ret == 0)
        k->tsc_offset = offset;
    return ret;
}

void kvm_push_tsc(struct kvm_cpu *k)
{
    int ret = push_tsc(k);

    if (ret < 0)
        kvm_fail(k, ret, "cannot set the guest's TSC");
}

/* --- Debug registers -------------------------------------------------------------------------- */

static int push_debug(struct kvm_cpu *k)
{
    const struct x86_cpu *x = &k->c.x, *known = &k->known;
    struct kvm_debugregs d = {.dr6 = x->dr6, .dr7 = x->dr7};

    if (k->is_known && !memcmp(x->dr, known->dr, sizeof(x->dr)) && x->dr6 == known->dr6 &&
        x->dr7 == known->dr7)
        return 0;
    memcpy(d.db, x->dr, sizeof(d.db));
    return kvm_cpu_call(k, KVM_SET_DEBUGREGS, &d);
}

static int pull_debug(struct kvm_cpu *k)
{
    struct x86_cpu *x = &k->c.x;
    struct kvm_debugregs d;
    int ret = kvm_cpu_call(k, KVM_GET_DEBUGREGS, &d);

    if (ret < 0)
        return ret;
    memcpy(x->dr, d.db, sizeof(x->dr));
    x->dr6 = d.dr6;
    x->dr7 = d.dr7;
    return 0;
}

/* --- Events ----------------------------------------------------------------------------------- */

/* The core has delivered exceptions and interrupts and stepped over shadows before the guest runs,
 * so only NMIs can be waiting, for the end of one in service. How many, KVM is told only if it
 * matters, because its own local APICs may send one meanwhile. */
static int push_events(struct kvm_cpu *k)
{
    const struct x86_cpu *x = &k->c.x;
    struct kvm_vcpu_events e = {
        .flags = KVM_VCPUEVENT_VALID_SHADOW |
                 (x->nmis_pending || k->nmis || !k->lapic ? KVM_VCPUEVENT_VALID_NMI_PENDING : 0),
        .nmi = {.pending = x->nmis_pending, .masked = x->nmi_blocked},
    };

    k->nmis = x->nmis_pending;
    if (k->is_known && !k->injected && x->nmis_pending == k->known.nmis_pending &&
        x->nmi_blocked == k->known.nmi_blocked && !k->known.interrupt_shadow)
        return 0;
    return kvm_cpu_call(k, KVM_SET_VCPU_EVENTS, &e);
}

/* Stores in EVENT what was on its way. INT n, INT3 and INTO that were are executed again, as RIP is
 * still at them. */
static int pull_events(struct kvm_cpu *k, struct event *event)
{
    struct x86_cpu *x = &k->c.x;
    struct kvm_vcpu_events e;
    int ret = kvm_cpu_call(k, KVM_GET_VCPU_EVENTS, &e);
    bool soft;

    if (ret < 0)
        return ret;
    soft = e.exception.injected && (e.exception.nr == X86_BP || e.exception.nr == X86_OF);
    *event = (struct event){.vector = -1};
    if ((e.exception.injected || e.exception.pending) && !soft)
        *event = (struct event){.vector = e.exception.nr,
                                .has_error = e.exception.has_error_code,
                                .error = e.exception.error_code};
    else if (e.interrupt.injected && !e.interrupt.soft)
        *event = (struct event){.vector = e.interrupt.nr, .external = true};
    x->nmis_pending = (uint8_t)MIN(e.nmi.pending + e.nmi.injected, 2);
    k->nmis = e.nmi.pending;
    x->nmi_blocked = e.nmi.masked && !e.nmi.injected;
    x->interrupt_shadow = e.interrupt.shadow != 0;
    x->ss_shadow = e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS;
    k->injected = event->vector >= 0 || soft || e.interrupt.injected || e.nmi.injected;
    return 0;
}

/* --- Activity --------------------------------------------------------------------------------- */

static int push_activity(struct kvm_cpu *k)
{
    struct kvm_mp_state s = {.mp_state = KVM_MP_STATE_RUNNABLE};

    if (!k->lapic || (k->is_known && k->c.x.activity == k->known.activity))
        return 0;
    if (k->c.x.activity == X86_HALTED)
        s.mp_state = KVM_MP_STATE_HALTED;
    else if (k->c.x.activity == X86_WAIT_SIPI)
        s.mp_state = KVM_MP_STATE_INIT_RECEIVED;
    return kvm_cpu_call(k, KVM_SET_MP_STATE, &s);
}

/* KVM carries out an INIT and a start-up that wait. */
static int pull_activity(struct kvm_cpu *k)
{
    struct kvm_mp_state s;
    int ret;

    if (!k->lapic)
        return 0;
    ret = kvm_cpu_call(k, KVM_GET_MP_STATE, &s);
    if (ret < 0)
        return ret;
    switch (s.mp_state) {
    case KVM_MP_STATE_HALTED: k->c.x.activity = X86_HALTED; break;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED: k->c.x.activity = X86_WAIT_SIPI; break;
    default: k->c.x.activity = X86_RUNNING;
    }
    return 0;
}

/* --- All of it -------------------------------------------------------------------------------- */

bool kvm_push(struct kvm_cpu *k)
{
    int (*const parts[])(struct kvm_cpu *) = {push_system, push_registers, push_extended,
                                              push_msrs,   push_tsc,       push_debug,
                                              push_events, push_activity,  kvm_lapic_push};

    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
        int ret = parts[i](k);

        if (ret == 0)
            continue;
        k->is_known = false;
        if (ret != -EINVAL)
            kvm_fail(k, ret, "cannot set the guest's state");
        counter_add(&k->refused, 1);
        return false;
    }
    k->is_known = k->injected = false;
    return true;
}

bool kvm_pull(struct kvm_cpu *k)
{
    struct vcpu *c = &k->c;
    struct event event;
    int ret = pull_activity(k);

    if (ret == 0)
        ret = pull_events(k, &event); /* as KVM gives CR2 and DR6 their values with it */
    if (ret == 0)
        ret = pull_system(k);
    if (ret == 0)
        ret = pull_registers(k);
    if (ret == 0)
        ret = pull_extended(k);
    if (ret == 0)
        ret = pull_msrs(k);
    if (ret == 0)
        ret = pull_debug(k);
    if (ret < 0)
        kvm_fail(k, ret, "cannot get the guest's state");
    k->known = c->x;
    k->is_known = true;
    core_state_changed(c);
    if (event.vector >= 0)
        deliver(c, &event);
    return event.vector >= 0;
}
