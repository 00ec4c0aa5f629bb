/*
 * The split virtqueue (Virtual I/O Device specification 1.2, 2.7).
 */
#include "dev/virtio/queue.h"

#include "base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Descriptors (2.7.5). Everything is little-endian. */
struct virtqueue_descriptor {
    uint64_t gpa;
    uint32_t size;
    uint16_t flags, next;
};
enum { FLAG_NEXT = 1, FLAG_WRITE = 2, FLAG_INDIRECT = 4 };
_Static_assert(sizeof(struct virtqueue_descriptor) == 16, "as in guest memory");

/* The available ring (2.7.6): flags, index, entries of 2 bytes, used_event. */
#define AVAILABLE_FLAGS        0
#define AVAILABLE_INDEX        2
#define AVAILABLE_ENTRY(N)     (4 + 2 * (N))
#define AVAILABLE_NO_INTERRUPT 1

/* The used ring (2.7.8): flags, index, entries of 8 bytes, avail_event. */
#define USED_INDEX    2
#define USED_ENTRY(N) (4 + 8 * (N))

/* A chain must not be longer (2.7.5.2). */
#define MOST_BYTES (UINT64_C(1) << 32)

int virtqueue_init(struct virtqueue *q, struct mem *mem, unsigned most, struct error *err)
{
    *q = (struct virtqueue){.mem = mem};
    q->buffers = calloc(most, sizeof(*q->buffers));
    q->indirect = calloc(most, sizeof(*q->indirect));
    if (q->buffers && q->indirect)
        return 0;
    virtqueue_free(q);
    return error_set(err, ENOMEM, "no memory for a virtqueue");
}

void virtqueue_free(struct virtqueue *q)
{
    free(q->buffers);
    free(q->indirect);
    q->buffers = NULL;
    q->indirect = NULL;
}

bool virtqueue_allows(const struct virtqueue_config *c, unsigned most)
{
    return c->size >= 1 && c->size <= most && !(c->size & (c->size - 1)) &&
           c->descriptors % 16 == 0 && c->available % 2 == 0 && c->used % 4 == 0;
}

void virtqueue_start(struct virtqueue *q, const struct virtqueue_config *config)
{
    q->config = *config;
    q->next = q->done = q->notified = 0;
}

void virtqueue_state(struct virtqueue *q, struct state *s)
{
    state_field(s, q->next);
    state_field(s, q->done);
    state_field(s, q->notified);
}

/* ---- The rings in memory ---- */

static int pin_area(struct virtqueue *q, struct virtqueue_area *area, uint64_t gpa, uint64_t size,
                    enum mem_access access)
{
    int ret;

    area->pieces = ARRAY_SIZE(area->piece);
    ret = mem_pin_uncounted(q->mem, gpa, size, access, &area->pin, area->piece, &area->pieces);
    return ret < 0 ? -EFAULT : 0;
}

int virtqueue_open(struct virtqueue *q)
{
    const struct virtqueue_config *c = &q->config;
    int ret = pin_area(q, &q->descriptors, c->descriptors,
                       c->size * sizeof(struct virtqueue_descriptor), MEM_READ);

    if (ret < 0)
        return ret;
    ret = pin_area(q, &q->available, c->available, AVAILABLE_ENTRY(c->size) + 2, MEM_READ);
    if (ret == 0) {
        ret = pin_area(q, &q->used, c->used, USED_ENTRY(c->size) + 2, MEM_WRITE);
        if (ret == 0)
            return 0;
        mem_unpin(q->mem, &q->available.pin);
    }
    mem_unpin(q->mem, &q->descriptors.pin);
    return ret;
}

void virtqueue_close(struct virtqueue *q)
{
    mem_unpin(q->mem, &q->descriptors.pin);
    mem_unpin(q->mem, &q->available.pin);
    mem_unpin(q->mem, &q->used.pin);
}

/* The host's address of what is at OFFSET of an area. What is naturally aligned lies in one piece,
 * because pieces end with pages. */
static void *at(const struct virtqueue_area *area, size_t offset)
{
    const struct iovec *piece = area->piece;

    while (offset >= piece->iov_len)
        offset -= (piece++)->iov_len;
    return (uint8_t *)piece->iov_base + offset;
}

/* The driver reads and writes at the same time, on other processors. An index that it has increased
 * is read before the entry that this made valid (acquire), and written after its entry (release).
 */
static uint16_t load16(const struct virtqueue_area *area, size_t offset)
{
    return __atomic_load_n((const uint16_t *)at(area, offset), __ATOMIC_ACQUIRE);
}

static void store16(const struct virtqueue_area *area, size_t offset, uint16_t value)
{
    __atomic_store_n((uint16_t *)at(area, offset), value, __ATOMIC_RELEASE);
}

static void store32(const struct virtqueue_area *area, size_t offset, uint32_t value)
{
    __atomic_store_n((uint32_t *)at(area, offset), value, __ATOMIC_RELAXED);
}

/* Makes what this thread has written visible to the driver before it reads what the driver wrote.
 * Without it device and driver can miss each other: each writes its index, reads the other's old
 * one, and goes to sleep (2.7.10, 2.7.13.4.1). */
static void full_barrier(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static struct virtqueue_descriptor read_descriptor(const struct virtqueue *q, unsigned n)
{
    const struct virtqueue_descriptor *d = at(&q->descriptors, n * sizeof(*d));

    return (struct virtqueue_descriptor){
        .gpa = __atomic_load_n(&d->gpa, __ATOMIC_RELAXED),
        .size = __atomic_load_n(&d->size, __ATOMIC_RELAXED),
        .flags = __atomic_load_n(&d->flags, __ATOMIC_RELAXED),
        .next = __atomic_load_n(&d->next, __ATOMIC_RELAXED),
    };
}

/* ---- Chains ---- */

/* Takes a buffer into the chain. False: the chain is too long, or a buffer to be read stands behind
 * one to be written. */
static bool add_buffer(struct virtqueue *q, struct virtqueue_chain *chain,
                       const struct virtqueue_descriptor *d)
{
    bool write = d->flags & FLAG_WRITE;
    uint64_t *bytes = write ? &chain->writable_bytes : &chain->readable_bytes;
    unsigned count = chain->readable + chain->writable;

    if (count == q->config.size || (!write && chain->writable))
        return false;
    q->buffers[count] = (struct virtqueue_buffer){.gpa = d->gpa, .size = d->size};
    *(write ? &chain->writable : &chain->readable) += 1;
    *bytes += d->size;
    return chain->readable_bytes + chain->writable_bytes <= MOST_BYTES;
}

/* Adds the buffers of the table that D refers to (2.7.5.3). */
static bool add_indirect(struct virtqueue *q, struct virtqueue_chain *chain,
                         const struct virtqueue_descriptor *d)
{
    unsigned count = d->size / sizeof(*q->indirect), n = 0;

    if (!q->config.indirect || (d->flags & FLAG_NEXT) || d->size % sizeof(*q->indirect) || !count ||
        count > q->config.size || mem_read(q->mem, d->gpa, q->indirect, d->size) < 0)
        return false;
    /* A loop ends in add_buffer, when the chain is longer than the queue. */
    while (!(q->indirect[n].flags & FLAG_INDIRECT) && add_buffer(q, chain, &q->indirect[n])) {
        if (!(q->indirect[n].flags & FLAG_NEXT))
            return true;
        n = q->indirect[n].next;
        if (n >= count)
            return false;
    }
    return false;
}

static bool collect(struct virtqueue *q, struct virtqueue_chain *chain)
{
    unsigned n = chain->head;

    while (n < q->config.size) {
        struct virtqueue_descriptor d = read_descriptor(q, n);

        if (d.flags & FLAG_INDIRECT)
            return add_indirect(q, chain, &d);
        if (!add_buffer(q, chain, &d))
            return false;
        if (!(d.flags & FLAG_NEXT))
            return true;
        n = d.next;
    }
    return false;
}

int virtqueue_next(struct virtqueue *q, struct virtqueue_chain *chain)
{
    unsigned size = q->config.size;
    uint16_t available = (uint16_t)(load16(&q->available, AVAILABLE_INDEX) - q->next);

    if (available == 0)
        return 0;
    *chain = (struct virtqueue_chain){.buffer = q->buffers};
    chain->head = load16(&q->available, AVAILABLE_ENTRY(q->next & (size - 1)));
    if (available > size || !collect(q, chain))
        return VIRTQUEUE_BROKEN;
    q->next++;
    return 1;
}

int virtqueue_again(struct virtqueue *q, uint16_t head, struct virtqueue_chain *chain)
{
    *chain = (struct virtqueue_chain){.buffer = q->buffers, .head = head};
    return collect(q, chain) ? 1 : VIRTQUEUE_BROKEN;
}

bool virtqueue_await(struct virtqueue *q)
{
    /* Without event indices the driver notifies always: the flag that forbids it is never set. */
    if (q->config.event_index)
        store16(&q->used, USED_ENTRY(q->config.size), q->next);
    full_barrier();
    return load16(&q->available, AVAILABLE_INDEX) != q->next;
}

void virtqueue_put(struct virtqueue *q, unsigned n, uint16_t head, uint32_t written)
{
    size_t entry = USED_ENTRY((q->done + n) & (q->config.size - 1));

    store32(&q->used, entry, head);
    store32(&q->used, entry + 4, written);
}

void virtqueue_publish(struct virtqueue *q, unsigned count)
{
    q->done = (uint16_t)(q->done + count);
    store16(&q->used, USED_INDEX, q->done);
}

void virtqueue_complete(struct virtqueue *q, uint16_t head, uint32_t written)
{
    virtqueue_put(q, 0, head, written);
    virtqueue_publish(q, 1);
}

bool virtqueue_wants_interrupt(struct virtqueue *q)
{
    uint16_t before = q->notified, event;

    full_barrier();
    q->notified = q->done;
    if (before == q->done)
        return false;
    if (!q->config.event_index)
        return !(load16(&q->available, AVAILABLE_FLAGS) & AVAILABLE_NO_INTERRUPT);
    /* Whether DONE has gone past the entry that the driver named (2.7.10.1). */
    event = load16(&q->available, AVAILABLE_ENTRY(q->config.size));
    return (uint16_t)(q->done - event - 1) < (uint16_t)(q->done - before);
}
