/*
 * A queue of frames between two threads.
 */
#include "net/ring.h"

#include "base/util.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* In front of each frame. */
struct record {
    uint32_t size; /* SKIP: what follows up to the end of the memory is no frame */
    struct net_offload offload;
};

#define SKIP UINT32_MAX

static size_t record_size(size_t size)
{
    return ALIGN_UP(sizeof(struct record) + size, 16);
}

int ring_create(struct ring *ring, size_t size, struct error *err)
{
    /* Pages that are never needed are never touched. */
    ring->memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ring->memory == MAP_FAILED) {
        ring->memory = NULL;
        return error_set(err, ENOMEM, "network: no memory for frames");
    }
    ring->size = size;
    return 0;
}

void ring_destroy(struct ring *ring)
{
    if (ring->memory)
        munmap(ring->memory, ring->size);
    ring->memory = NULL;
}

static struct record *record_at(struct ring *ring, size_t position)
{
    return (struct record *)(void *)(ring->memory + (position & (ring->size - 1)));
}

/* How many bytes are skipped before a record of NEED bytes at IN. An empty ring begins at its start
 * again now and then, so that a few frames at a time always use the same, cached memory. */
static size_t to_skip(const struct ring *ring, size_t in, size_t used, size_t need)
{
    size_t at = in & (ring->size - 1), left = ring->size - at;

    if (left < need || (used == 0 && at >= ring->size / 4))
        return left;
    return 0;
}

bool ring_put(struct ring *ring, const void *data, size_t size, const struct net_offload *offload)
{
    size_t in = atomic_load_explicit(&ring->in, memory_order_relaxed);
    size_t used = in - atomic_load_explicit(&ring->out, memory_order_acquire);
    size_t need = record_size(size), skip = to_skip(ring, in, used, need);
    struct record *record;

    if (ring->size - used < need + skip)
        return false;
    if (skip) /* there is room for a record's head: all sizes are multiples of 16 */
        record_at(ring, in)->size = SKIP;
    record = record_at(ring, in + skip);
    record->size = (uint32_t)size;
    record->offload = *offload;
    memcpy(record + 1, data, size);
    /* In one order with what a sleeping taker says and looks at: see net_ready's callers. */
    atomic_store(&ring->in, in + skip + need);
    return true;
}

bool ring_peek(struct ring *ring, struct net_frame *frame)
{
    size_t out = atomic_load_explicit(&ring->out, memory_order_relaxed);
    struct record *record = record_at(ring, out);

    if (atomic_load(&ring->in) == out)
        return false;
    if (record->size == SKIP) { /* a record follows at once */
        out = ALIGN_UP(out + 1, ring->size);
        atomic_store_explicit(&ring->out, out, memory_order_release);
        record = record_at(ring, out);
    }
    *frame = (struct net_frame){
        .data = (uint8_t *)(record + 1), .size = record->size, .offload = record->offload};
    return true;
}

void ring_drop(struct ring *ring)
{
    size_t out = atomic_load_explicit(&ring->out, memory_order_relaxed);

    atomic_store(&ring->out, out + record_size(record_at(ring, out)->size));
}
