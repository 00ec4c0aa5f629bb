/*
 * The log of a virtual machine: lines with the time of day, the last ones in memory, all of them in
 * a file if there is one. The file is bounded: when it is full its lines go to FILE.1, in place of
 * those that were there before, and it begins anew. FILE stays the same file all the time, and is
 * locked: another journal, in whatever process, cannot use it or FILE.1 meanwhile.
 *
 * One thread uses it. Nothing here waits but for the file system: FILE is a regular file.
 */
#ifndef DOPPEL_CTL_JOURNAL_H
#define DOPPEL_CTL_JOURNAL_H

#include "base/error.h"
#include "base/log.h"

#include <stdint.h>

#define JOURNAL_LIMIT ((uint64_t)1 << 20) /* bytes of FILE, and of FILE.1 */
#define JOURNAL_LAST  12                  /* lines that are kept in memory */
#define JOURNAL_LINE  (LOG_TEXT + 48)     /* the longest line, with the byte 0 at its end */

struct journal;

/* PATH is where the file is, or NULL: there is none. Lines are added to a file that is there
 * already; two journals cannot share one. LIMIT is in bytes, at least JOURNAL_LINE. */
struct journal *journal_create(const char *path, uint64_t limit, struct error *err);
void journal_destroy(struct journal *journal); /* may be NULL */

/* Adds a line. TEXT may hold anything: control characters become '?', and what is longer than
 * LOG_TEXT is cut off. */
void journal_line(struct journal *journal, enum log_level level, const char *text);

/* Line number AGE of those in memory, 0 being the last one, without a newline; NULL: there are not
 * so many. It is good until the next line. */
const char *journal_last(const struct journal *journal, unsigned age);

/* Why the file lacks lines: a positive errno, or 0. */
int journal_error(const struct journal *journal);

#endif
