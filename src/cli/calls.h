/*
 * Asking machines that run, by their control sockets (ctl/doppel.h), for the subcommands.
 */
#ifndef DOPPEL_CLI_CALLS_H
#define DOPPEL_CLI_CALLS_H

#include <jansson.h>
#include <stdbool.h>

#define CALL_MS 30000 /* for an answer */

/* Asks the machine NAME for REQUEST with ARGUMENTS (an object, taken; or NULL). Returns the result,
 * which the caller frees, or NULL after a message. */
json_t *call_machine(const char *name, const char *request, json_t *arguments);
/* The same, with MS for the answer. */
json_t *call_machine_within(const char *name, const char *request, json_t *arguments, int ms);

/* For commands that are nothing but a request for each of several machines. HELP is what --help
 * says. Returns the exit status. */
int call_each(char **argv, const char *request, const char *help);

#endif
