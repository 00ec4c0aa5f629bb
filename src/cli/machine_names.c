/*
 * The command lines of commands that do the same to several machines.
 */
#include "cli/machine_names.h"

#include "cli/cli.h"
#include "ctl/run_folder.h"

#include <stdio.h>
#include <stdlib.h>

#define TIMEOUT_MOST 86400

enum { OPT_HELP, OPT_TIMEOUT, OPT_ALL, OPTIONS };

static const struct option_spec all_specs[OPTIONS] = {
    [OPT_HELP] = {"help", NULL, "show this"},
    [OPT_TIMEOUT] = {"timeout", "SECONDS", "(-t) how long the guests may take (10); 0: the plug"},
    [OPT_ALL] = {"all", NULL, "(-a) all that run"},
};

/* The options of a command, with the indexes that they have there. */
struct known {
    struct option_spec specs[OPTIONS + 1];
    char letters[OPTIONS + 1];
    int index[OPTIONS]; /* in all_specs */
};

static void choose(struct known *known, unsigned with)
{
    static const char letters[OPTIONS] = {[OPT_HELP] = ' ', [OPT_TIMEOUT] = 't', [OPT_ALL] = 'a'};
    unsigned count = 0;

    *known = (struct known){.letters = ""};
    for (int i = 0; i < OPTIONS; i++) {
        if ((i == OPT_TIMEOUT && !(with & NAMES_WITH_TIMEOUT)) ||
            (i == OPT_ALL && !(with & NAMES_WITH_ALL)))
            continue;
        known->specs[count] = all_specs[i];
        known->letters[count] = letters[i];
        known->index[count++] = i;
    }
}

static int print_help(const char *help, const struct option_spec *specs)
{
    fputs(help, stdout);
    putchar('\n');
    options_help(specs);
    return finish_output(0);
}

/* Has NAMES be all that run. */
static int take_all(struct machine_names *names)
{
    struct error err = {0};

    if (names->count > 0) {
        complain("--all: means all that run, and '%s' is named", names->name[0]);
        return STATUS_ERROR;
    }
    if (run_folder_names(&names->running, &err) < 0) {
        complain("%s", err.text);
        return STATUS_ERROR;
    }
    names->name = names->made = calloc(names->running.count + 1, sizeof(*names->name));
    if (!names->made) {
        complain("out of memory");
        registry_names_free(&names->running);
        return STATUS_ERROR;
    }
    for (unsigned i = 0; i < names->running.count; i++)
        names->name[names->count++] = names->running.name[i];
    return -1;
}

static bool set_timeout(struct machine_names *names, const char *value)
{
    if (parse_unsigned(value, 0, TIMEOUT_MOST, &names->timeout))
        return true;
    complain("--timeout: '%s' is no number of seconds from 0 to %d", value, TIMEOUT_MOST);
    return false;
}

int machine_names_read(char **argv, unsigned with, const char *help, struct machine_names *names)
{
    struct known known;
    struct options options = {.command = argv[0],
                              .specs = known.specs,
                              .argv = argv + 1,
                              .letters = known.letters,
                              .words = true};
    const char *value = NULL;
    bool all = false;
    int option;

    choose(&known, with);
    *names = (struct machine_names){.name = (const char **)(argv + 1), .timeout = NAMES_TIMEOUT};
    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return STATUS_ERROR;
        if (option == OPTIONS_WORD)
            names->name[names->count++] = value;
        else if (known.index[option] == OPT_HELP)
            return print_help(help, known.specs);
        else if (known.index[option] == OPT_ALL)
            all = true;
        else if (!set_timeout(names, value))
            return STATUS_ERROR;
    }
    if (all)
        return take_all(names);
    if (names->count > 0)
        return -1;
    complain("no name of a machine (doppel list shows those there are)");
    return STATUS_ERROR;
}

void machine_names_free(struct machine_names *names)
{
    free(names->made);
    registry_names_free(&names->running);
}
