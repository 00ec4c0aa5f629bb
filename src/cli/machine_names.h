/*
 * The command lines of commands that do the same to several machines: their names, and how long
 * their guests may take.
 */
#ifndef DOPPEL_CLI_MACHINE_NAMES_H
#define DOPPEL_CLI_MACHINE_NAMES_H

#include "ctl/registry.h"

#include <stdbool.h>

#define NAMES_TIMEOUT 10 /* seconds, by default */

struct machine_names {
    const char **name;
    unsigned count;
    unsigned timeout;
    struct registry_names running; /* what NAME consists of after --all */
    const char **made;             /* NAME, then; else NULL, and NAME is the command line's */
};

/* What such a command knows beside --help. */
enum { NAMES_WITH_TIMEOUT = 1, NAMES_WITH_ALL = 2 /* --all: all that run */ };

/* Reads ARGV. HELP is what --help says, WITH which options there are. Returns -1, and *NAMES must
 * be freed; or the exit status: after --help, and after a mistake, of which a message has been
 * printed.
 */
int machine_names_read(char **argv, unsigned with, const char *help, struct machine_names *names);
void machine_names_free(struct machine_names *names);

#endif
