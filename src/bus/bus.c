/*
 * The bus: two address spaces, each a sorted array of claimed ranges and one of doorbells, and the
 * board lock.
 *
 * Lock order: board lock, then `ringing`. A vCPU that rings holds `ringing` for reading and not the
 * board lock. A claim or release waits for it to return; it prefers the one that waits to those
 * that come, so that vCPUs which ring without end do not keep it out.
 */
#include "bus/bus.h"

#include "base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PORTS 0x10000ULL

struct range {
    uint64_t base, last; /* LAST is the highest address: a range may end at 2^64 */
    const char *name;
    union {
        const struct bus_ops *ops; /* of a claimed range */
        bus_ring *ring;            /* of a doorbell */
    };
    void *dev;
};

struct space {
    struct range *ranges; /* by base, disjoint */
    unsigned count, capacity;
};

struct bus {
    pthread_mutex_t lock;
    bool hold; /* a device has called bus_hold during the write that is under way */
    struct space space[2];

    pthread_rwlock_t ringing; /* for writing: the doorbells change, and none is being rung */
    struct space doorbells[2];
    _Atomic bool has_doorbells[2]; /* so that writes of a board without any take no second lock */
};

struct bus *bus_create(struct error *err)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (!bus) {
        error_set(err, ENOMEM, "bus: out of memory");
        return NULL;
    }
    pthread_mutex_init(&bus->lock, NULL);
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&bus->ringing, &attr);
    pthread_rwlockattr_destroy(&attr);
    return bus;
}

void bus_destroy(struct bus *bus)
{
    if (!bus)
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(bus->space); i++) {
        free(bus->space[i].ranges);
        free(bus->doorbells[i].ranges);
    }
    pthread_rwlock_destroy(&bus->ringing);
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

/* The number of ranges that start at or below ADDRESS: the last of them is the only one that can
 * hold it. */
static unsigned rank(const struct space *space, uint64_t address)
{
    unsigned low = 0, high = space->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (space->ranges[middle].base <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static inline const struct range *find(const struct space *space, uint64_t address)
{
    unsigned n = rank(space, address);
    return n && address <= space->ranges[n - 1].last ? &space->ranges[n - 1] : NULL;
}

/* Adds SIZE addresses from NEW.base, whose LAST is not set yet. */
static int put_in(struct space *space, enum bus_space which, struct range new, uint64_t size,
                  struct error *err)
{
    uint64_t base = new.base, last = base + size - 1;
    if (!size || last < base || (which == BUS_PORT && last >= PORTS))
        return error_set(err, EINVAL, "%s: no such address range: %#" PRIx64 " size %#" PRIx64,
                         new.name, base, size);
    unsigned n = rank(space, base);
    const struct range *clash = NULL;
    if (n && space->ranges[n - 1].last >= base)
        clash = &space->ranges[n - 1];
    else if (n < space->count && space->ranges[n].base <= last)
        clash = &space->ranges[n];
    if (clash)
        return error_set(err, EBUSY, "%s: addresses %#" PRIx64 "-%#" PRIx64 " overlap those of %s",
                         new.name, base, last, clash->name);
    if (space->count == space->capacity) {
        unsigned capacity = space->capacity ? 2 * space->capacity : 16;
        struct range *grown = reallocarray(space->ranges, capacity, sizeof(*grown));
        if (!grown)
            return error_set(err, ENOMEM, "%s: out of memory", new.name);
        space->ranges = grown;
        space->capacity = capacity;
    }
    struct range *slot = &space->ranges[n];
    memmove(slot + 1, slot, (space->count - n) * sizeof(*slot));
    new.last = last;
    *slot = new;
    space->count++;
    return 0;
}

/* Takes out the range that starts at BASE, if there is one. */
static void take_out(struct space *space, uint64_t base)
{
    unsigned n = rank(space, base);
    if (!n || space->ranges[n - 1].base != base)
        return;
    struct range *slot = &space->ranges[n - 1];
    memmove(slot, slot + 1, (space->count - n) * sizeof(*slot));
    space->count--;
}

int bus_claim(struct bus *bus, enum bus_space which, uint64_t base, uint64_t size, const char *name,
              const struct bus_ops *ops, void *dev, struct error *err)
{
    struct range range = {.base = base, .name = name, .ops = ops, .dev = dev};
    return put_in(&bus->space[which], which, range, size, err);
}

void bus_release(struct bus *bus, enum bus_space which, uint64_t base)
{
    take_out(&bus->space[which], base);
}

/* --- doorbells --- */

static uint64_t mask(unsigned size)
{
    return UINT64_MAX >> (64 - 8 * size);
}

int bus_claim_doorbell(struct bus *bus, enum bus_space which, uint64_t base, uint64_t size,
                       const char *name, bus_ring *ring, void *dev, struct error *err)
{
    struct range range = {.base = base, .name = name, .ring = ring, .dev = dev};
    pthread_rwlock_wrlock(&bus->ringing);
    int ret = put_in(&bus->doorbells[which], which, range, size, err);
    atomic_store(&bus->has_doorbells[which], bus->doorbells[which].count != 0);
    pthread_rwlock_unlock(&bus->ringing);
    return ret;
}

void bus_release_doorbell(struct bus *bus, enum bus_space which, uint64_t base)
{
    pthread_rwlock_wrlock(&bus->ringing);
    take_out(&bus->doorbells[which], base);
    atomic_store(&bus->has_doorbells[which], bus->doorbells[which].count != 0);
    pthread_rwlock_unlock(&bus->ringing);
}

/* Rings the doorbell that the write lies in. Returns false if there is none. */
static bool ring(struct bus *bus, enum bus_space which, uint64_t address, unsigned size,
                 uint64_t value)
{
    pthread_rwlock_rdlock(&bus->ringing);
    const struct range *range = find(&bus->doorbells[which], address);
    bool rung = range && size - 1 <= range->last - address;
    if (rung)
        range->ring(range->dev, address - range->base, size, value & mask(size));
    pthread_rwlock_unlock(&bus->ringing);
    return rung;
}

/* --- access --- */

/* How much of SIZE bytes at ADDRESS goes to RANGE at once: a power of two that neither leaves the
 * range nor is wider than its device takes. Addresses without a device go byte by byte. */
static unsigned chunk(const struct range *range, uint64_t address, unsigned size)
{
    if (!range)
        return 1;
    unsigned widest = range->ops->max_size ? range->ops->max_size : 1;
    unsigned n = 8;
    while (n > 1 && (n > size || n > widest || n - 1 > range->last - address))
        n /= 2;
    return n;
}

uint64_t bus_read(struct bus *bus, enum bus_space which, uint64_t address, unsigned size)
{
    const struct space *space = &bus->space[which];
    uint64_t value = 0;
    bus_lock(bus);
    for (unsigned done = 0, n; done < size; done += n) {
        const struct range *range = find(space, address + done);
        uint64_t part = UINT64_MAX;
        n = chunk(range, address + done, size - done);
        if (range)
            part = range->ops->read(range->dev, address + done - range->base, n);
        value |= (part & mask(n)) << (8 * done);
    }
    bus_unlock(bus);
    return value;
}

bool bus_write(struct bus *bus, enum bus_space which, uint64_t address, unsigned size,
               uint64_t value)
{
    const struct space *space = &bus->space[which];
    bool hold;
    /* A vCPU that learns of a doorbell late writes to its device, which knows it as well. */
    if (atomic_load_explicit(&bus->has_doorbells[which], memory_order_relaxed) &&
        ring(bus, which, address, size, value))
        return false;
    bus_lock(bus);
    for (unsigned done = 0, n; done < size; done += n) {
        const struct range *range = find(space, address + done);
        n = chunk(range, address + done, size - done);
        if (range)
            range->ops->write(range->dev, address + done - range->base, n,
                              (value >> (8 * done)) & mask(n));
    }
    hold = bus->hold;
    bus->hold = false;
    bus_unlock(bus);
    return hold;
}

void bus_hold(struct bus *bus)
{
    bus->hold = true;
}

void bus_lock(struct bus *bus)
{
    pthread_mutex_lock(&bus->lock);
}

void bus_unlock(struct bus *bus)
{
    pthread_mutex_unlock(&bus->lock);
}

bool bus_is_locked_here(const struct bus *bus)
{
    /* What the C library keeps for debuggers. A count of our own would cost each access more. */
    return __atomic_load_n(&bus->lock.__data.__owner, __ATOMIC_RELAXED) == gettid();
}
