/*
 * The bus: two address spaces, each a sorted array of claimed ranges, and the board lock.
 */
#include "bus/bus.h"

#include "base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PORTS 0x10000ULL

struct range {
    uint64_t base, last; /* LAST is the highest address: a range may end at 2^64 */
    const char *name;
    const struct bus_ops *ops;
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
};

struct bus *bus_create(struct error *err)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (!bus) {
        error_set(err, ENOMEM, "bus: out of memory");
        return NULL;
    }
    pthread_mutex_init(&bus->lock, NULL);
    return bus;
}

void bus_destroy(struct bus *bus)
{
    if (!bus)
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(bus->space); i++)
        free(bus->space[i].ranges);
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

static const struct range *find(const struct space *space, uint64_t address)
{
    unsigned n = rank(space, address);
    return n && address <= space->ranges[n - 1].last ? &space->ranges[n - 1] : NULL;
}

int bus_claim(struct bus *bus, enum bus_space which, uint64_t base, uint64_t size, const char *name,
              const struct bus_ops *ops, void *dev, struct error *err)
{
    struct space *space = &bus->space[which];
    uint64_t last = base + size - 1;
    if (!size || last < base || (which == BUS_PORT && last >= PORTS))
        return error_set(err, EINVAL, "%s: no such address range: %#" PRIx64 " size %#" PRIx64,
                         name, base, size);
    unsigned n = rank(space, base);
    const struct range *clash = NULL;
    if (n && space->ranges[n - 1].last >= base)
        clash = &space->ranges[n - 1];
    else if (n < space->count && space->ranges[n].base <= last)
        clash = &space->ranges[n];
    if (clash)
        return error_set(err, EBUSY, "%s: addresses %#" PRIx64 "-%#" PRIx64 " overlap those of %s",
                         name, base, last, clash->name);
    if (space->count == space->capacity) {
        unsigned capacity = space->capacity ? 2 * space->capacity : 16;
        struct range *grown = reallocarray(space->ranges, capacity, sizeof(*grown));
        if (!grown)
            return error_set(err, ENOMEM, "%s: out of memory", name);
        space->ranges = grown;
        space->capacity = capacity;
    }
    struct range *slot = &space->ranges[n];
    memmove(slot + 1, slot, (space->count - n) * sizeof(*slot));
    *slot = (struct range){.base = base, .last = last, .name = name, .ops = ops, .dev = dev};
    space->count++;
    return 0;
}

void bus_release(struct bus *bus, enum bus_space which, uint64_t base)
{
    struct space *space = &bus->space[which];
    unsigned n = rank(space, base);
    if (!n || space->ranges[n - 1].base != base)
        return;
    struct range *slot = &space->ranges[n - 1];
    memmove(slot, slot + 1, (space->count - n) * sizeof(*slot));
    space->count--;
}

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

static uint64_t mask(unsigned size)
{
    return UINT64_MAX >> (64 - 8 * size);
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
