/*
 * The memory that the process of an isolated folder shares with the process that uses it.
 */
#include "share/ring.h"

#include "base/util.h"

#include <errno.h>
#include <string.h>

#define PLACES offsetof(struct share_ring, small)

/* ---- Requests ---- */

bool share_ring_send(struct share_ring *ring, struct kept_side *side,
                     const struct share_ring_entry *entry)
{
    ring->entry[side->written++ % RING_ENTRIES] = *entry;
    return kept_index_publish(&ring->entries, side->written);
}

bool share_ring_take(struct share_ring *ring, struct kept_side *side,
                     struct share_ring_entry *entry)
{
    const volatile struct share_ring_entry *there = &ring->entry[side->read % RING_ENTRIES];

    if (!kept_index_ahead(&ring->entries, side->read))
        return false;
    entry->number = there->number;
    entry->kind = there->kind;
    entry->again = there->again;
    entry->in_size = there->in_size;
    entry->out_size = there->out_size;
    entry->in = there->in;
    entry->out = there->out;
    side->read++;
    return true;
}

/* Whether SIZE bytes at PLACE are among those for requests. */
static bool is_place(uint64_t place, uint32_t size)
{
    return size <= RING_PART_MOST && place >= PLACES && place <= sizeof(struct share_ring) &&
           size <= sizeof(struct share_ring) - place && place % 8 == 0;
}

bool share_ring_check(const struct share_ring_entry *entry)
{
    if (entry->kind != RING_REQUEST)
        return entry->kind < RING_KINDS;
    return entry->number < RING_REQUESTS && is_place(entry->in, entry->in_size) &&
           is_place(entry->out, entry->out_size);
}

/* ---- Notes ---- */

static void copy_in(struct share_ring *ring, uint32_t at, const void *data, size_t size)
{
    size_t first = MIN(size, RING_NOTES - at % RING_NOTES);

    memcpy(ring->note + at % RING_NOTES, data, first);
    memcpy(ring->note, (const uint8_t *)data + first, size - first);
}

static void copy_out(const struct share_ring *ring, uint32_t at, void *data, size_t size)
{
    size_t first = MIN(size, RING_NOTES - at % RING_NOTES);

    memcpy(data, ring->note + at % RING_NOTES, first);
    memcpy((uint8_t *)data + first, ring->note, size - first);
}

int share_ring_put(struct share_ring *ring, struct kept_side *side, const void *note, size_t size)
{
    uint32_t taken = atomic_load_explicit(&ring->notes_taken, memory_order_acquire);

    /* What the other side says can be nonsense; then there is no room for ever. */
    if (side->written - taken > RING_NOTES || size > RING_NOTES - (side->written - taken))
        return -EAGAIN;
    copy_in(ring, side->written, note, size);
    side->written += (uint32_t)size;
    return kept_index_publish(&ring->notes, side->written);
}

int share_ring_note(struct share_ring *ring, struct kept_side *side, struct share_note *note)
{
    uint32_t ahead = kept_index_ahead(&ring->notes, side->read), size;

    if (!ahead)
        return 0;
    if (ahead < sizeof(*note) || ahead > RING_NOTES)
        return -EPROTO;
    copy_out(ring, side->read, note, sizeof(*note));
    size = note->size;
    if (size < sizeof(*note) || size > NOTE_MOST || size > ahead || size % NOTE_ALIGN)
        return -EPROTO;
    copy_out(ring, side->read, note, size);
    note->size = size; /* it may have changed meanwhile */
    side->read += size;
    atomic_store_explicit(&ring->notes_taken, side->read, memory_order_release);
    return 1;
}
