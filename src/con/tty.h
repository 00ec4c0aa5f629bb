/*
 * The host's terminal: the user's settings and raw mode (termios(3)).
 */
#ifndef DOPPEL_CON_TTY_H
#define DOPPEL_CON_TTY_H

#include "base/error.h"

#include <stdbool.h>

struct tty;

/* Notes down the present settings of the terminal behind FD, the user's. */
struct tty *tty_open(int fd, struct error *err);
void tty_close(struct tty *tty); /* changes no settings; NULL is allowed */

/* Raw mode, in which reading returns nothing rather than wait. In the background, the kernel stops
 * the process for that (SIGTTOU). */
void tty_raw(struct tty *tty);
/* Back to the user's settings, in the background too. */
void tty_cooked(struct tty *tty);

/* Whether the terminal is this process's to use: it is in the foreground, or the terminal is not
 * the one that controls its session. */
bool tty_foreground(const struct tty *tty);

/* The size of the terminal behind FD; 0 when it is unknown. */
void tty_size(int fd, unsigned *rows, unsigned *columns);

#endif
