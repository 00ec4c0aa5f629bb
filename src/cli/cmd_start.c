/*
 * `doppel start`: machines in the background.
 */
#include "cli/cli.h"
#include "cli/machine.h"
#include "cli/run_options.h"

#include <stdio.h>

static int help(void)
{
    puts("Usage: doppel start NAME...\n"
         "       doppel start [OPTION...] NAME [-- COMMAND [ARGUMENT...]]\n"
         "       doppel start --name NAME [OPTION...] [-- COMMAND [ARGUMENT...]]\n"
         "Starts machines in the background, and ends when their guests run. NAME is a machine of\n"
         "doppel list, whose definition the options change for this run; --name starts one that "
         "is not\n"
         "kept, by default with the default guest.\n");
    run_options_help();
    puts("\nExit status: 0 when all run; else that of doppel run.");
    return finish_output(0);
}

/* Starts each machine that ARGV names, which has no options. */
static int start_several(char **argv)
{
    int status = 0;

    for (char **name = argv + 1; *name; name++) {
        char *line[] = {argv[0], *name, NULL};
        int failed = machine_start(line);

        status = status ? status : failed;
    }
    return status;
}

int cmd_start(char **argv)
{
    struct run_line line;

    if (!run_options_scan(argv, &line))
        return STATUS_ERROR;
    if (line.help)
        return help();
    if (!line.machine && !line.name) {
        complain("no name: doppel start NAME starts a machine (doppel list shows those there are), "
                 "and --name NAME one that is not kept");
        return STATUS_ERROR;
    }
    if (line.words > 1 && !line.options && !line.command)
        return start_several(argv);
    return machine_start(argv);
}
