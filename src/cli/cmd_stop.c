/*
 * `doppel stop` and `doppel kill`: the end of machines that run.
 */
#include "cli/cli.h"
#include "cli/ending.h"

#include <stdint.h>
#include <stdio.h>

#define TIMEOUT      10 /* seconds */
#define TIMEOUT_MOST 86400

enum { STOP_TIMEOUT, STOP_HELP };

static const struct option_spec stop_specs[] = {
    [STOP_TIMEOUT] = {"timeout", "SECONDS", "(-t) how long the guest may take (10); 0: the plug"},
    [STOP_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

enum { KILL_HELP };

static const struct option_spec kill_specs[] = {
    [KILL_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static int stop_help(void)
{
    puts("Usage: doppel stop [--timeout SECONDS] NAME...\n"
         "Stops machines, whoever has started them: presses the power button, and pulls the plug "
         "if the\n"
         "guest has not powered itself off in time. Says what was done.\n");
    options_help(stop_specs);
    return finish_output(0);
}

static int kill_help(void)
{
    puts("Usage: doppel kill NAME...\n"
         "Ends machines at once, as pulling the plug does, also those that hang.\n");
    options_help(kill_specs);
    return finish_output(0);
}

/* Reads the options and leaves the names at the beginning of NAMES. Returns how many there are, or
 * -1 after a message; *HELP says whether the help is wanted. */
static int read_names(struct options *options, const char **names, int help_option,
                      unsigned *timeout, bool *help)
{
    const char *value = NULL;
    int option, count = 0;

    while ((option = options_next(options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return -1;
        if (option == OPTIONS_WORD) {
            names[count++] = value;
        } else if (option == help_option) {
            *help = true;
        } else if (!parse_unsigned(value, 0, TIMEOUT_MOST, timeout)) {
            complain("--timeout: '%s' is no number of seconds from 0 to %d", value, TIMEOUT_MOST);
            return -1;
        }
    }
    if (count > 0 || *help)
        return count;
    complain("no name of a machine (doppel list shows those there are)");
    return -1;
}

int cmd_stop(char **argv)
{
    struct options options = {
        .command = "stop", .specs = stop_specs, .argv = argv + 1, .letters = "t ", .words = true};
    const char **names = (const char **)(argv + 1);
    unsigned timeout = TIMEOUT;
    bool help = false;
    int count = read_names(&options, names, STOP_HELP, &timeout, &help);

    if (count < 0)
        return STATUS_ERROR;
    if (help)
        return stop_help();
    return finish_output(end_machines(names, (unsigned)count, timeout, false) ? 0 : STATUS_ERROR);
}

int cmd_kill(char **argv)
{
    struct options options = {
        .command = "kill", .specs = kill_specs, .argv = argv + 1, .words = true};
    const char **names = (const char **)(argv + 1);
    unsigned timeout = 0;
    bool help = false;
    int count = read_names(&options, names, KILL_HELP, &timeout, &help);

    if (count < 0)
        return STATUS_ERROR;
    if (help)
        return kill_help();
    return finish_output(end_machines(names, (unsigned)count, 0, true) ? 0 : STATUS_ERROR);
}
