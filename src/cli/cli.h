/*
 * What the subcommands share: exit statuses, messages, option parsing.
 */
#ifndef DOPPEL_CLI_CLI_H
#define DOPPEL_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Exit statuses of our own, as env(1), docker and others have them. Below them, `doppel run` exits
 * with the status of the command in the guest. */
#define STATUS_ERROR  125 /* doppel failed, or was not used rightly */
#define STATUS_SIGNAL 128 /* plus the signal that ended doppel or its VM process */

/* Prints "doppel: " and the message to standard error, as one line. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Flushes standard output. STATUS, or STATUS_ERROR with a message when that fails. */
int finish_output(int status);

/* An option, as it is parsed and as --help lists it. A list ends with a NULL name; HELP is there
 * what is said of a word that is no option, or NULL. */
struct option_spec {
    const char *name;  /* without the dashes */
    const char *value; /* what its value is called; NULL: it has none */
    const char *help;
};

struct options {
    const char *command;             /* "run", for messages */
    const struct option_spec *specs; /* up to a NULL name; the index is what options_next returns */
    char **argv;                     /* the words not yet looked at */
    const char
        *letters; /* by index: the letter of an option's short form, or ' '. NULL: none has one */
    bool words;   /* words that are no options are returned, too: OPTIONS_WORD */
    bool takes_command;  /* with WORDS: "--" is the end all the same, and a command follows */
    bool only_words;     /* options_next's: "--" was seen */
    const char *cluster; /* options_next's: the letters behind one, as the "t" of "-it"; or NULL */
};
#define OPTIONS_END  (-1) /* argv stands at the first word after "--", or at the final NULL */
#define OPTIONS_FAIL (-2) /* a message has been printed */
#define OPTIONS_WORD (-3) /* VALUE is a word that is no option */

/* The next option's index; its value, if it has one, in VALUE. */
int options_next(struct options *options, const char **value);
void options_help(const struct option_spec *specs);
/* Prints that WORD, which is no option, means nothing. SPECS says what is said of such words. */
void complain_of_word(const struct option_spec *specs, const char *word);

/* Parses "512M", "8G", ...: a number and a unit (K, M, G, T, optionally followed by "iB" or "B").
 * False when TEXT is something else or does not fit. */
bool parse_size(const char *text, uint64_t *bytes);
/* Or a number of bytes. */
bool parse_bytes(const char *text, uint64_t *bytes);
bool parse_unsigned(const char *text, unsigned least, unsigned most, unsigned *value);
/* Reads the value of --wait; complains if it is no number of seconds. */
bool parse_wait(const char *text, unsigned *seconds);

/* Writes TEXT as one word for a shell. */
void quote_for_shell(FILE *to, const char *text);

/* The subcommands: argv[0] is the subcommand's name. They return the exit status. */
int cmd_run(char **argv);
int cmd_start(char **argv);
int cmd_stop(char **argv);
int cmd_kill(char **argv);
int cmd_restart(char **argv);
int cmd_pause(char **argv);
int cmd_resume(char **argv);
int cmd_console(char **argv);
int cmd_enable(char **argv);
int cmd_disable(char **argv);
int cmd_logs(char **argv);
int cmd_show(char **argv);
int cmd_edit(char **argv);
int cmd_events(char **argv);
int cmd_create(char **argv);
int cmd_list(char **argv);
int cmd_exec(char **argv);
int cmd_cp(char **argv);
int cmd_ssh(char **argv);
int cmd_connect(char **argv);
int cmd_rename(char **argv);
int cmd_rm(char **argv);
int cmd_gc(char **argv);
int cmd_doctor(char **argv);
int cmd_image(char **argv);
int cmd_isa(char **argv);
int cmd_backend(char **argv);

#endif
