/*
 * Other programs: started and waited for, or taking this process's place.
 */
#ifndef DOPPEL_CLI_PROGRAM_H
#define DOPPEL_CLI_PROGRAM_H

#include "base/error.h"

#include <stdbool.h>
#include <sys/types.h>

/* Runs ARGV (up to a NULL), whose first word is looked for in PATH, and waits for its end. It has
 * this process's error output, and neither input nor other output. -ENOENT: it is not installed,
 * and PACKAGE is Debian's that has it; -EIO: it failed. */
int program_run(const char *const *argv, const char *package, struct error *err);

/* The same with this process's standard streams: for a program that the user talks to. */
int program_run_here(const char *const *argv, const char *package, struct error *err);

/* One that runs beside this process. */
struct program_child {
    pid_t pid;
    int in, out; /* its standard input and output, as pipes: -1 if it has /dev/null instead */
    int err;     /* its error output, a pipe */
};

/* Starts ARGV, with pipes for its input and output if INPUT and OUTPUT say so. */
int program_start(const char *const *argv, const char *package, bool input, bool output,
                  struct program_child *child, struct error *err);
/* Closes what is open still, and waits. Returns its exit status, 128 and the signal's number if one
 * killed it. */
int program_wait(struct program_child *child);

/* Becomes ARGV. Returns only on failure. */
int program_become(const char *const *argv, const char *package, struct error *err);

#endif
