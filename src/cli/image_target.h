/*
 * A file that is there in whole or not at all: it is written without a name, and gets its name when
 * it is complete.
 *
 * Where the file system knows no files without names, it has a name of its own until then, and a
 * process that is killed leaves it behind. Signals that end the process wait meanwhile: the
 * thread that writes asks target_interrupted() now and then.
 */
#ifndef DOPPEL_CLI_IMAGE_TARGET_H
#define DOPPEL_CLI_IMAGE_TARGET_H

#include "base/error.h"

#include <limits.h>
#include <signal.h>
#include <stdbool.h>

struct target {
    int fd;
    char file[64];        /* what it can be opened by meanwhile */
    char path[PATH_MAX];  /* what it will be called */
    char named[PATH_MAX]; /* its name meanwhile; empty: it has none */
    sigset_t signals;     /* the mask from before */
};

/* Begins a file that will be called PATH. REPLACE: PATH may be a regular file already, which stays
 * as it is until target_commit replaces it; a link is followed. Otherwise nothing may be there.
 * Nothing that PATH leads to has changed if this or what follows fails. */
int target_begin(struct target *target, const char *path, bool replace, struct error *err);
/* Whether a signal waits that ends the process when the target is abandoned. */
bool target_interrupted(const struct target *target);
/* Has the file reach the disk, and gives it its name. */
int target_commit(struct target *target, bool replace, struct error *err);
/* Closes it; an incomplete one is gone. After this, signals come again. Does nothing if it was
 * never begun (all zero). */
void target_end(struct target *target);

#endif
