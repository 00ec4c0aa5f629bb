/*
 * `doppel stop` and `doppel kill`: the end of machines that run.
 */
#include "cli/cli.h"
#include "cli/ending.h"
#include "cli/machine_names.h"

static int end(struct machine_names *names, bool force)
{
    bool ended = names->count == 0 ||
                 end_machines(names->name, names->count, force ? 0 : names->timeout, force);

    machine_names_free(names);
    return finish_output(ended ? 0 : STATUS_ERROR);
}

int cmd_stop(char **argv)
{
    struct machine_names names;
    int status =
        machine_names_read(argv, NAMES_WITH_TIMEOUT | NAMES_WITH_ALL,
                           "Usage: doppel stop [--timeout SECONDS] NAME... | --all\n"
                           "Stops machines, whoever has started them: presses the power button, "
                           "and pulls the plug if the\n"
                           "guest has not powered itself off in time. Says what was done.\n",
                           &names);

    return status >= 0 ? status : end(&names, false);
}

int cmd_kill(char **argv)
{
    struct machine_names names;
    int status = machine_names_read(
        argv, NAMES_WITH_ALL,
        "Usage: doppel kill NAME... | --all\n"
        "Ends machines at once, as pulling the plug does, also those that hang.\n",
        &names);

    return status >= 0 ? status : end(&names, true);
}
