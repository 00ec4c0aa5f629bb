/*
 * Delivery of exceptions and interrupts (SDM volume 3, chapter 6).
 */
#ifndef DOPPEL_CPU_CORE_DELIVER_H
#define DOPPEL_CPU_CORE_DELIVER_H

#include "cpu/core/vcpu.h"

/* Delivers an exception or interrupt through the IVT or IDT, with X86_RIP as the return address.
 * May raise a fault in turn. */
void deliver(struct vcpu *c, const struct event *event);

#endif
