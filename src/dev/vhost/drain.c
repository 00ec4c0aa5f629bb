/*
 * Waiting for a back end's last requests, in rounds.
 */
#include "dev/vhost/drain.h"

#include "base/util.h"

/* The most requests that the back end may have at the end of this round. */
static unsigned most(const struct vhost_drain *d)
{
    uint64_t ended = (uint64_t)d->first * d->round / VHOST_DRAIN_ROUNDS;

    return MIN(d->first - (unsigned)ended, d->last - 1);
}

bool vhost_drain_look(struct vhost_drain *d, bool wanted, unsigned out, uint64_t now)
{
    if (!wanted || !out) {
        *d = (struct vhost_drain){.round_ends = 0};
        return true;
    }
    if (!d->round_ends || out > d->last) {
        *d = (struct vhost_drain){
            .round_ends = now + VHOST_DRAIN_ROUND_NS, .round = 1, .first = out, .last = out};
        return true;
    }
    if (now < d->round_ends)
        return true;
    if (out > most(d))
        return false;
    d->last = out;
    d->round++;
    d->round_ends += VHOST_DRAIN_ROUND_NS;
    return true;
}

uint64_t vhost_drain_next(const struct vhost_drain *d)
{
    return d->round_ends ? d->round_ends : UINT64_MAX;
}
