/*
 * Requests that a folder's process was at when it died, and that the next one gets again. Most can
 * be done twice. One that cannot, like making a directory, notes in memory that outlives the
 * process (ring.h) what it found before it began. Then the next process can tell whether it was
 * done: a name that was free before the request and is taken now is the request's own.
 *
 * Outside of such a process requests have no such memory, and nothing is noted.
 */
#ifndef DOPPEL_SHARE_INTENT_H
#define DOPPEL_SHARE_INTENT_H

#include "share/node.h"

#include <limits.h>

/* What a request found; which members count is its own business. */
struct share_plan {
    struct share_key key, replaced;
    uint64_t size;
    uint32_t replaces, last;
};

struct share_intent {
    _Atomic uint32_t begun;
    uint32_t unused;
    struct share_plan plan;
};

/* A file that has more of its mode for a moment, so that it can be opened again (reopen.c). */
struct share_lent {
    _Atomic uint32_t bits; /* that it has more; 0: there is no such file */
    struct share_key key;
    char path[PATH_MAX]; /* from the folder on */
};

/* Notes that REQUEST begins with what cannot be done twice. */
void share_begin(const struct share_request *request, const struct share_plan *plan);
/* Whether a process that has died had begun with it. *PLAN is what it noted. */
bool share_begun(const struct share_request *request, struct share_plan *plan);

#endif
