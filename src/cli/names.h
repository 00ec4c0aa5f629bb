/*
 * The command lines of commands that do the same to several machines: their names, and how long
 * their guests may take.
 */
#ifndef DOPPEL_CLI_NAMES_H
#define DOPPEL_CLI_NAMES_H

#include <stdbool.h>

#define NAMES_TIMEOUT 10 /* seconds, by default */

struct names {
    const char **name; /* in the command line */
    unsigned count;
    unsigned timeout;
};

/* Reads ARGV. HELP is what --help says. TIMEOUT: there is an option -t. Returns -1, or the exit
 * status: after --help, and after a mistake, of which a message has been printed. */
int names_read(char **argv, bool timeout, const char *help, struct names *names);

#endif
