/*
 * `doppel start`: machines in the background.
 */
#include "cli/cli.h"
#include "cli/machine.h"
#include "cli/run_options.h"
#include "ctl/registry.h"
#include "ctl/run_folder.h"

#include <limits.h>
#include <stdio.h>

static int help(void)
{
    puts("Usage: doppel start NAME...\n"
         "       doppel start [OPTION...] NAME [-- COMMAND [ARGUMENT...]]\n"
         "       doppel start --name NAME [OPTION...] [-- COMMAND [ARGUMENT...]]\n"
         "       doppel start --all\n"
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

/* Starts the machines of `doppel enable` that do not run. */
static int start_all(char **argv)
{
    struct registry_names names;
    struct error err = {0};
    int status = 0;

    if (registry_names(&names, &err) < 0) {
        complain("%s", err.text);
        return STATUS_ERROR;
    }
    for (unsigned i = 0; i < names.count; i++) {
        char *line[] = {argv[0], names.name[i], NULL}, folder[PATH_MAX];
        struct lock_holder holder = {0};

        if (registry_folder(names.name[i], folder, NULL) < 0 || !registry_autostarts(folder) ||
            run_folder_find(names.name[i], "", folder, &holder, NULL) < 0 || holder.held)
            continue;
        if (machine_start(line) != 0)
            status = STATUS_ERROR;
    }
    registry_names_free(&names);
    return status;
}

int cmd_start(char **argv)
{
    struct run_line line;

    if (!run_options_scan(argv, &line))
        return STATUS_ERROR;
    if (line.help)
        return help();
    if (line.all && line.options == 1 && !line.words && !line.command)
        return start_all(argv);
    if (!line.machine && !line.name && !line.all) {
        complain("no name: doppel start NAME starts a machine (doppel list shows those there are), "
                 "and --name NAME one that is not kept");
        return STATUS_ERROR;
    }
    if (line.words > 1 && !line.options && !line.command)
        return start_several(argv);
    return machine_start(argv);
}
