/*
 * `doppel rename`: gives a machine another name.
 */
#include "cli/cli.h"
#include "cli/ssh_setup.h"

#include "ctl/registry.h"

#include <stdio.h>
#include <unistd.h>

enum { OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

static int help(void)
{
    puts("Usage: doppel rename OLD NEW\n"
         "Gives the machine OLD, which does not run, the name NEW, which no machine has.\n");
    options_help(specs);
    return finish_output(0);
}

/* What ssh was told of the machine is told of its new name. */
static void renew_ssh_config(const struct registry_use *machine)
{
    char path[PATH_MAX];
    struct error err = {0};

    if (registry_file(machine->folder, SSH_CONFIG, path, NULL) || access(path, F_OK) < 0)
        return;
    /* It is only in the way of a plain ssh -F, and doppel ssh writes it anew. */
    if (ssh_setup_config(machine->name, machine->folder, path, &err) < 0) {
        complain("%s", err.text);
        unlink(path);
    }
}

int cmd_rename(char **argv)
{
    struct options options = {.command = "rename", .specs = specs, .argv = argv + 1, .words = true};
    struct registry_use machine = {0};
    struct error err = {0};
    const char *value = NULL, *names[2];
    unsigned count = 0;
    int option, ret;

    while ((option = options_next(&options, &value)) != OPTIONS_END) {
        if (option == OPTIONS_FAIL)
            return STATUS_ERROR;
        if (option == OPT_HELP)
            return help();
        if (count == 2) {
            complain_of_word(specs, value);
            return STATUS_ERROR;
        }
        names[count++] = value;
    }
    if (count < 2) {
        complain("rename needs the machine's name and the new one");
        return STATUS_ERROR;
    }
    ret = home_check_name(names[1], &err);
    if (!ret)
        ret = registry_take(names[0], "is being renamed", &machine, &err);
    if (!ret)
        ret = registry_rename(&machine, names[1], &err);
    if (!ret)
        renew_ssh_config(&machine);
    registry_give_back(&machine);
    if (ret)
        complain("%s", err.text);
    return ret ? STATUS_ERROR : 0;
}
