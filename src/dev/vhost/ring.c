/*
 * The driver's side of a split virtqueue.
 */
#include "dev/vhost/ring.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>

/* Descriptors (2.7.5). Everything is little-endian. */
struct descriptor {
    uint64_t gpa;
    uint32_t size;
    uint16_t flags, next;
};
enum { FLAG_NEXT = 1, FLAG_WRITE = 2, FLAG_INDIRECT = 4 };

/* The rings (2.7.6, 2.7.8), from where they begin. */
struct available {
    uint16_t flags, index;
    uint16_t entry[VHOST_RING_SIZE];
    uint16_t used_event;
};
struct used {
    uint16_t flags, index;
    struct {
        uint32_t head, written;
    } entry[VHOST_RING_SIZE];
    uint16_t available_event;
};
#define USED_NO_NOTIFY 1

_Static_assert(sizeof(struct descriptor) * VHOST_RING_SIZE <= VHOST_RING_AVAILABLE &&
                   sizeof(struct available) <= VHOST_RING_USED - VHOST_RING_AVAILABLE &&
                   sizeof(struct used) <= VHOST_RING_TABLES - VHOST_RING_USED,
               "the areas do not overlap");

/* What was given out, by its first descriptor. */
struct vhost_ring_chain {
    void *owner; /* NULL: no chain begins here */
    uint64_t writable_bytes;
    uint16_t last;
    uint16_t length;
};

static struct descriptor *descriptors(const struct vhost_ring *r)
{
    return (struct descriptor *)(r->memory + VHOST_RING_DESCRIPTORS);
}

static struct available *available(const struct vhost_ring *r)
{
    return (struct available *)(r->memory + VHOST_RING_AVAILABLE);
}

static struct used *used(const struct vhost_ring *r)
{
    return (struct used *)(r->memory + VHOST_RING_USED);
}

int vhost_ring_init(struct vhost_ring *r, struct error *err)
{
    *r = (struct vhost_ring){.memory = NULL};
    r->chains = calloc(VHOST_RING_SIZE, sizeof(*r->chains));
    r->next = calloc(VHOST_RING_SIZE, sizeof(*r->next));
    if (r->chains && r->next)
        return 0;
    vhost_ring_free(r);
    return error_set(err, ENOMEM, "no memory for a virtqueue");
}

void vhost_ring_free(struct vhost_ring *r)
{
    free(r->chains);
    free(r->next);
    r->chains = NULL;
    r->next = NULL;
}

void vhost_ring_start(struct vhost_ring *r, void *memory, uint64_t gpa, bool event_index,
                      bool indirect)
{
    r->memory = memory;
    r->gpa = gpa;
    r->event_index = event_index;
    r->indirect = indirect;
    for (unsigned i = 0; i < VHOST_RING_SIZE; i++) {
        r->chains[i] = (struct vhost_ring_chain){.owner = NULL};
        r->next[i] = (uint16_t)(i + 1);
    }
    r->free_first = 0;
    r->free_count = VHOST_RING_SIZE;
    r->available = r->used = r->notified = 0;
}

/* Writes the descriptor of a buffer. */
static void describe(struct descriptor *d, const struct virtqueue_buffer *buffer, bool write,
                     bool more, uint16_t next)
{
    *d = (struct descriptor){
        .gpa = buffer->gpa,
        .size = buffer->size,
        .flags = (uint16_t)((write ? FLAG_WRITE : 0) | (more ? FLAG_NEXT : 0)),
        .next = more ? next : 0,
    };
}

/* Describes the buffers by free descriptors. Returns the last of them. */
static uint16_t add_direct(struct vhost_ring *r, const struct virtqueue_buffer *buffers,
                           unsigned readable, unsigned count)
{
    uint16_t n = r->free_first, last = n;

    for (unsigned i = 0; i < count; i++) {
        describe(&descriptors(r)[n], &buffers[i], i >= readable, i + 1 < count, r->next[n]);
        last = n;
        n = r->next[n];
    }
    return last;
}

/* Describes them in the table of the first free descriptor. Returns that. */
static uint16_t add_indirect(struct vhost_ring *r, const struct virtqueue_buffer *buffers,
                             unsigned readable, unsigned count)
{
    uint16_t n = r->free_first;
    uint64_t offset = VHOST_RING_TABLES + (uint64_t)n * VHOST_RING_TABLE;
    struct descriptor *table = (struct descriptor *)(r->memory + offset);

    for (unsigned i = 0; i < count; i++)
        describe(&table[i], &buffers[i], i >= readable, i + 1 < count, (uint16_t)(i + 1));
    descriptors(r)[n] = (struct descriptor){.gpa = r->gpa + offset,
                                            .size = (uint32_t)(count * sizeof(table[0])),
                                            .flags = FLAG_INDIRECT};
    return n;
}

int vhost_ring_add(struct vhost_ring *r, const struct virtqueue_buffer *buffers, unsigned readable,
                   unsigned writable, void *owner)
{
    unsigned count = readable + writable, needed = r->indirect ? 1 : count;
    struct available *ring = available(r);
    uint16_t head = r->free_first, last;
    struct vhost_ring_chain *chain;

    if (count == 0 || count > VHOST_RING_SIZE || needed > r->free_count)
        return -EAGAIN;
    last = r->indirect ? add_indirect(r, buffers, readable, count)
                       : add_direct(r, buffers, readable, count);
    chain = &r->chains[head];
    *chain = (struct vhost_ring_chain){.owner = owner, .last = last, .length = (uint16_t)needed};
    for (unsigned i = readable; i < count; i++)
        chain->writable_bytes += buffers[i].size;
    r->free_first = r->next[last];
    r->free_count = (uint16_t)(r->free_count - needed);
    __atomic_store_n(&ring->entry[r->available % VHOST_RING_SIZE], head, __ATOMIC_RELAXED);
    __atomic_store_n(&ring->index, ++r->available, __ATOMIC_RELEASE);
    return 0;
}

bool vhost_ring_wants_kick(struct vhost_ring *r)
{
    uint16_t before = r->notified, event;

    /* The back end sees what was added before this side reads whether it wants to be told: else
     * both can miss each other (2.7.13.4.1). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    r->notified = r->available;
    if (before == r->available)
        return false;
    if (!r->event_index)
        return !(__atomic_load_n(&used(r)->flags, __ATOMIC_RELAXED) & USED_NO_NOTIFY);
    event = __atomic_load_n(&used(r)->available_event, __ATOMIC_RELAXED);
    return (uint16_t)(r->available - event - 1) < (uint16_t)(r->available - before);
}

int vhost_ring_take(struct vhost_ring *r, void **owner, uint32_t *written)
{
    uint16_t index = __atomic_load_n(&used(r)->index, __ATOMIC_ACQUIRE);
    struct vhost_ring_chain *chain;
    uint32_t head, bytes;

    if (index == r->used)
        return 0;
    head = __atomic_load_n(&used(r)->entry[r->used % VHOST_RING_SIZE].head, __ATOMIC_RELAXED);
    bytes = __atomic_load_n(&used(r)->entry[r->used % VHOST_RING_SIZE].written, __ATOMIC_RELAXED);
    if (head >= VHOST_RING_SIZE || !r->chains[head].owner)
        return -EPROTO;
    chain = &r->chains[head];
    *owner = chain->owner;
    *written = (uint32_t)MIN(bytes, chain->writable_bytes);
    r->used++;
    r->next[chain->last] = r->free_first;
    r->free_first = (uint16_t)head;
    r->free_count = (uint16_t)(r->free_count + chain->length);
    chain->owner = NULL;
    return 1;
}

bool vhost_ring_await(struct vhost_ring *r)
{
    if (r->event_index)
        __atomic_store_n(&available(r)->used_event, r->used, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(&used(r)->index, __ATOMIC_ACQUIRE) != r->used;
}

void *vhost_ring_revoke(struct vhost_ring *r)
{
    for (unsigned i = 0; i < VHOST_RING_SIZE; i++) {
        void *owner = r->chains[i].owner;

        r->chains[i].owner = NULL;
        if (owner)
            return owner;
    }
    return NULL;
}
