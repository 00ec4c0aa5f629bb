/*
 * Bringing metadata into the file, in an order that leaves a whole image at every moment.
 */
#ifndef DOPPEL_BLK_QCOW2_COMMIT_H
#define DOPPEL_BLK_QCOW2_COMMIT_H

#include "blk/qcow2/qcow2_private.h"

/* A request is about to look up clusters of the file and use them: the allocator does not give
 * them away until qcow2_leave, which takes what this has returned. With map_lock. */
static inline unsigned qcow2_enter(struct qcow2 *q)
{
    atomic_fetch_add(&q->in_epoch[q->epoch], 1);
    return q->epoch;
}

/* Any thread, any locks. */
static inline void qcow2_leave(struct qcow2 *q, unsigned epoch)
{
    atomic_fetch_sub(&q->in_epoch[epoch], 1);
}

enum qcow2_commit {
    QCOW2_SETTLE, /* the file has the metadata: it is settled (qcow2.h), perhaps not stable */
    QCOW2_FLUSH,  /* it and all data is on stable storage */
    QCOW2_ALL,    /* and the refcounts are right, also with lazy refcounts */
};
/* With the image's lock. What could not be written is tried again the next time. */
int qcow2_commit(struct qcow2 *q, enum qcow2_commit how);

/* Makes nothing remain to be written or given free: for tools, with nothing in flight and the
 * image's lock. */
int qcow2_commit_all(struct qcow2 *q);
/* Writes refcounts, and flushes. With the image's lock. */
int qcow2_commit_refcounts(struct qcow2 *q);

/* Gives free what is in limbo, if nothing in the file leads there any more and no request uses it.
 * With the image's lock. */
int qcow2_free_limbo(struct qcow2 *q);

/* Whether so much is waiting to be given free, or to be written, that it is time for a commit. With
 * the image's lock. */
bool qcow2_commit_is_due(const struct qcow2 *q);

#endif
