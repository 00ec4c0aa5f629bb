/*
 * Claims: a request that changes entries of the map while it does not hold the image's lock has
 * claimed their clusters. With the image's lock.
 */
#ifndef DOPPEL_BLK_QCOW2_CLAIM_H
#define DOPPEL_BLK_QCOW2_CLAIM_H

#include "blk/qcow2/qcow2_private.h"

/* The first cluster from FIRST on that is claimed, or END if none before it is. */
uint64_t qcow2_claimed(const struct qcow2 *q, uint64_t first, uint64_t end);
/* Waits, and releases the lock meanwhile, until none of the clusters is claimed. A request that has
 * a claim must not call this: two of them could wait for each other. */
void qcow2_claims_wait(struct qcow2 *q, uint64_t first, uint64_t end);
void qcow2_claim_begin(struct qcow2 *q, struct qcow2_claim *claim);
void qcow2_claim_end(struct qcow2 *q, struct qcow2_claim *claim);

#endif
