/*
 * The console of a machine in the background: a Unix socket whose clients see what the guest
 * prints, beginning with the last of what it has printed before, and type to it.
 *
 *      guest --> console_line_put --> ring of LINE_KEPT bytes ---> each client, at its own place
 *      guest <-- console_line_take <------------------------------ any client
 *
 * A client that reads slowly holds the guest up (console_line_full), so that it misses nothing; one
 * that reads nothing for LINE_PATIENCE_MS does not: it misses what the ring no longer has.
 *
 * One thread uses it.
 */
#ifndef DOPPEL_CLI_CONSOLE_LINE_H
#define DOPPEL_CLI_CONSOLE_LINE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define LINE_KEPT        ((size_t)64 * 1024)
#define LINE_PATIENCE_MS 1000

struct console_line;

/* Listens at PATH. */
struct console_line *console_line_open(const char *path, struct error *err);
/* Gives clients what is left, if they take it at once, and removes PATH. NULL is allowed. */
void console_line_close(struct console_line *line);

/* A descriptor that poll(2) finds readable when there is something for console_line_work. */
int console_line_fd(const struct console_line *line);
/* Writes and reads what can be written and read without waiting. */
void console_line_work(struct console_line *line);

/* Adds what the guest has printed: at most LINE_KEPT / 2 bytes at a time. */
void console_line_put(struct console_line *line, const void *data, size_t size);
/* Whether the guest should wait, for LINE_PATIENCE_MS at most. */
bool console_line_full(const struct console_line *line);
/* Takes what was typed; returns how many bytes. While nobody takes it, clients wait. */
size_t console_line_take(struct console_line *line, void *data, size_t size);

#endif
