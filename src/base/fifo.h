/*
 * A queue of things that others own: each holds the link by which it stands in the queue, so that
 * putting one in allocates nothing. What guards the queue guards the links.
 */
#ifndef DOPPEL_BASE_FIFO_H
#define DOPPEL_BASE_FIFO_H

#include <stdbool.h>
#include <stddef.h>

/* Zero at first. */
struct fifo_link {
    struct fifo_link *next;
    bool queued;
};

struct fifo {
    struct fifo_link *first, *last; /* NULL, both: it is empty */
    unsigned length;
};

/* Puts LINK at the end, unless it is in the queue already. */
static inline void fifo_put(struct fifo *fifo, struct fifo_link *link)
{
    if (link->queued)
        return;
    *link = (struct fifo_link){.queued = true};
    if (fifo->last)
        fifo->last->next = link;
    else
        fifo->first = link;
    fifo->last = link;
    fifo->length++;
}

/* Takes LINK out, wherever it is. Returns whether it was in the queue. */
static inline bool fifo_remove(struct fifo *fifo, struct fifo_link *link)
{
    struct fifo_link *before = NULL;

    if (!link->queued)
        return false;
    for (struct fifo_link *at = fifo->first; at != link; at = at->next)
        before = at;
    if (before)
        before->next = link->next;
    else
        fifo->first = link->next;
    if (fifo->last == link)
        fifo->last = before;
    link->queued = false;
    fifo->length--;
    return true;
}

#endif
