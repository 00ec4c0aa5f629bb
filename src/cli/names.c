/*
 * The command lines of commands that do the same to several machines.
 */
#include "cli/names.h"

#include "cli/cli.h"

#include <stdio.h>

#define TIMEOUT_MOST 86400

enum { OPT_HELP, OPT_TIMEOUT };

static int print_help(const char *help, const struct option_spec *specs)
{
    fputs(help, stdout);
    putchar('\n');
    options_help(specs);
    return finish_output(0);
}

int names_read(char **argv, bool timeout, const char *help, struct names *names)
{
    static const struct option_spec specs[] = {
        [OPT_HELP] = {"help", NULL, "show this"},
        [OPT_TIMEOUT] = {"timeout", "SECONDS",
                         "(-t) how long the guests may take (10); 0: the plug"},
        {NULL, NULL, NULL},
    };
    static const struct option_spec plain[] = {{"help", NULL, "show this"}, {NULL, NULL, NULL}};
    struct options options = {.command = argv[0],
                              .specs = timeout ? specs : plain,
                              .argv = argv + 1,
                              .letters = timeout ? " t" : NULL,
                              .words = true};
    const char *value = NULL;
    int option;

    *names = (struct names){.name = (const char **)(argv + 1), .timeout = NAMES_TIMEOUT};
    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        switch (option) {
        case OPTIONS_FAIL: return STATUS_ERROR;
        case OPTIONS_WORD: names->name[names->count++] = value; break;
        case OPT_HELP: return print_help(help, options.specs);
        default:
            if (parse_unsigned(value, 0, TIMEOUT_MOST, &names->timeout))
                break;
            complain("--timeout: '%s' is no number of seconds from 0 to %d", value, TIMEOUT_MOST);
            return STATUS_ERROR;
        }
    }
    if (names->count > 0)
        return -1;
    complain("no name of a machine (doppel list shows those there are)");
    return STATUS_ERROR;
}
