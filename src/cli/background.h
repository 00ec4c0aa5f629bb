/*
 * Machines in the background: the process that becomes the supervisor, apart from the terminal and
 * the session of the user who has started it.
 *
 *      doppel start            process in the background
 *          |-- fork ---------------> | has a session of its own, and no terminal
 *          | <--- text ------------- | what it complains of until the guest runs
 *          | <--- a byte ----------- | the guest runs: doppel start ends
 *                                    |
 *                                    | <--- lines --- standard error of the VM process and of
 *                                    |                kept processes: they go to the log
 */
#ifndef DOPPEL_CLI_BACKGROUND_H
#define DOPPEL_CLI_BACKGROUND_H

#include "base/error.h"
#include "ctl/journal.h"

#include <stdbool.h>

#define BACKGROUND_LINE 512

struct background {
    int ready; /* the byte goes here; -1: it has */
    int text;  /* what the user is to read; -1: none any more */
    int lines; /* the lines; -1: they are not read yet */
    char line[BACKGROUND_LINE];
    unsigned length;
};

/* Has RUN run in a process in the background, until what it runs tells background_ready. Returns 0,
 * or the status of a process that has ended before; what it complained of has been printed. */
int background_start(int (*run)(void *opaque, struct background *background), void *opaque);

/* In the background. */

/* From now on standard error, also that of processes which are forked from here, is read by
 * background_relay. */
int background_begin(struct background *background, struct error *err);
/* Puts what lines there are into the log, and shows them to the user who waits. */
void background_relay(struct background *background, struct journal *journal);
/* The guest runs. */
void background_ready(struct background *background);
/* Whether the user no longer waits, though the guest does not run yet. */
bool background_left(const struct background *background);
/* In a process that was forked: lets go of what is the supervisor's. */
void background_forget(struct background *background);

#endif
