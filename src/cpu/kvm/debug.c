/*
 * Breakpoints of a debugger outside of the guest, in the processor's debug registers (SDM volume 3,
 * 18.2; Documentation/virt/kvm/api.rst, KVM_SET_GUEST_DEBUG).
 *
 * While KVM has such breakpoints, the guest's own debug registers keep their values but are not the
 * processor's. So KVM has the debugger's only as long as the guest has none enabled, and general
 * detection (DR7.GD) tells before the guest changes that. All debug exceptions come here then,
 * those of the guest's own single steps, too.
 *
 *     instruction breakpoint   the run loop executes the instruction as a step, and so finds the
 *                              breakpoint first
 *     data breakpoint          is noted as if the interpreter had met it
 *     the guest's single step  becomes the trap that is pending
 *     anything else            the interpreter executes the instruction
 *
 * What does not fit in four registers, and single steps of the debugger's, are the interpreter's:
 * the guest would see TF in flags that it pushes.
 */
#include "cpu/kvm/vcpu.h"

#include "cpu/core/debug.h"
#include "cpu/kvm/probe.h"

#include <errno.h>
#include <string.h>

#define REGISTERS   4u
#define DR7_ENABLED 0xFFu

/* Puts breakpoint INDEX in debug registers from *USED on. Returns false if there is no room. */
static bool place(struct kvm_cpu *k, struct kvm_guest_debug *d, unsigned index, unsigned *used)
{
    static const uint8_t length[9] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    static const uint8_t type[] = {
        [BREAK_EXECUTE] = TYPE_EXECUTE, [BREAK_WRITE] = TYPE_WRITE, [BREAK_ACCESS] = TYPE_ACCESS};
    const struct engine_breakpoint *b = &k->c.debug.breakpoint[index];
    uint64_t at = b->address, left = b->kind == BREAK_EXECUTE ? 1 : b->size, size;

    for (; left; at += size, left -= size) {
        if (*used == REGISTERS || !x86_is_canonical(at))
            return false;
        for (size = b->kind == BREAK_EXECUTE ? 1 : 8; (at & (size - 1)) || size > left;)
            size /= 2;
        d->arch.debugreg[*used] = at;
        d->arch.debugreg[7] |= 2u << (*used * 2) | (type[b->kind] | (unsigned)length[size] << 2)
                                                       << (16 + *used * 4);
        k->breakpoint[(*used)++] = (uint8_t)index;
    }
    return true;
}

/* Stores in D what KVM is to do for the debugger. Returns false if it cannot. */
static bool plan(struct kvm_cpu *k, struct kvm_guest_debug *d)
{
    unsigned used = 0, told = kvm_abilities(kvm_machine_of(&k->c));

    if (k->c.x.dr7 & DR7_ENABLED)
        return false;
    d->control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    d->arch.debugreg[7] = DR7_INIT | DR7_GD;
    for (unsigned i = 0; i < k->c.debug.count; i++)
        if (!(told & (k->c.debug.breakpoint[i].kind == BREAK_EXECUTE ? KVM_BREAKS_ON_CODE
                                                                     : KVM_BREAKS_ON_DATA)) ||
            !place(k, d, i, &used))
            return false;
    return true;
}

bool kvm_push_debugger(struct kvm_cpu *k)
{
    struct kvm_guest_debug wanted = {0};
    int ret;

    if (k->c.debug.count && !plan(k, &wanted))
        return false;
    if (!memcmp(&wanted, &k->debugger, sizeof(wanted)))
        return true;
    ret = kvm_cpu_call(k, KVM_SET_GUEST_DEBUG, &wanted);
    if (ret < 0)
        kvm_fail(k, ret, "cannot set breakpoints");
    k->debugger = wanted;
    return true;
}

void kvm_note_breakpoint(struct kvm_cpu *k)
{
    struct vcpu *c = &k->c;

    for (unsigned i = 0; i < REGISTERS && !c->debug_hit; i++) {
        unsigned type = k->debugger.arch.debugreg[7] >> (16 + i * 4) & 3;

        if (!(k->met >> i & 1) || type == TYPE_EXECUTE)
            continue;
        c->debug_met = k->breakpoint[i];
        c->debug_hit = true;
    }
    if (k->met & DR6_BS)
        debug_note_step(c);
    c->stepping = true; /* for one turn; then update_stepping decides anew */
}
