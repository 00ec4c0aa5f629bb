/*
 * The memory that the process of an isolated folder shares with the process that uses it.
 *
 *      who uses it                                          the folder's process
 *        share_ring_send   ----> ring of requests ------>  share_ring_take, share_ring_check
 *        share_ring_note   <---- notes, one after the other (notes.h) <---- share_ring_put
 *                           what a request says, and room for its answer: a small place of its own
 *                           for each request, and pages for what is large
 *                           plans (intent.h): what the process had begun with, and a file that has
 *                           another mode for a moment
 *
 * Guest memory is not shared: what a request says and what it is answered is copied. A ring entry
 * is for each request that there can be and for CONTROLS_MOST others, so that ring is never full.
 * Notes may have to wait until others are taken.
 *
 * Either side may be hostile to the other (base/kept_memory.h). One thread at a time for each side
 * of the ring and of the notes.
 */
#ifndef DOPPEL_SHARE_RING_H
#define DOPPEL_SHARE_RING_H

#include "base/kept_memory.h"
#include "share/intent.h"
#include "share/notes.h"

enum share_ring_kind {
    RING_REQUEST,
    RING_RECALL, /* end what waits for locks */
    RING_LOAD,   /* the guest knows what a file says that comes by the link (share_tables_state) */
    RING_OPEN, /* open what it has open (share_tables_open), when all requests before have ended */
    RING_PING, /* for a note that says DONE */
    RING_KINDS
};

#define RING_REQUESTS      8192u /* at once; more than a device has */
#define RING_CONTROLS_MOST 256u
#define RING_ENTRIES       (2 * RING_REQUESTS)
#define RING_SMALL         512u /* bytes that fit into a request's own place, in each direction */
#define RING_PART_MOST     ((uint64_t)SHARE_DATA_MOST + SHARE_EXTRA_MOST)
#define RING_NOTES         (1u << 20) /* bytes */
#define RING_PAGE          4096u
#define RING_PAGES         16384u /* the host gives memory only for those that are used */

struct share_ring_entry {
    uint32_t number; /* of the request, below RING_REQUESTS */
    uint16_t kind;   /* enum share_ring_kind */
    uint16_t again;  /* a process that has died had it */
    uint32_t in_size, out_size;
    uint64_t in, out; /* where they are in the memory */
};

struct share_ring {
    struct kept_index entries, notes;
    _Atomic uint32_t notes_taken;
    struct share_ring_entry entry[RING_ENTRIES];
    struct share_intent intent[RING_REQUESTS];
    struct share_lent lent;
    _Alignas(RING_PAGE) uint8_t note[RING_NOTES];
    uint8_t small[RING_REQUESTS][2][RING_SMALL];
    uint8_t page[RING_PAGES][RING_PAGE];
};

/* Who uses the folder. Returns whether the other side is to be woken. */
bool share_ring_send(struct share_ring *ring, struct kept_side *side,
                     const struct share_ring_entry *entry);
/* Takes the next note into NOTE, which has room for NOTE_MOST bytes. 1; 0: there is none; -EPROTO:
 * what is there is none. */
int share_ring_note(struct share_ring *ring, struct kept_side *side, struct share_note *note);

/* The folder's process. */
bool share_ring_take(struct share_ring *ring, struct kept_side *side,
                     struct share_ring_entry *entry);
/* Whether ENTRY can be: its kind and number, and that its places lie where they may. */
bool share_ring_check(const struct share_ring_entry *entry);
/* Puts a note of SIZE bytes there. 1: the other side is to be woken; 0; -EAGAIN: there is no room
 * for it now. */
int share_ring_put(struct share_ring *ring, struct kept_side *side, const void *note, size_t size);

#endif
