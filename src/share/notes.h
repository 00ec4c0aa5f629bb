/*
 * What the process of an isolated folder tells the process that uses it (ring.h): notes, in the
 * order in which things happen. From them the latter keeps a mirror of what the guest knows and has
 * open (mirror.h), with which the next process goes on when one has died.
 *
 *      NODE, GONE, RESET   what there is, and where: told when it changes, with the share's lock
 *      RESULT              a request has ended, and with it what the guest has got to know or given
 *                          back. Either all of that is told, or nothing: then the request is
 *                          carried out once more
 *      DONE                of something that is no request
 *      LOST                a handle could not be given back its lock
 *
 * Either side may be hostile, so nothing is taken from a note without a look at it.
 */
#ifndef DOPPEL_SHARE_NOTES_H
#define DOPPEL_SHARE_NOTES_H

#include "share/node.h"

#include <limits.h>

enum share_note_kind { NOTE_NODE, NOTE_GONE, NOTE_RESET, NOTE_RESULT, NOTE_DONE, NOTE_LOST };

/* All are multiples of 8 bytes long. */
#define NOTE_ALIGN 8u
#define NOTE_MOST  (256u << 10) /* the most look-ups that one request gives back */

struct share_note {
    uint32_t size; /* with this header */
    uint32_t kind;
};

/* The name follows: LENGTH bytes, none if the node is nowhere. */
struct share_note_node {
    struct share_note note;
    uint64_t number, parent;
    struct share_key key;
    uint32_t length;
};

/* A node that is gone, or a handle that is lost. */
struct share_note_gone {
    struct share_note note;
    uint64_t number;
};

/* Changes follow. */
struct share_note_result {
    struct share_note note;
    uint32_t number; /* of the request, in the ring */
    int32_t result;  /* as of share_request.done */
};

struct share_note_done {
    struct share_note note;
    uint64_t kind; /* enum share_ring_kind */
};

/* What a request has changed. */
enum share_change_kind {
    CHANGE_FOUND,    /* node A was looked up COUNT times more */
    CHANGE_FORGOT,   /* the guest has given B look-ups of node A back */
    CHANGE_OPENED,   /* handle A of node B, with the flags COUNT */
    CHANGE_RELEASED, /* handle A, and the locks by fcntl that came by it */
    CHANGE_FLOCK,    /* handle A has the lock COUNT (LOCK_SH, ...) */
    CHANGE_LOCKS,    /* owner A's by fcntl on node B, by HANDLE: COUNT ranges, which follow */
    CHANGE_UNLOCKED, /* owner A has none on node B */
    CHANGE_READY,    /* the guest has said FUSE_INIT; COUNT: it knows of mounts inside */
};

struct share_change {
    uint32_t kind, count;
    uint64_t a, b, handle;
    uint64_t order; /* FLOCK, LOCKS, UNLOCKED: the larger one is the later one */
};

/* A range that is locked, as fcntl(2) has it. */
struct share_range {
    int64_t start, length;
    uint32_t type, unused;
};

/* Of more ranges of a holder nothing is told or saved but that there are more: its file is stale
 * for the guest when it should be locked again. */
#define SHARE_RANGES_MOST 256u

/* Where notes go. */
struct share_notes {
    /* SIZE is that of the note at first, which is copied. May wait. Any thread, also with the
     * share's lock. */
    void (*put)(struct share_notes *notes, const void *note, size_t size);
};

/* The changes of a request under way: one thread at a time. Zero at first. */
struct share_changes {
    uint32_t size, room; /* bytes */
    bool lost;           /* there was no memory */
    uint8_t *more;       /* NULL: they are in FEW */
    _Alignas(NOTE_ALIGN) uint8_t few[3 * sizeof(struct share_change)];
};

/* Notes that NODE is there, or somewhere else, or gone. With the share's lock. */
void share_note_node(struct share *share, const struct share_node *node);
void share_note_gone(struct share *share, const struct share_node *node);
void share_note_reset(struct share *share);
/* Notes that the handle with NUMBER is lost. Without locks. */
void share_note_lost(struct share *share, uint64_t number);

/* Adds CHANGE to CHANGES, which may be NULL, with its ranges if it has any. */
void share_changes_add(struct share_changes *changes, const struct share_change *change,
                       const struct share_range *ranges);
/* Takes back what was added last. */
void share_changes_drop(struct share_changes *changes, enum share_change_kind kind);
const uint8_t *share_changes_bytes(const struct share_changes *changes);
void share_changes_free(struct share_changes *changes);

#endif
