/*
 * Connecting again to what has gone: when.
 *
 * A connection that has lasted is worth another attempt soon. One that ends at once, again and
 * again, costs each side work for nothing, and may do so on purpose; so attempts become seldom.
 *
 * On the loop's thread, but for making and unmaking.
 */
#ifndef DOPPEL_NET_RETRY_H
#define DOPPEL_NET_RETRY_H

#include "base/loop.h"

#include <stdint.h>

struct retry {
    int timer;
    struct loop_watch *watch;
    void (*again)(void *opaque); /* the next attempt is due */
    void *opaque;
    uint64_t delay;        /* before the next attempt; nanoseconds */
    uint64_t connected_at; /* 0: it is not connected */
};

int retry_open(struct retry *retry, struct loop *loop, void (*again)(void *opaque), void *opaque,
               struct error *err);
/* Afterwards `again` is not called any more, whatever is called until retry_close. */
void retry_stop(struct retry *retry);
void retry_close(struct retry *retry);

/* It is connected. */
void retry_connected(struct retry *retry);
/* The connection has ended, or an attempt has failed: `again` is called after a while, later each
 * time until a connection has lasted for a second. */
void retry_later(struct retry *retry);

#endif
