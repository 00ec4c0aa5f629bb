/*
 * The bus: two address spaces, each with a list of claims, a sorted array of what is decoded, and
 * one of doorbells; and the board lock.
 *
 *      claims, by rank  --decode-->  ranges, by address: disjoint  --find-->  device
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
    uint64_t offset;     /* of BASE from where the claim begins */
    unsigned rank;       /* FIXED: by bus_claim */
    const char *name;
    union {
        const struct bus_ops *ops; /* of a claimed range */
        bus_ring *ring;            /* of a doorbell */
    };
    void *dev;
};

#define FIXED 0u /* ranks of others, as they are kept, are above */

struct space {
    struct range *ranges; /* by base, disjoint; claims: by rank, the fixed ones by base */
    unsigned count, capacity;
};

struct bus {
    pthread_mutex_t lock;
    bool hold; /* a device has called bus_hold during the write that is under way */
    struct space claims[2];
    struct space space[2]; /* what is decoded; it has room for twice as many ranges as claims */

    pthread_rwlock_t ringing; /* for writing: the doorbells change, and none is being rung */
    struct space doorbells[2];
    _Atomic bool has_doorbells[2]; /* so that writes of a board without any take no second lock */
    struct bus_watcher *watchers;  /* of doorbells; with the board lock */
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
        free(bus->claims[i].ranges);
        free(bus->space[i].ranges);
        free(bus->doorbells[i].ranges);
    }
    pthread_rwlock_destroy(&bus->ringing);
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

/* The number of ranges that start at or below ADDRESS: the last of them is the only one that can
 * hold it. */
static unsigned count_to(const struct space *space, uint64_t address)
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
    unsigned n = count_to(space, address);
    return n && address <= space->ranges[n - 1].last ? &space->ranges[n - 1] : NULL;
}

/* Makes room for COUNT ranges. */
static int make_room(struct space *space, unsigned count, const char *name, struct error *err)
{
    unsigned capacity = MAX(space->capacity, 16u);
    struct range *grown;

    if (count <= space->capacity)
        return 0;
    while (capacity < count)
        capacity *= 2;
    grown = reallocarray(space->ranges, capacity, sizeof(*grown));
    if (!grown)
        return error_set(err, ENOMEM, "%s: out of memory", name);
    space->ranges = grown;
    space->capacity = capacity;
    return 0;
}

/* There is room. */
static void insert(struct space *space, unsigned at, struct range range)
{
    struct range *slot = &space->ranges[at];

    memmove(slot + 1, slot, (space->count - at) * sizeof(*slot));
    *slot = range;
    space->count++;
}

static void cut_out(struct space *space, unsigned at)
{
    struct range *slot = &space->ranges[at];

    space->count--;
    memmove(slot, slot + 1, (space->count - at) * sizeof(*slot));
}

/* Sets RANGE->last, for SIZE addresses. */
static int set_size(struct range *range, enum bus_space which, uint64_t size, struct error *err)
{
    range->last = range->base + size - 1;
    if (size && range->last >= range->base && (which == BUS_MMIO || range->last < PORTS))
        return 0;
    return error_set(err, EINVAL, "%s: no such address range: %#" PRIx64 " size %#" PRIx64,
                     range->name, range->base, size);
}

/* Adds a range that no other of the first COUNT overlaps. */
static int put_in(struct space *space, unsigned count, struct range new, struct error *err)
{
    struct space fixed = {space->ranges, count, count};
    unsigned n = count_to(&fixed, new.base);
    const struct range *clash = NULL;
    int ret;

    if (n && space->ranges[n - 1].last >= new.base)
        clash = &space->ranges[n - 1];
    else if (n < count && space->ranges[n].base <= new.last)
        clash = &space->ranges[n];
    if (clash)
        return error_set(err, EBUSY, "%s: addresses %#" PRIx64 "-%#" PRIx64 " overlap those of %s",
                         new.name, new.base, new.last, clash->name);
    ret = make_room(space, space->count + 1, new.name, err);
    if (ret == 0)
        insert(space, n, new);
    return ret;
}

/* Takes out the range of the first COUNT that starts at BASE. False: there is none. */
static bool take_out(struct space *space, unsigned count, uint64_t base)
{
    struct space fixed = {space->ranges, count, count};
    unsigned n = count_to(&fixed, base);

    if (!n || space->ranges[n - 1].base != base)
        return false;
    cut_out(space, n - 1);
    return true;
}

/* --- claims --- */

static unsigned count_to_rank(const struct space *claims, unsigned rank)
{
    unsigned n = claims->count;

    while (n && claims->ranges[n - 1].rank > rank)
        n--;
    return n;
}

/* Adds to what is decoded the parts of CLAIM that are nobody's yet. */
static void decode_rest(struct space *space, const struct range *claim)
{
    struct range part = *claim;

    for (;;) {
        unsigned n = count_to(space, part.base);
        bool taken = n && space->ranges[n - 1].last >= part.base;

        if (taken)
            part.last = space->ranges[n - 1].last;
        else if (n < space->count && space->ranges[n].base <= claim->last)
            part.last = space->ranges[n].base - 1;
        else
            part.last = claim->last;
        part.offset = part.base - claim->base;
        if (!taken)
            insert(space, n, part);
        if (part.last >= claim->last)
            return;
        part.base = part.last + 1;
    }
}

/* Works out what is decoded. N claims have less than 2 N edges between their first and their last
 * address, so there is room for the ranges between these. */
static void decode(struct space *space, const struct space *claims)
{
    space->count = 0;
    for (unsigned i = 0; i < claims->count; i++)
        decode_rest(space, &claims->ranges[i]);
}

int bus_claim(struct bus *bus, enum bus_space which, uint64_t base, uint64_t size, const char *name,
              const struct bus_ops *ops, void *dev, struct error *err)
{
    struct range range = {.base = base, .name = name, .ops = ops, .dev = dev, .rank = FIXED};
    struct space *claims = &bus->claims[which];
    int ret = set_size(&range, which, size, err);

    if (ret == 0)
        ret = make_room(&bus->space[which], 2 * (claims->count + 1), name, err);
    if (ret == 0)
        ret = put_in(claims, count_to_rank(claims, FIXED), range, err);
    if (ret == 0)
        decode(&bus->space[which], claims);
    return ret;
}

void bus_release(struct bus *bus, enum bus_space which, uint64_t base)
{
    struct space *claims = &bus->claims[which];

    if (take_out(claims, count_to_rank(claims, FIXED), base))
        decode(&bus->space[which], claims);
}

int bus_claim_ranked(struct bus *bus, enum bus_space which, uint64_t base, uint64_t size,
                     unsigned rank, const char *name, const struct bus_ops *ops, void *dev,
                     struct error *err)
{
    struct range range = {.base = base, .name = name, .ops = ops, .dev = dev, .rank = rank + 1};
    struct space *claims = &bus->claims[which];
    int ret = set_size(&range, which, size, err);

    if (ret == 0)
        ret = make_room(&bus->space[which], 2 * (claims->count + 1), name, err);
    if (ret == 0)
        ret = make_room(claims, claims->count + 1, name, err);
    if (ret == 0) {
        insert(claims, count_to_rank(claims, range.rank), range);
        decode(&bus->space[which], claims);
    }
    return ret;
}

void bus_release_ranked(struct bus *bus, enum bus_space which, unsigned rank)
{
    struct space *claims = &bus->claims[which];
    unsigned n = count_to_rank(claims, rank + 1);

    if (!n || claims->ranges[n - 1].rank != rank + 1)
        return;
    cut_out(claims, n - 1);
    decode(&bus->space[which], claims);
}

bool bus_has_ranked(const struct bus *bus, enum bus_space which, uint64_t address, uint64_t size,
                    unsigned rank)
{
    const struct range *range = find(&bus->space[which], address);

    return range && range->rank == rank + 1 && size - 1 <= range->last - address;
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
    int ret = set_size(&range, which, size, err);
    if (ret < 0)
        return ret;
    pthread_rwlock_wrlock(&bus->ringing);
    ret = put_in(&bus->doorbells[which], bus->doorbells[which].count, range, err);
    atomic_store(&bus->has_doorbells[which], bus->doorbells[which].count != 0);
    pthread_rwlock_unlock(&bus->ringing);
    for (struct bus_watcher *w = bus->watchers; w && ret == 0; w = w->next)
        w->claimed(w->opaque, which, base, size);
    return ret;
}

void bus_release_doorbell(struct bus *bus, enum bus_space which, uint64_t base)
{
    for (struct bus_watcher *w = bus->watchers; w; w = w->next)
        w->released(w->opaque, which, base);
    pthread_rwlock_wrlock(&bus->ringing);
    take_out(&bus->doorbells[which], bus->doorbells[which].count, base);
    atomic_store(&bus->has_doorbells[which], bus->doorbells[which].count != 0);
    pthread_rwlock_unlock(&bus->ringing);
}

/* Calls WATCHER's function for each doorbell. */
static void tell_watcher(struct bus *bus, const struct bus_watcher *watcher, bool claimed)
{
    for (unsigned which = 0; which < ARRAY_SIZE(bus->doorbells); which++)
        for (unsigned i = 0; i < bus->doorbells[which].count; i++) {
            const struct range *r = &bus->doorbells[which].ranges[i];

            if (claimed)
                watcher->claimed(watcher->opaque, which, r->base, r->last - r->base + 1);
            else
                watcher->released(watcher->opaque, which, r->base);
        }
}

void bus_watch(struct bus *bus, struct bus_watcher *watcher)
{
    bus_lock(bus);
    watcher->next = bus->watchers;
    bus->watchers = watcher;
    tell_watcher(bus, watcher, true);
    bus_unlock(bus);
}

void bus_unwatch(struct bus *bus, struct bus_watcher *watcher)
{
    struct bus_watcher **at = &bus->watchers;

    bus_lock(bus);
    tell_watcher(bus, watcher, false);
    while (*at != watcher)
        at = &(*at)->next;
    *at = watcher->next;
    bus_unlock(bus);
}

bool bus_ring_doorbell(struct bus *bus, enum bus_space which, uint64_t address, unsigned size,
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

static uint64_t device_offset(const struct range *range, uint64_t address)
{
    return range->offset + (address - range->base);
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
            part = range->ops->read(range->dev, device_offset(range, address + done), n);
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
        bus_ring_doorbell(bus, which, address, size, value))
        return false;
    bus_lock(bus);
    for (unsigned done = 0, n; done < size; done += n) {
        const struct range *range = find(space, address + done);
        n = chunk(range, address + done, size - done);
        if (range)
            range->ops->write(range->dev, device_offset(range, address + done), n,
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
