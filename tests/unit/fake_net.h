/*
 * A network in memory in place of src/net: it keeps what is sent, and has what the test puts there
 * to be received. A test (or fuzz target) that compiles fake_net.c in gets it in place of the
 * library's. There is one.
 */
#ifndef DOPPEL_TESTS_UNIT_FAKE_NET_H
#define DOPPEL_TESTS_UNIT_FAKE_NET_H

#include "net/net.h"

#define FAKE_NET_FRAMES 64u

struct fake_frame {
    uint8_t *data;
    size_t size;
    struct net_offload offload;
};

struct net {
    struct net_info info; /* may be changed before a device asks for it */
    bool up;
    struct net_events events;
    unsigned accepts, begun, closed, flushes;

    unsigned room; /* how many frames may still be sent */
    unsigned asked;
    struct fake_frame sent[FAKE_NET_FRAMES]; /* what was */
    unsigned sent_count;
    struct fake_frame next[FAKE_NET_FRAMES]; /* what is to be received */
    unsigned next_count, dropped;
};

extern struct net fake_net;

/* Makes it anew, with room and without frames. */
void fake_net_make(void);
void fake_net_free(void);
/* Puts a frame there, without saying so. DATA is copied; OFFLOAD may be NULL. */
void fake_net_put(const void *data, size_t size, const struct net_offload *offload);
/* Says that there may be frames, or room. */
void fake_net_ready(void);
/* Forgets what was sent. */
void fake_net_forget(void);

#endif
