/*
 * The driver's side of a split virtqueue in guest memory, for tests.
 *
 * It writes what it is told, rules or no rules.
 */
#ifndef DOPPEL_TESTS_UNIT_VIRTQUEUE_RIG_H
#define DOPPEL_TESTS_UNIT_VIRTQUEUE_RIG_H

#include "dev/virtio/queue.h"

#include <string.h>

enum { RIG_NEXT = 1, RIG_WRITE = 2, RIG_INDIRECT = 4 };

struct rig_queue {
    struct mem *mem;
    struct virtqueue_config config;
    uint16_t available; /* index of the next entry to publish */
    uint16_t used;      /* of the next one to look at */
};

static inline void rig_put(struct mem *mem, uint64_t gpa, uint64_t value, unsigned size)
{
    assert_int_equal(mem_write(mem, gpa, &value, size), 0);
}

static inline uint64_t rig_get(struct mem *mem, uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    assert_int_equal(mem_read(mem, gpa, &value, size), 0);
    return value;
}

/* What driver and device look at while the other one may write it. */
static inline void *rig_shared(struct mem *mem, uint64_t gpa)
{
    return (uint8_t *)mem_peek(mem, gpa >> MEM_PAGE_SHIFT) + gpa % MEM_PAGE_SIZE;
}

/* Three areas from GPA on, in the smallest space that they fit. */
static inline struct virtqueue_config rig_layout(uint64_t gpa, unsigned size)
{
    struct virtqueue_config c = {.size = size, .descriptors = gpa};

    c.available = gpa + 16 * size;
    c.used = (c.available + 6 + 2 * size + 3) & ~UINT64_C(3);
    return c;
}

static inline void rig_descriptor_at(struct mem *mem, uint64_t table, unsigned n, uint64_t gpa,
                                     uint32_t size, uint16_t flags, uint16_t next)
{
    rig_put(mem, table + 16 * n, gpa, 8);
    rig_put(mem, table + 16 * n + 8, size, 4);
    rig_put(mem, table + 16 * n + 12, flags, 2);
    rig_put(mem, table + 16 * n + 14, next, 2);
}

static inline void rig_descriptor(const struct rig_queue *q, unsigned n, uint64_t gpa,
                                  uint32_t size, uint16_t flags, uint16_t next)
{
    rig_descriptor_at(q->mem, q->config.descriptors, n, gpa, size, flags, next);
}

static inline void rig_publish_index(struct rig_queue *q, uint16_t index)
{
    q->available = index;
    rig_put(q->mem, q->config.available + 2, index, 2);
}

/* Makes the chain that begins at HEAD available. */
static inline void rig_publish(struct rig_queue *q, uint16_t head)
{
    rig_put(q->mem, q->config.available + 4 + 2 * (q->available & (q->config.size - 1)), head, 2);
    rig_publish_index(q, (uint16_t)(q->available + 1));
}

/* Makes the chain that begins at HEAD available to a device that is looking for it on another
 * thread (virtio 1.2, 2.7.13). */
static inline void rig_publish_shared(struct rig_queue *q, uint16_t head)
{
    uint64_t ring = q->config.available;
    uint16_t *entry = rig_shared(q->mem, ring + 4 + 2 * (q->available & (q->config.size - 1)));

    __atomic_store_n(entry, head, __ATOMIC_RELAXED);
    __atomic_store_n((uint16_t *)rig_shared(q->mem, ring + 2), ++q->available, __ATOMIC_RELEASE);
}

static inline uint16_t rig_used_index(const struct rig_queue *q)
{
    return __atomic_load_n((uint16_t *)rig_shared(q->mem, q->config.used + 2), __ATOMIC_ACQUIRE);
}

/* Whether the device has given back a chain; which one, and how much it says it wrote. */
static inline bool rig_reap(struct rig_queue *q, uint32_t *head, uint32_t *written)
{
    uint64_t place = q->config.used + 4 + 8 * (q->used & (q->config.size - 1));
    uint32_t *entry = rig_shared(q->mem, place);

    if (rig_used_index(q) == q->used)
        return false;
    *head = __atomic_load_n(entry, __ATOMIC_RELAXED);
    *written = __atomic_load_n(entry + 1, __ATOMIC_RELAXED);
    q->used++;
    return true;
}

/* Event indices: when the driver wants to be interrupted, and when the device to be notified. */
static inline void rig_want_interrupt_at(const struct rig_queue *q, uint16_t index)
{
    rig_put(q->mem, q->config.available + 4 + 2 * q->config.size, index, 2);
}

static inline uint16_t rig_notify_at(const struct rig_queue *q)
{
    return (uint16_t)rig_get(q->mem, q->config.used + 4 + 8 * q->config.size, 2);
}

#endif
