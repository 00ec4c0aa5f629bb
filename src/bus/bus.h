/*
 * The bus: where accesses to ports and to memory-mapped registers find their device.
 *
 * The bus also owns the board lock. Every call into a device (read, write, timer, input from a
 * backend, interrupt line) runs with it held, so that device models need no lock of their own.
 * Two things do without: the local APIC (see bus/cpu_port.h), and doorbells. bus_read and bus_write
 * take the lock themselves.
 */
#ifndef DOPPEL_BUS_BUS_H
#define DOPPEL_BUS_BUS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct bus;

enum bus_space { BUS_PORT, BUS_MMIO };

struct bus_ops {
    /* OFFSET is from the range's base; SIZE is 1, 2, 4 or 8 and OFFSET + SIZE lies in the range.
     * Values are in the low SIZE bytes. */
    uint64_t (*read)(void *dev, uint64_t offset, unsigned size);
    void (*write)(void *dev, uint64_t offset, unsigned size, uint64_t value);
    /* The widest access the device takes (1, 2, 4 or 8); wider ones arrive as several, lowest
     * address first. 0 means 1. */
    unsigned max_size;
};

struct bus *bus_create(struct error *err);
void bus_destroy(struct bus *bus);

/* Claiming and releasing need the board lock, or a machine that does not run yet or no longer.
 *
 * Claims SIZE addresses from BASE for DEV; NAME stays the caller's. Fails (-EBUSY) when any is
 * claimed already. */
int bus_claim(struct bus *bus, enum bus_space space, uint64_t base, uint64_t size, const char *name,
              const struct bus_ops *ops, void *dev, struct error *err);
/* Gives back the range that starts at BASE. */
void bus_release(struct bus *bus, enum bus_space space, uint64_t base);

/* As bus_claim, for a range that the guest places, on top of others if it likes: DEV gets what is
 * left of it by bus_claim and by such ranges of a lower RANK, which no other of them has. OFFSET is
 * from BASE in any case.
 *
 *      bus_claim              |-----|
 *      RANK 1                     |-------|
 *      RANK 2           |-----------------------|
 *      decoded by       2222222 BBBBB 1111 222222
 *
 * -EINVAL, -ENOMEM: nothing is claimed. */
int bus_claim_ranked(struct bus *bus, enum bus_space space, uint64_t base, uint64_t size,
                     unsigned rank, const char *name, const struct bus_ops *ops, void *dev,
                     struct error *err);
/* Gives back the range of RANK, if there is one. */
void bus_release_ranked(struct bus *bus, enum bus_space space, unsigned rank);
/* Whether the range of RANK gets all SIZE addresses from ADDRESS. */
bool bus_has_ranked(const struct bus *bus, enum bus_space space, uint64_t address, uint64_t size,
                    unsigned rank);

/* A doorbell: an address that a guest writes to when it has put work into a queue of DEV's in
 * memory. The write calls RING without the board lock, so that vCPUs which ring do not wait for
 * each other or for a device's registers. OFFSET is from the doorbell's base, VALUE is in the low
 * SIZE bytes. RING posts (workers_post, loop_post) and does nothing else: it takes no lock but
 * those, waits for nothing, and claims and releases nothing.
 *
 *      bus_write --+-- all of it in a doorbell: ring(), no lock but the doorbells' own
 *                  '-- else: board lock, ops->write() of whoever claimed the range
 */
typedef void bus_ring(void *dev, uint64_t offset, unsigned size, uint64_t value);

/* Makes SIZE addresses from BASE a doorbell of DEV's; they usually lie in a range that DEV has
 * claimed. That range still gets all reads, and writes that only touch the doorbell: its ops->write
 * must know the doorbell, too. Fails (-EBUSY) when any address is in a doorbell already.
 * Claiming and releasing need the same as bus_claim. */
int bus_claim_doorbell(struct bus *bus, enum bus_space space, uint64_t base, uint64_t size,
                       const char *name, bus_ring *ring, void *dev, struct error *err);
/* Gives back the doorbell that starts at BASE. Afterwards RING is not running and is not called,
 * whatever vCPUs write meanwhile. */
void bus_release_doorbell(struct bus *bus, enum bus_space space, uint64_t base);

/* Writes to a doorbell that do the same: those that begin at the same multiple of this from the
 * doorbell's base, whatever their size and value. */
#define BUS_DOORBELL_STEP 4

/* Someone who has vCPUs' writes to doorbells rung without bus_write, as the host's kernel does for
 * a hypervisor. Called with the board lock: CLAIMED when a doorbell is there, RELEASED when one is
 * about to go, so that what it has heard can still be rung (bus_ring_doorbell). */
struct bus_watcher {
    void (*claimed)(void *opaque, enum bus_space space, uint64_t base, uint64_t size);
    void (*released)(void *opaque, enum bus_space space, uint64_t base);
    void *opaque;
    struct bus_watcher *next; /* the bus's */
};
/* Tells WATCHER of all doorbells that there are and will be; and that all of them go. Both take the
 * board lock. */
void bus_watch(struct bus *bus, struct bus_watcher *watcher);
void bus_unwatch(struct bus *bus, struct bus_watcher *watcher);
/* As bus_write, for a write to a doorbell. Returns false, and does nothing, if there is none. Takes
 * no lock but the doorbells' own. */
bool bus_ring_doorbell(struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
                       uint64_t value);

/* What a vCPU does. Addresses nobody claims read as all ones and swallow writes, as on a PC.
 * bus_write returns true when a device has asked for the vCPU to be held (bus_hold). */
uint64_t bus_read(struct bus *bus, enum bus_space space, uint64_t address, unsigned size);
bool bus_write(struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
               uint64_t value);

/* For a device, during a write: its backend has taken what was written and has no room for more.
 * The device never waits, as it has the board lock: the vCPU stands still after this write, until
 * there is room. */
void bus_hold(struct bus *bus);

/* The board lock; not recursive. */
void bus_lock(struct bus *bus);
void bus_unlock(struct bus *bus);
/* Whether the calling thread has the board lock: for assertions where it must not be held, because
 * what follows waits for a thread that may want it. */
bool bus_is_locked_here(const struct bus *bus);

#endif
