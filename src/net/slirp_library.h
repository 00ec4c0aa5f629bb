/*
 * libslirp, which is loaded when the first user network wants it: with GLib, which it needs in
 * turn, it would cost each start of doppel some milliseconds and MiB of memory.
 *
 * It keeps a few things once for the whole process (the time, the host's name servers), so all
 * calls of all its networks are made with one lock, which is here. With it held, `ready` of a card
 * is called, and nothing else.
 */
#ifndef DOPPEL_NET_SLIRP_LIBRARY_H
#define DOPPEL_NET_SLIRP_LIBRARY_H

#include "base/error.h"

#include <slirp/libslirp.h>

/* Calls X for each function that is used. */
#define SLIRP_FUNCTIONS(X)                                                                         \
    X(new)                                                                                         \
    X(cleanup)                                                                                     \
    X(input)                                                                                       \
    X(pollfds_fill)                                                                                \
    X(pollfds_poll)                                                                                \
    X(add_hostxfwd)

struct slirp_library {
#define X(name) __typeof__(slirp_##name) *name;
    SLIRP_FUNCTIONS(X)
#undef X
};

int slirp_library_load(struct slirp_library *library, struct error *err);

/* The lock. */
void slirp_library_enter(void);
void slirp_library_leave(void);

#endif
