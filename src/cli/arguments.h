/*
 * The command lines of commands with few options, by a table.
 */
#ifndef DOPPEL_CLI_ARGUMENTS_H
#define DOPPEL_CLI_ARGUMENTS_H

#include "cli/cli.h"

#define ARGUMENT_WORDS_MOST 3

/* Where an option goes: sets *FLAG, or *VALUE to its value. */
struct argument_setting {
    bool *flag;
    const char **value;
};

/* What a command reads. */
struct arguments {
    const char *name;                /* "image resize" */
    const char *usage;               /* for --help, in front of the list of options */
    const struct option_spec *specs; /* --help among them */
    const char *letters;             /* struct options */
    bool takes_command;              /* for the guest, behind "--" */
};

/* The words of a command line that are no options. */
struct argument_words {
    const char *names; /* "FILE SIZE", for messages */
    unsigned least, most;
    unsigned subject; /* which of them the command is about */
    unsigned count;
    const char *word[ARGUMENT_WORDS_MOST];
    char **command; /* for the guest, up to a NULL; NULL: there is none */
};

#define ARGUMENTS_GO_ON (-1)

/* Reads all arguments. SETTINGS has the indexes of the command's specs; that of --help is empty.
 * Returns ARGUMENTS_GO_ON, or the exit status: after --help, and after a mistake, of which a
 * message has been printed. */
int arguments_read(const struct arguments *arguments, const struct argument_setting *settings,
                   char **argv, struct argument_words *words);

#endif
