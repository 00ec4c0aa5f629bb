/*
 * A list of requests, linked by own.next: those that wait for their turn, in the order in which
 * they came. All zero, it is empty. What guards the list guards the links; a request is in one list
 * at a time.
 */
#ifndef DOPPEL_BLK_LIST_H
#define DOPPEL_BLK_LIST_H

#include "blk/blk.h"

struct blk_list {
    struct blk_request *first, *last; /* FIRST NULL: it is empty, and LAST means nothing */
};

/* Puts REQUEST at the end of LIST. */
static inline void blk_list_put(struct blk_list *list, struct blk_request *request)
{
    request->own.next = NULL;
    if (list->first)
        list->last->own.next = request;
    else
        list->first = request;
    list->last = request;
}

/* Takes the first request off LIST, or returns NULL. */
static inline struct blk_request *blk_list_take(struct blk_list *list)
{
    struct blk_request *request = list->first;

    if (request)
        list->first = request->own.next;
    return request;
}

/* Takes all of LIST, and leaves it empty. */
static inline struct blk_list blk_list_take_all(struct blk_list *list)
{
    struct blk_list all = *list;

    list->first = NULL;
    return all;
}

/* Puts all of FROM at the end of LIST, and leaves FROM empty. */
static inline void blk_list_put_all(struct blk_list *list, struct blk_list *from)
{
    if (!from->first)
        return;
    if (list->first)
        list->last->own.next = from->first;
    else
        list->first = from->first;
    list->last = from->last;
    from->first = NULL;
}

#endif
