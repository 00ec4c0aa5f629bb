/*
 * Other programs: started and waited for, or taking this process's place.
 */
#ifndef DOPPEL_CLI_PROGRAM_H
#define DOPPEL_CLI_PROGRAM_H

#include "base/error.h"

/* Runs ARGV (up to a NULL), whose first word is looked for in PATH, and waits for its end. It has
 * this process's error output, and neither input nor other output. -ENOENT: it is not installed,
 * and PACKAGE is Debian's that has it; -EIO: it failed. */
int program_run(const char *const *argv, const char *package, struct error *err);

/* The same with this process's standard streams: for a program that the user talks to. */
int program_run_here(const char *const *argv, const char *package, struct error *err);

/* Becomes ARGV. Returns only on failure. */
int program_become(const char *const *argv, const char *package, struct error *err);

#endif
