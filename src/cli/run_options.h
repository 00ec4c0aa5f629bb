/*
 * The options of `doppel run` and `doppel start`. They are parsed before there are two processes.
 */
#ifndef DOPPEL_CLI_RUN_OPTIONS_H
#define DOPPEL_CLI_RUN_OPTIONS_H

#include "cli/named.h"
#include "cli/vm_process.h"

/* What a command line says, at a first look. */
struct run_line {
    const char *machine, *second; /* the first words that are no options; NULL: there is none */
    const char *name;             /* --name */
    unsigned words, options;
    bool help, all;
    char **command; /* for the guest, up to a NULL; NULL: none */
};

/* Reads ARGV, whose first word is the command. False: a message has been printed. */
bool run_options_scan(char **argv, struct run_line *line);

/* Does what ARGV says: takes the machine that it names, or reads its definition again if *NAMED is
 * open already, and fills in *RUN. False: a message has
 * been printed. *RUN must be freed, and *NAMED be closed, in any case. */
bool run_options_parse(struct run_options *run, struct named *named, char **argv);
void run_options_free(struct run_options *run);

/* Prints the list of options. */
void run_options_help(void);

#endif
