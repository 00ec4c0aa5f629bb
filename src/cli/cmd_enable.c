/*
 * `doppel enable` and `doppel disable`: which machines `doppel start --all` starts.
 */
#include "cli/cli.h"
#include "cli/machine_names.h"

#include "ctl/registry.h"

#include <limits.h>
#include <stdio.h>

static int set(struct machine_names *names, bool on)
{
    int status = 0;

    for (unsigned i = 0; i < names->count; i++) {
        char folder[PATH_MAX];
        struct error err = {0};
        int ret = registry_folder(names->name[i], folder, &err);

        if (!ret)
            ret = registry_set_autostart(folder, on, &err);
        if (ret) {
            complain("%s", err.text);
            status = STATUS_ERROR;
        }
    }
    machine_names_free(names);
    return status;
}

int cmd_enable(char **argv)
{
    struct machine_names names;
    int status =
        machine_names_read(argv, 0,
                           "Usage: doppel enable NAME...\n"
                           "Has `doppel start --all` start these machines. A user unit of systemd "
                           "does that at each start of\n"
                           "the user's session: systemctl --user enable --now doppel; and of the "
                           "host: loginctl enable-linger.\n",
                           &names);

    return status >= 0 ? status : set(&names, true);
}

int cmd_disable(char **argv)
{
    struct machine_names names;
    int status = machine_names_read(argv, 0,
                                    "Usage: doppel disable NAME...\n"
                                    "Has `doppel start --all` no longer start these machines.\n",
                                    &names);

    return status >= 0 ? status : set(&names, false);
}
