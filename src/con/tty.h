/*
 * The host's terminal in raw mode, lent to a guest and always given back: when the process exits,
 * and also when it crashes or is killed, because a keeper process restores the settings as soon
 * as it sees the borrower gone (termios(3), credentials(7)).
 */
#ifndef DOPPEL_CON_TTY_H
#define DOPPEL_CON_TTY_H

#include "base/error.h"

struct tty;

/* Puts the terminal behind FD into raw mode, in which reading returns nothing rather than wait.
 * Forks, so it should come before threads do. */
struct tty *tty_borrow(int fd, struct error *err);
/* Gives it back for good. NULL is allowed. */
void tty_return(struct tty *tty);

/* For a process that is stopped and continued: back to the user's settings, and to raw again. */
void tty_cooked(struct tty *tty);
void tty_raw(struct tty *tty);

/* The size of the terminal behind FD; 0 when it is unknown. */
void tty_size(int fd, unsigned *rows, unsigned *columns);

#endif
