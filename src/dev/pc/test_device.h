/*
 * The test device: what test kernels written for QEMU's pc-testdev expect.
 *
 * - Ports E0h to E3h hold the bytes last written, in accesses of 1, 2 or 4 bytes.
 * - Port E4h takes a page's address in 4 bytes. A hypervisor shall drop its mapping of that page,
 *   which the guest cannot notice; nothing happens.
 * - Port 2000h + N is the level of interrupt line N: 0 is low, all else is high.
 * - 64 KiB at FF000000h hold what was written, as memory-mapped registers.
 */
#ifndef DOPPEL_DEV_PC_TEST_DEVICE_H
#define DOPPEL_DEV_PC_TEST_DEVICE_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/dev.h"
#include "bus/irq.h"

#define TEST_DEVICE_LINES 24

/* LINES(OPAQUE, N, LEVEL) sets interrupt line N. */
struct dev *test_device_create(struct bus *bus, void (*lines)(void *opaque, unsigned n, bool level),
                               void *opaque, struct error *err);

#endif
