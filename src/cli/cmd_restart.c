/*
 * `doppel restart`: machines end and start anew.
 */
#include "cli/calls.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "cli/machine_names.h"

#include "ctl/run_folder.h"

#include <limits.h>

/* Until a machine whose guest heeds no button has ended, and runs again. */
#define MORE_MS 60000

static int restart(const char *name, unsigned timeout)
{
    char path[PATH_MAX], start[] = "start";
    char *line[] = {start, (char *)(uintptr_t)name, NULL};
    struct lock_holder holder;
    struct error err = {0};
    json_t *result;

    if (run_folder_find(name, "", path, &holder, &err) < 0) {
        complain("%s", err.text);
        return STATUS_ERROR;
    }
    if (!holder.held)
        return machine_start(line);
    result = call_machine_within(name, "restart", json_pack("{s:i}", "timeout", (int)timeout),
                                 (int)timeout * 1000 + MORE_MS);
    json_decref(result);
    return result ? 0 : STATUS_ERROR;
}

int cmd_restart(char **argv)
{
    struct machine_names names;
    int status =
        machine_names_read(argv, NAMES_WITH_TIMEOUT,
                           "Usage: doppel restart [--timeout SECONDS] NAME...\n"
                           "Stops machines as doppel stop does and starts them anew, with the "
                           "options that they were started\n"
                           "with, and what their definitions say by now. Starts those that do not "
                           "run.\n",
                           &names);

    if (status >= 0)
        return status;
    status = 0;
    for (unsigned i = 0; i < names.count; i++) {
        int failed = restart(names.name[i], names.timeout);

        status = status ? status : failed;
    }
    machine_names_free(&names);
    return status;
}
