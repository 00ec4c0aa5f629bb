/*
 * Having KVM have local APICs, or finding that it cannot.
 */
#include "cpu/kvm/lapic.h"
#include "cpu/kvm/lapic_page.h"
#include "cpu/kvm/probe.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void init_routes(struct kvm_lapics *all)
{
    all->routes.nr = LAPIC_BOARD_PINS;
    for (unsigned i = 0; i < LAPIC_BOARD_PINS; i++)
        all->routes.entry[i] =
            (struct kvm_irq_routing_entry){.gsi = i, .type = KVM_IRQ_ROUTING_MSI};
}

static struct kvm_lapics *new_lapics(struct core *e, const struct lapic_board *board)
{
    struct kvm_lapics *all = calloc(1, sizeof(*all) + e->machine.cpus * sizeof(struct kvm_lapic));

    if (!all)
        return NULL;
    all->machine = e->accelerator_shared;
    all->board = *board;
    all->clock = e->machine.clock;
    all->physical_bits = e->machine.model.physical_bits;
    all->count = e->machine.cpus;
    pthread_rwlock_init(&all->sending, NULL);
    pthread_mutex_init(&all->failing, NULL);
    for (unsigned i = 0; i < all->count; i++) {
        all->apic[i].all = all;
        all->apic[i].id = i;
        all->apic[i].base = APIC_BASE_USUAL | APIC_BASE_ENABLE | (i ? 0 : APIC_BASE_BSP);
    }
    init_routes(all);
    return all;
}

/* Has KVM have local APICs. Returns 1 if it cannot: then there are none. */
static int enable(const struct kvm_machine *m)
{
    const struct kvm_enable_cap caps[] = {
        {.cap = KVM_CAP_X2APIC_API, .args = {KVM_X2APIC_API_USE_32BIT_IDS}},
        {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {LAPIC_BOARD_PINS}},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(caps); i++)
        if (kvm_call(m->calls, m->vm, KVM_CHECK_EXTENSION, caps[i].cap) <= 0)
            return 1;
    for (unsigned i = 0; i < ARRAY_SIZE(caps); i++)
        if (kvm_call(m->calls, m->vm, KVM_ENABLE_CAP, (uintptr_t)&caps[i]) < 0)
            return 1;
    return 0;
}

/* Whether KVM looks for interrupts now and then only, as one does that emulates processors. A guest
 * that takes them for moments might never get one. When one waits in the board's local APICs, that
 * is seen, and the interpreter executes the guest (run.c). */
static bool is_late(struct kvm_machine *m)
{
    return !(kvm_abilities(m) & KVM_OPENS_WINDOWS);
}

int kvm_lapics_create(struct core *e, const struct lapic_board *board, struct local_apics *apics,
                      struct error *err)
{
    const struct kvm_options *options = e->accelerator_options;
    struct kvm_machine *m = e->accelerator_shared;
    int ret;

    if (options->apics == KVM_APICS_BOARD || (options->apics == KVM_APICS_BEST && is_late(m)))
        return 1;
    m->lapics = new_lapics(e, board);
    if (!m->lapics)
        return error_set(err, ENOMEM, "out of memory for local APICs");
    if (enable(m) != 0) {
        kvm_lapics_destroy(m->lapics);
        m->lapics = NULL;
        return 1;
    }
    ret = kvm_lapics_give_routes(m->lapics);
    if (ret == 0)
        ret = kvm_filter_msrs(m);
    if (ret < 0)
        return error_set(err, -ret, "KVM: cannot set up local APICs: %s", strerror(-ret));
    e->wakes_inside = true;
    *apics = kvm_lapics_for_board(m->lapics);
    return 0;
}

void kvm_lapics_destroy(struct kvm_lapics *all)
{
    if (!all)
        return;
    pthread_rwlock_destroy(&all->sending);
    pthread_mutex_destroy(&all->failing);
    free(all);
}

void kvm_lapic_plug(struct core *e, struct cpu_port *port)
{
    const struct kvm_machine *m = e->accelerator_shared;
    struct kvm_lapic *lapic = &m->lapics->apic[port->id];

    lapic->port = port;
    port->apic_ops = &kvm_apic_ops;
    port->apic = lapic;
}

void kvm_lapic_attach(struct kvm_cpu *k)
{
    struct kvm_lapics *all = kvm_machine_of(&k->c)->lapics;

    if (!all)
        return;
    k->lapic = &all->apic[k->c.port->id];
    k->lapic->cpu = k;
}

void kvm_lapic_detach(struct kvm_cpu *k)
{
    struct cpu_port *port = k->c.port;

    if (k->lapic &&
        port->apic == k->lapic) { /* the machine's next engine may have its own by now */
        port->apic_ops = NULL;
        port->apic = NULL;
    }
}
