/*
 * The debug console (port e9h): bytes written come out on the host; reading gives E9h, by which
 * software recognizes it.
 */
#ifndef DOPPEL_DEV_PC_DEBUG_CONSOLE_H
#define DOPPEL_DEV_PC_DEBUG_CONSOLE_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/dev.h"
#include "dev/pc/burst.h"

#include <stddef.h>

struct dev *debug_console_create(struct bus *bus, struct clock *clock,
                                 const struct burst_backend *backend, struct error *err);
/* Hands over what is still buffered. Board lock held. */
void debug_console_flush(struct dev *console);
/* Whether the backend has no room for more. Any thread, without locks. */
bool debug_console_full(struct dev *console);

#endif
