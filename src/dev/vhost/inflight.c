/*
 * The record of requests in flight.
 */
#include "dev/vhost/inflight.h"

#include "base/util.h"

#include <stdlib.h>
#include <string.h>

#define VERSION   1
#define ALIGNMENT 64u

/* As the protocol has it for split queues. */
struct chain {
    uint8_t in_flight;
    uint8_t padding[5];
    uint16_t next;    /* of the last batch */
    uint64_t counter; /* in which order the chains were taken */
};

struct inflight_queue {
    uint64_t features;
    uint16_t version; /* 0: the memory is fresh */
    uint16_t size;
    uint16_t last_batch;
    uint16_t used_index;
    struct chain chain[];
};
_Static_assert(sizeof(struct chain) == 16 && sizeof(struct inflight_queue) == 16,
               "as in memory that another program may have written");

static size_t queue_bytes(unsigned size)
{
    return ALIGN_UP(sizeof(struct inflight_queue) + size * sizeof(struct chain), ALIGNMENT);
}

size_t inflight_bytes(unsigned queues, unsigned size)
{
    return queues * queue_bytes(size);
}

struct inflight_queue *inflight_of(void *memory, unsigned queue, unsigned size)
{
    return (struct inflight_queue *)((uint8_t *)memory + queue * queue_bytes(size));
}

/* The back end that kept the record ended between moving the used ring's index and removing the
 * marks of what it had given back: the last batch. */
static void finish_batch(struct inflight_queue *q, unsigned size, uint16_t index)
{
    uint16_t left = (uint16_t)(index - q->used_index), head = q->last_batch;

    for (; left > 0 && left <= size && head < size; left--) {
        q->chain[head].in_flight = 0;
        head = q->chain[head].next;
    }
    q->used_index = index;
}

struct taken {
    uint64_t counter;
    uint16_t head;
};

static int compare(const void *a, const void *b)
{
    const struct taken *left = a, *right = b;

    return left->counter < right->counter ? -1 : left->counter > right->counter;
}

unsigned inflight_begin(struct inflight_queue *q, unsigned size, uint16_t index, uint16_t *heads,
                        uint64_t *counter)
{
    struct taken taken[INFLIGHT_SIZE_MAX];
    unsigned count = 0;

    *counter = 0;
    if (q->version != VERSION || q->size != size) {
        memset(q, 0, queue_bytes(size));
        q->version = VERSION;
        q->size = (uint16_t)size;
        q->used_index = index;
        return 0;
    }
    finish_batch(q, size, index);
    for (unsigned i = 0; i < size; i++) {
        if (!q->chain[i].in_flight)
            continue;
        taken[count++] = (struct taken){.counter = q->chain[i].counter, .head = (uint16_t)i};
    }
    qsort(taken, count, sizeof(*taken), compare);
    for (unsigned i = 0; i < count; i++)
        heads[i] = taken[i].head;
    *counter = count ? taken[count - 1].counter + 1 : 0;
    return count;
}

/* The steps reach memory in the order in which they are written here: another process reads them
 * when this one has ended. */
static void in_order(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

void inflight_take(struct inflight_queue *q, uint16_t head, uint64_t *counter)
{
    q->chain[head].counter = (*counter)++;
    in_order();
    q->chain[head].in_flight = 1;
}

void inflight_give(struct inflight_queue *q, uint16_t head)
{
    q->chain[head].next = q->last_batch;
    in_order();
    q->last_batch = head;
    in_order();
}

void inflight_given(struct inflight_queue *q, uint16_t head, uint16_t index)
{
    in_order();
    q->chain[head].in_flight = 0;
    in_order();
    q->used_index = index;
}
