/*
 * The debug exit port (f4h): a value V written to it ends the VM with status (V << 1) | 1.
 */
#ifndef DOPPEL_DEV_PC_DEBUG_EXIT_H
#define DOPPEL_DEV_PC_DEBUG_EXIT_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/dev.h"

struct dev *debug_exit_create(struct bus *bus, void (*exit)(void *opaque, int status), void *opaque,
                              struct error *err);

#endif
