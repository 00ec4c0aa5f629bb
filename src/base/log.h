/*
 * The log: lines of text with a level, handed to a sink.
 *
 * Whoever makes a module hands it a struct log (or NULL: nothing is logged); there is no log of the
 * process. What ends a call is an error (error.h) and not a line here: the log is for what happens
 * while nobody asks.
 */
#ifndef DOPPEL_BASE_LOG_H
#define DOPPEL_BASE_LOG_H

#include <stddef.h>

enum log_level {
    LOG_LEVEL_ERROR,   /* something does not work any more */
    LOG_LEVEL_WARNING, /* something works less well than it should */
    LOG_LEVEL_INFO,    /* what a user wants to know afterwards: the guest reset the machine */
    LOG_LEVEL_DEBUG,   /* what a developer wants to know */
};

#define LOG_TEXT 512 /* the longest line, with the byte 0 at its end; the rest is cut off */

struct log {
    enum log_level most; /* lines of higher levels are not made */
    /* Takes a line, without a newline and without control characters. Called on any thread, also
     * with locks held: does not wait for a VM and does not call into one. */
    void (*line)(void *opaque, enum log_level level, const char *text);
    /* NULL, or takes the lines that a user has to see at once, as line() does; of any level. */
    void (*tell)(void *opaque, enum log_level level, const char *text);
    void *opaque;
};

void log_line(const struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Logs a line that a user has to see at once: something outside works no more, or works again. */
void log_tell(const struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "error", "warning", "info" or "debug". */
const char *log_level_name(enum log_level level);

/* Replaces control characters in TEXT by '?', so that a file's name or a guest's string can neither
 * begin a line nor control a terminal. */
void log_clean(char *text);

#endif
