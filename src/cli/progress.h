/*
 * A line on the terminal for what takes more than two seconds. Where standard error is no terminal,
 * a command that takes minutes says there in a line each what it does; others are silent.
 */
#ifndef DOPPEL_CLI_PROGRESS_H
#define DOPPEL_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool terminal; /* standard error is one */
    bool lines;    /* it is none, and has a line for each step */
    bool shown, done;
    uint64_t since_ns;
    char what[160];
};

void progress_begin(struct progress *progress, const char *what);
/* The same of a command that takes minutes: where standard error is no terminal, it has the line
 * "doppel: WHAT ..." at once, and one for each further step. */
void progress_begin_lines(struct progress *progress, const char *what);
/* Shows what goes on and for how long; PERCENT -1: unknown. WHAT NULL: still the same. */
void progress_tick(struct progress *progress, const char *what, int percent);
/* Wipes the line; nothing more is shown. */
void progress_end(struct progress *progress);
/* How long a loop may sleep before the next tick, for poll(2): -1 when nothing will be shown. */
int progress_timeout(const struct progress *progress);

#endif
