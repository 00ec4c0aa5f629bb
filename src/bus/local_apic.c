/*
 * Saving and restoring local APICs, whoever has them.
 */
#include "bus/local_apic.h"

static void visit(struct lapic_state *apic, struct state *s)
{
    state_field(s, apic->base);
    state_field(s, apic->tpr);
    state_field(s, apic->ldr);
    state_field(s, apic->dfr);
    state_field(s, apic->svr);
    state_field(s, apic->icr);
    state_field(s, apic->lvt);
    state_field(s, apic->esr);
    state_field(s, apic->errors);
    state_field(s, apic->irr);
    state_field(s, apic->isr);
    state_field(s, apic->tmr);
    state_bool(s, &apic->lint[0]);
    state_bool(s, &apic->lint[1]);
    state_bool(s, &apic->extint_message);
    state_field(s, apic->timer_initial);
    state_field(s, apic->timer_divide);
    state_bool(s, &apic->timer_running);
    state_field(s, apic->timer_start);
    state_field(s, apic->timer_tsc);
}

void local_apics_state(const struct local_apics *apics, unsigned cpus, struct state *s)
{
    struct lapic_state apic;

    state_section(s, "lapic", 0, 1);
    for (unsigned i = 0; i < cpus; i++) {
        apics->state_out(apics->opaque, i, &apic);
        if (i == 0)
            state_field(s, apic.turn);
        visit(&apic, s);
        if (!state_saving(s))
            apics->state_in(apics->opaque, i, &apic);
    }
}
