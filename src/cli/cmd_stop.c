/*
 * `doppel stop` and `doppel kill`: the end of machines that run.
 */
#include "cli/cli.h"
#include "cli/ending.h"
#include "cli/names.h"

static int end(const struct names *names, bool force)
{
    bool ended = end_machines(names->name, names->count, force ? 0 : names->timeout, force);

    return finish_output(ended ? 0 : STATUS_ERROR);
}

int cmd_stop(char **argv)
{
    struct names names;
    int status = names_read(argv, true,
                            "Usage: doppel stop [--timeout SECONDS] NAME...\n"
                            "Stops machines, whoever has started them: presses the power button, "
                            "and pulls the plug if the\n"
                            "guest has not powered itself off in time. Says what was done.\n",
                            &names);

    return status >= 0 ? status : end(&names, false);
}

int cmd_kill(char **argv)
{
    struct names names;
    int status =
        names_read(argv, false,
                   "Usage: doppel kill NAME...\n"
                   "Ends machines at once, as pulling the plug does, also those that hang.\n",
                   &names);

    return status >= 0 ? status : end(&names, true);
}
