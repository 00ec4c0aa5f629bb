/*
 * Watching over a kept process: one that lives and gives no results, while it has something to do,
 * would keep pauses and the end of the machine waiting for ever. It is killed, and the supervisor
 * starts it anew.
 *
 * One thread; no locks.
 */
#ifndef DOPPEL_BASE_KEPT_WATCH_H
#define DOPPEL_BASE_KEPT_WATCH_H

#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct kept_watch {
    const char *name; /* for messages: "disk 'F'" */
    const struct log *log;
    uint64_t patience; /* ns without a result until the process is killed */
    uint64_t waited;   /* ns so far */
    uint64_t looked;   /* when kept_watch_look was called last, ns */
    int process;       /* a pidfd; -1: it is not known, or is this one */
    bool answered;     /* it has: PROCESS is not one that got its number later */
    bool killed;       /* PROCESS was, since the last result */
};

/* NAME must stay. */
void kept_watch_begin(struct kept_watch *watch, const char *name, const struct log *log,
                      uint64_t patience);
void kept_watch_end(struct kept_watch *watch);
/* PID has sent a hello; 0: it is not known. */
void kept_watch_process(struct kept_watch *watch, pid_t pid);
/* Looks. PROGRESS: there were results since the last call. WAITS: something is to be done. Returns
 * what is wrong for good, or NULL. Time in which this process was stopped, too, does not count. */
const char *kept_watch_look(struct kept_watch *watch, bool progress, bool waits);
/* In how many milliseconds to look again. */
int kept_watch_pause(const struct kept_watch *watch);

#endif
