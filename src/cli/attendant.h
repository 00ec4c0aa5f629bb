/*
 * The attendant: a thread of the VM process that always hears the user and the supervisor. It takes
 * the supervisor's orders and, while the terminal is lent to the guest, its keys. A wish to end it
 * passes on to the console's loop, and to the supervisor, which sees to it that the end comes
 * (cli/supervisor.h). If the supervisor is gone, it gives the terminal back and ends the process.
 *
 * It shares no lock that is held for longer than it takes to copy some bytes.
 */
#ifndef DOPPEL_CLI_ATTENDANT_H
#define DOPPEL_CLI_ATTENDANT_H

#include "base/error.h"
#include "cli/channel.h"
#include "con/tty.h"
#include "ctl/doppel.h"

#include <stdbool.h>
#include <stddef.h>

struct attendant;

/* The user's wish to end: a signal's number, or this: Ctrl-A X, or the terminal is gone. */
#define ATTENDANT_QUIT (-1)

/* On the thread that is to be looked at as "the console". TTY, which may be NULL, is the terminal
 * behind standard input in raw mode; it lives as long as the attendant. WAKE_FD is an eventfd,
 * written to when there is something to be asked for below. */
struct attendant *attendant_create(const struct channel *channel, struct tty *tty, int wake_fd,
                                   struct error *err);
void attendant_destroy(struct attendant *attendant);

/* The first wish to end, or 0. */
int attendant_wish(const struct attendant *attendant);
/* Whether Ctrl-A H was typed since the last call. */
bool attendant_help(struct attendant *attendant);
/* Whether the terminal has another size (SIGWINCH), or SIGUSR1 came, since the last call. */
bool attendant_resized(struct attendant *attendant);
bool attendant_asked(struct attendant *attendant);
/* What was typed for the guest: at most SIZE bytes. */
size_t attendant_keys(struct attendant *attendant, void *keys, size_t size);
/* From now on the keys are the user's. */
void attendant_leave_terminal(struct attendant *attendant);

/* The VM whose threads are looked at, or NULL. */
void attendant_watch(struct attendant *attendant, struct doppel_vm *vm);

#endif
