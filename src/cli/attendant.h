/*
 * The attendant: a thread that always hears the user. It takes the signals that end a process and,
 * while the terminal is lent to the guest, its keys. The first wish to end it passes on. If the
 * process does not come to its end in ten seconds, or in two after a second wish, the attendant
 * gives the terminal back, says which threads were stuck and where, and ends the process.
 *
 * It shares no lock that is held for longer than it takes to copy some bytes.
 */
#ifndef DOPPEL_CLI_ATTENDANT_H
#define DOPPEL_CLI_ATTENDANT_H

#include "base/error.h"
#include "con/tty.h"
#include "ctl/doppel.h"

#include <stdbool.h>
#include <stddef.h>

struct attendant;

/* The user's wish to end: a signal's number, or this: Ctrl-A X, or the terminal is gone. */
#define ATTENDANT_QUIT (-1)

/* On the thread that is to be looked at as "the console". Blocks the signals that it takes, so it
 * comes before any other thread. TTY, which may be NULL, is the terminal behind standard input in
 * raw mode. WAKE_FD is an eventfd, written to when there is something to be asked for below. */
struct attendant *attendant_create(struct tty *tty, int wake_fd, struct error *err);
void attendant_destroy(struct attendant *attendant);

/* The first wish to end, or 0. */
int attendant_wish(const struct attendant *attendant);
/* Whether Ctrl-A H was typed since the last call. */
bool attendant_help(struct attendant *attendant);
/* What was typed for the guest: at most SIZE bytes. */
size_t attendant_keys(struct attendant *attendant, void *keys, size_t size);
/* From now on the keys are the user's. */
void attendant_leave_terminal(struct attendant *attendant);

/* The VM whose threads are looked at, or NULL. */
void attendant_watch(struct attendant *attendant, struct doppel_vm *vm);

#endif
