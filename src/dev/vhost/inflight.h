/*
 * The record of requests in flight that a back end of vhost-user keeps in memory which outlives it:
 * the front end has it, and gives it to the back end that comes after (the protocol's "inflight I/O
 * tracking").
 *
 *      header    features, version, size | head of the last batch | used index
 *      chains    [in flight?, next of the batch, counter], one for each descriptor
 *
 * A chain is marked when it is taken. When it is given back, it first becomes the head of the last
 * batch, then the used ring's index moves, and then the mark is removed: a back end that ends
 * between any two of these steps leaves a record of which the next one can tell what was done.
 *
 * The front end can write to this memory at any time; what is read from it is checked.
 *
 * One thread at a time for a queue.
 */
#ifndef DOPPEL_DEV_VHOST_INFLIGHT_H
#define DOPPEL_DEV_VHOST_INFLIGHT_H

#include <stddef.h>
#include <stdint.h>

#define INFLIGHT_SIZE_MAX 1024u /* the most entries of a queue */

/* The record of a queue. */
struct inflight_queue;

/* Bytes for QUEUES records of queues of SIZE entries; they lie one behind the other. */
size_t inflight_bytes(unsigned queues, unsigned size);
struct inflight_queue *inflight_of(void *memory, unsigned queue, unsigned size);

/* Begins with a queue of SIZE entries whose used ring has INDEX. Stores the heads of the chains
 * that are in flight, in the order in which they were taken, in HEADS, which has room for SIZE, and
 * returns how many. *COUNTER is for inflight_take. */
unsigned inflight_begin(struct inflight_queue *queue, unsigned size, uint16_t index,
                        uint16_t *heads, uint64_t *counter);

/* A chain was taken; *COUNTER goes up. HEAD is below the queue's size, here and below. */
void inflight_take(struct inflight_queue *queue, uint16_t head, uint64_t *counter);
/* It is about to be given back. */
void inflight_give(struct inflight_queue *queue, uint16_t head);
/* It was given back, and the used ring's index is INDEX now. */
void inflight_given(struct inflight_queue *queue, uint16_t head, uint16_t index);

#endif
