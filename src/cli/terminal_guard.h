/*
 * Gives a terminal back whose process dies in raw mode: a process that waits for that, and does
 * nothing else.
 */
#ifndef DOPPEL_CLI_TERMINAL_GUARD_H
#define DOPPEL_CLI_TERMINAL_GUARD_H

#include "con/tty.h"

#include <sys/types.h>

struct terminal_guard {
    pid_t pid; /* or 0 */
    int pipe;  /* by whose end it sees the end of this process */
};

/* Begins, for TTY; before there are threads. Signals that are blocked here do not end it. Without
 * memory for one there is none. */
void terminal_guard_begin(struct terminal_guard *guard, struct tty *tty);
/* The terminal is the user's again. */
void terminal_guard_end(struct terminal_guard *guard);

#endif
