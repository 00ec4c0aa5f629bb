/*
 * Claims: a list, as there are no more of them than threads.
 */
#include "blk/qcow2/claim.h"

uint64_t qcow2_claimed(const struct qcow2 *q, uint64_t first, uint64_t end)
{
    for (const struct qcow2_claim *c = q->claims; c; c = c->next)
        if (c->first < end && c->end > first)
            end = MAX(c->first, first);
    return end;
}

void qcow2_claims_wait(struct qcow2 *q, uint64_t first, uint64_t end)
{
    while (qcow2_claimed(q, first, end) != end)
        pthread_cond_wait(&q->claim_ended, &q->lock);
}

void qcow2_claim_begin(struct qcow2 *q, struct qcow2_claim *claim)
{
    claim->next = q->claims;
    q->claims = claim;
}

void qcow2_claim_end(struct qcow2 *q, struct qcow2_claim *claim)
{
    struct qcow2_claim **at = &q->claims;

    while (*at != claim)
        at = &(*at)->next;
    *at = claim->next;
    pthread_cond_broadcast(&q->claim_ended);
}
