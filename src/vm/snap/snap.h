/*
 * Saving a whole machine and building it again (docs/state.md).
 */
#ifndef DOPPEL_VM_SNAP_SNAP_H
#define DOPPEL_VM_SNAP_SNAP_H

#include "base/state.h"
#include "vm/vm.h"

/* Writes all of VM's state. Its vCPUs, devices and clock stand still meanwhile; VM may be paused
 * already, or not yet started. What serial ports and the debug console have sent goes out to their
 * backends first. Fails if VM has ended. MAKER: see state_create_save. 0 or a negative errno. */
int vm_save(struct vm *vm, const char *maker, const struct state_writer *writer, struct error *err);

/* Makes a VM that goes on where the one that READER has was saved. It is like one of vm_create and
 * begins to run with vm_start; its clock and TSC then go on where they stood, and its devices with
 * the requests that were in flight. CONFIG must describe the same machine; ENGINE may be another.
 * What is loaded changes nothing but the new VM, which is destroyed again on any failure: a damaged
 * file is found out at the latest in its last section.
 * NULL on failure. */
struct vm *vm_load(const struct engine_ops *engine, const struct vm_config *config,
                   const struct state_reader *reader, struct error *err);

#endif
