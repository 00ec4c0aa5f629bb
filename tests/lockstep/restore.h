/*
 * Saving a machine in the middle of what it does, and going on with another made from that.
 */
#ifndef DOPPEL_TESTS_LOCKSTEP_RESTORE_H
#define DOPPEL_TESTS_LOCKSTEP_RESTORE_H

#include "vm/vm.h"

/* A sequence that a seed determines. */
struct chance {
    uint64_t state; /* not 0 */
};
/* A number from 1 to 2 * MEAN - 1. */
uint64_t chance_around(struct chance *chance, uint64_t mean);

/* Saves VM, destroys it, and makes it again on ENGINE with CONFIG. What the new one saves must be
 * the same, byte for byte. NULL if anything fails, which has been reported; VM is gone in any case.
 */
struct vm *restore(struct vm *vm, const struct engine_ops *engine, const struct vm_config *config);

#endif
