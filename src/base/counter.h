/*
 * Counters that one thread counts up while other threads may read them.
 */
#ifndef DOPPEL_BASE_COUNTER_H
#define DOPPEL_BASE_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

struct counter {
    _Atomic uint64_t value;
};

/* These three only on the thread that counts. They order no other accesses. */
static inline void counter_add(struct counter *counter, uint64_t n)
{
    uint64_t value = atomic_load_explicit(&counter->value, memory_order_relaxed);

    atomic_store_explicit(&counter->value, value + n, memory_order_relaxed);
}

static inline void counter_sub(struct counter *counter, uint64_t n)
{
    counter_add(counter, -n);
}

static inline void counter_set(struct counter *counter, uint64_t value)
{
    atomic_store_explicit(&counter->value, value, memory_order_relaxed);
}

/* From any thread. */
static inline uint64_t counter_read(const struct counter *counter)
{
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

#endif
