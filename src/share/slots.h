/*
 * Numbers that a guest is given for things and hands back: an index, and a serial number that
 * changes whenever the index is used again, so that an old number leads nowhere.
 *
 * No lock of its own.
 */
#ifndef DOPPEL_SHARE_SLOTS_H
#define DOPPEL_SHARE_SLOTS_H

#include <stdint.h>

#define SLOT_USED UINT32_MAX

struct slot {
    union {
        void *thing;
        uint32_t before; /* of a free one: the free slot before it, or 0 */
    };
    uint32_t serial; /* of the next number */
    uint32_t next;   /* SLOT_USED, or the next free slot, or 0 */
};

struct slots {
    struct slot *slot; /* the first is never used, so that no number is 0 */
    uint32_t count;    /* that have been used once, the first included */
    uint32_t room, most;
    uint32_t free; /* the first free one, or 0 */
    uint32_t used;
    uint32_t serial; /* with which a slot begins that has not been used */
};

void slots_init(struct slots *slots, uint32_t most);
void slots_free(struct slots *slots);
/* Gives THING a number. 0: there is no memory, or there are too many. */
uint64_t slots_add(struct slots *slots, void *thing);
/* Gives THING this NUMBER, which was saved. 0, -EINVAL: it is taken, or none; -ENOMEM. */
int slots_put(struct slots *slots, uint64_t number, void *thing);
/* NULL: there is none. */
void *slots_get(const struct slots *slots, uint64_t number);
void slots_remove(struct slots *slots, uint64_t number);
/* The number of what is at INDEX, or 0. For walking from 1 to COUNT - 1. */
uint64_t slots_number(const struct slots *slots, uint32_t index);

#endif
