/*
 * Another program whose standard output is read: it makes what goes into an image. Lines of its
 * error output that begin with "@ " say what it is doing, and one that begins with "! " why it
 * failed.
 */
#ifndef DOPPEL_CLI_PRODUCER_H
#define DOPPEL_CLI_PRODUCER_H

#include "base/error.h"
#include "cli/progress.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

struct producer {
    pid_t pid;
    int out;        /* its output */
    int log;        /* its error output, a file in memory */
    long long seen; /* bytes of it */
    char line[256]; /* that is not complete yet, and how long it is */
    unsigned line_size;
};

/* Starts ARGV, whose first word is looked for in PATH and is in Debian's package PACKAGE, in a
 * process group of its own and with the signal mask SIGNALS. It ends when this process does. */
int producer_start(struct producer *producer, const char *const *argv, const char *package,
                   const sigset_t *signals, struct error *err);

/* Shows what it is doing. */
void producer_show(struct producer *producer, struct progress *progress);
/* Waits until there is output, up to MS milliseconds; 1: there is, or it has ended. */
int producer_wait(const struct producer *producer, int ms);

/* Reads what is left of its output until it has come to its end. TICK is called now and then: true
 * stops that, and false is returned. */
bool producer_drain(const struct producer *producer, bool (*tick)(void *opaque), void *opaque);

/* Ends it, if it runs still, and has it clean up; waits for it. KILLED: that is not its failure. */
int producer_end(struct producer *producer, bool killed, struct error *err);

#endif
