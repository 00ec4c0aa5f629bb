/*
 * The engine for a host, by what is known of it.
 */
#ifndef DOPPEL_CTL_CHOICE_H
#define DOPPEL_CTL_CHOICE_H

#include "cpu/engine.h"
#include "ctl/kvm_worth.h"

/* Returns the engine for a host whose KVM is worth that and on which translated code can run, or
 * not, and says why in REASON, of SIZE bytes. */
const struct engine_ops *choose_engine(const struct kvm_worth *kvm, bool translates, char *reason,
                                       size_t size);

#endif
